"""The report's section of other models holds its table's figures, and is not there without one."""

import re
from pathlib import Path
from xml.etree import ElementTree

from eval.report import write_report


def _interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.0121, "high": value + 0.0123}


def _row(name: str, kind: str, top3: float, difference: float | None) -> dict:
    ends = difference and {
        "value": difference,
        "low": difference - 0.0042,
        "high": difference + 0.0043,
    }
    return {
        "name": name,
        "title": f"<{name}> model",
        "kind": kind,
        "top1": _interval(top3 / 2),
        "top3": _interval(top3),
        "top1_all": _interval(top3 / 3),
        "top3_all": _interval(top3 * 0.9),
        "bytes": 1_234_567,
        "p50_ms": 0.321,
        "difference": ends,
    }


ROWS = [
    _row("web_federated", "arm", 0.2514, 0.0441),
    _row("synthetic_federated", "arm", 0.2953, None),
    _row("kenlm_web", "ngram", 0.1834, -0.1119),
    _row("kenlm_cut_synthetic", "ngram", 0.2771, 0.0182),
]
RESULTS = {
    "arms": {arm: {"pretrained": {"top1": _interval(0.1)}} for arm in ("web", "synthetic")},
    "lift": {"pretrained": {"relative": 0.1, "low": 0.05, "high": 0.2}},
    "beside": {
        "rows": ROWS,
        "finding": "Ours is better & not better.",
        "protocol": {"version": 3, "sha256": "ab12" * 16},
        "left_out": ["kenlm_small_web"],
    },
}


def _render(results: dict, folder: Path) -> str:
    return write_report(results, folder).read_text("utf-8")


def test_every_row_is_in_the_table_and_in_a_chart(tmp_path: Path):
    page = _render(RESULTS, tmp_path)
    tree = ElementTree.fromstring(page.replace("<!doctype html>", ""))
    [section] = [s for s in tree.iter("section") if s.get("aria-labelledby") == "beside"]
    text = " ".join(" ".join(section.itertext()).replace("\u202f", " ").split())
    assert "Ours is better & not better." in text and "Protocol 3, ab12ab12ab12." in text
    assert "without kenlm_small_web" in text
    cells = [
        [" ".join("".join(cell.itertext()).replace("\u202f", " ").split()) for cell in row]
        for row in section.iter("tr")
    ][1:]
    assert [row[0] for row in cells] == [row["title"] for row in ROWS]
    assert cells[0][2:] == [
        "25.1 %23.9–26.4",
        "22.6 %21.4–23.9",
        "+4.41+3.99 to +4.84",
        "1.23 MB",
        "0.32 ms",
    ]
    assert cells[1][4] == ""
    assert cells[2][4] == "−11.19−11.61 to −10.76"
    charts = {svg.get("aria-labelledby"): svg for svg in section.iter("svg")}
    assert len(charts) == 2
    drawn = ["".join(svg.itertext()) for svg in charts.values()]
    assert [sorted(re.findall(r"<(\w+)> model:", of)) for of in drawn] == [
        ["kenlm_cut_synthetic", "synthetic_federated"],
        ["kenlm_web", "web_federated"],
    ]


def test_without_a_table_there_is_no_section(tmp_path: Path):
    assert "Beside other models" in _render(RESULTS, tmp_path)
    without = {key: value for key, value in RESULTS.items() if key != "beside"}
    assert "Beside other models" not in _render(without, tmp_path)
    assert "kenlm_web" not in _render(without, tmp_path)


def test_a_row_without_its_figures_is_dashes(tmp_path: Path):
    bare = {"name": "x", "title": "bare model", "kind": "bundle"}
    page = _render(RESULTS | {"beside": RESULTS["beside"] | {"rows": [bare]}}, tmp_path)
    assert "bare model" in page and "beside-web" not in page and "beside-synthetic" not in page

"""The report's sections on for whom, what is confused and how it converges: shown with their keys, hidden without."""

import copy
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from eval.report import write_report

TOP1 = {"value": 0.1, "low": 0.09, "high": 0.11}
CORE: dict[str, Any] = {
    "arms": {arm: {"pretrained": {"top1": TOP1}} for arm in ("web", "synthetic")},
    "lift": {"pretrained": {"relative": 0.2, "low": 0.1, "high": 0.3}},
}


def _row(cohort, value, half, hurts=False):
    difference = {"value": value, "low": value - half, "high": value + half}
    row = {"cohort": cohort, "users": 131, "targets": 8_123, "baseline": 0.0912}
    return row | {"share": 0.0912 + value, "difference": difference, "hurts": hurts}


COHORTS = {
    "pretrained": {
        "rows": [_row("much slang", 0.0311, 0.0104), _row("rare words", -0.0222, 0.0115, True)],
        "rates": {
            "users": 187,
            "baseline": [0.031, 0.082, 0.153],
            "scores": [0.044, 0.117, 0.201],
            "worst_decile": {"value": 0.0123, "low": 0.0045, "high": 0.0207},
        },
    },
    "federated": {"rows": [_row("much slang", 0.0105, 0.0098)], "rates": None},
}


def _confusion(*words, users=7, times=19):
    return dict(zip(("meant", "baseline", "ours"), words, strict=True)) | {
        "users": users,
        "times": times,
    }


CONFUSIONS = {
    step: {
        "users": 264,
        "targets": targets,
        "both_right": targets // 10,
        "ours_right": targets // 20,
        "baseline_right": targets // 50,
        "both_wrong": targets - targets // 10 - targets // 20 - targets // 50,
        "gained": [_confusion("tomorrow", "the", "tomorrow", users=43, times=61)],
        "lost": [_confusion("of", "of", "you"), _confusion("<b>&", "<b>&", "it")],
        "missed": [_confusion("dinner", "said", "home")] * (step == "federated"),
    }
    for step, targets in (("pretrained", 21_000), ("federated", 20_000))
}


def _points(*tops):
    return [
        {"round": 8 * i, "top1": top, "low": top - 0.01, "high": top + 0.01}
        | {"rho": 70.5 * i, "epsilon": 123.4 * i**0.5, "projected_epsilon": 0.37 * i}
        for i, top in enumerate(tops)
    ]


CONVERGENCE = {
    "curve": {"web": _points(0.07, 0.09, 0.1), "synthetic": _points(0.11, 0.12, 0.125)},
    "levels": [
        {"top1": 0.08, "baseline": 8, "rounds": 0, "saved": 8},
        {"top1": 0.12, "baseline": None, "rounds": 8, "saved": None},
    ],
    "cost": {
        arm: {
            "pretrained": {"gain": 0.0912, "seconds": 93.1, "seconds_per_point": 10.2}
            | {"words": 1_000_311, "words_per_point": 109_683.2},
            "federated": {"gain": -0.0021, "seconds": 44.4, "seconds_per_point": None}
            | {"reports": 768, "reports_per_point": None},
        }
        for arm in ("web", "synthetic")
    },
}
INSIGHT = {"cohorts": COHORTS, "confusions": CONFUSIONS, "convergence": CONVERGENCE}


@pytest.fixture
def render(tmp_path):
    def render_sections(results):
        page = write_report(CORE | results, tmp_path).read_text("utf-8")
        root = ElementTree.fromstring(page.removeprefix("<!doctype html>"))
        found = {section.get("aria-labelledby"): section for section in root.iter("section")}
        for table in root.iter("table"):
            widths = {
                sum(int(cell.get("colspan", 1)) for cell in line) for line in table.iter("tr")
            }
            assert len(widths) == 1
        return found

    return render_sections


def _text(element):
    return re.sub(r"\s+", " ", " ".join(element.itertext()).replace("\u202f", " ")).strip()


def test_sections_are_there_with_their_keys_and_only_then(render):
    assert set(render(INSIGHT)) >= set(INSIGHT)
    for key in INSIGHT:
        assert set(render({key: INSIGHT[key]})) & set(INSIGHT) == {key}
    for nothing in ({}, dict.fromkeys(INSIGHT), {key: {} for key in INSIGHT}):
        assert not set(render(nothing)) & set(INSIGHT)


def test_harm_is_flagged_where_it_is_and_only_there(render):
    section = render(INSIGHT)["cohorts"]
    before, after = section.iterfind("div[@class='body']/div")
    assert (
        "Synthetic text hurts 1 of 2 cohorts: rare words (−2.22 points, −3.37 to −1.07)."
        in _text(before)
    )
    assert "Synthetic text hurts none of 1 cohorts." in _text(after)
    assert [_text(row) for row in before.iter("tr") if "bad" in str(ElementTree.tostring(row))] == [
        "rare words 131 8,123 9.1 % 6.9 % −2.22 hurt −3.37 to −1.07"
    ]
    [chart] = before.iter("svg")
    groups = {group.get("class"): _text(group) for group in chart.iter("g")}
    assert groups == {"synthetic": "much slang +3.11", "hurt": "rare words −2.22"}
    assert "rare words: −2.22 (−3.37 to −1.07)" in chart.findtext("desc")
    assert "187 users" in _text(before)
    assert [_text(row) for row in list(before.iter("table"))[-1].iter("tr")][1:] == [
        "web text 3.1 % 8.2 % 15.3 %",
        "synthetic text 4.4 % 11.7 % 20.1 %",
    ]
    assert "synthetic less web text +1.23 points (+0.45 to +2.07)." in _text(before)
    assert "served worst" not in _text(after)


def test_differences_are_drawn_to_scale_about_zero(render):
    [chart, _] = render(INSIGHT)["cohorts"].iter("svg")
    [zero] = [path for path in chart.iter("path") if path.get("class") == "axis"]
    at = float(re.match(r"M([\d.]+)", zero.get("d"))[1])
    dots = [float(dot.get("cx")) - at for dot in chart.iter("circle")]
    assert dots[0] / dots[1] == pytest.approx(0.0311 / -0.0222, rel=0.02)


def test_confusions_are_shown_escaped_and_with_their_shares(render):
    section = render(INSIGHT)["confusions"]
    text = _text(section)
    assert (
        "right for 10.0 % of 20,000 words of the vocabulary" in text
        and "5.0 %" in text
        and "83.0 %" in text
    )
    assert (
        "tomorrow the 43 61" in text and "dinner said home 7 19" in text and "<b>& it 7 19" in text
    )
    [details] = section.iter("details")
    assert "21,000" in _text(details) and "Neither right" not in _text(details)
    only = render({"confusions": {"pretrained": CONFUSIONS["pretrained"]}})["confusions"]
    assert "21,000" in _text(only) and not list(only.iter("details"))


def test_convergence_is_drawn_over_both_epsilons_and_tabulated(render):
    section = render(INSIGHT)["convergence"]
    charts = list(section.iter("svg"))
    assert [chart.findtext("title") for chart in charts] == [
        "First-suggestion accuracy over ε, this run",
        "First-suggestion accuracy over ε, projected, not run",
    ]
    described = charts[0].findtext("desc").replace("\u202f", " ")
    assert "web: ε 0 7.0 % (6.0–8.0), ε 123 9.0 %" in described
    for chart, key in zip(charts, ("epsilon", "projected_epsilon"), strict=True):
        [web] = [group for group in chart.iter("g") if group.get("class") == "web"]
        dots = [float(dot.get("cx")) for dot in web.iter("circle")]
        spent = [point[key] for point in CONVERGENCE["curve"]["web"]]
        assert (dots[1] - dots[0]) / (dots[2] - dots[0]) == pytest.approx(
            spent[1] / spent[2], rel=1e-3
        )
    levels, cost = (
        [[_text(cell) for cell in row] for row in table.iter("tr")]
        for table in section.iter("table")
    )
    assert levels[1:] == [["8.0 %", "8", "0", "8"], ["12.0 %", "–", "8", "–"]]
    assert cost[1] == [
        "web text, pretrained", "+9.12", "93.1 s", "10.2 s", "1,000,311 words", "109,683 words",
    ]  # fmt: skip
    assert cost[2][1:] == ["−0.21", "44.4 s", "–", "768 reports", "– reports"]


def _paths(tree, path=()):
    if isinstance(tree, dict | list):
        for key, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*path, key)
            yield from _paths(branch, (*path, key))


def test_a_page_is_made_whatever_is_missing(render):
    paths = [path for path in _paths(INSIGHT) if isinstance(path[-1], str)]
    first = {}  # one of each kind of path: rows of a list are alike
    for path in paths:
        first.setdefault(tuple(part for part in path if isinstance(part, str)), path)
    for path in first.values():
        for missing in (None, "absent"):
            results = copy.deepcopy(INSIGHT)
            branch = results
            for part in path[:-1]:
                branch = branch[part]
            if missing is None:
                branch[path[-1]] = None
            else:
                del branch[path[-1]]
            render(results)

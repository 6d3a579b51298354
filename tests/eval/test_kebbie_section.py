"""The report's section about kebbie: its figures, what they may not be compared with, and nothing without them."""

from pathlib import Path
from xml.etree import ElementTree

from eval.report import write_report
from tests.eval.test_report import RESULTS
from tests.scripts.test_kebbie_command import build_scores


def read_section(folder: Path, results: dict) -> ElementTree.Element | None:
    page = write_report(results, folder).read_text("utf-8")
    root = ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    return next((s for s in root.iter("section") if s.get("aria-labelledby") == "kebbie"), None)


def test_both_arms_stand_beside_published_keyboards(tmp_path: Path) -> None:
    kebbie = build_scores(web="0", synthetic="1").model_dump(mode="json")
    kebbie["bundles"]["web"]["next_word_prediction"]["top3_accuracy"] = 0.219
    section = read_section(tmp_path, RESULTS | {"kebbie": kebbie})
    assert section is not None
    rows = {
        row[0].text: [cell.text for cell in row[1:]]
        for row in section.iter("tr")
        if row[0].tag == "th"
    }
    assert rows["web text"] == ["0.15", "0.22", "0.27", "0.62"]
    assert rows["synthetic text"] == ["0.15", "0.27", "0.27", "0.62"]
    # As DESIGN has them of the public benchmark: next word, top-3.
    assert {name: row[1] for name, row in rows.items() if "published" in name} == {
        "iOS, published": "0.43",
        "Gboard, published": "0.33",
        "SwiftKey, published": "0.33",
    }
    text = " ".join("".join(section.itertext()).split())
    assert "Not the same text" in text and "takes no swipes" in text and "7 messages" in text


def test_without_scores_there_is_no_section(tmp_path: Path) -> None:
    assert read_section(tmp_path, RESULTS) is None

"""What a run's report takes from the run's folder: recomputed from its files, and nothing of the machine."""

import gzip
import hashlib
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from scripts.config import load_config
from tests.scripts.command import ROOT
from tests.scripts.conftest import FinishedRun


def read_results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text("utf-8"))


def test_cards_certificate_and_hashes_are_those_of_the_runs_files(finished: FinishedRun) -> None:
    results = read_results(finished.out)
    certificate = (finished.out / "contamination" / "certificate.json").read_text("utf-8")
    assert results["contamination"] == json.loads(certificate)
    pools = {"web_text": ["web"], "synthetic_text": ["llm", "llm_everyday", "web_converted"]}
    for name, files in pools.items():
        card, lines = results["data_cards"][name], []
        for file in files:
            with gzip.open(finished.out / "text" / f"{file}.jsonl.gz", "rt", "utf-8") as pool:
                lines += [json.loads(line)["words"] for line in pool]
        assert card["lines"] == card["filters"][-1]["out"] == len(lines)
        words = sum(any(map(str.isalnum, word)) for line in lines for word in line)
        assert card["words"] == words
        assert sum(source["words"] for source in card["sources"]) == words
        assert "samples" not in card
    assert set(results["data_cards"]) == {*pools, "llm_chats", "llm_everyday", "llm_messages"}
    hashed = results["hashes"]
    assert {name.split("/")[0] for name in hashed} == {"text", "tokenizer", "exported"}
    for name, sha256 in hashed.items():
        path = finished.out / name
        content = path.read_bytes() if path.is_file() else None
        if content is None:  # of what is in it: its gzip file also holds the time
            content = gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == sha256, name
    sizes = {path.name: path.stat().st_size for path in finished.bundle.iterdir()}
    assert results["device"]["files_bytes"] == sizes


def test_the_report_has_the_bundles_model_card(finished: FinishedRun) -> None:
    results = read_results(finished.out)
    card = (finished.bundle / "card.md").read_text("utf-8")
    titles = [section["title"] for section in results["model_card"]]
    assert [f"## {title}" for title in titles] == re.findall("^## .*", card, re.MULTILINE)
    page = html.unescape((finished.out / "report.html").read_text("utf-8"))
    for section in results["model_card"]:
        for sentence in section["sentences"]:
            assert sentence in page and f"* {sentence}" in html.unescape(card)


def test_the_reported_configuration_is_a_preset(finished: FinishedRun, tmp_path: Path) -> None:
    config = read_results(finished.out)["config"]
    path = tmp_path / "again.yaml"
    path.write_text(json.dumps(config), "utf-8")
    assert load_config(str(path)).model_dump(mode="json") == config


def test_no_folder_of_this_machine_is_told(finished: FinishedRun) -> None:
    for name in ("results.json", "report.html"):
        text = (finished.out / name).read_text("utf-8")
        for folder in (finished.out, finished.preset.parent, ROOT, Path(sys.prefix)):
            assert str(folder) not in text, (name, folder)

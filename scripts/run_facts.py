"""What the report shows of a run as it lies in the run's folder: cards, certificate, audits, ablation, hashes."""

import dataclasses
import gzip
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from device_runtime.bundle import open_bundle
from device_runtime.card import list_sections
from scripts.pipeline import ARMS, STEPS, Run
from scripts.text_card import SYNTHETIC_CARD, WEB_CARD
from synthetic_text.llm_chats import CORPUS_NAMES

AUDIT = "audit"
"""Folder, below a run's, of what `keyfed audit` found."""
_AUDITS = ("canaries", "canaries_without_noise", "memorisation")
_STUDY = "study.json"
_CARD_FACTS = (
    "description",
    "lines",
    "words",
    "sha256",
    "sources",
    "models",
    "filters",
    "diversity",
    "error_statistics",
    "known_gaps",
)
_HASHED = ("tokenizer/tokenizer.model", "tokenizer/vocabulary.txt", "text/display.json")


def find_extras(run: Run) -> dict[str, str]:
    """SHA-256 of what no stage makes and the report shows if it is there: audits, a study."""
    return {
        str(path.relative_to(run.out)): _hash(path.read_bytes())
        for path in (*(run.out / AUDIT / f"{name}.json" for name in _AUDITS), run.out / _STUDY)
        if path.is_file()
    }


def collect_facts(run: Run) -> dict[str, Any]:
    """Keys of results.json out of the finished stages and what lies beside them.

    `data_cards`, `contamination`, `model_card`, `hashes`; `audit` and `ablation` where there are any.

    Raises:
        ValueError: an audit or a study cannot be read; its file is named.
    """
    bundle = open_bundle(run.out / run.exported("synthetic", "federated").name / "bundle")
    facts = {
        "data_cards": _read_cards(run),
        "contamination": run.read_json("contamination/certificate.json"),
        "model_card": [dataclasses.asdict(section) for section in list_sections(bundle.manifest)],
        "hashes": _list_hashes(run),
        "audit": _read_audits(run),
        "ablation": _read_ablation(run),
    }
    return {name: fact for name, fact in facts.items() if fact}


def write_command(run: Run) -> str:
    """The command that makes the run, without this machine's folders."""
    preset, out = drop_folders(run.preset), drop_folders(str(run.out))
    return shlex.join(["keyfed", "run", "--preset", preset, "--out", out])


def drop_folders(tree: Any) -> Any:
    """The tree of settings with only the name of every absolute path in it."""
    if isinstance(tree, Mapping):
        return {key: drop_folders(value) for key, value in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [drop_folders(value) for value in tree]
    return Path(tree).name if isinstance(tree, str) and Path(tree).is_absolute() else tree


def _read_cards(run: Run) -> dict[str, Any]:
    """The figures of each data card; its settings and prompts stand in the card's file, its samples nowhere else."""
    cards = {
        name: run.read_json(f"contamination/{name}.card.json")
        for name in (WEB_CARD, SYNTHETIC_CARD)
    }
    for name in CORPUS_NAMES.values():
        path = files("synthetic_text") / "data" / f"{name}.card.json"
        cards[name] = json.loads(path.read_text("utf-8"))
    return {
        name: {fact: card[fact] for fact in _CARD_FACTS if card[fact]}
        for name, card in cards.items()
    }


def _read_audits(run: Run) -> dict[str, Any]:
    """What `keyfed audit` left; of memorisation without every single sentence's exposure."""
    audits = {name: _read_extra(run.out / AUDIT / f"{name}.json") for name in _AUDITS}
    found = {name: audit for name, audit in audits.items() if audit is not None}
    for row in found.get("memorisation", {"arms": {}})["arms"].values():
        for exposure in row["exposures"]:
            exposure.pop("all", None)
    return found


def _read_ablation(run: Run) -> dict[str, Any] | None:
    study = _read_extra(run.out / _STUDY)
    if study is None:
        return None
    names = ("seeds", "users", "targets", "arms", "lifts", "ablations")
    try:
        test = {name: study["test"][name] for name in names}
    except (KeyError, TypeError):
        raise ValueError(
            f"{run.out / _STUDY}: not of keyfed study: write it again, or move it away"
        ) from None
    return {"preset": Path(study["preset"]).stem, **test} if test["ablations"] else None


def _read_extra(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read as JSON ({error}): make it again, or move it away"
        ) from None


def _list_hashes(run: Run) -> dict[str, str]:
    """SHA-256 by path in the run's folder: texts (unpacked: gzip keeps the time), tokenizer, vocabulary, bundles."""
    hashes = {}
    for path in sorted((run.out / "text").glob("*.jsonl.gz")):
        hashes[f"text/{path.stem}"] = _hash(gzip.decompress(path.read_bytes()))
    hashes |= {name: _hash((run.out / name).read_bytes()) for name in _HASHED}
    for arm in ARMS:
        for step in STEPS:
            name = f"{run.exported(arm, step).name}/bundle"
            manifest = open_bundle(run.out / name).manifest
            hashes |= {
                f"{name}/{file}": entry["sha256"] for file, entry in manifest["files"].items()
            }
    return hashes


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

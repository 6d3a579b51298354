"""A run whose devices are a store on disk: the same as one with them in memory, and only its own store will do."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from federated.store import DeviceStore, Split, write_store
from model.checkpoint import load_weights
from scripts.config import PRESETS, load_config
from scripts.pipeline import Run
from scripts.training import REAL_CHAT, open_devices
from tests.scripts.command import run_keyfed
from tests.scripts.conftest import FinishedRun

TOKENIZER = b"stands for a tokenizer's model file"


def write_preset(path: Path, content: dict, store: Path, **population) -> Path:
    content["population"] |= {"store": str(store)} | population
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_a_run_on_a_built_store_is_the_run_on_its_messages(
    finished: FinishedRun, tmp_path: Path
) -> None:
    """Weights and ledger, bit for bit; told before the tokenizer's own store is there, and trained on when it is."""
    out, store = tmp_path / "out", tmp_path / "devices"
    for stage in ("text", "tokenizer", "pretrained/web"):
        shutil.copytree(finished.out / stage, out / stage)
    content = yaml.safe_load(finished.preset.read_text("utf-8"))
    preset = write_preset(tmp_path / "own.yaml", content, store)
    arguments = ("federate", "--arm", "web", "--preset", preset, "--out", out)
    early = run_keyfed(*arguments)
    tokenizer = out / "tokenizer" / "tokenizer.model"
    assert early.returncode == 2
    assert early.stderr.splitlines() == [
        "population ...",
        f"keyfed: {store}: no such folder, and population.store is there: make one with keyfed fleet build or"
        f" synthesize, --tokenizer {tokenizer}",
    ]
    most = str(content["population"]["max_messages"])
    built = run_keyfed(
        *("fleet", "build", finished.population, "--out", store),
        *("--tokenizer", tokenizer, "--max-messages", most),
    )
    assert built.returncode == 0, built.stderr
    done = run_keyfed(*arguments)
    assert done.returncode == 0, done.stderr
    expected = finished.out / "federated" / "web"
    actual = out / "federated" / "web"
    for old, new in zip(
        *(load_weights(f / "weights.npz") for f in (expected, actual)), strict=True
    ):
        assert np.array_equal(old, new)
    assert (actual / "ledger.json").read_text() == (expected / "ledger.json").read_text()
    assert (actual / "curve.json").read_text() == (expected / "curve.json").read_text()
    counts = [
        json.loads((o / "population" / "counts.json").read_text()) for o in (finished.out, out)
    ]
    assert counts[1].pop("train_rows") == DeviceStore.open(store, 400).offsets[-1]
    del counts[0]["train_messages"]
    assert counts[0] == counts[1]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """A run of the test preset with a tokenizer, and with a store made for it but for what is given."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.model").write_bytes(TOKENIZER)
    content = yaml.safe_load((PRESETS / "test.yaml").read_text("utf-8"))
    preset = write_preset(tmp_path / "own.yaml", content, tmp_path / "devices", rotation=2)

    def make(**facts) -> Run:
        made = {"tokenizer": hashlib.sha256(TOKENIZER).hexdigest(), "split": Split(2, 0.7, 0.1)}
        made |= {"row_tokens": 24, "vocabulary": 400} | facts
        with write_store(tmp_path / "devices", **made) as writer:
            writer.append(np.ones((5, 2, made["row_tokens"]), np.int32), [2, 0, 3])
        return Run(tmp_path, load_config(str(preset)), "own")

    return make


@pytest.mark.parametrize("split", [None, Split(2, 0.7, 0.1)])
def test_a_store_of_the_runs_own_tokenizer_and_split_opens(run, split: Split | None) -> None:
    store = open_devices(run(split=split), [])
    assert len(store) == 3 and store.count_rows(np.arange(3)).tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"tokenizer": "0" * 64}, r"devices: was made with another tokenizer.*synthesize, --tok"),
        ({"tokenizer": None}, r"devices: was made with no tokenizer, .*: make one with keyfed"),
        ({"row_tokens": 12}, "has rows of 12 pieces, and federated.row_tokens is 24: change it"),
        (
            {"split": Split(1, 0.7, 0.1)},
            "is the training side of .*rotation=1.* trained and tested",
        ),
        ({"split": Split(2, 0.8, 0.1)}, "is the training side of .*train_share=0.8"),
    ],
)
def test_a_store_that_is_not_the_runs_is_refused(run, facts, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        open_devices(run(**facts), [])


def test_what_reads_messages_refuses_a_store(run) -> None:
    made = run()
    for stage in (lambda: made.adaptation, lambda: made.pretrained(REAL_CHAT)):
        with pytest.raises(
            ValueError, match=r"population.store: .* a store has none: leave it out"
        ):
            stage()

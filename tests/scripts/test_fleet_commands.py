"""`keyfed fleet`: stores that a run of the same tokenizer can train on, and rounds played without training."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from device_runtime.tokenizer import BOS, Tokenizer
from device_runtime.words import split_words
from federated.population import read_message_file, split_population
from federated.store import DeviceStore, Split, StoreFacts
from model.config import TokenizerConfig
from model.rows import encode_text, pack_rows
from model.tokenizer import train_tokenizer
from scripts.config import PRESETS
from synthetic_text.llm_chats import load_llm_chats
from tests.scripts.command import run_keyfed
from tests.scripts.test_cli import assert_refused
from tests.sources import write_population


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    texts = [" ".join(split_words(message.text)) for message in load_llm_chats()[:2000]]
    path.write_bytes(train_tokenizer(texts, TokenizerConfig(kind="unigram", size=300)))
    return path


def test_a_built_store_holds_what_a_run_would_train_on(tokenizer, tmp_path) -> None:
    """Device for device what the federated stage makes of the same file in memory."""
    out = tmp_path / "store"
    population = write_population(tmp_path / "population.jsonl", users=60, messages=8)
    arguments = ("--tokenizer", tokenizer, "--max-messages", "10", "--json")
    done = run_keyfed("fleet", "build", population, "--out", out, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    split, counts = split_population(read_message_file(population), max_messages=10)
    assert json.loads(done.stdout) == counts
    pieces = Tokenizer(tokenizer.read_bytes())
    store = DeviceStore.open(out, pieces.size)
    assert len(store) == len(split["train"])
    for device, texts in enumerate(split["train"].values()):
        expected = pack_rows((encode_text(pieces, text) for text in texts), 24)
        assert np.array_equal(store.device_batches(device, 1, 1000)[:, 0], expected)
    facts = StoreFacts.read(out)
    assert facts.tokenizer == hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    assert facts.split == Split(rotation=0, train_share=0.7, validation_share=0.1)
    again = run_keyfed("fleet", "build", population, "--out", out, *arguments)
    assert_refused(again, "store", "exists: remove it, or give another folder")


def test_synthetic_devices_write_what_the_corpus_says(tokenizer, tmp_path) -> None:
    out = tmp_path / "store"
    done = run_keyfed(
        "fleet", "synthesize", "--devices", "300", "--tokenizer", tokenizer, "--out", out, "--json"
    )
    facts, pieces = json.loads(done.stdout), Tokenizer(tokenizer.read_bytes())
    assert facts["devices"] == 300 and facts["vocabulary"] == pieces.size
    assert facts["tokenizer"] == hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    assert facts["split"] is None
    corpus = {tuple(encode_text(pieces, m.text)[0].tolist()) for m in load_llm_chats()}
    rows = DeviceStore.open(out, pieces.size).rows[:50, 0]
    starts = [np.flatnonzero(row == BOS) for row in rows]
    first = [
        tuple(row[s[0] : s[1]].tolist()) for row, s in zip(rows, starts, strict=True) if len(s) > 1
    ]
    assert first and all(message in corpus for message in first)


def test_rounds_are_played_without_training(tmp_path) -> None:
    content = yaml.safe_load((PRESETS / "test.yaml").read_text("utf-8"))
    content["federated"] |= {"rounds": 30, "cohort": 50, "fleet": {"minutes_between_rounds": 48}}
    preset = tmp_path / "own.yaml"
    preset.write_text(yaml.safe_dump(content), "utf-8")
    arguments = ("fleet", "simulate", "--preset", preset, "--devices", "20000", "--json")
    done = run_keyfed(*arguments)
    figures = json.loads(done.stdout)
    assert (figures["rounds"], figures["days"]) == (30, 1.0)
    assert figures["mean_selected"] == 65 and figures["rounds_short_of_reports"] == 0
    assert figures["mean_reported"] == 50 <= figures["devices_that_reported"] <= 1500
    lost = figures["mean_dropped"] + figures["mean_late"]
    assert lost == pytest.approx(65 - 50)
    assert 3 < figures["available_most"] / figures["available_least"] < 5
    assert json.loads(run_keyfed(*arguments).stdout) == figures

    content["federated"]["min_reports"] = 50
    preset.write_text(yaml.safe_dump(content), "utf-8")
    few = json.loads(run_keyfed(*arguments[:5], "300", "--json").stdout)
    assert few["rounds_abandoned"] > 0 and few["rounds_short_of_reports"] == 0
    assert few["days"] == pytest.approx((30 + few["rounds_abandoned"]) * 48 / 1440)
    assert few["mean_reported"] == 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "m.jsonl", "--tokenizer", "none.model", "--out", "o"), ("none.model", "give")),
        (("simulate", "--preset", "test", "--devices", "9"), ("federated.fleet is missing",)),
    ],
)
def test_bad_input_is_one_line(arguments, said) -> None:
    assert_refused(run_keyfed("fleet", *arguments), *said)

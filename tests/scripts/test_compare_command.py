"""`keyfed compare` on real bundles: one against itself, and against a copy in which one word's bias is changed."""

import collections
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from device_runtime.bundle import write_bundle
from device_runtime.lexicon import write_lexicon
from device_runtime.tokenizer import Tokenizer
from tests.device_runtime.tiny_model import sentences, train_tokenizer
from tests.scripts.command import run_keyfed

TEXT = sentences()
[(WORD, _)] = collections.Counter(
    word for message in TEXT for word in message.split() if word.isalpha()
).most_common(1)


@dataclasses.dataclass(frozen=True)
class Bundles:
    plain: Path
    changed: Path
    text: Path
    vocabulary: Path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    from model.export import export_tflite
    from model.network import NetworkShape, initial_weights

    folder = tmp_path_factory.mktemp("compared")
    pieces = train_tokenizer("word", 60, suffix=False)
    tokenizer = Tokenizer(pieces)
    *weights, bias = initial_weights(NetworkShape(tokenizer.size, 8, 12), seed=2)
    bias = np.random.default_rng(2).normal(0, 2, bias.shape).astype(np.float32)
    [[piece]] = tokenizer.encode_each_word([WORD])
    bias[piece] = bias.min()
    changed = bias.copy()
    changed[piece] = bias.max() + 1
    paths = []
    for name, biases in (("plain", bias), ("changed", changed)):
        files = {
            "model.tflite": export_tflite([*weights, biases]),
            "tokenizer.model": pieces,
            "truecase.tsv": b"",
            "blocklist.txt": b"",
            "lexicon.bin": write_lexicon({}, {}),
        }
        facts = {
            "vocabulary_size": tokenizer.size,
            "state_shapes": {"h": [1, 8], "c": [1, 12]},
            "quantisation": "dynamic-range",
            "training": {},
            "licences": {},
        }
        paths.append(write_bundle(folder / name, files, facts))
    text, vocabulary = folder / "text.jsonl", folder / "vocabulary.txt"
    lines = [
        {"user": f"u{i % 40}", "text": message, "timestamp": f"2018-{4 + 6 * (i % 2):02}-01"}
        for i, message in enumerate(TEXT)
    ]
    text.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    words = sorted({word for message in sentences() for word in message.split() if word.isalpha()})
    vocabulary.write_text("".join(f"{word}\n" for word in words), "utf-8")
    return Bundles(*paths, text, vocabulary)


def _compare(bundles: Bundles, *pair: Path) -> dict:
    done = run_keyfed(
        *("compare", *pair, "--text", bundles.text, "--vocabulary", bundles.vocabulary, "--json")
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_against_itself_differs_by_nothing(bundles: Bundles) -> None:
    figures = _compare(bundles, bundles.plain, bundles.plain)
    for name in ("top1", "top3", "top1_all", "top3_all"):
        assert set(figures[name]["difference"].values()) == {0}
        assert figures[name]["users_needed"] is None
    assert figures["users"] == 40 and figures["cohorts"] and figures["rates"] is None
    assert not any(row["hurts"] for row in figures["cohorts"])


def test_one_words_changed_bias_is_found(bundles: Bundles) -> None:
    figures = _compare(bundles, bundles.plain, bundles.changed)
    difference = figures["top1_all"]["difference"]
    assert 0 < difference["low"] <= difference["value"] <= difference["high"]
    assert 0 < figures["top1_all"]["users_needed"] <= 80
    back = _compare(bundles, bundles.changed, bundles.plain)["top1_all"]["difference"]
    assert back["value"] == -difference["value"] and back["high"] < 0
    assert {"first wave", "second wave"} <= {row["cohort"] for row in figures["cohorts"]}


def test_it_says_so_in_words(bundles: Bundles) -> None:
    done = run_keyfed(
        *("compare", bundles.plain, bundles.changed, "--text", bundles.text),
        *("--vocabulary", bundles.vocabulary),
    )
    assert done.returncode == 0, done.stderr
    assert "40 users" in done.stdout and "seen with" in done.stdout and "points" in done.stdout


def test_bundles_that_cannot_be_compared_are_refused(bundles: Bundles) -> None:
    done = run_keyfed("compare", bundles.plain, bundles.changed, "--text", bundles.text)
    assert done.returncode == 2 and "give --vocabulary" in done.stderr.splitlines()[-1]
    for bundle, words in ((bundles.plain, "a\n"), (bundles.changed, "a\nb\n")):
        (bundle / "tokenizer").mkdir()
        (bundle / "tokenizer" / "vocabulary.txt").write_text(words, "utf-8")
    done = run_keyfed("compare", bundles.plain, bundles.changed, "--text", bundles.text)
    assert done.returncode == 2
    assert "different vocabularies: give --vocabulary" in done.stderr.splitlines()[-1]
    for bundle in (bundles.plain, bundles.changed):
        (bundle / "tokenizer" / "vocabulary.txt").unlink()
        (bundle / "tokenizer").rmdir()

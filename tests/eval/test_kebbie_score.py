"""Our bundle in kebbie's own evaluation; only where kebbie is installed, which is never where the other tests run.

./scripts/setup kebbie && .venv-kebbie/bin/pip install pytest hypothesis
export KEYFED_BUNDLE=runs/quick/exported/synthetic-federated/bundle
.venv-kebbie/bin/python -m pytest tests/eval/test_kebbie_score.py
"""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from device_runtime.layouts import load_layout
from device_runtime.typed_text import MESSAGES
from eval.correctors import KeyboardCorrector, find_touches

kebbie = pytest.importorskip("kebbie")
if "KEYFED_BUNDLE" not in os.environ:
    pytest.skip("KEYFED_BUNDLE names no bundle", allow_module_level=True)

from kebbie.layout import LayoutHelper  # noqa: E402

import eval.kebbie_score as kebbie_score  # noqa: E402

BUNDLE = str(Path(os.environ["KEYFED_BUNDLE"]).resolve())
TYPOS = {"tomorrow": ["tommorow"], "really": ["realy"]}


@pytest.fixture(scope="module")
def scores() -> dict:
    return kebbie_score.score_bundle(BUNDLE, MESSAGES, TYPOS, processes=2, seed=42)


def test_keys_are_where_kebbie_has_them() -> None:
    layout, kebbies = load_layout("qwerty"), LayoutHelper(ignore_layers_after=3)
    centres = [kebbies.get_key_info(key)[2:4] for key in layout.keys]
    np.testing.assert_allclose(find_touches(centres, layout.keys, layout), layout.centres_mm)


def test_next_words_are_those_of_the_definition(scores: dict) -> None:
    # Words are apart by blanks once marks are blanks; all but the first are asked for; case counts.
    corrector = KeyboardCorrector(BUNDLE)
    asked = first = among = 0
    for message in MESSAGES:
        words = "".join(" " if mark in ".,?!" else mark for mark in message).split()
        for position in range(1, len(words)):
            found = corrector.predict_next_word(" ".join(words[:position]) + " ")
            asked, first = asked + 1, first + (found[0] == words[position])
            among += words[position] in found
    said = scores["next_word_prediction"]
    # kebbie asks for no word behind a lost blank.
    assert asked - 10 <= said["n"] <= asked
    assert said["accuracy"] == pytest.approx(first / asked, abs=0.02)
    assert said["top3_accuracy"] == pytest.approx(among / asked, abs=0.03)
    assert scores["auto_correction"]["n_typo"] > 0


def test_one_process_counts_the_same(scores: dict) -> None:
    assert kebbie_score.score_bundle(BUNDLE, MESSAGES, TYPOS, processes=1, seed=42) == scores


def test_nothing_is_fetched_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    kebbie_score.score_bundle(BUNDLE, MESSAGES[:4], {}, processes=1, seed=42)
    assert list(tmp_path.rglob("*")) == []


def test_a_dead_process_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> list[str]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr(KeyboardCorrector, "predict_next_word", die)
    with pytest.raises(RuntimeError, match="died"):
        kebbie_score.score_bundle(BUNDLE, MESSAGES, {}, processes=2, seed=42)

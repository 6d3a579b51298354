"""Both interpreters give the same answers. Where ai-edge-litert is installed beside tflite-runtime, that is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from device_runtime import decoder
from device_runtime.keyboard import Keyboard, Suggestion
from tests.device_runtime.tiny_model import sentences

# So small a model is left in float32 by the converter. In int8 their kernels round the input of a layer differently:
# over 500 random pieces of a quick run's model the largest difference was 0.027 nats, and either was 0.0055 (root mean
# square) from the float model.
MOST_APART = 1e-5


def ask(bundle: Path, messages: Sequence[str]) -> list[list[Suggestion]]:
    keyboard = Keyboard.open(bundle)
    answers = []
    for message in messages:
        session = keyboard.session()
        session.commit(message)
        answers += [session.suggest(prefix, 5) for prefix in ("", "t", "so")]
    return answers


def test_same_answers(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tflite = pytest.importorskip("tflite_runtime.interpreter")
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    answers = []
    for interpreter in (tflite.Interpreter, litert.Interpreter):
        monkeypatch.setattr(decoder, "Interpreter", interpreter)
        answers.append(ask(bundle_path, sentences()[:200]))
    for one, other in zip(*answers, strict=True):
        assert [s.text for s in one] == [s.text for s in other]
        log_probs = [[s.log_prob for s in suggestions] for suggestions in (one, other)]
        assert np.allclose(*log_probs, rtol=0, atol=MOST_APART)

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from device_runtime.bundle import BundleError
from device_runtime.keyboard import Keyboard
from device_runtime.words import split_words


def test_predict_words_sees_exactly_the_words_before(keyboard: Keyboard) -> None:
    words = split_words("my sister found 10:30 ... the tickets 北京 😂")
    at = [k != 3 for k in range(len(words))]
    predictions = keyboard.predict_words(words, at, count=4)
    assert [len(p) for p in predictions] == [4 * wanted for wanted in at]
    for k, predicted in enumerate(predictions):
        if at[k]:
            session = keyboard.session()
            session.commit(" ".join(words[:k]))
            state = session._trail.read()
            assert state is not None
            expected = keyboard._unfiltered.next_words(state, 4)
            assert [(p.text, p.log_prob) for p in predicted] == expected


def test_threads_share_a_keyboard(keyboard: Keyboard) -> None:
    def type_message(seed: int) -> list[object]:
        random, answers = np.random.default_rng(seed), list[object]()
        session, text = keyboard.session(), ""
        for _ in range(15):
            word = ("tom", "found", "tomorrow's", "dinner", "lol.", "keys")[random.integers(6)]
            answers += [session.suggest(), session.suggest(word[:2]), session.autocorrect(word)]
            if random.random() < 0.3:
                text = text[: random.integers(len(text) + 1)].rpartition(" ")[0]
                session.set_context(text)
            session.commit(word)
            text += word + " "
        return answers

    alone = [type_message(seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(type_message, range(12))) == alone


def test_blocked_words_are_predicted(keyboard: Keyboard) -> None:
    (predicted,) = keyboard.predict_words(["x"], [True], count=500)
    assert {"dog", "forgot"} <= {p.text for p in predicted}


def test_files_that_do_not_fit_are_refused(altered_bundle: Callable[..., Path]) -> None:
    cases = {
        "tokenizer__model": (b"nothing", "tokenizer.model: not a SentencePiece model"),
        "model__tflite": (b"nothing", "model.tflite: not a TFLite model"),
        "truecase__tsv": (b"tom\tTom\nmonday Monday\n", "truecase.tsv: line 2"),
        "blocklist__txt": (b"fine\ntwo words\n", "blocklist.txt: line 2"),
        "lexicon__bin": (b"nothing", "lexicon.bin: not a lexicon"),
    }
    for name, (content, message) in cases.items():
        with pytest.raises(BundleError, match=message):
            Keyboard.open(altered_bundle(**{name: content}))
    for name in ("truecase__tsv", "blocklist__txt"):
        with pytest.raises(BundleError, match="UTF-8"):
            Keyboard.open(altered_bundle(**{name: b"\xff\xfe"}))


def test_runs_without_tensorflow(bundle_path: Path) -> None:
    program = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_federated", "keras", "jax"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import device_runtime, device_runtime.latency, device_runtime.words
from device_runtime.keyboard import Keyboard
session = Keyboard.open(sys.argv[1]).session()
session.commit("we saw")
print(len(session.suggest()), sorted({name.split(".")[0] for name in sys.modules}))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(bundle_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("3 ") and "tensorflow" not in run.stdout

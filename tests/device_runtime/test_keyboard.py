import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.bundle import BundleError
from device_runtime.keyboard import Keyboard, Session
from device_runtime.words import normalize, split_words


def after(keyboard: Keyboard, *texts: str) -> Session:
    session = keyboard.session()
    for text in texts:
        session.commit(text)
    return session


UNICODE = st.text(st.characters(exclude_categories=()))  # lone surrogates included
WORDS = st.sampled_from(["We", "don't", "saw", "to", "di", "...", "it.", "10", "▁"])
TYPED = UNICODE | st.lists(WORDS).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(first=TYPED, second=TYPED, prefix=TYPED)
def test_any_unicode_and_state_equals_a_fresh_replay(
    keyboard: Keyboard, first: str, second: str, prefix: str
) -> None:
    session = after(keyboard, first, second)
    suggestions = session.suggest(prefix)
    replay = after(keyboard, first + " " + second)
    assert np.array_equal(session._state.log_probs, replay._state.log_probs)
    assert suggestions == replay.suggest(prefix)
    for suggestion in suggestions:
        assert normalize(suggestion.text).startswith(normalize(prefix))


def test_suggesting_does_not_change_the_message(keyboard: Keyboard) -> None:
    session = after(keyboard, "We saw")
    first = session.suggest(count=5)
    session.suggest("t")
    assert session.suggest(count=5) == first


def test_reset_starts_a_new_message(keyboard: Keyboard) -> None:
    session = after(keyboard, "we saw the dog.")
    session.reset()
    assert session.suggest() == keyboard.session().suggest()


def test_sessions_do_not_disturb_each_other(keyboard: Keyboard) -> None:
    one, other = after(keyboard, "we saw"), after(keyboard, "tom")
    expected = one.suggest()
    other.commit("missed the taxi")
    assert one.suggest() == expected


def test_words_are_shown_as_they_are_written(keyboard: Keyboard) -> None:
    shown = {
        start: {s.text for s in after(keyboard, text).suggest(start, count=40)}
        for text, start in (("we saw", "to"), ("we saw", "tomorro"), ("we saw", "i"))
    }
    assert "Tom" in shown["to"] and "tom" not in shown["to"]
    assert shown["tomorro"] and all(text.startswith("tomorro") for text in shown["tomorro"])
    assert "I" in shown["i"] and "i" not in shown["i"]


@pytest.mark.parametrize("text", ["", "we saw it.", "what?!", "no ..."])
def test_sentence_starts_with_a_capital(keyboard: Keyboard, text: str) -> None:
    shown = after(keyboard, text).suggest("d", count=10)
    assert len(shown) == 10 and all(s.text[0].isupper() for s in shown)


@pytest.mark.parametrize("text", ["we", "we saw it,", "lol 😂"])
def test_middle_of_a_sentence_does_not(keyboard: Keyboard, text: str) -> None:
    shown = after(keyboard, text).suggest("d", count=10)
    assert len(shown) == 10 and all(s.text[0].islower() for s in shown)


def test_blocked_words_are_never_suggested_but_predicted(keyboard: Keyboard) -> None:
    session = after(keyboard, "we saw the")
    for prefix in ("", "d", "do", "dog", "DOG"):
        assert "dog" not in {s.text.lower() for s in session.suggest(prefix, count=50)}
    (predicted,) = keyboard.predict_words(["x"], [True], count=500)
    assert "dog" in {p.text for p in predicted}


def test_predict_words_sees_exactly_the_words_before(keyboard: Keyboard) -> None:
    words = split_words("my sister found 10:30 ... the tickets 北京 😂")
    at = [k != 3 for k in range(len(words))]
    predictions = keyboard.predict_words(words, at, count=4)
    assert [len(p) for p in predictions] == [4 * wanted for wanted in at]
    for k, predicted in enumerate(predictions):
        if at[k]:
            state = after(keyboard, " ".join(words[:k]))._state
            expected = keyboard._unfiltered.next_words(state, 4)
            assert [(p.text, p.log_prob) for p in predicted] == expected


def test_files_that_do_not_fit_are_refused(altered_bundle: Callable[..., Path]) -> None:
    cases = {
        "tokenizer__model": (b"nothing", "tokenizer.model: not a SentencePiece model"),
        "model__tflite": (b"nothing", "model.tflite: not a TFLite model"),
        "truecase__tsv": (b"tom\tTom\nmonday Monday\n", "truecase.tsv: line 2"),
        "blocklist__txt": (b"fine\ntwo words\n", "blocklist.txt: line 2"),
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

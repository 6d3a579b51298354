"""Any Unicode into a session, in any order: it is always what a fresh one would be."""

import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from device_runtime.keyboard import Keyboard
from device_runtime.personal import PersonalHistory
from device_runtime.words import normalize, split_words

BLOCKED = {"dog", "forgot"}

_ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates, NUL and all
_WORDS = st.lists(
    st.sampled_from(
        [
            "We",
            "don't",
            "saw",
            "tom",
            "di",
            "dog",
            "dogg",
            "...",
            "it.",
            "10:30",
            "▁",
            "😂",
            "i",
            "İ",
        ]
    ),
    max_size=8,
).map(" ".join)
_ODD = st.sampled_from(
    [
        "👩‍👩‍👧‍👦👍🏽🏳️‍🌈",
        "e\u0301\u0323 \u0301a q\u0307\u0323",
        "\u202eשלום עולם\u202c مرحبا",
        "a\x00b\u2028c\r\n\td",
        "\ud83d \ude00",
        "ﬁ ǆ ŉ ß ΑΣ",
        "z" * 1000,
        "tom " * 400,
        "ΑΣ saw it " * 150,
        "\u0301" * 3000,
        "😂" * 3000,
    ]
)
TEXTS = _ANY | _WORDS | _ODD
COORDINATE = st.floats(-30, 90) | st.sampled_from([float("nan"), float("inf"), -1e30])
TOUCH = st.none() | st.tuples(COORDINATE, COORDINATE)


class Typing(RuleBasedStateMachine):
    keyboard: Keyboard

    @initialize(learns=st.booleans(), private=st.booleans())
    def start(self, learns: bool, private: bool) -> None:
        history = PersonalHistory() if learns else None
        self.session = self.keyboard.session(history, private)
        self.context = ""

    @rule(text=TEXTS)
    def commit(self, text: str) -> None:
        self.session.commit(text)
        self.context += " " + text

    @rule(text=TEXTS)
    def set_context(self, text: str) -> None:
        self.session.set_context(text)
        self.context = text

    @rule(cut=st.integers(0, 200))
    def delete(self, cut: int) -> None:
        self.context = self.context[: max(0, len(self.context) - cut)]
        self.session.set_context(self.context)

    @rule(prefix=TEXTS, count=st.integers(1, 5), touches=st.data())
    def suggest(self, prefix: str, count: int, touches: st.DataObject) -> None:
        touches_mm = None
        if len(prefix) < 10 and touches.draw(st.booleans()):
            size = len(prefix)
            touches_mm = touches.draw(st.lists(TOUCH, min_size=size, max_size=size))
        shown = self.session.suggest(prefix, count, touches_mm)
        assert len(shown) <= count and len({s.text for s in shown}) == len(shown)
        assert all(not (set(split_words(s.text)) & BLOCKED) for s in shown)
        assert all(np.isfinite(s.log_prob) for s in shown)
        assert self.session.suggest(prefix, count, touches_mm) == shown

    @rule(typed=TEXTS)
    def autocorrect(self, typed: str) -> None:
        put_in = self.session.autocorrect(typed)
        assert normalize(put_in) == normalize(typed) or put_in.lower() not in BLOCKED
        assert unicodedata.is_normalized("NFC", put_in) or put_in == typed

    @rule()
    def reset(self) -> None:
        self.session.reset()
        self.context = ""

    @invariant()
    def equals_a_fresh_replay(self) -> None:
        replay = self.keyboard.session()
        replay.commit(self.context)
        state, expected = self.session._trail.read(), replay._trail.read()
        assert state is not None and expected is not None
        for name in ("h", "c", "log_probs"):
            assert np.array_equal(getattr(state, name), getattr(expected, name))
        assert self.session._starts_sentence == replay._starts_sentence


def run(keyboard: Keyboard, examples: int, steps: int) -> None:
    machine = type("TypingHere", (Typing,), {"keyboard": keyboard})
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def test_a_session_equals_a_fresh_replay_whatever_is_typed(keyboard: Keyboard) -> None:
    run(keyboard, examples=40, steps=12)


@pytest.mark.slow
def test_the_same_ten_thousand_times(keyboard: Keyboard) -> None:
    run(keyboard, examples=10_000, steps=10)


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d" * 25_000,
        "шалом " * 4_000,
        pytest.param("x" * 100_000, marks=pytest.mark.slow),
        pytest.param("we saw it. " * 9_000, marks=pytest.mark.slow),
    ],
)
def test_huge_texts(keyboard: Keyboard, text: str) -> None:
    session = keyboard.session()
    assert len(session.suggest(text)) <= 3 and session.autocorrect(text) == text
    session.commit(text)
    session.set_context(text + " tom")
    session.set_context(text)
    replay = keyboard.session()
    replay.commit(text)
    assert session.suggest(count=5) == replay.suggest(count=5)

"""Budgets with a clock that a test turns on; a step takes what the test says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from device_runtime.bundle import open_bundle
from device_runtime.decoder import Decoder, DecoderState, Memory
from device_runtime.fallback import Pacer
from device_runtime.keyboard import Keyboard


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowDecoder:
    """A decoder whose steps take `step_ms` of a clock's time."""

    def __init__(self, decoder: Decoder, clock: Clock) -> None:
        self._decoder, self._clock, self.step_ms, self.steps = decoder, clock, 1.0, 0
        self.vocabulary_size = decoder.vocabulary_size

    def step(self, token: int, state: Memory) -> DecoderState:
        self._clock.now += self.step_ms / 1e3
        self.steps += 1
        return self._decoder.step(token, state)


@pytest.fixture
def open_slow(bundle_path: Path) -> Callable[[float], tuple[Keyboard, SlowDecoder, Clock]]:
    def open_with(budget_ms: float) -> tuple[Keyboard, SlowDecoder, Clock]:
        clock = Clock()
        keyboard = Keyboard(open_bundle(bundle_path), budget_ms=budget_ms, clock=clock)
        slow = SlowDecoder(keyboard.decoder, clock)
        keyboard.decoder = slow  # type: ignore[assignment]
        keyboard.search._decoder = slow
        keyboard.corrector._decoder = slow
        return keyboard, slow, clock

    return open_with


Opener = Callable[[float], tuple[Keyboard, SlowDecoder, Clock]]


@pytest.mark.parametrize("step_ms", [0.3, 3, 9])
def test_calls_end_within_the_budget(open_slow: Opener, step_ms: float) -> None:
    keyboard, slow, clock = open_slow(20)
    slow.step_ms = step_ms
    session = keyboard.session()
    calls: list[Callable[[], object]] = [
        lambda: session.commit("tom missed tomorrow's dinner yesterday and we found it lol"),
        session.suggest,
        lambda: session.suggest("tomr"),
        lambda: session.autocorrect("dgo"),
        lambda: session.set_context("we saw nobody, and everyone found my sister's keys again"),
    ]
    for call in calls * 5:
        before = clock.now
        call()
        assert clock.now - before <= 20e-3 + 1e-9


def test_what_there_was_no_time_for_is_read_later(open_slow: Opener, keyboard: Keyboard) -> None:
    limited, slow, _ = open_slow(5)
    text = "tom found my keys again and we missed the film at 10:30 lol"
    session, replay = limited.session(), keyboard.session()
    session.commit(text)
    replay.commit(text)
    assert session.suggest() != replay.suggest()
    for _ in range(20):
        session.suggest()
    slow.step_ms = 0.0
    assert session.suggest(count=5) == replay.suggest(count=5)


def test_the_lexicon_answers_for_a_model_that_is_too_slow(open_slow: Opener) -> None:
    keyboard, slow, clock = open_slow(5)
    slow.step_ms = 50.0
    session = keyboard.session()
    for _ in range(3):
        session.commit("my sister missed tomorrow's dinner")
    session.commit("my")
    resting_from = slow.steps
    shown = [s.text for s in session.suggest(count=2)]
    assert (
        shown == [word for word, _ in keyboard.fallback.next_words("my", 2)] == ["keys", "sister"]
    )
    assert [s.text for s in session.suggest("k")][:1] == ["keys"]
    assert session.autocorrect("dgo") == "dgo"
    session.commit("again")
    assert slow.steps == resting_from  # it is left alone

    for rest_s in (1.0, 2.0, 4.0):  # and tried again ever later
        clock.now += rest_s - 0.1
        session.suggest()
        assert slow.steps == resting_from
        clock.now += 0.11
        session.suggest()
        assert slow.steps == resting_from + 1
        resting_from = slow.steps

    slow.step_ms = 0.0
    clock.now += 8.1
    session.suggest()
    assert [s.text for s in session.suggest(count=2)] != shown


def test_a_long_text_is_no_reason_to_rest(open_slow: Opener) -> None:
    keyboard, slow, _ = open_slow(20)
    session = keyboard.session()
    session.commit("tom saw the dog " * 50)
    calls = 0
    while session._trail.read(lambda: False) is None:
        session.suggest()
        calls += 1
    assert slow.steps / 20 <= calls <= slow.steps / 16


def test_blocked_words_are_not_the_fallbacks_either(keyboard: Keyboard) -> None:
    everything = {word for word, _ in keyboard.fallback.next_words(None, 1000)}
    assert "taxi" in everything and not everything & {"dog", "forgot"}


def test_without_a_budget_the_clock_is_not_asked() -> None:
    def clock() -> float:
        raise AssertionError

    turn = Pacer(None, clock).begin()
    assert turn.in_time() and turn.steps_left(9) == 9
    turn.end(answered=False)


@pytest.mark.parametrize("budget_ms", [0, -1, float("nan")])
def test_budgets_are_positive(budget_ms: float) -> None:
    with pytest.raises(ValueError, match="budget_ms must be > 0"):
        Pacer(budget_ms)

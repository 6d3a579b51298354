"""A day of typing in one session: memory stays flat, and a keystroke costs what it cost."""

import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from device_runtime import personal, typing_day
from device_runtime import session as sessions
from device_runtime import trail as trails
from device_runtime.bundle import BundleError
from device_runtime.keyboard import Keyboard
from device_runtime.personal import PersonalHistory
from device_runtime.typing_day import Writer, measure_day
from tests.device_runtime.tiny_model import sentences

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def invented_messages(count: int) -> list[str]:
    """Words nobody knows, few of them often, some with capitals."""
    random = np.random.default_rng(7)
    numbers = random.zipf(1.15, (count, 6)) % 5000
    letters = "aeioubdkmt"
    words = ["".join(letters[int(digit)] for digit in str(n)) for n in range(5000)]
    return [" ".join(words[n].title() if n % 5 == 0 else words[n] for n in row) for row in numbers]


def test_whatever_the_writer_does_the_session_is_where_a_fresh_one_would_be(
    keyboard: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typing_day, "_NOTE", 8)
    writer = Writer(keyboard, None, itertools.cycle(sentences()))
    for number, stroke in enumerate(itertools.islice(writer.strokes(), 1200)):
        stroke()
        if number % 100 == 99:
            fresh = keyboard.session()
            fresh.set_context(writer._text)
            states = [session._trail.read() for session in (writer.session, fresh)]
            assert states[0] is not None and states[1] is not None
            assert np.array_equal(states[0].log_probs, states[1].log_probs)
    assert writer.sent > 0


def test_a_writer_repeats_itself(keyboard: Keyboard) -> None:
    texts = []
    for _ in range(2):
        writer = Writer(keyboard, PersonalHistory(), itertools.cycle(sentences()), seed=3)
        for stroke in itertools.islice(writer.strokes(), 300):
            stroke()
        texts.append(writer._text)
    assert texts[0] == texts[1] and len(texts[0]) > 100


def test_a_long_session_holds_no_more_than_its_bounds(
    keyboard: Keyboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that grows with typing, each with a bound that is reached early and never passed."""
    for module, name, value in (
        (trails, "RECENT", 40), (trails, "_ANCHORS", 20), (trails, "_FIRST_SPACING", 4), (sessions, "RECENT", 40),
        (personal, "WORDS", 60), (personal, "PAIRS", 50), (typing_day, "_NOTE", 60),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    history = PersonalHistory(tmp_path / "personal.tsv")
    writer = Writer(keyboard, history, itertools.cycle(invented_messages(400)))
    # Most letters left out: they leave nothing behind that words do not.
    monkeypatch.setattr(
        Writer,
        "_type",
        lambda self, word: iter(
            [lambda: self._suggest(word[:2], None), lambda: self._commit(word)]
        ),
    )
    most: dict[str, list[int]] = {}
    for number, stroke in enumerate(itertools.islice(writer.strokes(), 2000)):
        stroke()
        session, counts = writer.session, history._counts
        own = session._own._touches if session._own else None
        assert session._sights is not None
        held = {
            "memories": len(session._trail._kept),
            "words not settled": len(session._sights._sights),
            "words": len(list(counts.written())),
            "pairs": len(list(counts.pairs())),
            "own words by touch": len(own.words) if own else 0,
            "open messages": len(history._messages),
            "file lines": (tmp_path / "personal.tsv").read_bytes().count(b"\n") if number > 900 else 0,
        }  # fmt: skip
        for name, value in held.items():
            halves = most.setdefault(name, [0, 0])
            halves[number >= 1000] = max(halves[number >= 1000], value)
    bounds = {
        "memories": 40 + 20, "words not settled": 40 + sessions._SETTLED_AT_ONCE, "words": 60 * 3, "pairs": 50,
        "own words by touch": 60, "open messages": 1, "file lines": 1 + 60 * 3 + 50,
    }  # fmt: skip
    assert {name for name, halves in most.items() if max(halves) > bounds[name]} == set()
    assert most["words"][1] >= 60 and most["pairs"] == [50, 50] and most["memories"][0] > 50
    assert most["own words by touch"][1] > 10


@linux
def test_figures_are_of_ten_tenths(bundle_path: Path) -> None:
    told: list[int] = []
    figures = measure_day(bundle_path, sentences(), keystrokes=205, advance=told.append)
    assert told == sorted(told) and told[-1] == 205 == figures["keystrokes"]
    by_tenth = {name: value for name, value in figures.items() if isinstance(value, list)}
    assert {len(values) for values in by_tenth.values()} == {10}
    resident = by_tenth["resident_bytes"]
    assert all(10 * 2**20 < size < 150 * 2**20 for size in resident)
    assert resident[0] % os.sysconf("SC_PAGE_SIZE") == 0
    assert figures["sent"] == 0 and figures["send_cpu_p50_ms"] == [None] * 10
    assert figures["growth_bytes"] == resident[9] - resident[0]
    assert figures["second_half_growth_bytes"] == resident[9] - resident[4]
    for mean, p99, most in zip(
        *(by_tenth[f"steps_{kind}"] for kind in ("mean", "p99", "max")), strict=True
    ):
        assert 0 < mean <= p99 <= most


@linux
def test_steps_are_those_the_model_made(bundle_path: Path) -> None:
    figures = measure_day(bundle_path, sentences(), keystrokes=100)
    keyboard = Keyboard.open(bundle_path)
    writer, made = Writer(keyboard, PersonalHistory(), itertools.cycle(sentences())), list[int]()
    step = keyboard.decoder.step

    def counted(token, state):  # type: ignore[no-untyped-def]
        made[-1] += 1
        return step(token, state)

    keyboard.decoder.step = counted  # type: ignore[method-assign]
    for stroke in itertools.islice(writer.strokes(), 100):
        made.append(0)
        stroke()
    assert figures["steps_max"] == np.reshape(made, (10, 10)).max(axis=1).tolist()
    assert figures["steps_mean"] == np.reshape(made, (10, 10)).mean(axis=1).round(3).tolist()


@linux
def test_bad_arguments_and_bundles_are_refused(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^manifest\.json: missing"):
        measure_day(tmp_path, sentences())
    with pytest.raises(ValueError, match="keystrokes 9 must be >= 10, threads 0 >= 1"):
        measure_day(bundle_path, sentences(), keystrokes=9, threads=0)
    with pytest.raises(ValueError, match="nothing to type"):
        measure_day(bundle_path, ["", " "])


@linux
@pytest.mark.slow
def test_memory_and_work_stay_the_same_all_day(bundle_path: Path) -> None:
    from synthetic_text.llm_chats import load_llm_chats

    figures = measure_day(bundle_path, [message.text for message in load_llm_chats()])
    print(figures)
    # What may grow is a history on its way to its 5,000 words, of which it takes a megabyte.
    assert figures["second_half_growth_bytes"] < 2**20 and figures["growth_bytes"] < 3 * 2**20
    assert figures["steps_p99"][-1] <= figures["steps_p99"][0] + 1
    assert figures["own_words"][-1] > 500

"""A day of typing in one session that is never reset: memory stays flat, and a keystroke costs what it cost."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from device_runtime.keyboard import Keyboard
from device_runtime.personal import PersonalHistory
from device_runtime.trail import _ANCHORS, RECENT
from tests.device_runtime.tiny_model import sentences

KEYSTROKES = 200_000


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def type_a_day(
    keyboard: Keyboard, history: PersonalHistory | None, texts: list[str], keystrokes: int
) -> tuple[np.ndarray, np.ndarray, list[int], int]:
    """Types words of `texts`, suggesting at every keystroke and correcting at every blank; deletes some words.

    Returns:
        Milliseconds and model steps of each keystroke, resident bytes after each tenth, states kept at the end.
    """
    random, session = np.random.default_rng(11), keyboard.session(history)
    steps = 0
    step = keyboard.decoder.step

    def counted(token, state):  # type: ignore[no-untyped-def]
        nonlocal steps
        steps += 1
        return step(token, state)

    keyboard.decoder.step = counted  # type: ignore[method-assign]
    # Written to now, so that they do not count as growth later.
    times_ms, made, resident = np.full(keystrokes, -1.0), np.full(keystrokes, -1), list[int]()
    text = ""
    words = [word for message in texts for word in message.split()]
    done = at = 0
    try:
        while done < keystrokes:
            word = words[at % len(words)]
            at += 1
            strokes = [*(word[:n] for n in range(1, len(word) + 1)), " "]
            if random.random() < 0.05:
                strokes.append("<")
            for stroke in strokes[: keystrokes - done]:
                steps, start = 0, time.perf_counter()
                if stroke == " ":
                    put_in = session.autocorrect(word)
                    session.commit(put_in)
                    text += put_in + " "
                    session.suggest()
                elif stroke == "<":
                    text = text.rstrip().rpartition(" ")[0] + " "
                    session.set_context(text)
                    session.suggest()
                else:
                    session.suggest(stroke)
                times_ms[done], made[done] = 1e3 * (time.perf_counter() - start), steps
                done += 1
                if done % (keystrokes // 10) == 0:
                    resident.append(resident_bytes())
    finally:
        keyboard.decoder.step = step  # type: ignore[method-assign]
    return times_ms, made, resident, len(session._trail._kept)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_work_stay_the_same_all_day(bundle_path: Path, tmp_path: Path) -> None:
    keyboard = Keyboard.open(bundle_path)
    history = PersonalHistory(tmp_path / "personal.tsv")
    times_ms, steps, resident, kept = type_a_day(keyboard, history, sentences(), KEYSTROKES)
    tenth = KEYSTROKES // 10
    first, last = times_ms[:tenth], times_ms[-tenth:]
    print(f"resident MB after each tenth: {[round(b / 2**20, 1) for b in resident]}")
    print(f"p50 ms {np.median(first):.2f} -> {np.median(last):.2f}")
    print(f"p99 ms {np.percentile(first, 99):.2f} -> {np.percentile(last, 99):.2f}")
    assert kept <= RECENT + _ANCHORS
    assert resident[-1] - resident[0] < 8 * 2**20
    assert np.percentile(steps[-tenth:], 99) <= np.percentile(steps[:tenth], 99) + 1
    assert steps.max() <= 100

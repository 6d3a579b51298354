"""A day of typing in one session: whether memory stays flat and a keystroke costs what it cost in the morning.

A person types messages with simulated thumbs, takes suggestions, deletes, goes back into the text and sends. The words
are learnt. Half of the messages are one long note, five hundred at a time, so that all that a session may keep is kept
early; the others are sent one by one.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from device_runtime.bundle import open_bundle
from device_runtime.keyboard import Keyboard
from device_runtime.latency import child_environment, describe_board, simulate_touches
from device_runtime.personal import PersonalHistory
from device_runtime.tokenizer import is_one_word
from device_runtime.words import normalize

KEYSTROKES = 200_000

_TENTHS = 10
_NOTE = 500  # messages of a long note, and then as many that are sent
# Shares, chosen: of words that are taken from the list once they are in it, letter by letter; of letters deleted and
# typed again; of words after which the last one is deleted, and after which the caret goes back a
# little and comes again.
_TAKEN, _RETYPED, _DELETED, _MOVED = 0.3, 0.02, 0.03, 0.02
_BACK = 200  # characters, at most
_PART = re.compile(r"[\w'’]+|[^\w\s]+")  # a word, or marks


def measure_day(
    bundle_path: Path,
    messages: Sequence[str],
    keystrokes: int = KEYSTROKES,
    threads: int = 1,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Types on the bundle in folder `bundle_path`, in a process of its own, and measures it tenth by tenth.

    Args:
        bundle_path: the bundle's folder.
        messages: what is typed, again and again; never logged.
        keystrokes: how many, >= 10.
        threads: of the interpreter, >= 1.
        advance: told the number of keystrokes done, now and then.

    Returns:
        JSON values; lists have one number a tenth:
          resident_bytes: memory at its end;
          keystroke_p50_ms, keystroke_p99_ms: time that a keystroke took;
          cpu_p50_ms, cpu_p99_ms: of it on a processor, which other programs add little to;
          steps_mean, steps_p99, steps_max: model steps of a keystroke;
          send_cpu_p50_ms: on a processor, of sending a message, which is none of these keystrokes: what stands in it is
            learnt and written; None where none was sent;
          own_words: words learnt at its end;
        and `growth_bytes`, `second_half_growth_bytes`: of resident memory from the end of the first, and of the fifth
        tenth to that of the last; `keystrokes`, `sent` (messages) and `environment`.

    Raises:
        BundleError: the bundle cannot be used.
        ValueError: an argument is out of range, or this system has no /proc to read memory from.
        RuntimeError: the measuring process failed.
    """
    if keystrokes < _TENTHS or threads < 1:
        raise ValueError(f"keystrokes {keystrokes} must be >= {_TENTHS}, threads {threads} >= 1")
    if not any(_PART.search(message) for message in messages):
        raise ValueError("there is nothing to type: the messages hold no word")
    if not Path("/proc/self/statm").exists():
        raise ValueError("a day is measured on Linux only: memory is read from /proc")
    open_bundle(bundle_path)
    command = [sys.executable, "-m", "device_runtime.typing_day", str(bundle_path)]
    tenths: list[Mapping[str, Any]] = []
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as typed,
        tempfile.TemporaryDirectory() as folder,
    ):
        typed.writelines(json.dumps(message) + "\n" for message in messages)
        typed.seek(0)
        with subprocess.Popen(
            [*command, folder, str(keystrokes), str(threads)],
            stdin=typed,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                advance(told["done"])
                if "resident_bytes" in told:
                    tenths.append(told)
    if process.returncode != 0 or len(tenths) != _TENTHS:
        raise RuntimeError(f"the measuring process failed with exit code {process.returncode}")
    figures: dict[str, Any] = {
        name: [tenth[name] for tenth in tenths]
        for name in tenths[0]
        if name not in ("done", "sent")
    }
    resident = figures["resident_bytes"]
    return figures | {
        "growth_bytes": resident[-1] - resident[0],
        "second_half_growth_bytes": resident[-1] - resident[_TENTHS // 2 - 1],
        "keystrokes": keystrokes,
        "sent": tenths[-1]["sent"],
        "environment": describe_board() | {"threads": threads},
    }


class Writer:
    """A person at a session; the same for the same messages and seed.

    Args:
        keyboard: what is typed on.
        history: learns; None for no one.
        messages: what is typed, without end.
        seed: of thumbs and decisions.

    Attributes:
        session: what is typed in.
        sent: messages sent so far.
    """

    def __init__(
        self,
        keyboard: Keyboard,
        history: PersonalHistory | None,
        messages: Iterator[str],
        seed: int = 0,
    ) -> None:
        self.session = keyboard.session(history)
        self.sent = 0
        self._layout = keyboard.layout
        self._messages = messages
        self._random = np.random.default_rng(seed)
        self._text = ""  # before the caret
        self._shown: list[str] = []
        self._put_in = ""

    def strokes(self) -> Iterator[Callable[[], None]]:
        """What each keystroke does, without end; each is to be called before the next one is asked for."""
        for number, message in enumerate(self._messages):
            for word in _PART.findall(message):
                before = self._text
                yield from self._type(word)
                chance = self._random.random()
                if chance < _DELETED:
                    yield partial(self._move, before)
                    yield from self._type(word)
                elif chance < _DELETED + _MOVED:
                    whole = self._text
                    back = int(self._random.integers(1, _BACK))
                    yield partial(self._move, whole[:-back])
                    yield partial(self._move, whole)
            if number % (2 * _NOTE) >= _NOTE - 1:
                yield self._send

    def _type(self, word: str) -> Iterator[Callable[[], None]]:
        before = self._text
        typed, touches = simulate_touches(self._layout, word, self._random)
        if is_one_word(normalize(word)):
            takes = self._random.random() < _TAKEN
            for end in range(1, len(typed) + 1):
                yield partial(self._suggest, typed[:end], touches[:end])
                if takes and word in self._shown:
                    yield partial(self._commit, word)
                    return
                if self._random.random() < _RETYPED:
                    yield partial(self._suggest, typed[: end - 1], touches[: end - 1])
                    yield partial(self._suggest, typed[:end], touches[:end])
        yield partial(self._end_word, typed, touches)
        if normalize(self._put_in) != normalize(word):  # not what was meant: once more, with care
            yield partial(self._move, before)
            for end in range(1, len(word) + 1):
                yield partial(self._suggest, word[:end], None)
            yield partial(self._commit, word)

    def _suggest(self, typed: str, touches: list[tuple[float, float] | None] | None) -> None:
        self._shown = [shown.text for shown in self.session.suggest(typed, touches_mm=touches)]

    def _end_word(self, typed: str, touches: list[tuple[float, float] | None]) -> None:
        self._put_in = self.session.autocorrect(typed, touches)
        self._commit(self._put_in)

    def _commit(self, word: str) -> None:
        self.session.commit(word)
        self._text += word + " "
        self._suggest("", None)

    def _move(self, text: str) -> None:
        """The caret is behind `text`: it was moved there, or what followed was deleted."""
        self._text = text
        self.session.set_context(text)
        self._suggest("", None)

    def _send(self) -> None:
        self.session.reset()
        self._text = ""
        self.sent += 1
        self._suggest("", None)


def _read_again_and_again(file: TextIO) -> Iterator[str]:
    """Messages of a file, a JSON string a line; none is held, so that their memory is not taken for the keyboard's."""
    while True:
        file.seek(0)
        yield from map(json.loads, file)


def _measure(keyboard: Keyboard, folder: str, messages: Iterator[str], keystrokes: int) -> None:
    """Prints a line a hundredth, and the figures of each tenth."""
    history = PersonalHistory(Path(folder) / "personal.tsv")
    writer, decoder = Writer(keyboard, history, messages), keyboard.decoder
    strokes = writer.strokes()
    ends = [keystrokes * tenth // _TENTHS for tenth in range(_TENTHS + 1)]
    # Milliseconds, those on a processor, steps, messages sent. Written to now, so that it is no growth later.
    costs = np.full((4, max(map(int.__sub__, ends[1:], ends))), -1.0)
    for start, end in itertools.pairwise(ends):
        for at, stroke in zip(range(end - start), strokes, strict=False):
            steps, cpu_ns, wall_ns = decoder.steps, time.process_time_ns(), time.perf_counter_ns()
            sent = writer.sent
            stroke()
            costs[:, at] = (
                (time.perf_counter_ns() - wall_ns) / 1e6,
                (time.process_time_ns() - cpu_ns) / 1e6,
                decoder.steps - steps,
                writer.sent - sent,
            )
            if (start + at + 1) % max(1, keystrokes // 100) == 0:
                _tell(done=start + at + 1)
        this = costs[:, : end - start]
        wall, cpu, made, _ = this[:, this[3] == 0]
        send = this[1, this[3] > 0]
        _tell(
            done=end,
            resident_bytes=_resident_bytes(),
            keystroke_p50_ms=round(float(np.median(wall)), 3),
            keystroke_p99_ms=round(float(np.percentile(wall, 99)), 3),
            cpu_p50_ms=round(float(np.median(cpu)), 3),
            cpu_p99_ms=round(float(np.percentile(cpu, 99)), 3),
            steps_mean=round(float(made.mean()), 3),
            steps_p99=round(float(np.percentile(made, 99)), 3),
            steps_max=int(made.max()),
            own_words=len(history.learnt_words()),
            send_cpu_p50_ms=round(float(np.median(send)), 3) if len(send) else None,
            sent=writer.sent,
        )


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _main(bundle_path: str, folder: str, keystrokes: str, threads: str) -> None:
    keyboard = Keyboard.open(bundle_path, threads=int(threads))
    _measure(keyboard, folder, _read_again_and_again(sys.stdin), int(keystrokes))


if __name__ == "__main__":
    _main(*sys.argv[1:])

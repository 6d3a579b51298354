"""Progress of long jobs: bars with the time left on a terminal, a plain line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

import rich.console
import rich.progress

_PLAIN_EVERY_S = 10.0


class Advance(Protocol):
    """Tells how many steps are done in all, and a note to show beside them."""

    def __call__(self, done: int, note: str = "") -> None: ...


console = rich.console.Console(stderr=True, highlight=False)


@contextlib.contextmanager
def show_progress(title: str, total: int) -> Iterator[Advance]:
    """Gives `advance(done, note)`, to be called with the number of steps done out of `total`."""
    if console.is_terminal:
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
        )
        with rich.progress.Progress(*columns, console=console, transient=True) as bars:
            task = bars.add_task(title, total=total, note="")

            def move(done: int, note: str = "") -> None:
                bars.update(task, completed=done, note=note)

            yield move
        return

    started = last = time.monotonic()
    first: int | None = None

    def advance(done: int, note: str = "") -> None:
        nonlocal last, first
        first = done if first is None else first
        now = time.monotonic()
        if now - last < _PLAIN_EVERY_S or done == first:
            return
        last = now
        left = (now - started) / (done - first) * (total - done)
        say(f"{title}: {done}/{total}, {left:.0f} s left{', ' + note if note else ''}")

    yield advance


def say(line: str) -> None:
    """One plain line on standard error."""
    if console.is_terminal:
        console.print(line, markup=False)
    else:
        print(line, file=sys.stderr, flush=True)

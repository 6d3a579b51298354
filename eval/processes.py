"""Several processes score people side by side, each with a keyboard of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

K = TypeVar("K")
P = TypeVar("P")
S = TypeVar("S")
Scores = TypeVar("Scores", bound="DataclassInstance")


def score_each(
    open_keyboard: Callable[[], K],
    score: Callable[[K, P], S],
    people: Iterable[P],
    processes: int = 1,
    on_user: Callable[[int], None] | None = None,
) -> Iterator[S]:
    """What `score` says of each of `people`, in the order given, whatever the number of processes.

    Args:
        open_keyboard: called once in each process; with several it must pickle, as
            `partial(Keyboard.open, path)` does, and so must `score`.
        on_user: told the number of users finished after each of them.

    Raises:
        ValueError: processes is below 1.
        RuntimeError: a scoring process died.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}, must be at least 1")
    for number, scored in enumerate(_score(open_keyboard, score, people, processes), 1):
        yield scored
        if on_user:
            on_user(number)


def join_scores(scores: Sequence[Scores]) -> Scores:
    """What `a + b` says of all of them, for dataclasses of columns [users]; of at least one."""
    columns = zip(*map(astuple, scores), strict=True)
    return type(scores[0])(*map(np.concatenate, columns))


def exit_with_parent() -> None:
    """Waits for the end of the process that started this one, then ends this one: for a thread of a worker."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _score(
    open_keyboard: Callable[[], K], score: Callable[[K, P], S], people: Iterable[P], processes: int
) -> Iterator[S]:
    if processes == 1:
        yield from map(partial(score, open_keyboard()), people)
        return
    executor = ProcessPoolExecutor(
        max_workers=processes,
        mp_context=multiprocessing.get_context("spawn"),  # TensorFlow does not survive a fork
        initializer=_start_worker,
        initargs=(open_keyboard, score),
    )
    try:
        yield from executor.map(_score_in_worker, people)
    except BrokenProcessPool:
        raise RuntimeError(
            "a scoring process failed to start or died; see the message above, or use processes=1"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


_worker: Callable[[Any], Any]


def _start_worker(open_keyboard: Callable[[], Any], score: Callable[[Any, Any], Any]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this process
    threading.Thread(target=exit_with_parent, daemon=True).start()
    _worker = partial(score, open_keyboard())


def _score_in_worker(person: Any) -> Any:
    return _worker(person)

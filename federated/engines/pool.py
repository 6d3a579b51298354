"""Shards over supervised workers: each goes to the next free one, and a lost worker's shard is done again by any other.

Results come back in the order of the shards, whoever made them and when. A worker that is lost or late is ended before
its shard is given out again, and a result counts when it has arrived whole: no shard counts twice.
"""

import dataclasses
import heapq
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from federated.engines import Shard, Shards

_log = logging.getLogger(__name__)

_TRIES = 3
_CLOSE_PATIENCE_S = 10


class WorkerLost(Exception):
    """A worker ended, did not answer in time, or could not do its shard; the message quotes nothing of the shard."""


class Worker(Protocol):
    """What the pool needs to know of a worker."""

    def end(self) -> None:
        """Ends it for good, whatever it does at the moment; may be called twice, and by another thread."""


class Patience:
    """How long a shard may take before its worker counts as hung.

    Without a fixed limit: a minute and 30 times what the slowest shard so far took for its size, so that a shard may be
    slowed down by other work on the machine and still passes; until one has ended, 10 minutes and a hundred times what
    a phone's model takes (1e-5 s a byte, measured on one core with vocabulary 4,000 and 256 units).
    """

    def __init__(self, fixed_s: float | None) -> None:
        self._fixed_s = fixed_s
        self._slowest_s_per_byte: float | None = None

    def limit_s(self, shard_bytes: int) -> float:
        """Seconds from now."""
        if self._fixed_s is not None:
            return self._fixed_s
        if self._slowest_s_per_byte is None:
            return 600 + 1e-3 * shard_bytes
        return 60 + 30 * self._slowest_s_per_byte * shard_bytes

    def learn(self, shard_bytes: int, seconds: float) -> None:
        """Takes note of a shard that ended well."""
        self._slowest_s_per_byte = max(
            self._slowest_s_per_byte or 0.0, seconds / max(1, shard_bytes)
        )


@dataclasses.dataclass
class _Job:
    """One `map`: what is still to do, what has arrived, and what went wrong."""

    call: Callable[[Any, Shard, float], Any]
    shards: Shards
    todo: list[int]
    window: int
    results: dict[int, Any] = dataclasses.field(default_factory=dict)
    losses: dict[int, int] = dataclasses.field(default_factory=dict)
    refused: set[int] = dataclasses.field(default_factory=set)  # slots without a worker
    taken: int = 0
    error: Exception | None = None

    def offers(self, slot: int) -> bool:
        """Whether a shard may start now; what is far ahead of the results waits, so that few are held."""
        wanted = bool(self.todo) and self.error is None and slot not in self.refused
        return wanted and self.todo[0] < self.taken + self.window


class WorkerPool:
    """Workers in threads of this process, started when first needed and again when they are lost.

    Args:
        start_worker: starts one, or raises a RuntimeError that says what to do.
        workers: how many.
        shard_timeout_s: see `Patience`.
    """

    def __init__(
        self, start_worker: Callable[[], Worker], workers: int, shard_timeout_s: float | None
    ) -> None:
        self._start_worker = start_worker
        self._patience = Patience(shard_timeout_s)
        self._changed = threading.Condition()
        self._job: _Job | None = None
        self._closed = False
        self._workers: dict[int, Worker] = {}
        # A worker process dies with the thread that started it, so each thread keeps its worker until the end.
        self._threads = [
            threading.Thread(target=self._serve, args=(slot,), daemon=True)
            for slot in range(workers)
        ]

    def map(self, call: Callable[[Any, Shard, float], Any], shards: Shards) -> Iterator[Any]:
        """Results of `call(worker, shard, limit_s)` for all shards, in their order.

        A call that raises WorkerLost costs its worker and is made again with another one.

        Raises:
            RuntimeError: a shard lost several workers, or no worker could be started.
        """
        slots = len(self._threads)
        job = _Job(call, shards, list(range(len(shards))), 2 * slots)
        with self._changed:
            self._job = job
            self._changed.notify_all()
        for thread in self._threads[: len(shards)]:
            if thread.ident is None:
                thread.start()
        try:
            for index in range(len(shards)):
                with self._changed:
                    while index not in job.results and job.error is None:
                        self._changed.wait()
                    if job.error:
                        raise job.error
                    result = job.results.pop(index)
                    job.taken += 1
                    self._changed.notify_all()
                yield result
        finally:
            with self._changed:
                job.todo.clear()
                if self._job is job:
                    self._job = None

    def close(self) -> None:
        """Ends the workers and their threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            workers = list(self._workers.values())
        for worker in workers:
            worker.end()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_CLOSE_PATIENCE_S)

    def _serve(self, slot: int) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._job and self._job.offers(slot)):
                    self._changed.wait()
                if self._closed:
                    return
                job = self._job
                assert job is not None
                # A shard is taken by a worker that is there, for starting one takes long.
                index = heapq.heappop(job.todo) if slot in self._workers else None
            if index is None:
                self._start(slot, job)
            else:
                self._run(slot, job, index)

    def _start(self, slot: int, job: _Job) -> None:
        try:
            worker = self._start_worker()
        except Exception as error:
            with self._changed:
                job.refused.add(slot)
                if len(job.refused) == sum(thread.ident is not None for thread in self._threads):
                    job.error = error
                self._changed.notify_all()
            return
        with self._changed:
            self._workers[slot] = worker
            closed = self._closed
        if closed:
            worker.end()

    def _run(self, slot: int, job: _Job, index: int) -> None:
        result, lost, error = None, None, None
        try:
            shard = job.shards[index]
            size, started = sum(part.nbytes for part in shard), time.monotonic()
            result = job.call(self._workers[slot], shard, self._patience.limit_s(size))
            self._patience.learn(size, time.monotonic() - started)
        except WorkerLost as loss:
            lost = loss
            self._workers[slot].end()
        except Exception as wrong:
            error = wrong
        with self._changed:
            if lost is not None:
                del self._workers[slot]
                job.losses[index] = job.losses.get(index, 0) + 1
                if job.losses[index] == _TRIES:
                    error = RuntimeError(
                        f"a shard lost {_TRIES} workers, the last one: {lost}; the round does not count: "
                        "look for what ends workers (memory?), or raise shard_timeout_s"
                    )
                elif not self._closed:
                    _log.warning("a worker was lost (%s): its shard is done again", lost)
                    heapq.heappush(job.todo, index)
            elif error is None:
                job.results[index] = result
            job.error = job.error or error
            self._changed.notify_all()

"""The pool's promises, with workers that fail when told to: order, no shard lost or counted twice, bounded tries."""

import itertools
import logging
import threading

import numpy as np
import pytest

from federated.engines import Shard
from federated.engines.pool import Patience, WorkerLost, WorkerPool


class Worker:
    """Remembers what it is asked for and whether it was ended."""

    def __init__(self) -> None:
        self.ended = False

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def shards() -> list[Shard]:
    return [(np.full(index + 1, index, np.int32), np.ones(1, np.int32)) for index in range(12)]


def number_of(shard: Shard) -> int:
    return int(shard[0][0])


def make_pool(workers: int) -> tuple[WorkerPool, list[Worker]]:
    made: list[Worker] = []

    def start() -> Worker:
        made.append(Worker())
        return made[-1]

    return WorkerPool(start, workers, None), made


@pytest.mark.parametrize("workers", [1, 2, 5, 20])
def test_results_come_in_the_order_of_the_shards(shards, workers) -> None:
    """Though the first shard ends last of those that may run: it waits until all others at work have ended."""
    pool, made = make_pool(workers)
    done, first_may_end = [], threading.Event()

    def call(worker: Worker, shard: Shard, limit_s: float) -> int:
        if number_of(shard) == 0 and workers > 1:
            assert first_may_end.wait(60)
        done.append(number_of(shard))
        if len(done) == min(2 * workers, len(shards)) - 1:
            first_may_end.set()
        return number_of(shard)

    assert list(pool.map(call, shards)) == list(range(12))
    assert sorted(done) == list(range(12)) and (workers == 1 or done[0] != 0)
    assert list(pool.map(call, shards[:1])) == [0]
    assert len(made) <= min(workers, 12)
    pool.close()
    assert all(worker.ended for worker in made)


def test_few_results_are_held_for_a_slow_shard(shards) -> None:
    pool, _ = make_pool(3)
    started, gate = set(), threading.Event()

    def call(worker: Worker, shard: Shard, limit_s: float) -> int:
        started.add(number_of(shard))
        if number_of(shard) == 0:
            gate.wait(1)
        return number_of(shard)

    results = pool.map(call, shards)
    threading.Timer(0.5, lambda: (early.update(started), gate.set())).start()
    early: set[int] = set()
    assert list(results) == list(range(12))
    assert early <= set(range(6))
    pool.close()


def test_a_lost_shard_is_done_again_and_counts_once(shards, caplog) -> None:
    """Each shard's first worker is lost, after it has done its work."""
    pool, made = make_pool(3)
    tries: list[int] = []

    def call(worker: Worker, shard: Shard, limit_s: float) -> int:
        assert not worker.ended
        tries.append(number_of(shard))
        if tries.count(number_of(shard)) == 1:
            raise WorkerLost("gone")
        return number_of(shard)

    with caplog.at_level(logging.WARNING):
        assert list(pool.map(call, shards)) == list(range(12))
    assert sorted(tries) == sorted([*range(12), *range(12)])
    assert sum(worker.ended for worker in made) == 12 and 12 < len(made) <= 15
    assert caplog.messages == ["a worker was lost (gone): its shard is done again"] * 12
    pool.close()


def test_a_shard_that_costs_three_workers_is_one_clear_error(shards) -> None:
    pool, _ = make_pool(2)
    tries: list[int] = []

    def call(worker: Worker, shard: Shard, limit_s: float) -> int:
        tries.append(number_of(shard))
        if number_of(shard) == 4:
            raise WorkerLost("worker, CODE")
        return number_of(shard)

    with pytest.raises(
        RuntimeError, match=r"lost 3 workers, the last one: worker, CODE; .* not count"
    ):
        list(pool.map(call, shards))
    assert tries.count(4) == 3
    assert list(pool.map(call, shards[:4])) == [0, 1, 2, 3]  # the pool is as good as before
    pool.close()


def test_another_error_is_not_tried_again(shards) -> None:
    pool, _ = make_pool(2)
    tries: list[int] = []

    def call(worker: Worker, shard: Shard, limit_s: float) -> int:
        tries.append(number_of(shard))
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"):
        list(pool.map(call, shards))
    assert tries.count(0) == 1
    pool.close()


@pytest.mark.parametrize("good", [0, 1])
def test_those_that_start_do_the_work_of_those_that_do_not(shards, good) -> None:
    attempts = itertools.count()

    def start() -> Worker:
        if next(attempts) < good:
            return Worker()
        raise RuntimeError("no machine for a worker")

    pool = WorkerPool(start, 3, None)
    results = pool.map(lambda worker, shard, limit_s: number_of(shard), shards)
    if good:
        assert list(results) == list(range(12))
    else:
        with pytest.raises(RuntimeError, match="no machine"):
            list(results)
    pool.close()


def test_patience_lets_slow_shards_pass_and_hung_ones_not() -> None:
    patience = Patience(None)
    assert patience.limit_s(2**20) > 1_600  # nothing is known yet
    patience.learn(1_000, 2.0)
    patience.learn(2_000, 1.0)
    assert patience.limit_s(1_000) == pytest.approx(60 + 30 * 2)
    assert patience.limit_s(10_000) == pytest.approx(60 + 30 * 20)
    fixed = Patience(7.5)
    fixed.learn(1_000, 100.0)
    assert fixed.limit_s(10**9) == 7.5

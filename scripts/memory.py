"""`keyfed bench memory`: what a round of many devices needs more than one of few, and what many rounds leave behind.

Resident memory is that of this process and all that it has started; what they share counts for each of them. The
network is small and the devices' data is not, so that held data would show.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from federated.config import FederatedConfig
from federated.engines import create_engine
from federated.local_training import LocalTraining
from federated.population import DeviceStore
from federated.training import FederatedTraining
from model.network import NetworkShape, initial_weights

_SHAPE = NetworkShape(vocabulary=200, embedding=8, units=8)
_ROW_TOKENS, _BATCH_ROWS, _MAX_BATCHES = 12, 16, 8
_LARGE_EVERY = 50  # one device in so many has all its batches, the others one row: shards are padded to the largest
_WARM_UP_ROUNDS = 50
_SAMPLE_S = 0.05


def resident_bytes(process: int) -> int:
    """Resident memory of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
            number = int(facts["Pid"])
            children.setdefault(int(facts["PPid"]), []).append(number)
            sizes[number] = 1024 * int(facts.get("VmRSS", "0").split()[0])
    total, left = 0, [process]
    while left:
        number = left.pop()
        total += sizes.get(number, 0)
        left += children.get(number, [])
    return total


@contextlib.contextmanager
def watch_peak() -> Iterator[list[int]]:
    """The largest `resident_bytes` while it is open, as the list's one value."""
    peak = [resident_bytes(os.getpid())]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_S):
            peak[0] = max(peak[0], resident_bytes(os.getpid()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def measure_memory(engine_name: str, workers: int, devices: int, rounds: int) -> dict[str, Any]:
    """Figures of `keyfed bench memory`: peaks of a round of 100 devices and one of `devices`, growth over `rounds`.

    Growth is from round 50 on; before that libraries settle.
    """
    store = _build_store(devices)
    weights = initial_weights(_SHAPE, 1)
    engine = create_engine(engine_name, LocalTraining(0.5, 0.3), workers)
    try:

        def start(cohort: int) -> FederatedTraining:
            config = FederatedConfig(
                rounds=rounds,
                cohort=cohort,
                min_separation=1,
                batch_rows=_BATCH_ROWS,
                row_tokens=_ROW_TOKENS,
                max_batches=_MAX_BATCHES,
                local_learning_rate=0.5,
                clip_norm=0.3,
                noise_multiplier=1.0,
            )
            return FederatedTraining(weights, store, engine, config, seed=1)

        few, many = start(100), start(devices)
        for _ in range(3):
            few.run_round()
        with watch_peak() as few_peak:
            few.run_round()
        with watch_peak() as many_peak:
            many.run_round()
        figures: dict[str, Any] = {
            "devices": devices,
            "round_of_100_peak_bytes": few_peak[0],
            "round_of_all_peak_bytes": many_peak[0],
            "more_bytes": many_peak[0] - few_peak[0],
        }
        del many
        run = start(20)
        for _ in range(_WARM_UP_ROUNDS):
            run.run_round()
        before = resident_bytes(os.getpid())
        while run.round < rounds:
            run.run_round()
        after = resident_bytes(os.getpid())
        return figures | {
            "rounds": rounds,
            "resident_before_bytes": before,
            "resident_after_bytes": after,
            "growth": after / before - 1,
        }
    finally:
        engine.close()


def _build_store(devices: int) -> DeviceStore:
    random = np.random.default_rng(1)
    sizes = np.ones(devices, np.int64)
    sizes[::_LARGE_EVERY] = _BATCH_ROWS * _MAX_BATCHES
    shape = (int(sizes.sum()), 2, _ROW_TOKENS)
    rows = random.integers(4, _SHAPE.vocabulary, shape, dtype=np.int32)
    return DeviceStore(rows, np.concatenate([[0], np.cumsum(sizes)]))

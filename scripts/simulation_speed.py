"""Speed of simulated rounds, ours and others', measured in turns on one machine: `keyfed bench simulate`."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.progress import show_progress
from scripts.simulation_contestants import CONTESTANTS, Workload

_ROOT = Path(__file__).resolve().parent.parent
_LEAST_TURN_S = 1.0  # CPU times of child processes come in steps of 10 ms
_WARM_UP_TURNS = 2


class Turn(NamedTuple):
    """Seconds of one round."""

    wall_s: float
    cpu_s: float


class Contestant:
    """A process that trains when it is told to."""

    def __init__(self, name: str, process: subprocess.Popen) -> None:
        self._name, self._process = name, process

    def run(self, devices: int, least_s: float = _LEAST_TURN_S) -> Turn:
        """Seconds of a round of so many devices, on average over rounds of at least `least_s` together.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([devices, least_s]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"bench simulate: {self._name} ended ({self._process.wait()})")
        return Turn(*json.loads(answer))


@contextlib.contextmanager
def start_contestant(name: str, workload: Workload) -> Iterator[Contestant]:
    """One of CONTESTANTS in a process of its own, which ends with the block and takes along what it started."""
    # threads are the contestants' own choice
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_NUM_", "OMP_"))}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2"}
    with subprocess.Popen(
        [
            sys.executable,
            *("-m", "scripts.simulation_contestants"),
            name,
            json.dumps(dataclasses.asdict(workload)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env=environment,
    ) as process:
        yield Contestant(name, process)


def measure_simulation(
    workload: Workload, repeats: int, cohorts: Sequence[int]
) -> dict[str, float | dict[str, float]]:
    """Figures of a race, see `summarise`.

    Args:
        workload: what a round is.
        repeats: turns of each contestant, >= 1.
        cohorts: numbers of devices to measure the cost of a device at.
    """
    names = [
        name for name in CONTESTANTS if name != "keyfed_ray" or importlib.util.find_spec("ray")
    ]
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    costs: dict[int, list[Turn]] = {cohort: [] for cohort in cohorts}
    total = len(names) + repeats * (len(names) + len(cohorts))
    with contextlib.ExitStack() as stack, show_progress("simulate", total) as advance:
        done = 0

        def tell(note: str) -> None:
            nonlocal done
            done += 1
            advance(done, note)

        contestants = {
            name: stack.enter_context(start_contestant(name, workload)) for name in names
        }
        for name in names:
            for _ in range(_WARM_UP_TURNS):
                contestants[name].run(workload.devices, 0)
            tell(f"{name} is warm")
        for _ in range(repeats):
            for name in names:
                turns[name].append(contestants[name].run(workload.devices))
                tell(name)
            for cohort in cohorts:
                costs[cohort].append(contestants["keyfed"].run(cohort))
                tell(f"{cohort:,} devices")
    return summarise(turns, costs)


def summarise(
    turns: Mapping[str, Sequence[Turn]], costs: Mapping[int, Sequence[Turn]]
) -> dict[str, float | dict[str, float]]:
    """Median seconds a round; ratios are medians over repeats of the ratio within one, so a slow minute falls on both.

    Args:
        turns: of each contestant, one a repeat.
        costs: turns of `keyfed` by number of devices.
    """

    def median(name: str, field: str) -> float:
        return statistics.median(getattr(turn, field) for turn in turns[name])

    def ratio(name: str, over: str, field: str) -> float:
        pairs = zip(turns[name], turns[over], strict=True)
        return statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)

    figures: dict[str, Any] = {}
    for field in Turn._fields:
        unit = "" if field == "wall_s" else "_cpu"
        figures |= {f"{name}{unit}_s_per_round": median(name, field) for name in turns}
        figures |= {
            f"ratio_{name}{unit}": ratio(name, "keyfed", field)
            for name in ("stock_tff", "stock_tff_same_network", "plain_loop")
        }
    figures["two_workers_speedup"] = ratio("keyfed_one_worker", "keyfed", "wall_s")
    figures["matmul_peak_share"] = ratio("matmul_peak", "keyfed", "cpu_s")
    figures["matmul_peak_share_local"] = ratio("matmul_peak", "keyfed_local", "cpu_s")
    for field in Turn._fields:
        figures[f"device_{field}"] = {
            str(cohort): statistics.median(getattr(turn, field) for turn in own) / cohort
            for cohort, own in costs.items()
        }
    return figures

"""Killed workers, killed runs: what comes out is what comes out undisturbed, and nothing is left behind.

A few kills in each run of the tests; `pytest -m slow tests/federated/test_engines_faults.py` makes 20 more.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from federated.engines import Engine
from federated.engines.ray import RayEngine
from federated.engines.tff import TffEngine
from tests.federated.processes import (
    assert_all_end,
    find_process,
    is_running,
    list_descendants,
)
from tests.federated.tiny_run import ROUNDS, TRAINING, run_tiny

ROOT = Path(__file__).parents[2]


def worker_ids(engine: Engine) -> list[int]:
    """Process ids of an engine's workers."""
    assert isinstance(engine, TffEngine | RayEngine)
    return [
        worker.process.pid if isinstance(engine, TffEngine) else worker.process_id
        for worker in list(engine._pool._workers.values())
    ]


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Weights, momentum, noise, history and the hash of the ledger: all of it, bit for bit."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(actual[name], array), name


@pytest.fixture(scope="module", params=["tff", "ray"])
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def engine(name, request) -> Engine:
    return request.getfixturevalue(f"{name}_engine")


@pytest.fixture(scope="module")
def undisturbed(engine, tmp_path_factory) -> dict[str, np.ndarray]:
    return run_tiny(engine, tmp_path_factory.mktemp("undisturbed") / "checkpoint.npz")


@pytest.fixture(scope="module")
def undisturbed_ray(ray_engine, tmp_path_factory) -> dict[str, np.ndarray]:
    return run_tiny(ray_engine, tmp_path_factory.mktemp("undisturbed") / "checkpoint.npz")


def kill_workers(engine: Engine, checkpoint: Path, seed: int, kills: int) -> dict[str, np.ndarray]:
    """The run with workers killed at random moments, one a round at the most."""
    chance = random.Random(seed)
    rounds = sorted(chance.sample(range(1, ROUNDS - 1), kills))
    killers: list[threading.Timer] = []
    killed: set[int] = set()

    def kill_one() -> None:
        # a killed worker may still be listed; whoever finishes the round is not among the killed
        while not (living := [worker for worker in worker_ids(engine) if worker not in killed]):
            time.sleep(0.01)
        victim = chance.choice(living)
        killed.add(victim)
        os.kill(victim, signal.SIGKILL)

    def after_round(done: int) -> None:
        for killer in killers:
            killer.join()
        if done in rounds:
            killers.append(threading.Timer(chance.uniform(0, 0.1), kill_one))
            killers[-1].start()

    arrays = run_tiny(engine, checkpoint, after_round)
    assert len(killed) == kills
    return arrays


def kill_run(name: str, checkpoint: Path, seed: int, kills: int) -> None:
    """The run as a process of its own, killed at random moments and started again with other numbers of workers."""
    chance = random.Random(seed)
    last = 0
    for kill in range(kills + 1):
        workers = 3 - 2 * (kill % 2)
        command = [sys.executable, "-m", "tests.federated.tiny_run", name, str(workers)]
        with subprocess.Popen(
            [*command, str(checkpoint)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            if kill < kills:
                victim_round = min(last + chance.randint(1, 3), ROUNDS - 1)
                for line in process.stdout:
                    last = int(line.split()[1])
                    if last >= victim_round:
                        break
                time.sleep(chance.uniform(0, 0.1))
                started = list_descendants(process.pid)
                assert started
                process.kill()
                process.wait()
                assert_all_end(started)
            else:
                started = set()
                for _ in process.stdout:
                    started |= list_descendants(process.pid)
                assert process.wait() == 0
                assert_all_end(started)


def test_killed_workers_change_nothing(engine, undisturbed, tmp_path) -> None:
    kills = {"TffEngine": 4, "RayEngine": 2}[type(engine).__name__]
    assert_same(kill_workers(engine, tmp_path / "checkpoint.npz", 1, kills), undisturbed)


def test_a_killed_run_goes_on_to_the_same_end(name, undisturbed, tmp_path) -> None:
    kill_run(name, tmp_path / "checkpoint.npz", 2, 1)
    with np.load(tmp_path / "checkpoint.npz") as arrays:
        assert_same(dict(arrays), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_ten_more_kills(name, engine, undisturbed, tmp_path, seed) -> None:
    """For each engine three workers and two runs, with two seeds."""
    arrays = kill_workers(engine, tmp_path / "workers.npz", 10 + seed, 3)
    assert_same(arrays, undisturbed)
    kill_run(name, tmp_path / "run.npz", 20 + seed, 2)
    with np.load(tmp_path / "run.npz") as run_arrays:
        assert_same(dict(run_arrays), undisturbed)


def test_a_hung_worker_is_replaced(engine, undisturbed, tmp_path) -> None:
    """Stopped, it neither answers nor ends. Only it meets the short limit: what replaces it may start slowly."""
    patience = engine._pool._patience
    hung: list[int] = []

    def give_back_time() -> None:
        stopped = find_process(hung[0])
        while is_running(stopped):
            time.sleep(0.05)
        patience._fixed_s = None

    def after_round(done: int) -> None:
        if done == 3:
            hung.append(worker_ids(engine)[0])
            os.kill(hung[0], signal.SIGSTOP)
            patience._fixed_s = 5
            threading.Thread(target=give_back_time).start()

    arrays = run_tiny(engine, tmp_path / "checkpoint.npz", after_round)
    assert_same(arrays, undisturbed)
    assert hung[0] not in worker_ids(engine)


_CLUSTER = """
import os, secrets, sys
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "TF_CPP_MIN_LOG_LEVEL": "2"}
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
from ray.cluster_utils import Cluster

from federated.engines import create_engine
from tests.federated.tiny_run import TRAINING, run_tiny

sizes = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=sizes)
second = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
engine = create_engine("ray", TRAINING, 2, address=cluster.address)

def after_round(done):
    if done == 4:
        print(len(engine._pool._workers), flush=True)
        cluster.remove_node(second, allow_graceful=False)

run_tiny(engine, Path(sys.argv[1]), after_round)
print(len(engine._pool._workers), flush=True)
engine.close()
cluster.shutdown()
"""


def test_a_run_that_joined_a_cluster_goes_on_when_a_node_is_lost(
    ray_engine, undisturbed_ray, tmp_path
) -> None:
    """Two nodes with a worker each; then one, whose worker does it all."""
    command = [sys.executable, "-c", _CLUSTER, str(tmp_path / "checkpoint.npz")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["2", "1"]
    with np.load(tmp_path / "checkpoint.npz") as arrays:
        assert_same(dict(arrays), undisturbed_ray)


def test_closing_ends_the_workers(tff_engine, tmp_path) -> None:
    run_tiny(tff_engine, tmp_path / "others.npz")
    engine = TffEngine(TRAINING)
    run_tiny(engine, tmp_path / "checkpoint.npz")
    workers = {find_process(number) for number in worker_ids(engine)}
    others = {find_process(number) for number in worker_ids(tff_engine)}
    assert len(workers) == 2 and all(map(is_running, workers))
    engine.close()
    assert not any(map(is_running, workers))
    assert all(map(is_running, others))

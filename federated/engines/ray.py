"""Shards on Ray: any number of machines, one resident model per worker.

A worker is an actor of one CPU that holds the reference engine, so it runs the same `train_shard`. Weights go out once
a round through Ray's object store, and to each machine once; a shard goes to the worker that trains it when it does.

Without an address, `ray_guard` starts Ray on this machine: on loopback alone, with a random token in its environment
(nothing is written into the home folder), no dashboard, no usage report, and never a shard on disk. It ends with this
process, however that ends. A cluster to join is somebody else's: it has to have a token (Ray looks for it in
RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token), keyfed on each machine, and it is left as it was found.
"""

import importlib.util
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from federated.engines import Shard, Shards, ray_guard
from federated.engines.pool import WorkerLost, WorkerPool
from federated.engines.sums import RoundSums, add_histograms, add_rounds
from federated.local_training import LocalTraining

_JOIN_TIMEOUT_S = 10
_START_ATTEMPTS = 3
_START_TIMEOUT_S = 300  # a worker imports TensorFlow, perhaps from a network disk
_OBJECT_STORE_BYTES = 256 * 2**20
_TOKEN = secrets.token_hex(32)  # Ray reads it once a process
# Ray reads these when it is imported. The second keeps its word on lost workers, which this engine has itself, off
# standard output.
_QUIET = {"GRPC_VERBOSITY": "ERROR", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}


class Trainer:
    """What a worker process holds: the reference engine on one thread."""

    def __init__(self, training: LocalTraining) -> None:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        import tensorflow as tf

        from federated.engines.local import LocalEngine

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._engine = LocalEngine(training)

    def process_id(self) -> int:
        """Of the worker, once it can work."""
        return os.getpid()

    def run_round(self, weights: Sequence[np.ndarray], shard: Shard) -> RoundSums:
        """See `Engine.run_round`."""
        return self._engine.run_round(weights, [shard])

    def sum_histograms(self, shard: Shard, buckets: int, clip_norm: float) -> np.ndarray:
        """See `Engine.sum_histograms`."""
        return self._engine.sum_histograms([shard], buckets, clip_norm)


class RayWorker:
    """A `Trainer` somewhere in the cluster.

    Attributes:
        process_id: of the worker, on its machine.
    """

    def __init__(self, training: LocalTraining) -> None:
        import ray

        self._actor: Any = ray.remote(num_cpus=1)(Trainer).remote(training)
        try:
            self.process_id = self.call("process_id", _START_TIMEOUT_S)
        except WorkerLost as error:
            self.end()
            raise RuntimeError(
                f"a Ray worker did not start ({error}): look whether the cluster has a free CPU and keyfed installed"
            ) from None

    def call(self, method: str, limit_s: float, *arguments: Any) -> Any:
        """Result of a method of the Trainer.

        Raises:
            WorkerLost: it did not answer within `limit_s`, or not well.
        """
        import ray

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=limit_s)
        except ray.exceptions.RayTaskError as error:  # quotes values, which are private
            raise WorkerLost(f"Ray's worker, {type(error.cause).__name__}") from None
        except ray.exceptions.RayError as error:
            raise WorkerLost(f"Ray's worker, {type(error).__name__}") from None

    def end(self) -> None:
        import ray

        ray.kill(self._actor)


class RayEngine:
    """A shard at a time on each of several Ray workers."""

    def __init__(
        self,
        training: LocalTraining,
        workers: int = 2,
        shard_timeout_s: float | None = None,
        address: str | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ValueError("engine ray: Ray is not installed: run ./scripts/setup fleet")
        self._guard = _start_ray(workers) if address is None else None
        if address is not None:
            _join_ray(address)
        self.noise = training.noise
        self._pool = WorkerPool(lambda: RayWorker(training), workers, shard_timeout_s)

    def run_round(self, weights: Sequence[np.ndarray], shards: Shards) -> RoundSums:
        import ray

        everywhere = ray.put(list(weights))

        def train(worker: RayWorker, shard: Shard, limit_s: float) -> RoundSums:
            return worker.call("run_round", limit_s, everywhere, shard)

        return add_rounds(weights, self._pool.map(train, shards), self.noise)

    def sum_histograms(self, shards: Shards, buckets: int, clip_norm: float) -> np.ndarray:
        def sum_shard(worker: RayWorker, shard: Shard, limit_s: float) -> np.ndarray:
            return worker.call("sum_histograms", limit_s, shard, buckets, clip_norm)

        return add_histograms(buckets, self._pool.map(sum_shard, shards))

    def close(self) -> None:
        self._pool.close()
        _stop_ray(self._guard)


def _start_ray(cpus: int) -> subprocess.Popen:
    """Starts Ray on this machine and returns the guard that ends it when its standard input does.

    Raises:
        ValueError: Ray was imported before; it has read its settings then, and knows no token.
        RuntimeError: it did not start in several attempts; Ray gives each half a minute, little on a loaded machine.
    """
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_TOKEN") != _TOKEN:
        raise ValueError(
            "engine ray: Ray was imported before the engine was made, too late for its token: make the engine first, or"
            " join a cluster by engine_address"
        )
    os.environ |= _QUIET | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's word for "one machine": all its servers then listen on 127.0.0.1 alone.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0",  # the workers are this run's work, not a guest's
    }
    import ray

    for _ in range(_START_ATTEMPTS):
        # Not in TMPDIR: the names of Ray's sockets, 107 bytes at the most, begin with it.
        folder = tempfile.mkdtemp(prefix="keyfed-ray-", dir="/tmp")
        guard = subprocess.Popen(
            # -P: beside the script lies this module, which is called like Ray's own
            [sys.executable, "-P", ray_guard.__file__, folder, str(cpus), str(_OBJECT_STORE_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, not for the guard
        )
        assert guard.stdout is not None
        if address := guard.stdout.readline().strip():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            return guard
        _stop_ray(guard)
    raise RuntimeError(f"Ray did not start in {_START_ATTEMPTS} attempts; try engine: tff")


def _stop_ray(guard: subprocess.Popen | None) -> None:
    import ray

    ray.shutdown()
    if guard is not None:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def _join_ray(address: str) -> None:
    os.environ |= _QUIET
    import ray

    try:
        if address != "auto":
            # Where nobody listens, Ray tries for minutes and then ends this process.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _JOIN_TIMEOUT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ValueError(
            f"engine_address {address!r}: no Ray cluster was joined there ({type(error).__name__}): start one with"
            " `ray start --head`, with Ray's token on each machine, and give its address as host:port"
        ) from None

"""Shards as TensorFlow Federated clients, on TFF's own C++ runtime.

TFF's worker listens on every interface without credentials and outlives a crashed parent. So it is started here, not by
TFF: it dies with this process, and `isolate_network`, called before anything else is, leaves it and this process with a
loopback interface of their own, where nobody else can reach it.
"""

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
import portpicker
import tensorflow as tf
import tensorflow_federated as tff

from federated.engines import Shard
from federated.histogram import sum_histograms
from federated.isolation import is_isolated
from federated.local_training import LocalTraining, train_shard

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_S = 120
_START_ATTEMPTS = 3
_MAX_MESSAGE_BYTES = 2_000_000_000


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start_worker() -> tuple[subprocess.Popen, grpc.Channel]:
    """TFF's worker process and a channel to it; a worker that crashes as it starts is started again, on another port.

    Raises:
        RuntimeError: several workers ended, or one did not answer in time.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    for _ in range(_START_ATTEMPTS):
        worker, channel = _launch_worker()
        while worker.poll() is None and time.monotonic() < deadline:
            try:
                grpc.channel_ready_future(channel).result(timeout=1)
                return worker, channel
            except grpc.FutureTimeoutError:
                pass
        channel.close()
        worker.kill()
        code = worker.wait()
    raise RuntimeError(f"TFF's worker did not start (exit code {code}); try engine: local")


def _launch_worker() -> tuple[subprocess.Popen, grpc.Channel]:
    port = portpicker.pick_unused_port()
    binary = Path(tff.__file__).parent / "data" / "worker_binary"
    worker = subprocess.Popen(
        [str(binary), f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2"},
        preexec_fn=_die_with_parent,
    )
    options = [
        (f"grpc.max_{kind}_length", _MAX_MESSAGE_BYTES)
        for kind in ("receive_message", "send_message")
    ]
    channel = grpc.insecure_channel(f"localhost:{port}", [*options, ("grpc.enable_http_proxy", 0)])
    return worker, channel


class TffEngine:
    """One TFF client per shard; the clients' sums meet in `tff.federated_sum`."""

    def __init__(self, training: LocalTraining) -> None:
        if not is_isolated():
            _log.warning(
                "TFF's worker listens on every interface without credentials, and this process has no network of its"
                " own: mind the firewall, or use the engine `local`"
            )
        self._training = training
        self._round: Callable | None = None
        self._worker, self._channel = _start_worker()
        stub = tff.framework.RemoteExecutorGrpcStub(self._channel)

        def create_executor(cardinalities):
            executor = tff.framework.RemoteExecutor(stub)
            executor.set_cardinalities(cardinalities)
            return executor

        self._context = tff.framework.SyncExecutionContext(
            executor_fn=tff.framework.ResourceManagingExecutorFactory(create_executor),
            compiler_fn=tff.backends.native.desugar_and_transform_to_native,
            transform_args=tff.tensorflow.transform_args,
            transform_result=tff.tensorflow.transform_result,
        )

    def run_round(
        self, weights: Sequence[np.ndarray], shards: Sequence[Shard]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        if self._round is None:
            row_shape = shards[0][0].shape[2:]
            self._round = build_round([w.shape for w in weights], row_shape, self._training)
        with tff.framework.get_context_stack().install(self._context):
            sums, metrics = self._round(list(weights), [tuple(shard) for shard in shards])
        return [np.asarray(s) for s in sums], np.asarray(metrics)

    def sum_histograms(self, shards: Sequence[Shard], buckets: int, clip_norm: float) -> np.ndarray:
        compute = build_histogram_sum(buckets, clip_norm)
        with tff.framework.get_context_stack().install(self._context):
            return np.asarray(compute([tuple(shard) for shard in shards]))

    def close(self) -> None:
        self._channel.close()
        self._worker.kill()
        self._worker.wait()


def build_round(
    weight_shapes: Sequence[tuple[int, ...]], row_shape: tuple[int, ...], training: LocalTraining
):
    """Federated computation (weights@SERVER, {shard}@CLIENTS) -> (sums@SERVER, metrics@SERVER).

    Args:
        weight_shapes: shapes of the flat list of weights.
        row_shape: (B, 2, T) of a batch.
        training: what each device does.
    """
    weights_type = tff.to_type([tff.TensorType(np.float32, shape) for shape in weight_shapes])
    shard_type = tff.to_type(
        (tff.TensorType(np.int32, [None, None, *row_shape]), tff.TensorType(np.int32, [None]))
    )

    @tff.tensorflow.computation(weights_type, shard_type)
    def run_shard(weights, shard):
        sums, metrics = train_shard(list(weights), shard[0], shard[1], training)
        return sums, tf.identity(metrics)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(shard_type, tff.CLIENTS)
    )
    def run_round(weights, shards):
        sums, metrics = tff.federated_map(run_shard, (tff.federated_broadcast(weights), shards))
        return tff.federated_sum(sums), tff.federated_sum(metrics)

    return run_round


def build_histogram_sum(buckets: int, clip_norm: float):
    """Federated computation {(features, offsets)}@CLIENTS -> sum of clipped histograms float64 [buckets]@SERVER."""
    shard_type = tff.to_type((tff.TensorType(np.int32, [None]), tff.TensorType(np.int32, [None])))

    @tff.tensorflow.computation(shard_type)
    def sum_shard(shard):
        return sum_histograms(shard[0], shard[1], buckets, clip_norm)

    @tff.federated_computation(tff.FederatedType(shard_type, tff.CLIENTS))
    def sum_all(shards):
        return tff.federated_sum(tff.federated_map(sum_shard, shards))

    return sum_all

"""Shards as TensorFlow Federated clients, on TFF's own C++ runtime: several worker processes of one thread each.

TFF's worker listens on every interface without credentials and outlives a crashed parent; when it is gone or silent,
TFF waits or tries again for ever. So it is started here, not by TFF: it dies with this process, each request to it has
a deadline and fails once, and `isolate_network`, called before anything else is, leaves it and this process with a
loopback interface of their own, where nobody else can reach it.
"""

import atexit
import collections
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "GRPC_VERBOSITY", "ERROR"
)  # read at the import; it notes each start of a worker

import grpc
import numpy as np
import portpicker
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.python.core.impl.executors import remote_executor, value_serialization

from federated.engines import Shards
from federated.engines.pool import WorkerLost, WorkerPool
from federated.engines.sums import RoundSums, add_histograms, add_rounds
from federated.histogram import sum_histograms
from federated.isolation import is_isolated
from federated.local_training import LocalTraining, train_shard
from federated.secure_aggregation import make_message

_log = logging.getLogger(__name__)

_START_TIMEOUT_S = 120
_START_ATTEMPTS = 3
_MAX_MESSAGE_BYTES = 2_000_000_000
_WEIGHTS_TYPE = tff.FederatedType(np.str_, tff.SERVER)
# Becomes the worker, and dies with the parent whose id comes first: PR_SET_PDEATHSIG, SIGKILL, which the exec keeps.
# A preexec_fn would do it in a fork of this process, and such forks crashed now and then among TensorFlow's threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@atexit.register
def _drop_default_context() -> None:
    """TFF's own context, unused here, has a destructor that complains when it runs as late as at Python's end."""
    factory = tff.framework.ResourceManagingExecutorFactory(lambda _: None)
    tff.framework.set_default_context(tff.framework.SyncExecutionContext(factory))


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
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2"}
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    worker = subprocess.Popen(
        [sys.executable, "-ISc", _LAUNCHER, str(os.getpid()), str(binary), f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **quiet, **one_thread},
    )
    options = [
        (f"grpc.max_{kind}_length", _MAX_MESSAGE_BYTES)
        for kind in ("receive_message", "send_message")
    ]
    channel = grpc.insecure_channel(f"localhost:{port}", [*options, ("grpc.enable_http_proxy", 0)])
    return worker, channel


class _Weights(bytes):
    """A round's weights, float32 one after the other, encoded for TFF once and not for each shard.

    A string, for TFF's encoding of numbers and the copies it makes take longer.
    """

    def __init__(self, _: bytes) -> None:
        self.encoded, _ = value_serialization.serialize_value(bytes(self), _WEIGHTS_TYPE)


class _Executor(tff.framework.RemoteExecutor):
    """TFF's own, but for the weights, which come encoded."""

    async def create_value(self, value, type_spec=None):
        if not isinstance(value, _Weights):
            return await super().create_value(value, type_spec)
        request = executor_pb2.CreateValueRequest(executor=self._executor_id, value=value.encoded)
        response = self._stub.create_value(request)
        return remote_executor.RemoteValue(response.value_ref, type_spec, self)


class _RequestFailed(grpc.RpcError):
    """Any failed request. It has no status code, for TFF repeats requests by theirs, and without end."""


class _CallDetails(
    collections.namedtuple(
        "_CallDetails",
        ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"),
    ),
    grpc.ClientCallDetails,
):
    pass


class _Deadline(grpc.UnaryUnaryClientInterceptor):
    """Lets a request last until a moment at the most, and fail for good."""

    def __init__(self) -> None:
        self.moment = 0.0  # of time.monotonic()

    def intercept_unary_unary(self, continuation, client_call_details, request):
        details = client_call_details
        limited = _CallDetails(
            details.method,
            max(0.0, self.moment - time.monotonic()),
            details.metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        outcome = continuation(limited, request)
        if outcome.exception() is not None:
            raise _RequestFailed(outcome.code().name)
        return outcome


class TffWorker:
    """One of TFF's worker processes, and the context that runs computations on it.

    Attributes:
        process: of the worker.
        channel: to it.
    """

    def __init__(self) -> None:
        self.process, self.channel = _start_worker()
        self._deadline = _Deadline()
        stub = tff.framework.RemoteExecutorGrpcStub(
            grpc.intercept_channel(self.channel, self._deadline)
        )

        def create_executor(cardinalities):
            executor = _Executor(stub)
            executor.set_cardinalities(cardinalities)
            return executor

        self._context = tff.framework.SyncExecutionContext(
            executor_fn=tff.framework.ResourceManagingExecutorFactory(create_executor),
            transform_args=tff.tensorflow.transform_args,
            transform_result=tff.tensorflow.transform_result,
        )

    def call(self, computation, limit_s: float, *arguments: Any) -> Any:
        """Result of a compiled computation.

        Raises:
            WorkerLost: it did not answer within `limit_s`, or not well.
        """
        self._deadline.moment = time.monotonic() + limit_s
        try:
            with tff.framework.get_context_stack().install(self._context):
                return computation(*arguments)
        except (grpc.RpcError, ValueError) as error:  # a closed channel is a ValueError
            if isinstance(error, ValueError) and self.process.poll() is None:
                raise
            raise WorkerLost(f"TFF's worker, {error}") from None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


class TffEngine:
    """A TFF client per shard, each on the next free worker process.

    With noise of the devices' own, a client per device: a worker sums a shard of them, and what comes back is added.
    """

    def __init__(
        self, training: LocalTraining, workers: int = 2, shard_timeout_s: float | None = None
    ) -> None:
        if not is_isolated():
            _log.warning(
                "TFF's worker listens on every interface without credentials, and this process has no network of its"
                " own: mind the firewall, or use the engine `local`"
            )
        self.noise = training.noise
        self._training = training
        self._rounds: dict[tuple, Any] = {}  # compiled computations by shapes
        self._pool = WorkerPool(TffWorker, workers, shard_timeout_s)

    def run_round(self, weights: Sequence[np.ndarray], shards: Shards) -> RoundSums:
        noise = self.noise
        if not len(shards):
            return add_rounds(weights, [], noise)
        shapes = tuple(w.shape for w in weights), shards[0][0].shape[2:]
        if shapes not in self._rounds:
            build = build_round if noise is None else build_secure_round
            self._rounds[shapes] = _compile(build(*shapes, self._training), noise is not None)
        computation = self._rounds[shapes]
        sent: Any = list(weights)
        if noise is None:
            sent = _Weights(b"".join(w.astype(np.float32).tobytes() for w in weights))

        def train(worker: TffWorker, shard, limit_s: float) -> RoundSums:
            clients = [shard] if noise is None else _split_devices(*shard)
            sums, metrics = worker.call(computation, limit_s, sent, clients)
            return [np.asarray(s) for s in sums], np.asarray(metrics)

        return add_rounds(weights, self._pool.map(train, shards), noise)

    def sum_histograms(self, shards: Shards, buckets: int, clip_norm: float) -> np.ndarray:
        computation = _compile(build_histogram_sum(buckets, clip_norm))

        def sum_shard(worker: TffWorker, shard, limit_s: float) -> np.ndarray:
            return np.asarray(worker.call(computation, limit_s, [shard]))

        return add_histograms(buckets, self._pool.map(sum_shard, shards))

    def close(self) -> None:
        self._pool.close()


def _compile(computation, is_secure: bool = False):
    if is_secure:
        # TFF's runtime has no cryptography, and no operator for secure sums: TFF itself replaces them by plain ones.
        computation = tff.backends.test.replace_secure_intrinsics_with_bodies(computation)
    return tff.backends.native.desugar_and_transform_to_native(computation)


def _split_devices(batches: np.ndarray, steps: np.ndarray, devices: np.ndarray) -> list[tuple]:
    """A shard of one device each."""
    return [(batches[i : i + 1], steps[i : i + 1], devices[i : i + 1]) for i in range(len(devices))]


def build_round(
    weight_shapes: Sequence[tuple[int, ...]], row_shape: tuple[int, ...], training: LocalTraining
):
    """Federated computation (weights@SERVER, {shard}@CLIENTS) -> (sums@SERVER, metrics@SERVER).

    The weights are one string, see `_Weights`.

    Args:
        weight_shapes: shapes of the flat list of weights.
        row_shape: (B, 2, T) of a batch.
        training: what each device does.
    """
    sizes = [math.prod(shape) for shape in weight_shapes]
    shard_type = tff.to_type(
        (tff.TensorType(np.int32, [None, None, *row_shape]), tff.TensorType(np.int32, [None]))
    )

    @tff.tensorflow.computation(_WEIGHTS_TYPE.member, shard_type)
    def run_shard(sent, shard):
        parts = tf.split(tf.io.decode_raw(sent, tf.float32), sizes)
        weights = [tf.reshape(w, shape) for w, shape in zip(parts, weight_shapes, strict=True)]
        sums, metrics = train_shard(weights, shard[0], shard[1], training)
        return sums, tf.identity(metrics)

    @tff.federated_computation(_WEIGHTS_TYPE, tff.FederatedType(shard_type, tff.CLIENTS))
    def run_round(weights, shards):
        sums, metrics = tff.federated_map(run_shard, (tff.federated_broadcast(weights), shards))
        return tff.federated_sum(sums), tff.federated_sum(metrics)

    return run_round


def build_secure_round(
    shapes: Sequence[tuple[int, ...]], row_shape: tuple[int, ...], training: LocalTraining
):
    """Federated computation ((weights, round key)@SERVER, {device}@CLIENTS) -> (sum modulo 2^bits, metrics)@SERVER.

    The sum is TFF's `SecureModularSumFactory`, within whatever makes secure sums secure where it runs.

    Args:
        shapes: of the flat list of weights, and of the round's key.
        row_shape: (B, 2, T) of a batch.
        training: what each device does, with `noise`.
    """
    assert training.noise is not None
    strategy = training.noise.strategy
    weights_type = tff.to_type([tff.TensorType(np.float32, shape) for shape in shapes[:-1]])
    sent_type = tff.to_type([*weights_type, tff.TensorType(np.int64, shapes[-1])])
    device_type = tff.to_type(
        (
            tff.TensorType(np.int32, [1, None, *row_shape]),
            tff.TensorType(np.int32, [1]),
            tff.TensorType(np.int64, [1]),
        )
    )
    message_type = tff.TensorType(np.int32, [strategy.dimension])
    secure_sum = tff.aggregators.SecureModularSumFactory(2**strategy.bits).create(message_type)

    @tff.tensorflow.computation(sent_type, device_type)
    def run_device(sent, device):
        *weights, round_key = sent
        batches, steps, ids = device
        message, metrics = make_message(weights, round_key, batches, steps, ids[0], training)
        return message, tf.identity(metrics)

    @tff.federated_computation(
        tff.FederatedType(sent_type, tff.SERVER), tff.FederatedType(device_type, tff.CLIENTS)
    )
    def run_round(sent, devices):
        messages, metrics = tff.federated_map(run_device, (tff.federated_broadcast(sent), devices))
        summed = secure_sum.next(secure_sum.initialize(), messages)
        return [summed.result], tff.federated_sum(metrics)

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

"""Who races in `keyfed bench simulate`: each in a process of its own, which trains as many devices as it is told to.

A line `[devices, least_s]` on standard input makes it train rounds for at least that long; it answers with a line
`[wall_s, cpu_s]` a round, child processes included. It ends, and whatever it started, when its standard input does.
"""

import atexit
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from federated.isolation import isolate_network

# Trains so many devices and returns how many rounds of them that was.
Round = Callable[[int], float]

_LEARNING_RATE, _CLIP_NORM = 0.1, 0.3
_PEAK_SIZE = 2_048


@dataclasses.dataclass(frozen=True)
class Workload:
    """A round: devices with random tokens, all rows full, and the network they train."""

    devices: int = 20
    batches: int = 3
    rows: int = 16
    tokens: int = 20
    vocabulary: int = 4_000
    embedding: int = 96
    units: int = 256

    def flops(self, devices: int) -> float:
        """Multiplications and additions of a round's matrix products: one forward, two of that size for gradients."""
        products = self.vocabulary * self.embedding + 7 * self.embedding * self.units
        return 6.0 * products * devices * self.batches * self.rows * self.tokens

    def initial_weights(self) -> list[Any]:
        """The server's weights."""
        from model.network import NetworkShape, initial_weights

        return initial_weights(NetworkShape(self.vocabulary, self.embedding, self.units), seed=1)

    def draw_devices(self, count: int) -> Any:
        """Batches int32 [count, S, B, 2, T], in which every tenth token begins a message."""
        import numpy as np

        from device_runtime.tokenizer import BOS

        random = np.random.default_rng(1)
        size = (count, self.batches, self.rows, self.tokens + 1)
        text = random.integers(BOS + 1, self.vocabulary, size, np.int32)
        read = np.where(random.random(size) < 0.1, np.int32(BOS), text)
        return np.stack([read[..., :-1], text[..., 1:]], axis=3)


def race_engine(name: str, workers: int, workload: Workload) -> Round:
    """Our own, a shard a worker. TensorFlow takes one thread a process."""
    import numpy as np
    import tensorflow as tf

    from federated.engines import create_engine
    from federated.local_training import LocalTraining

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    engine = create_engine(name, LocalTraining(_LEARNING_RATE, _CLIP_NORM), workers)
    atexit.register(engine.close)  # waits for what it started
    weights = workload.initial_weights()

    @functools.cache
    def shards(devices: int) -> list[Any]:
        parts = np.array_split(workload.draw_devices(devices), min(workers, devices))
        return [(part, np.full(len(part), workload.batches, np.int32)) for part in parts]

    def train(devices: int) -> float:
        engine.run_round(weights, shards(devices))
        return 1.0

    return train


def plain_loss(weights: Any, tokens: Any, targets: Any) -> Any:
    """Mean loss of the same network, differentiated by TensorFlow."""
    import tensorflow as tf

    from device_runtime.tokenizer import PAD
    from model.network import run_rows

    hidden = tf.reshape(run_rows(weights, tokens)[0], [-1, weights[0].shape[1]])
    targets = tf.reshape(tf.transpose(targets), [-1])
    logits = tf.nn.bias_add(tf.matmul(hidden, weights[0], transpose_b=True), weights[4])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    return tf.reduce_mean(tf.boolean_mask(losses, tf.not_equal(targets, PAD)))


def build_plain_loop(workload: Workload) -> Callable[[Any], list[Any]]:
    """Sum of the clipped updates of devices [D, S, B, 2, T]: variables, one graph a device, a Python loop over them."""
    import tensorflow as tf

    server = [tf.constant(w) for w in workload.initial_weights()]
    local = [tf.Variable(w) for w in server]

    @tf.function(
        input_signature=[
            tf.TensorSpec([workload.batches, workload.rows, 2, workload.tokens], tf.int32)
        ]
    )
    def train_device(batches):
        for variable, weight in zip(local, server, strict=True):
            variable.assign(weight)
        for rows in batches:
            with tf.GradientTape() as tape:
                loss = plain_loss(local, rows[:, 0], rows[:, 1])
            gradients = tape.gradient(loss, local)
            for variable, gradient in zip(local, gradients, strict=True):
                variable.assign_sub(_LEARNING_RATE * gradient)
        update = [variable - weight for variable, weight in zip(local, server, strict=True)]
        return tf.clip_by_global_norm(update, _CLIP_NORM)[0]

    def train(devices):
        sums = [tf.zeros_like(weight) for weight in server]
        for batches in devices:
            sums = [s + u for s, u in zip(sums, train_device(batches), strict=True)]
        return sums

    return train


def race_plain_loop(threads: int, workload: Workload) -> Round:
    """What an engineer would write without a framework."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    loop = build_plain_loop(workload)
    draw_devices = functools.cache(workload.draw_devices)

    def train(devices: int) -> float:
        loop(draw_devices(devices))
        return 1.0

    return train


def race_stock_tff(build_model: Callable[[Workload], Any], workload: Workload) -> Round:
    """TFF as its tutorials use it: a client a device, `build_unweighted_fed_avg`, its own runtime with its defaults."""
    import tensorflow as tf
    import tensorflow_federated as tff

    tff.backends.native.set_sync_local_cpp_execution_context()
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        build_model(workload),
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(_LEARNING_RATE),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    )
    state = process.initialize()

    @functools.cache
    def clients(devices: int) -> list[Any]:
        rows = workload.draw_devices(devices).reshape(devices, -1, 2, workload.tokens)
        return [
            tf.data.Dataset.from_tensor_slices((own[:, 0], own[:, 1])).batch(workload.rows)
            for own in rows
        ]

    def train(devices: int) -> float:
        process.next(state, clients(devices))
        return 1.0

    return train


def build_keras_lstm(workload: Workload) -> Callable[[], Any]:
    """Keras's LSTM of the same sizes, its projection behind it, output tied to the embedding."""
    import tensorflow as tf
    import tensorflow_federated as tff

    class TiedOutput(tf.keras.layers.Layer):
        def __init__(self, embedding):
            super().__init__()
            self.embedding = embedding
            self.bias = self.add_weight("bias", [workload.vocabulary])

        def call(self, hidden):
            return tf.tensordot(hidden, tf.transpose(self.embedding.embeddings), 1) + self.bias

    def build():
        tokens = tf.keras.Input([workload.tokens], dtype=tf.int32)
        embedding = tf.keras.layers.Embedding(workload.vocabulary, workload.embedding)
        hidden = tf.keras.layers.LSTM(workload.units, return_sequences=True)(embedding(tokens))
        hidden = tf.keras.layers.Dense(workload.embedding, use_bias=False)(hidden)
        row = tf.TensorSpec([None, workload.tokens], tf.int32)
        return tff.learning.models.from_keras_model(
            tf.keras.Model(tokens, TiedOutput(embedding)(hidden)),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            input_spec=(row, row),
        )

    return build


def build_same_network(workload: Workload) -> Any:
    """Our network, differentiated by TensorFlow, as TFF's functional model."""
    import tensorflow as tf
    import tensorflow_federated as tff

    from model.network import run_rows

    @tf.function
    def predict(model_weights, tokens, training):
        trainable, _ = model_weights
        hidden = tf.transpose(run_rows(trainable, tokens)[0], [1, 0, 2])
        return tf.tensordot(hidden, tf.transpose(trainable[0]), 1) + trainable[4]

    def mean_loss(logits, targets, sample_weight=None):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_mean(losses)

    row = tf.TensorSpec([None, workload.tokens], tf.int32)
    return tff.learning.models.FunctionalModel(
        initial_weights=(tuple(workload.initial_weights()), ()),
        predict_on_batch_fn=predict,
        loss_fn=mean_loss,
        input_spec=(row, row),
    )


def race_matmul_peak(workload: Workload) -> Round:
    """As many multiplications as a round has, in large square products on one thread."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    square = tf.random.normal([_PEAK_SIZE, _PEAK_SIZE])
    multiply = tf.function(lambda: tf.matmul(square, square))

    def train(devices: int) -> float:
        multiply()
        return 2.0 * _PEAK_SIZE**3 / workload.flops(devices)

    return train


CONTESTANTS: dict[str, Callable[[Workload], Round]] = {
    "keyfed": functools.partial(race_engine, "tff", 2),
    "keyfed_one_worker": functools.partial(race_engine, "tff", 1),
    "keyfed_local": functools.partial(race_engine, "local", 1),
    "keyfed_ray": functools.partial(race_engine, "ray", 2),
    "stock_tff": functools.partial(race_stock_tff, build_keras_lstm),
    "stock_tff_same_network": functools.partial(race_stock_tff, build_same_network),
    "plain_loop": functools.partial(race_plain_loop, 2),
    "plain_loop_one_thread": functools.partial(race_plain_loop, 1),
    "matmul_peak": race_matmul_peak,
}


def cpu_seconds() -> float:
    """CPU time so far of this process and all below it, those that ended included."""
    import psutil

    process = psutil.Process()
    below = sum(sum(child.cpu_times()[:4]) for child in process.children(recursive=True))
    return time.process_time() + sum(process.cpu_times()[2:4]) + below


def main(name: str, workload: str) -> None:
    """Serves standard input until its end."""
    isolate_network()  # before anything starts threads
    import psutil

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    train = CONTESTANTS[name](Workload(**json.loads(workload)))
    try:
        for line in sys.stdin:
            devices, least_s = json.loads(line)
            rounds, cpu, start = 0.0, cpu_seconds(), time.perf_counter()
            while rounds == 0 or time.perf_counter() - start < least_s:
                rounds += train(devices)
            seconds = [time.perf_counter() - start, cpu_seconds() - cpu]
            print(json.dumps([s / rounds for s in seconds]), file=answers, flush=True)
    finally:
        for child in psutil.Process().children(recursive=True):
            if (
                child.name() == "worker_binary"
            ):  # TFF's; it outlives its parent, and all others end with theirs
                child.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])

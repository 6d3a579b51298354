"""What one shard of devices does in a round: a TensorFlow function with the device loop inside the graph.

The same function serves every engine; an engine only decides where it runs and sums what comes back.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from device_runtime.tokenizer import PAD
from model.network import loss_sums


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """Local SGD of a device.

    Attributes:
        learning_rate: step size, > 0.
        clip_norm: L2 bound on a device's whole update, > 0.
    """

    learning_rate: float
    clip_norm: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise ValueError(f"local training: {field.name} is {value}, give a positive number")


# Metrics of a shard, float32 in this order; they are sums, so shards add up.
METRICS = ("devices", "pieces", "loss", "clipped", "zeroed", "update_norm")


def train_shard(
    weights: Sequence[tf.Tensor], batches: tf.Tensor, steps: tf.Tensor, training: LocalTraining
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Sum of the clipped updates of a shard's devices, one local epoch of SGD each.

    An update with a NaN or an infinity in it counts as zero (`zeroed`), so one broken device cannot spoil the sum, and
    its weight in the average stays: removing one device changes the sum by at most the clip norm either way.

    Args:
        weights: the server's weights.
        batches: int32 [D, S, B, 2, T], packed rows of model.rows; device d uses its first steps[d] batches.
        steps: int32 [D].
        training: learning rate and clip norm.

    Returns:
        Sums shaped like the weights, and METRICS; `loss` is summed over pieces, before each batch's own step.
    """
    weights = [tf.convert_to_tensor(w) for w in weights]

    def train_device(device):
        def batch_body(index, local, loss, pieces):
            rows = _drop_empty_rows(batches[device, index])
            with tf.GradientTape() as tape:
                tape.watch(local)
                batch_loss, batch_pieces = loss_sums(local, rows)
                # the step size goes in where the gradient is smallest, not through a pass over all weights
                step = training.learning_rate * tf.math.divide_no_nan(batch_loss, batch_pieces)
            moves = tape.gradient(step, local)
            local = [w - move for w, move in zip(local, moves, strict=True)]
            return index + 1, local, loss + batch_loss, pieces + batch_pieces

        _, local, loss, pieces = tf.while_loop(
            lambda index, *_: index < steps[device], batch_body, [0, weights, 0.0, 0.0]
        )
        return [after - before for after, before in zip(local, weights, strict=True)], loss, pieces

    def device_body(device, sums, metrics):
        update, loss, pieces = train_device(device)
        norm = tf.linalg.global_norm(update)
        finite = tf.math.is_finite(norm)
        scale = tf.minimum(1.0, tf.math.divide_no_nan(training.clip_norm, norm))
        # a branch, since zero times NaN is NaN
        sums = tf.cond(
            finite,
            lambda: [s + scale * u for s, u in zip(sums, update, strict=True)],
            lambda: sums,
        )
        measured = [
            1.0,
            pieces,
            tf.where(finite, loss, 0.0),
            tf.cast(finite & (norm > training.clip_norm), tf.float32),
            tf.cast(~finite, tf.float32),
            tf.where(finite, norm, 0.0),
        ]
        return device + 1, sums, metrics + tf.stack(measured)

    _, sums, metrics = tf.while_loop(
        lambda device, *_: device < tf.shape(batches)[0],
        device_body,
        [0, [tf.zeros_like(w) for w in weights], tf.zeros([len(METRICS)])],
        parallel_iterations=1,
    )
    return sums, metrics


def _drop_empty_rows(rows: tf.Tensor) -> tf.Tensor:
    """The batch [B, 2, T] without the empty rows at its end, which would cost as much as full ones."""
    filled = tf.reduce_any(tf.not_equal(rows, PAD), axis=[1, 2])
    return rows[: tf.reduce_max(tf.where(filled, tf.range(1, tf.shape(rows)[0] + 1), 0))]

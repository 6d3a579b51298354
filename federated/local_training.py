"""What one shard of devices does in a round: a TensorFlow function with the device loop inside the graph.

The same function serves every engine; an engine only decides where it runs and sums what comes back.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from model.network import loss_sums


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """Local SGD of a device.

    Attributes:
        learning_rate: step size, > 0.
        clip_norm: L2 bound on a device's whole update, > 0; None if each round brings its own.
    """

    learning_rate: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
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
        weights: the server's weights; with clip_norm None the round's clip norm, float32 [], comes after them.
        batches: int32 [D, S, B, 2, T], packed rows of model.rows; device d uses its first steps[d] batches.
        steps: int32 [D].
        training: learning rate and clip norm.

    Returns:
        Sums shaped like the weights, and METRICS; `loss` is summed over pieces, before each batch's own step. In the
        clip norm's place comes 1/2 for each device within it, less 1/2 for each that is not, or is zeroed.
    """
    weights = [tf.convert_to_tensor(w) for w in weights]
    clip_norm = weights.pop() if training.clip_norm is None else training.clip_norm

    def device_body(device, sums, metrics):
        def batch_body(index, local, loss, pieces):
            with tf.GradientTape() as tape:
                tape.watch(local)
                batch_loss, batch_pieces = loss_sums(local, batches[device, index])
                mean = tf.math.divide_no_nan(batch_loss, batch_pieces)
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(mean, local)]
            local = [w - training.learning_rate * g for w, g in zip(local, gradients, strict=True)]
            return index + 1, local, loss + batch_loss, pieces + batch_pieces

        _, local, loss, pieces = tf.while_loop(
            lambda index, *_: index < steps[device], batch_body, [0, list(weights), 0.0, 0.0]
        )
        update = [after - before for after, before in zip(local, weights, strict=True)]
        norm = tf.linalg.global_norm(update)
        finite = tf.math.is_finite(norm)
        scale = tf.minimum(1.0, tf.math.divide_no_nan(clip_norm, norm))
        # multiplying by zero would keep a NaN, so the choice is made value by value
        sums = [s + tf.where(finite, scale * u, 0.0) for s, u in zip(sums, update, strict=True)]
        measured = [
            1.0,
            pieces,
            tf.where(finite, loss, 0.0),
            tf.cast(finite & (norm > clip_norm), tf.float32),
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
    if training.clip_norm is None:
        named = dict(zip(METRICS, tf.unstack(metrics), strict=True))
        sums = [*sums, named["devices"] / 2 - named["clipped"] - named["zeroed"]]
    return sums, metrics

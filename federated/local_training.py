"""What one shard of devices does in a round: a TensorFlow function with the device loop inside the graph.

The same function serves every engine; an engine only decides where it runs and sums what comes back.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from device_runtime.tokenizer import PAD
from federated.strategies import DeviceNoise
from model.network import loss_sums


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """Local SGD of a device and what its update counts.

    Attributes:
        learning_rate: step size, > 0.
        clip_norm: L2 bound on a device's whole update, > 0; None if each round brings its own.
        proximal: mu >= 0 of FedProx (Li et al. 2020, eq. 2): local training minimises the loss + mu / 2 times the
            squared distance from the server's weights. 0 is plain FedAvg.
        full_weight_pieces: a device of n pieces weighs min(1, n / this); None: every device weighs 1. The weight comes
            after clipping and is at most 1, so the sensitivity stays the clip norm. The server's divisor knows nothing
            of weights: raise its learning rate by the mean weight one expects.
        noise: that each device adds itself; None: its clipped update is summed as it is.
    """

    learning_rate: float
    clip_norm: float | None
    proximal: float = 0.0
    full_weight_pieces: int | None = None
    noise: DeviceNoise | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"local training: {name} is {value}, give a positive number")
        if not 0 <= self.proximal < float("inf"):
            raise ValueError(
                f"local training: proximal is {self.proximal}, give zero or a positive number"
            )
        if self.full_weight_pieces is not None and self.full_weight_pieces < 1:
            raise ValueError(
                f"local training: full_weight_pieces is {self.full_weight_pieces}, give at least 1 or none"
            )
        if self.noise is not None and self.clip_norm is None:
            raise ValueError("local training: noise of the devices needs a fixed clip_norm")


# Metrics of a shard, float32 in this order; they are sums, so shards add up.
METRICS = ("devices", "pieces", "loss", "clipped", "zeroed", "update_norm", "weight")


def train_shard(
    weights: Sequence[tf.Tensor], batches: tf.Tensor, steps: tf.Tensor, training: LocalTraining
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Sum of the clipped and weighted updates of a shard's devices, one local epoch of SGD each.

    An update with a NaN or an infinity in it, or so large that its norm is none of float32's numbers (1.8e19), counts
    as zero, as does that of a device that holds what is no piece of the vocabulary (`zeroed`). So one broken device
    cannot spoil the sum, and its weight in the average stays: removing one device changes the sum by at most the clip
    norm either way, up to float32's rounding of the norm (1e-6 of it).

    Args:
        weights: the server's weights; with clip_norm None the round's clip norm, float32 [], comes after them.
        batches: int32 [D, S, B, 2, T], packed rows of model.rows; device d uses its first steps[d] batches.
        steps: int32 [D].
        training: what a device does.

    Returns:
        Sums shaped like the weights, and METRICS; `loss` is summed over pieces, before each batch's own step. In the
        clip norm's place comes 1/2 for each device within it, less 1/2 for each that is not, or is zeroed.
    """
    weights = [tf.convert_to_tensor(w) for w in weights]
    clip_norm = weights.pop() if training.clip_norm is None else training.clip_norm
    # checked here: TensorFlow would quote a piece that its embedding does not know in an exception
    is_piece = (batches >= 0) & (batches < tf.shape(weights[0])[0])
    is_sound = tf.reduce_all(is_piece, axis=[1, 2, 3, 4])
    batches = tf.where(is_piece, batches, PAD)

    def train_device(device):
        def batch_body(index, local, loss, pieces):
            rows = _drop_empty_rows(batches[device, index])
            with tf.GradientTape() as tape:
                tape.watch(local)
                batch_loss, batch_pieces = loss_sums(local, rows)
                # the step size goes in where the gradient is smallest, not through a pass over all weights
                step = training.learning_rate * tf.math.divide_no_nan(batch_loss, batch_pieces)
            moves = tape.gradient(step, local)
            if training.proximal:
                pull = training.learning_rate * training.proximal
                moves = [
                    m + pull * (w - w0) for m, w, w0 in zip(moves, local, weights, strict=True)
                ]
            local = [w - move for w, move in zip(local, moves, strict=True)]
            return index + 1, local, loss + batch_loss, pieces + batch_pieces

        _, local, loss, pieces = tf.while_loop(
            lambda index, *_: index < steps[device], batch_body, [0, weights, 0.0, 0.0]
        )
        return [after - before for after, before in zip(local, weights, strict=True)], loss, pieces

    def device_body(device, sums, metrics):
        update, loss, pieces = train_device(device)
        norm = tf.linalg.global_norm(update)
        finite = tf.math.is_finite(norm) & is_sound[device]
        weight = 1.0
        if training.full_weight_pieces is not None:
            weight = tf.minimum(1.0, pieces / training.full_weight_pieces)
        scale = weight * tf.minimum(1.0, tf.math.divide_no_nan(clip_norm, norm))
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
            tf.cast(finite & (norm > clip_norm), tf.float32),
            tf.cast(~finite, tf.float32),
            tf.where(finite, norm, 0.0),
            weight,
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


def _drop_empty_rows(rows: tf.Tensor) -> tf.Tensor:
    """The batch [B, 2, T] without the empty rows at its end, which would cost as much as full ones."""
    filled = tf.reduce_any(tf.not_equal(rows, PAD), axis=[1, 2])
    return rows[: tf.reduce_max(tf.where(filled, tf.range(1, tf.shape(rows)[0] + 1), 0))]

"""What a device does where the server is to see sums only: it trains, and sends a message that bears its own noise.

A message is the device's clipped update on a grid of whole numbers, with its share of the noise, modulo 2^bits. Their
sum modulo 2^bits is all that a server of secure aggregation learns (Bonawitz et al. 2017). This is a simulation: who
runs it adds in the clear, and nothing is encrypted, on any engine; TensorFlow Federated's runtime does no more.
"""

from collections.abc import Sequence

import tensorflow as tf

from federated.local_training import METRICS, LocalTraining, train_shard
from federated.mechanisms.skellam import SkellamSumQuery, derive_key


def make_message(
    weights: Sequence[tf.Tensor],
    round_key: tf.Tensor,
    batches: tf.Tensor,
    steps: tf.Tensor,
    device: tf.Tensor,
    training: LocalTraining,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One device's message, int32 [dimension] in [0, 2^bits), and its METRICS.

    Args:
        weights: the server's.
        round_key: int64 [2], of the round; the device's own key follows from it and its id.
        batches, steps: of the device alone, as for `train_shard`.
        device: int64 [], its id.
        training: what it does, with `noise`.
    """
    query = build_query([w.shape for w in weights], training)
    update, metrics = train_shard(weights, batches, steps, training)
    key = derive_key(round_key, 0, device)
    return query.preprocess_record(round_key, (update, key)), metrics


def sum_messages(
    weights: Sequence[tf.Tensor],
    batches: tf.Tensor,
    steps: tf.Tensor,
    devices: tf.Tensor,
    training: LocalTraining,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Sum of a shard's messages modulo 2^bits, in a list of its own, and summed METRICS.

    Args:
        weights: the server's, and after them the round's key.
        batches, steps: as for `train_shard`.
        devices: int64 [D], their ids.
        training: what each does, with `noise`.
    """
    *weights, round_key = (tf.convert_to_tensor(w) for w in weights)
    assert training.noise is not None
    strategy = training.noise.strategy

    def device_body(place, total, metrics):
        message, measured = make_message(
            weights,
            round_key,
            batches[place : place + 1],
            steps[place : place + 1],
            devices[place],
            training,
        )
        total = tf.math.floormod(total + message, 2**strategy.bits)
        return place + 1, total, metrics + measured

    _, total, metrics = tf.while_loop(
        lambda place, *_: place < tf.shape(batches)[0],
        device_body,
        [0, tf.zeros([strategy.dimension], tf.int32), tf.zeros([len(METRICS)])],
        parallel_iterations=1,
    )
    return [total], metrics


def build_query(shapes: Sequence[tf.TensorShape], training: LocalTraining) -> SkellamSumQuery:
    """The devices' side of the mechanism; the seed of its state is the server's affair."""
    noise, clip_norm = training.noise, training.clip_norm
    assert noise is not None and clip_norm is not None
    specs = [tf.TensorSpec(shape) for shape in shapes]
    return SkellamSumQuery(specs, clip_norm, noise.noise_multiplier, 0, noise.strategy)

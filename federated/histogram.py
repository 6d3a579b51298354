"""One histogram of features from each device, clipped, summed by an engine, noised once, and charged to a ledger."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from device_runtime.features import DpHistogram, FeatureSpace
from federated.engines import Engine
from federated.ledger import Ledger, Promise
from federated.strategies import Gaussian


def sum_histograms(
    features: tf.Tensor, offsets: tf.Tensor, buckets: int, clip_norm: float
) -> tf.Tensor:
    """Sum of a shard's histograms, float64 [buckets], each scaled down to an L2 norm of at most `clip_norm`.

    Args:
        features: int32 [n], the devices' features one device after the other, each in [0, buckets).
        offsets: int32 [D + 1], device d has features[offsets[d] : offsets[d + 1]].
        buckets: number of features.
        clip_norm: C > 0, in counts.
    """

    def device_body(device, total):
        own = features[offsets[device] : offsets[device + 1]]
        counts = tf.math.unsorted_segment_sum(tf.ones_like(own, tf.float64), own, buckets)
        shrink = tf.math.divide_no_nan(tf.constant(clip_norm, tf.float64), tf.norm(counts))
        return device + 1, total + tf.minimum(shrink, 1) * counts

    _, total = tf.while_loop(
        lambda device, _: device < tf.shape(offsets)[0] - 1,
        device_body,
        [0, tf.zeros([buckets], tf.float64)],
        parallel_iterations=1,
    )
    return total


def release_histogram(
    devices: Sequence[Sequence[str]],
    space: FeatureSpace,
    engine: Engine,
    shards: int,
    clip_norm: float,
    noise_multiplier: float,
    seed: int,
) -> tuple[DpHistogram, Ledger]:
    """The noised sum of all devices' clipped histograms, and the ledger that charges them for it.

    Neighbouring: one device's histogram replaced by zero, which changes the sum by at most the clip norm. So the
    squared sensitivity is 1 clip norm squared, and `accounting.noise_multiplier_for(epsilon, delta, 1)` gives the noise
    of a target epsilon.

    Args:
        devices: messages of each device; the place in this sequence is the id in the ledger.
        space: what is counted.
        engine: maps over shards and sums.
        shards: TFF clients to deal the devices to, >= 1.
        clip_norm: C > 0, in counts; 1 lets every device that typed anything say equally much.
        noise_multiplier: z > 0 in clip norms.
        seed: of the noise. A simulation repeats with it; a deployment must draw and keep it secret.

    Raises:
        ValueError: there is no device, or an argument is out of its range.
    """
    ledger = Ledger(Promise(Gaussian(), noise_multiplier, clip_norm, 1, max_participations=1))
    if not devices:
        raise ValueError("histogram: no devices; give at least one")
    dealt = [devices[start::shards] for start in range(min(shards, len(devices)))]
    total = engine.sum_histograms(
        [_build_shard(part, space) for part in dealt], space.buckets, clip_norm
    )
    noise = np.random.default_rng(seed).normal(0, noise_multiplier * clip_norm, total.shape)
    ledger.record(0, range(len(devices)), range(len(devices)))
    rho = 1 / (2 * noise_multiplier**2)
    histogram = DpHistogram(
        total + noise, clip_norm, noise_multiplier, len(devices), rho, space.version
    )
    return histogram, ledger


def _build_shard(
    devices: Sequence[Sequence[str]], space: FeatureSpace
) -> tuple[np.ndarray, np.ndarray]:
    parts = [space.extract(messages).ids for messages in devices]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return np.concatenate(parts), offsets.astype(np.int32)

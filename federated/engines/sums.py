"""Adding up what shards gave, always in the order of the shards: floating-point sums depend on it."""

from collections.abc import Iterable, Sequence

import numpy as np

from federated.local_training import METRICS
from federated.strategies import DeviceNoise

RoundSums = tuple[list[np.ndarray], np.ndarray]


def add_rounds(
    weights: Sequence[np.ndarray], parts: Iterable[RoundSums], noise: DeviceNoise | None = None
) -> RoundSums:
    """Sums and METRICS of a round from those of its shards; of no shard, zeros. With noise, messages modulo 2^bits."""
    sums = [np.zeros_like(w) for w in weights]
    if noise is not None:
        sums = [np.zeros(noise.strategy.dimension, np.int32)]
    metrics = np.zeros(len(METRICS), np.float32)
    for shard_sums, shard_metrics in parts:
        for total, part in zip(sums, shard_sums, strict=True):
            total += part
            if noise is not None:
                total %= 2**noise.strategy.bits
        metrics += shard_metrics
    return sums, metrics


def add_histograms(buckets: int, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Sum of the shards' histograms, float64 [buckets]."""
    total = np.zeros(buckets)
    for part in parts:
        total += part
    return total

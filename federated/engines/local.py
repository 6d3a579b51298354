"""Shards one after the other in this process: the reference that every other engine must equal."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from federated.engines import Shard
from federated.histogram import sum_histograms
from federated.local_training import METRICS, LocalTraining, train_shard


class LocalEngine:
    """Runs `train_shard` in process."""

    def __init__(self, training: LocalTraining) -> None:
        self._train = tf.function(
            lambda weights, batches, steps: train_shard(weights, batches, steps, training),
            reduce_retracing=True,
        )
        self._sum_histograms = tf.function(sum_histograms, reduce_retracing=True)

    def run_round(
        self, weights: Sequence[np.ndarray], shards: Sequence[Shard]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        sums = [np.zeros_like(w) for w in weights]
        metrics = np.zeros(len(METRICS), np.float32)
        for batches, steps in shards:
            shard_sums, shard_metrics = self._train(list(weights), batches, steps)
            sums = [total + part.numpy() for total, part in zip(sums, shard_sums, strict=True)]
            metrics += shard_metrics.numpy()
        return sums, metrics

    def sum_histograms(self, shards: Sequence[Shard], buckets: int, clip_norm: float) -> np.ndarray:
        parts = [
            self._sum_histograms(features, offsets, buckets, clip_norm)
            for features, offsets in shards
        ]
        return np.sum([part.numpy() for part in parts], axis=0)

    def close(self) -> None:
        pass

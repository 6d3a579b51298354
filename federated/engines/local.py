"""Shards one after the other in this process: the reference that every other engine must equal."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from federated.engines import Shards
from federated.engines.sums import RoundSums, add_histograms, add_rounds
from federated.histogram import sum_histograms
from federated.local_training import LocalTraining, train_shard
from federated.secure_aggregation import sum_messages


class LocalEngine:
    """Runs `train_shard`, or with noise of the devices' own `sum_messages`, in process."""

    def __init__(self, training: LocalTraining) -> None:
        def sum_shard(weights, batches, steps, *devices):
            if training.noise is None:
                return train_shard(weights, batches, steps, training)
            return sum_messages(weights, batches, steps, devices[0], training)

        self.noise = training.noise
        self._train = tf.function(sum_shard, reduce_retracing=True)
        self._sum_histograms = tf.function(sum_histograms, reduce_retracing=True)

    def run_round(self, weights: Sequence[np.ndarray], shards: Shards) -> RoundSums:
        def train(index: int) -> RoundSums:
            sums, metrics = self._train(constants, *shards[index])
            return [s.numpy() for s in sums], metrics.numpy()

        constants = [tf.constant(w) for w in weights]
        return add_rounds(weights, map(train, range(len(shards))), self.noise)

    def sum_histograms(self, shards: Shards, buckets: int, clip_norm: float) -> np.ndarray:
        def sum_shard(index: int) -> np.ndarray:
            return self._sum_histograms(*shards[index], buckets, clip_norm).numpy()

        return add_histograms(buckets, map(sum_shard, range(len(shards))))

    def close(self) -> None:
        pass

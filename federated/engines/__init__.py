"""Where shards run: `local` in this process (the reference), `tff` through TensorFlow Federated.

An engine maps `train_shard` or `sum_histograms` over shards and sums; it neither clips, nor adds noise, nor keeps state
of the training.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Shard = tuple[np.ndarray, np.ndarray]


class Engine(Protocol):
    """One round of local training over shards of devices."""

    def run_round(
        self, weights: Sequence[np.ndarray], shards: Sequence[Shard]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Sums of the clipped updates over all shards' devices, and summed METRICS of local_training.

        Args:
            weights: the server's weights.
            shards: (batches int32 [D, S, B, 2, T], steps int32 [D]) each; D may differ between shards.
        """

    def sum_histograms(self, shards: Sequence[Shard], buckets: int, clip_norm: float) -> np.ndarray:
        """Sum of the clipped histograms over all shards' devices, float64 [buckets].

        Args:
            shards: (features int32 [n], offsets int32 [D + 1]) each, as `histogram.sum_histograms` reads them.
            buckets: number of features.
            clip_norm: L2 bound of a device's histogram.
        """

    def close(self) -> None:
        """Ends what the engine started."""


def create_engine(name: str, training) -> Engine:
    """Engine `local` or `tff` for a `LocalTraining`.

    Raises:
        ValueError: unknown name.
    """
    if name == "local":
        from federated.engines.local import LocalEngine

        return LocalEngine(training)
    if name == "tff":
        from federated.engines.tff import TffEngine

        return TffEngine(training)
    raise ValueError(f"engine {name!r}: give one of local, tff")

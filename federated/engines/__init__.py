"""Where shards run: `local` in this process (the reference), `tff` on TensorFlow Federated, `ray` on many machines.

An engine maps `train_shard` or `sum_histograms` over shards and adds up in the shards' order; it neither clips, nor
adds noise, nor keeps state of the training.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from federated.strategies import DeviceNoise

Shard = tuple[np.ndarray, ...]


class Shards(Protocol):
    """A list of shards, or what reads each one when it is asked for; it may be asked again, and by several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Shard: ...


class Engine(Protocol):
    """One round of local training over shards of devices.

    Attributes:
        noise: that its devices add themselves, if any.
    """

    noise: DeviceNoise | None

    def run_round(
        self, weights: Sequence[np.ndarray], shards: Shards
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Sums of the clipped updates over all shards' devices, and summed METRICS of local_training.

        Where devices add noise themselves (`LocalTraining.noise`), the sum of their messages in place of the updates'.

        Args:
            weights: the server's weights, and with them what the mechanism broadcasts.
            shards: (batches int32 [D, S, B, 2, T], steps int32 [D]) each; D may differ between shards. With noise of
                the devices' own, their ids int64 [D] come third.

        Raises:
            RuntimeError: a shard's workers were lost again and again; nothing of the round counts.
        """

    def sum_histograms(self, shards: Shards, buckets: int, clip_norm: float) -> np.ndarray:
        """Sum of the clipped histograms over all shards' devices, float64 [buckets].

        Args:
            shards: (features int32 [n], offsets int32 [D + 1]) each, as `histogram.sum_histograms` reads them.
            buckets: number of features.
            clip_norm: L2 bound of a device's histogram.

        Raises:
            RuntimeError: as for `run_round`.
        """

    def close(self) -> None:
        """Ends what the engine started."""


def create_engine(
    name: str,
    training,
    workers: int = 2,
    shard_timeout_s: float | None = None,
    address: str | None = None,
) -> Engine:
    """Engine `local`, `tff` or `ray` for a `LocalTraining`.

    Args:
        name: of the engine.
        training: what each device does.
        workers: processes of `tff` and `ray`, one thread each; they start with the first round.
        shard_timeout_s: when a worker counts as hung; None derives it from what shards have taken so far.
        address: of a Ray cluster that `ray` joins, host:port; None starts one on this machine.

    Raises:
        ValueError: unknown name, Ray is not installed, or no cluster was joined.
    """
    if name == "local":
        from federated.engines.local import LocalEngine

        return LocalEngine(training)
    if name == "tff":
        from federated.engines.tff import TffEngine

        return TffEngine(training, workers, shard_timeout_s)
    if name == "ray":
        from federated.engines.ray import RayEngine

        return RayEngine(training, workers, shard_timeout_s, address)
    raise ValueError(f"engine {name!r}: give one of local, tff, ray")

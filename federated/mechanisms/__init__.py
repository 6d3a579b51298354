"""DP mechanisms over a flat list of weights, each a TensorFlow Privacy query that works without the rest of keyfed."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_privacy as tfp

from federated.mechanisms.adaptive import AdaptiveClipping, AdaptiveClipSumQuery
from federated.mechanisms.blt import BltSumQuery
from federated.mechanisms.gaussian import GaussianSumQuery
from federated.mechanisms.skellam import SkellamSumQuery
from federated.mechanisms.toeplitz import BandedToeplitzSumQuery
from federated.mechanisms.tree import build_tree_query
from federated.strategies import BandedToeplitz, Blt, Gaussian, Skellam, Strategy, Tree


class Mechanism:
    """A query with its state, adding noise to sums of updates that are clipped already, on the devices."""

    def __init__(self, query: tfp.SumAggregationDPQuery) -> None:
        self._query = query
        self._state = query.initial_global_state()
        self._is_adaptive = isinstance(query, AdaptiveClipSumQuery)

    @property
    def clip_norm(self) -> float:
        """L2 bound of the next round's updates; only adaptive clipping ever changes it."""
        return float(self._query.derive_sample_params(self._state))

    def broadcast(self) -> list[np.ndarray]:
        """What devices of the next round must know beside the weights: the clip norm, if it adapts."""
        return [np.array(self.clip_norm, np.float32)] if self._is_adaptive else []

    def add_noise(self, clipped_sum: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The round's noised sum of updates; advances the noise by one round.

        Args:
            clipped_sum: of the updates, and for what was broadcast beside the weights what `train_shard` sums for it.
        """
        sums = [tf.constant(s) for s in clipped_sum]
        sample = (
            AdaptiveClipSumQuery.SampleState(sums[:-1], sums[-1]) if self._is_adaptive else sums
        )
        noised, self._state, _ = self._query.get_noised_result(sample, self._state)
        return [n.numpy() for n in noised]

    def state(self) -> list[np.ndarray]:
        """Flat state, for a checkpoint."""
        return [np.asarray(t) for t in tf.nest.flatten(self._state)]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Goes on from `state()`."""
        self._state = tf.nest.pack_sequence_as(self._state, [tf.constant(t) for t in state])


class SecureMechanism(Mechanism):
    """A query of which the devices add the noise: what comes back is the sum of their messages, to be read only."""

    def __init__(self, query: SkellamSumQuery, clip_norm: float) -> None:
        super().__init__(query)
        self._clip_norm = clip_norm

    @property
    def clip_norm(self) -> float:
        return self._clip_norm

    def broadcast(self) -> list[np.ndarray]:
        """The round's key."""
        return [self._query.derive_sample_params(self._state).numpy()]

    def add_noise(self, clipped_sum: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The round's sum of updates with the noise that is in it already.

        Args:
            clipped_sum: of the messages, modulo 2^bits, the list's only part.
        """
        [total] = clipped_sum
        noised, self._state, _ = self._query.get_noised_result(tf.constant(total), self._state)
        return [n.numpy() for n in noised]


def create_mechanism(
    strategy: Strategy,
    weight_shapes: Sequence[tuple[int, ...]],
    clip_norm: float,
    noise_multiplier: float,
    seed: int,
    clipping: AdaptiveClipping | None = None,
) -> Mechanism:
    """The strategy's mechanism.

    Args:
        strategy: how the noise of the rounds is correlated.
        weight_shapes: shapes of the update.
        clip_norm: L2 bound each device's update already keeps, in the first round if it adapts.
        noise_multiplier: z >= 0, in clip norms; 0 adds no noise and gives no privacy.
        seed: of the noise. A simulation repeats with it; a deployment must draw and keep it secret.
        clipping: how the clip norm adapts, or None for a fixed one.

    Raises:
        ValueError: the strategy accounts for another noise on the count of unclipped devices than `clipping` draws.
    """
    counted = strategy.count_stddev if isinstance(strategy, Gaussian) else None
    if counted != (clipping.count_stddev if clipping else None):
        raise ValueError(
            f"clipping is {clipping!r}, must draw the noise that the strategy accounts for, {strategy!r}: the clip norm"
            " adapts with the gaussian mechanism only, and with its count_stddev"
        )
    common = (
        [tf.TensorSpec(shape) for shape in weight_shapes],
        clip_norm,
        noise_multiplier,
        seed,
    )
    match strategy:
        case Gaussian():
            if clipping is not None:
                return Mechanism(AdaptiveClipSumQuery(*common, clipping))
            return Mechanism(GaussianSumQuery(*common))
        case Tree():
            return Mechanism(build_tree_query(*common, strategy))
        case BandedToeplitz():
            return Mechanism(BandedToeplitzSumQuery(*common, strategy))
        case Blt():
            return Mechanism(BltSumQuery(*common, strategy))
        case Skellam():
            return SecureMechanism(SkellamSumQuery(*common, strategy), clip_norm)
    raise ValueError(f"strategy {strategy!r}: no mechanism draws its noise")

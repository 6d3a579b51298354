"""DP mechanisms as TensorFlow Privacy queries over the flat list of weights."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_privacy as tfp

MECHANISMS = ("tree",)


class Mechanism:
    """A `DPQuery` with its state, adding noise to sums of updates that are clipped already.

    Clipping happens on the devices, so the query only adds noise; its clip norm must be theirs.
    """

    def __init__(self, query: tfp.SumAggregationDPQuery) -> None:
        self._query = query
        self._state = query.initial_global_state()

    def add_noise(self, clipped_sum: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The round's noised sum; advances the noise by one round."""
        noised, self._state, _ = self._query.get_noised_result(
            [tf.constant(s) for s in clipped_sum], self._state
        )
        return [n.numpy() for n in noised]

    def state(self) -> list[np.ndarray]:
        """Flat state, for a checkpoint."""
        return [np.asarray(t) for t in tf.nest.flatten(self._state)]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Goes on from `state()`."""
        self._state = tf.nest.pack_sequence_as(self._state, [tf.constant(t) for t in state])


def create_mechanism(
    name: str,
    weight_shapes: Sequence[tuple[int, ...]],
    clip_norm: float,
    noise_multiplier: float,
    seed: int,
) -> Mechanism:
    """The named mechanism.

    `tree` is DP-FTRL's tree aggregation with Honaker's variance reduction (Kairouz et al. 2021, alg. 1): the returned
    sums are residuals, so that the sum of all rounds up to now carries O(log rounds) noise terms of standard deviation
    noise_multiplier * clip_norm.

    Args:
        name: one of MECHANISMS.
        weight_shapes: shapes of the update.
        clip_norm: L2 bound each device's update already keeps.
        noise_multiplier: z >= 0, in clip norms; 0 adds no noise and gives no privacy.
        seed: of the noise. A simulation repeats with it; a deployment must draw and keep it secret.

    Raises:
        ValueError: unknown name.
    """
    if name not in MECHANISMS:
        raise ValueError(f"mechanism {name!r}: give one of {', '.join(MECHANISMS)}")
    query = tfp.TreeResidualSumQuery.build_l2_gaussian_query(
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        record_specs=[tf.TensorSpec(shape) for shape in weight_shapes],
        noise_seed=seed,
        use_efficient=True,
    )
    return Mechanism(query)

"""Clipped sums with seeded Gaussian noise, independent each round: the query that the correlated ones build on."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import dp_accounting
import tensorflow as tf
import tensorflow_privacy as tfp


class GaussianSumQuery(tfp.SumAggregationDPQuery):
    """Sums records clipped to an L2 norm, and adds noise that (seed, step) alone decide.

    A record whose norm is not finite counts as zero. The result is the sum + C^-1 z, z being independent Gaussian noise
    and C the identity here; subclasses correlate the noise of the rounds, and then the strategy matrix of all rounds
    together decides the privacy, see `strategies`. TensorFlow Privacy's own `GaussianSumQuery` takes no seed.
    """

    class GlobalState(NamedTuple):
        """What goes on from round to round: all of it is needed to repeat the noise."""

        clip_norm: tf.Tensor
        stddev: tf.Tensor
        seed: tf.Tensor
        step: tf.Tensor
        correlation: Any

    def __init__(
        self,
        record_specs: Sequence[tf.TensorSpec],
        clip_norm: float,
        noise_multiplier: float,
        seed: int,
    ) -> None:
        """
        Args:
            record_specs: of the tensors of a record, a flat list.
            clip_norm: L2 bound of a record.
            noise_multiplier: z >= 0, deviation of the noise in clip norms.
            seed: of the noise. A simulation repeats with it; a deployment must draw and keep it secret.
        """
        self._specs = list(record_specs)
        self._clip_norm = clip_norm
        self._stddev = clip_norm * noise_multiplier
        self._seed = seed

    def initial_global_state(self) -> GlobalState:
        return self.GlobalState(
            clip_norm=tf.constant(self._clip_norm, tf.float32),
            stddev=tf.constant(self._stddev, tf.float32),
            seed=tf.constant(self._seed, tf.int64),
            step=tf.constant(0, tf.int64),
            correlation=self.initial_correlation(),
        )

    def derive_sample_params(self, global_state: GlobalState) -> tf.Tensor:
        return global_state.clip_norm

    def preprocess_record(self, params: tf.Tensor, record: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return clip_record(record, params)[0]

    def get_noised_result(
        self, sample_state: Sequence[tf.Tensor], global_state: GlobalState
    ) -> tuple[list[tf.Tensor], GlobalState, dp_accounting.DpEvent]:
        drawn = draw_noise(self._specs, global_state.seed, global_state.step)
        noise, correlation = self.correlate(
            [global_state.stddev * z for z in drawn], global_state.correlation
        )
        noised = [s + n for s, n in zip(sample_state, noise, strict=True)]
        state = global_state._replace(step=global_state.step + 1, correlation=correlation)
        return noised, state, self.event()

    def derive_metrics(self, global_state: GlobalState) -> OrderedDict[str, tf.Tensor]:
        return OrderedDict(clip_norm=global_state.clip_norm)

    def event(self) -> dp_accounting.DpEvent:
        """Of one round; a round of correlated noise has none of its own."""
        return dp_accounting.GaussianDpEvent(self._stddev / self._clip_norm)

    def initial_correlation(self) -> Any:
        """State of `correlate` before the first round."""
        return ()

    def correlate(self, drawn: list[tf.Tensor], correlation: Any) -> tuple[list[tf.Tensor], Any]:
        """The round's rows of C^-1 z, from the round's z and the state of the rounds before, and the new state."""
        return drawn, correlation


def draw_noise(specs: Sequence[tf.TensorSpec], seed: tf.Tensor, step: tf.Tensor) -> list[tf.Tensor]:
    """Standard Gaussian noise, a stream of its own for each seed, step and tensor, the same on every device."""
    first = step * len(specs)
    return [
        tf.random.stateless_normal(spec.shape, [seed, first + i], alg="philox")
        for i, spec in enumerate(specs)
    ]


def clip_record(
    record: Sequence[tf.Tensor], clip_norm: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The record scaled down to at most the clip norm, zero if its norm is not finite; and that norm."""
    norm = tf.linalg.global_norm(record)
    scale = tf.minimum(1.0, tf.math.divide_no_nan(clip_norm, norm))
    # multiplying by zero would keep a NaN, so the choice is made value by value
    return [tf.where(tf.math.is_finite(norm), scale * r, 0.0) for r in record], norm

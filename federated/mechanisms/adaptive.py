"""Gaussian noise with a clip norm that follows a quantile of the devices' update norms."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dp_accounting
import tensorflow as tf
import tensorflow_privacy as tfp

from federated.mechanisms.gaussian import clip_record, draw_noise


@dataclass(frozen=True)
class AdaptiveClipping:
    """How the clip norm adapts (Andrew et al. 2021, arXiv:1905.03871).

    Attributes:
        target_quantile: gamma in [0, 1], share of the devices whose update is to stay unclipped.
        learning_rate: eta > 0; the clip norm changes by a factor of at most exp(eta) a round.
        count_stddev: s > 0, noise on the count of unclipped devices; the paper takes cohort / 20.
        cohort: devices expected a round, > 0, which the count is divided by.
    """

    target_quantile: float
    learning_rate: float
    count_stddev: float
    cohort: int

    def __post_init__(self) -> None:
        if not 0 <= self.target_quantile <= 1:
            raise ValueError(f"target_quantile is {self.target_quantile!r}, must be in [0, 1]")
        for name in ("learning_rate", "count_stddev", "cohort"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value!r}, must be positive and finite")


class AdaptiveClipSumQuery(tfp.SumAggregationDPQuery):
    """Noised sums of clipped records; after each, the clip norm takes a step of geometric descent.

    A record also says, as +1/2 or -1/2, whether it was within the clip norm, and the sum of that is noised too: both
    releases together are one Gaussian mechanism, `accounting.effective_noise_multiplier`. TensorFlow Privacy's
    `QuantileAdaptiveClipSumQuery` does the same without a seed.
    """

    class GlobalState(NamedTuple):
        clip_norm: tf.Tensor
        seed: tf.Tensor
        step: tf.Tensor

    class SampleState(NamedTuple):
        """Sum of the clipped records, and of 1/2 for each record within the clip norm, -1/2 for each that is not."""

        total: list[tf.Tensor]
        centred_count: tf.Tensor

    def __init__(
        self,
        record_specs: Sequence[tf.TensorSpec],
        clip_norm: float,
        noise_multiplier: float,
        seed: int,
        clipping: AdaptiveClipping,
    ) -> None:
        """
        Args:
            record_specs, seed: as of `GaussianSumQuery`.
            clip_norm: of the first round, > 0.
            noise_multiplier: z >= 0, on the sum, in clip norms of the round.
            clipping: how the clip norm adapts.
        """
        self._specs = list(record_specs)
        self._clip_norm, self._noise_multiplier, self._seed = clip_norm, noise_multiplier, seed
        self._clipping = clipping

    def initial_global_state(self) -> GlobalState:
        return self.GlobalState(
            clip_norm=tf.constant(self._clip_norm, tf.float32),
            seed=tf.constant(self._seed, tf.int64),
            step=tf.constant(0, tf.int64),
        )

    def derive_sample_params(self, global_state: GlobalState) -> tf.Tensor:
        return global_state.clip_norm

    def initial_sample_state(self, template=None) -> SampleState:
        return self.SampleState(super().initial_sample_state(template), tf.constant(0.0))

    def preprocess_record(self, params: tf.Tensor, record: Sequence[tf.Tensor]) -> SampleState:
        clipped, norm = clip_record(record, params)
        return self.SampleState(clipped, tf.where(norm <= params, 0.5, -0.5))

    def get_noised_result(
        self, sample_state: SampleState, global_state: GlobalState
    ) -> tuple[list[tf.Tensor], GlobalState, dp_accounting.DpEvent]:
        clipping, clip_norm = self._clipping, global_state.clip_norm
        specs = [*self._specs, tf.TensorSpec([])]
        *noise, count_noise = draw_noise(specs, global_state.seed, global_state.step)
        stddev = self._noise_multiplier * clip_norm
        noised = [s + stddev * z for s, z in zip(sample_state.total, noise, strict=True)]
        count = sample_state.centred_count + clipping.count_stddev * count_noise
        unclipped = tf.clip_by_value(count / clipping.cohort + 0.5, 0.0, 1.0)
        step = clipping.learning_rate * (unclipped - clipping.target_quantile)
        state = global_state._replace(
            clip_norm=clip_norm * tf.exp(-step), step=global_state.step + 1
        )
        # In units of the sensitivities, the clip norm and 1/2.
        releases = [self._noise_multiplier, 2 * clipping.count_stddev]
        events = [dp_accounting.GaussianDpEvent(release) for release in releases]
        return noised, state, dp_accounting.ComposedDpEvent(events)

    def derive_metrics(self, global_state: GlobalState) -> OrderedDict[str, tf.Tensor]:
        return OrderedDict(clip_norm=global_state.clip_norm)

"""Noise correlated by a banded Toeplitz matrix, from the noise of the last few rounds."""

from collections.abc import Sequence

import dp_accounting
import tensorflow as tf

from federated.mechanisms.gaussian import GaussianSumQuery
from federated.strategies import BandedToeplitz


class BandedToeplitzSumQuery(GaussianSumQuery):
    """x_t = (z_t - c_1 x_{t-1} - ... - c_{h-1} x_{t-h+1}) / c_0, which solves C x = z.

    Choquette-Choo et al. 2023, arXiv:2306.08153, algorithm 9. Keeps the h - 1 last x, (h - 1) * d values.
    """

    def __init__(
        self,
        record_specs: Sequence[tf.TensorSpec],
        clip_norm: float,
        noise_multiplier: float,
        seed: int,
        strategy: BandedToeplitz,
    ) -> None:
        super().__init__(record_specs, clip_norm, noise_multiplier, seed)
        self._first, *self._others = strategy.coefficients

    def event(self) -> dp_accounting.DpEvent:
        return dp_accounting.UnsupportedDpEvent()

    def initial_correlation(self) -> list[tf.Tensor]:
        """Per tensor [h - 1, ...], the latest first."""
        return [tf.zeros([len(self._others), *spec.shape], spec.dtype) for spec in self._specs]

    def correlate(
        self, drawn: list[tf.Tensor], correlation: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        noise, kept = [], []
        for z, past in zip(drawn, correlation, strict=True):
            others = tf.constant(self._others, z.dtype, [len(self._others)])
            x = (z - tf.tensordot(others, past, 1)) / self._first
            noise.append(x)
            kept.append(tf.concat([x[None], past], 0)[: len(self._others)])
        return noise, kept

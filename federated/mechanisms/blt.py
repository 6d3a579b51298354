"""Noise correlated by a buffered linear Toeplitz matrix, streaming with a few buffers."""

from collections.abc import Sequence

import dp_accounting
import tensorflow as tf

from federated.mechanisms.gaussian import GaussianSumQuery
from federated.strategies import Blt


class BltSumQuery(GaussianSumQuery):
    """x_t = z_t - sum_j w_j buffer_j, then buffer_j <- th_j buffer_j + x_t, which solves C x = z.

    Dvijotham et al. 2024, arXiv:2404.16706, algorithm 1 for C^-1. Keeps m buffers, m * d values, however many rounds
    there are.
    """

    def __init__(
        self,
        record_specs: Sequence[tf.TensorSpec],
        clip_norm: float,
        noise_multiplier: float,
        seed: int,
        strategy: Blt,
    ) -> None:
        super().__init__(record_specs, clip_norm, noise_multiplier, seed)
        self._strategy = strategy

    def event(self) -> dp_accounting.DpEvent:
        return dp_accounting.UnsupportedDpEvent()

    def initial_correlation(self) -> list[tf.Tensor]:
        """Per tensor its buffers [m, ...]."""
        buffers = len(self._strategy.decays)
        return [tf.zeros([buffers, *spec.shape], spec.dtype) for spec in self._specs]

    def correlate(
        self, drawn: list[tf.Tensor], correlation: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        noise, kept = [], []
        for z, buffers in zip(drawn, correlation, strict=True):
            x = z - tf.tensordot(tf.constant(self._strategy.scales, z.dtype), buffers, 1)
            decays = tf.constant(self._strategy.decays, z.dtype)
            noise.append(x)
            kept.append(tf.reshape(decays, [-1] + [1] * len(z.shape)) * buffers + x)
        return noise, kept

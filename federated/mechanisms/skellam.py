"""Sums modulo 2^bits of messages to which the devices add the noise themselves: what secure aggregation needs.

TensorFlow Federated's own distributed queries and rounding draw from the clock, in microseconds: no run repeats, and
who knows when a device sent can try the seeds. So the noise is TensorFlow's stateless Poisson, keyed by the device.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import dp_accounting
import numpy as np
import scipy.linalg
import tensorflow as tf
import tensorflow_privacy as tfp

from federated.mechanisms.gaussian import clip_record
from federated.skellam import rounded_norm
from federated.strategies import Skellam

_ROUNDINGS = 20  # beta = exp(-1/2) of them fail at the most, so all do with 5e-5; then values are cut towards zero
_LARGEST_FACTOR = 5  # a Hadamard matrix is applied in factors of at most 32 x 32


class SkellamSumQuery(tfp.SumAggregationDPQuery):
    """Clipped sums through integer messages that carry their share of the noise (Agarwal et al. 2021, algorithm 1).

    A record is an update, a flat list of tensors, together with its device's key, int64 [2]; preprocessed it is the
    message, int32 [dimension] in [0, 2^bits), whatever the update. The sample state is the messages' sum modulo 2^bits,
    which `tff.aggregators.SecureModularSumFactory(2**bits)` makes, inside `DifferentiallyPrivateFactory` or not. The
    privacy rests on the key: a simulation derives it, a deployed device must draw it and tell nobody.
    """

    class GlobalState(NamedTuple):
        """Seed of the rotations, which everybody may know, and the round."""

        seed: tf.Tensor
        step: tf.Tensor

    def __init__(
        self,
        record_specs: Sequence[tf.TensorSpec],
        clip_norm: float,
        noise_multiplier: float,
        seed: int,
        strategy: Skellam,
    ) -> None:
        """
        Args:
            record_specs: of an update's tensors, a flat list.
            clip_norm: L2 bound of an update.
            noise_multiplier: z >= 0, in clip norms: deviation of the noise of min_reports devices together.
            seed: of the rotations.
            strategy: the grid.

        Raises:
            ValueError: the strategy is for another number of values.
        """
        self._specs = list(record_specs)
        self._sizes = [spec.shape.num_elements() for spec in self._specs]
        if sum(self._sizes) > strategy.dimension:
            raise ValueError(
                f"dimension is {strategy.dimension:,}, too few for {sum(self._sizes):,} values"
            )
        self._clip_norm, self._seed, self._strategy = clip_norm, seed, strategy
        self._grid = strategy.scale / clip_norm
        self._share = (noise_multiplier * strategy.scale) ** 2 / strategy.min_reports

    def initial_global_state(self) -> GlobalState:
        return self.GlobalState(
            seed=tf.constant(self._seed, tf.int64), step=tf.constant(0, tf.int64)
        )

    def derive_sample_params(self, global_state: GlobalState) -> tf.Tensor:
        """The round's key, int64 [2], from which devices and server derive its rotation."""
        return tf.stack([global_state.seed, global_state.step])

    def initial_sample_state(self, template=None) -> tf.Tensor:
        return tf.zeros([self._strategy.dimension], tf.int32)

    def preprocess_record(
        self, params: tf.Tensor, record: tuple[Sequence[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        update, key = record
        clipped, _ = clip_record(list(update), tf.constant(self._clip_norm, tf.float32))
        flat = tf.concat([tf.reshape(part, [-1]) for part in clipped], axis=0)
        flat = tf.pad(self._grid * flat, [[0, self._strategy.dimension - sum(self._sizes)]])
        most = rounded_norm(self._strategy.scale, self._strategy.dimension)
        rounded = round_within(rotate(flat, params), most, derive_key(key, 0))
        poisson = tf.random.stateless_poisson(
            [2, self._strategy.dimension],
            seed=derive_key(key, 1),
            lam=tf.constant(self._share / 2, tf.float64),
            dtype=tf.int64,
        )
        message = tf.cast(rounded, tf.int64) + poisson[0] - poisson[1]
        return tf.cast(tf.math.floormod(message, 2**self._strategy.bits), tf.int32)

    def accumulate_preprocessed_record(
        self, sample_state: tf.Tensor, preprocessed_record: tf.Tensor
    ) -> tf.Tensor:
        return self.merge_sample_states(sample_state, preprocessed_record)

    def merge_sample_states(
        self, sample_state_1: tf.Tensor, sample_state_2: tf.Tensor
    ) -> tf.Tensor:
        return tf.math.floormod(sample_state_1 + sample_state_2, 2**self._strategy.bits)

    def get_noised_result(
        self, sample_state: tf.Tensor, global_state: GlobalState
    ) -> tuple[list[tf.Tensor], GlobalState, dp_accounting.DpEvent]:
        half = 2 ** (self._strategy.bits - 1)
        centred = tf.math.floormod(sample_state + half, 2 * half) - half
        flat = rotate_back(
            tf.cast(centred, tf.float32) / self._grid, self.derive_sample_params(global_state)
        )
        parts = tf.split(flat[: sum(self._sizes)], self._sizes)
        total = [
            tf.reshape(part, spec.shape) for part, spec in zip(parts, self._specs, strict=True)
        ]
        state = global_state._replace(step=global_state.step + 1)
        return total, state, dp_accounting.UnsupportedDpEvent()

    def derive_metrics(self, global_state: GlobalState) -> OrderedDict[str, tf.Tensor]:
        return OrderedDict(round=global_state.step)


def derive_key(key: tf.Tensor, *places: int | tf.Tensor) -> tf.Tensor:
    """A key of its own, int64 [2], for each path of places under a key, int64 [2]."""
    for place in places:
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(place, tf.int64), alg="philox")
    return key


def rotate(flat: tf.Tensor, round_key: tf.Tensor) -> tf.Tensor:
    """The vector with random signs, times an orthonormal Hadamard matrix: no value of it stands out any more."""
    return _multiply_by_hadamard(flat * _draw_signs(flat.shape[0], round_key))


def rotate_back(rotated: tf.Tensor, round_key: tf.Tensor) -> tf.Tensor:
    """Undoes `rotate`."""
    return _multiply_by_hadamard(rotated) * _draw_signs(rotated.shape[0], round_key)


def _draw_signs(length: int, round_key: tf.Tensor) -> tf.Tensor:
    bits = tf.random.stateless_uniform([length], round_key, 0, 2, tf.int32, alg="philox")
    return tf.cast(2 * bits - 1, tf.float32)


def _multiply_by_hadamard(flat: tf.Tensor) -> tf.Tensor:
    """By Sylvester's matrix of 2^n, over 2^(n/2): a Kronecker product of small ones, each along an axis of its own."""
    size = flat.shape[0].bit_length() - 1
    factors = [min(_LARGEST_FACTOR, size - i) for i in range(0, size, _LARGEST_FACTOR)]
    shaped = tf.reshape(flat, [2**factor for factor in factors])
    for factor in factors:
        matrix = scipy.linalg.hadamard(2**factor).astype(np.float32) / 2 ** (factor / 2)
        shaped = tf.tensordot(shaped, tf.constant(matrix, tf.float32), [[0], [0]])
    return tf.reshape(shaped, [-1])


def round_within(values: tf.Tensor, most: float, key: tf.Tensor) -> tf.Tensor:
    """Whole numbers, int32, that are the values in expectation, and of an L2 norm of at most `most`, checked exactly.

    Conditional randomised rounding (Kairouz et al. 2021, algorithm 1): what is longer is drawn again, a few times.
    Then, and if rounding in float32 still left it too long, nothing of it remains but what is certain.
    """
    floor = tf.floor(values)
    fraction = values - floor
    limit = tf.constant(int(most**2), tf.int64)

    def is_within(rounded: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(tf.cast(rounded, tf.int64))) <= limit

    def draw(attempt: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        uniform = tf.random.stateless_uniform(
            tf.shape(values), derive_key(key, attempt), alg="philox"
        )
        return attempt + 1, tf.cast(floor, tf.int32) + tf.cast(uniform < fraction, tf.int32)

    _, rounded = tf.while_loop(
        lambda attempt, rounded: (attempt < _ROUNDINGS) & ~is_within(rounded),
        draw,
        draw(tf.constant(0), tf.zeros_like(values, tf.int32)),
    )
    cut = tf.cast(tf.math.sign(values) * tf.floor(tf.abs(values)), tf.int32)
    rounded = tf.where(is_within(rounded), rounded, cut)
    return tf.where(is_within(rounded), rounded, tf.zeros_like(rounded))

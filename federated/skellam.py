"""Integer noise that devices add themselves, before a sum modulo 2^bits: how much privacy it gives, and what grid fits.

A device rotates its clipped update, scales it to a grid of `scale` steps a clip norm, rounds it at random, adds its
share of Skellam noise (the difference of two Poisson numbers) and sends it modulo 2^bits. Skellam noise adds up to
Skellam noise. After Agarwal, Kairouz & Liu 2021 ("The Skellam mechanism for differentially private federated learning",
arXiv:2110.04995) and Kairouz, Liu & Steinke 2021 ("The distributed discrete Gaussian mechanism ...", arXiv:2102.06387).
No TensorFlow here: the accountant is at hand at once.
"""

import math
from collections.abc import Sequence

import numpy as np

MOST_BITS = 24  # the grid's numbers have to be float32's too, before they are rounded and after they are summed
# A whole round wraps around anywhere with at most this chance, so that 1,000 rounds do with 1e-6.
WRAP_CHANCE = 1e-9
_COARSEST = 2.0  # more than this factor on the squared sensitivity is a grid that cannot be meant

# Orders at which the divergence is bounded; the bound is proven for whole ones only.
RENYI_ORDERS = (*range(2, 128), *(round(128 * 2 ** (i / 8)) for i in range(120)))


def padded_dimension(parameters: int) -> int:
    """Length of a rotated update: the next power of two, which a Hadamard matrix needs.

    Raises:
        ValueError: parameters is below 1.
    """
    if parameters < 1:
        raise ValueError(f"parameters is {parameters!r}, must be at least 1")
    return 1 << (int(parameters) - 1).bit_length()


def rounded_norm(scale: float, dimension: int) -> float:
    """Largest L2 norm, in grid steps, of an update of 1 clip norm once it is rounded.

    Kairouz et al. 2021, theorem 1 with beta = exp(-1/2), gamma = 1 and c = scale: sqrt(c^2 + d/4 + c + sqrt(d)/2), and
    c + sqrt(d) if that is less. Roundings beyond it are drawn again.
    """
    root = math.sqrt(dimension)
    return min(math.sqrt(scale**2 + dimension / 4 + scale + root / 2), scale + root)


def skellam_divergence(
    noise_multiplier: float, scale: float, dimension: int, orders: Sequence[int]
) -> np.ndarray:
    """Renyi divergences of one participation, at most, float64 like `orders`.

    Agarwal et al. 2021, corollary 3.6 (and 4.1, in units of the update): with L2 and L1
    sensitivities D2 and D1 and noise of variance mu, a D2^2 / (2 mu) + min(((2 a - 1) D2^2 + 6 D1) / (4 mu^2),
    3 D1 / (2 mu)). Of whole numbers, D1 is at most D2^2, and at most sqrt(d) D2.

    Args:
        noise_multiplier: deviation of the noise in the sum, in clip norms.
        scale: grid steps of a clip norm.
        dimension: length of a message.
        orders: whole numbers a >= 2.
    """
    a = np.asarray(orders, np.float64)
    if (a < 2).any() or (a % 1).any():
        raise ValueError("orders must be whole numbers of at least 2: nothing is proven for others")
    l2 = rounded_norm(scale, dimension)
    l1 = l2 * min(l2, math.sqrt(dimension))
    variance = (noise_multiplier * scale) ** 2
    more = ((2 * a - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    return a * l2**2 / (2 * variance) + np.minimum(more, 3 * l1 / (2 * variance))


def log_wrap_chance(
    bits: int, scale: float, dimension: int, cohort: int, noise_variance: float
) -> float:
    """Logarithm of a bound on the chance that any value of a round's sum leaves [-2^(bits - 1), 2^(bits - 1)).

    Chernoff's bound for honest devices whose updates all point the same way: a value of a vector of norm `cohort`
    clip norms, rotated by random signs and a Hadamard matrix, is subgaussian with cohort^2 / d (Hoeffding); Skellam
    noise of variance m has the moment generating function exp(m (cosh t - 1)); rounding moves a value by less than 1
    a device.

    Args:
        noise_variance: of all devices' noise together, in grid steps squared.
    """
    room = 2.0 ** (bits - 1) - cohort - 1
    if room <= 0:
        return 0.0
    signal = (scale * cohort) ** 2 / dimension

    def log_tail(t: float) -> float:
        noise = 2 * noise_variance * math.sinh(t / 2) ** 2  # cosh t - 1, not lost to rounding
        return t * t * signal / 2 + noise - t * room

    low, high = 0.0, min(700.0, room / (signal + noise_variance))  # cosh t - 1 >= t^2 / 2
    for _ in range(100):  # convex in t: ternary search
        third = (high - low) / 3
        if log_tail(low + third) < log_tail(high - third):
            high -= third
        else:
            low += third
    return min(0.0, log_tail((low + high) / 2) + math.log(2 * dimension))


def finest_scale(
    bits: int, dimension: int, cohort: int, min_reports: int, noise_multiplier: float
) -> float:
    """Grid steps of a clip norm: as many as let a full cohort wrap around with at most WRAP_CHANCE a round.

    Raises:
        ValueError: no grid that fits is fine enough to be of use.
    """

    def fits(log_scale: float) -> bool:
        scale = math.exp(log_scale)
        variance = (noise_multiplier * scale) ** 2 * cohort / min_reports
        return log_wrap_chance(bits, scale, dimension, cohort, variance) <= math.log(WRAP_CHANCE)

    low, high = math.log(1e-3), math.log(2.0**MOST_BITS)
    if fits(low):
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        scale = math.exp(low)
        if (rounded_norm(scale, dimension) / scale) ** 2 <= _COARSEST:
            return scale
    raise ValueError(
        f"bits is {bits}, too few for a cohort of {cohort}, noise_multiplier {noise_multiplier:g} and {dimension:,}"
        f" values: rounding alone would cost more than twice the privacy; give more bits (at most {MOST_BITS}), a"
        " smaller cohort or less noise"
    )

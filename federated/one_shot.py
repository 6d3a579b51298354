"""Estimates of epsilon from one run's canaries, after Andrew et al. 2023 (arXiv:2302.03098).

A canary's update is a random direction, so what it left in a released model is the cosine of the two. Without the
canary the cosine's distribution is known: in d dimensions nearly N(0, 1/d). With it, a normal distribution is fitted.
All figures here are estimates and none is a bound with confidence; those are in `audit`.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from federated.audit import jeffreys_upper

_LEAST_DIMENSIONS = (
    1_000  # from there on N(0, 1/d) is as good as exact (one_shot_epe of google-research/federated)
)


def epsilon_two_gaussians(
    mean: float, stddev: float, other_mean: float, other_stddev: float, delta: float
) -> float:
    """Least epsilon at which two normal distributions are (epsilon, delta)-close in both directions; exact.

    Raises:
        ValueError: a standard deviation is not positive, or delta not in (0, 1).
    """
    if min(stddev, other_stddev) <= 0:
        raise ValueError(f"standard deviations are {stddev}, {other_stddev}: give positive ones")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta!r}, must be in (0, 1)")
    one, other = (mean, stddev), (other_mean, other_stddev)

    def surplus(epsilon: float) -> float:
        worst = max(_log_delta(one, other, epsilon), _log_delta(other, one, epsilon))
        return max(worst, -1e300) - math.log(delta)  # brentq wants finite values

    if surplus(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while surplus(high) > 0:
        low, high = high, 10 * high
    return float(optimize.brentq(surplus, low, high, rtol=1e-12))


def estimate_from_cosines(cosines: Sequence[float], dimensions: int, delta: float) -> float:
    """Estimate of epsilon: the canaries' cosines, as a normal distribution, against N(0, 1/d) of what never took part.

    Raises:
        ValueError: fewer than two cosines, or dimensions below 1,000.
    """
    _check(cosines, dimensions)
    fitted = float(np.mean(cosines)), float(np.std(cosines))
    return epsilon_two_gaussians(0.0, dimensions**-0.5, *fitted, delta)


def published_lower_estimate(
    cosines: Sequence[float], dimensions: int, significance: float, delta: float
) -> float:
    """What the paper's code calls a lower bound: an estimate, since it takes the best of all thresholds uncorrected.

    For comparison with published figures only. It is well above zero for canaries that never took part.

    Raises:
        ValueError: as `estimate_from_cosines`.
    """
    _check(cosines, dimensions)
    count = len(cosines)
    best = 0.0
    for missed, threshold in enumerate(sorted(cosines)):
        log_false_alarm = float(stats.norm.logcdf(-threshold, scale=dimensions**-0.5))
        miss = jeffreys_upper(missed, count, significance)
        if miss < 1 - delta:
            best = max(best, math.log(1 - delta - miss) - log_false_alarm)
        if math.exp(log_false_alarm) < 1 - delta:
            best = max(best, math.log(1 - delta - math.exp(log_false_alarm)) - math.log(miss))
    return best


def _log_delta(first: tuple[float, float], second: tuple[float, float], epsilon: float) -> float:
    """log(P[L > epsilon] - e^epsilon Q[L > epsilon]) of the privacy loss L of normal P and Q (arXiv:2210.00597)."""
    (m1, s1), (m2, s2) = first, second
    # L(y) = a y^2 + b y + c, as it is in standard units of the first
    a = (s2**-2 - s1**-2) / 2
    b = m1 / s1**2 - m2 / s2**2
    c = ((m2 / s2) ** 2 - (m1 / s1) ** 2) / 2 + math.log(s2 / s1) - epsilon
    if a == 0:
        if b == 0:
            return -math.inf
        cut, sign = -c / b, math.copysign(1, b)
        log_p, log_q = (
            float(special.log_ndtr(sign * (m - cut) / s)) for m, s in ((m1, s1), (m2, s2))
        )
    else:
        root = b**2 - 4 * a * c
        if root <= 0:
            return -math.inf
        left, right = sorted((-b + sign * math.sqrt(root)) / (2 * a) for sign in (-1, 1))
        mass = _log_outside if a > 0 else _log_between
        log_p, log_q = mass(left, right, m1, s1), mass(left, right, m2, s2)
    ratio = epsilon + log_q - log_p
    return log_p + math.log(-math.expm1(ratio)) if ratio < 0 else -math.inf


def _log_outside(left: float, right: float, mean: float, stddev: float) -> float:
    below, above = special.log_ndtr([(left - mean) / stddev, (mean - right) / stddev])
    return float(np.logaddexp(below, above))


def _log_between(left: float, right: float, mean: float, stddev: float) -> float:
    low, high = (left - mean) / stddev, (right - mean) / stddev
    if low > 0:  # both tails are taken on the side where they are small
        low, high = -high, -low
    upper, lower = special.log_ndtr([high, low])
    return float(upper + np.log(-np.expm1(lower - upper)))


def _check(cosines: Sequence[float], dimensions: int) -> None:
    if len(cosines) < 2:
        raise ValueError(f"{len(cosines)} cosines: give at least two canaries that took part")
    if dimensions < _LEAST_DIMENSIONS:
        raise ValueError(
            f"dimensions is {dimensions}, must be at least {_LEAST_DIMENSIONS}: take a larger model"
        )

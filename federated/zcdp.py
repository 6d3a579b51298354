"""Between zCDP rho and (epsilon, delta), exactly for the Gaussian mechanism."""

import math
from collections.abc import Callable

# The grid of the launches of 2022 (tensorflow_privacy, tree_aggregation_accountant.py).
_RDP_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))


def epsilon_from_rho(rho: float, delta: float) -> float:
    """Exact epsilon of a Gaussian mechanism of zCDP rho, mu = sqrt(2 rho); only for that one.

    Balle and Wang 2018 (arXiv:1805.06530), theorem 8, in logarithms, so that no delta is too small.
    Solved from above: the last bit errs on the safe side.

    Raises:
        ValueError: rho is not positive and finite, or delta not in (0, 1).
    """
    check_positive("rho", rho)
    check_delta(delta)
    target = math.log(delta)
    if _log_delta(rho, 0.0) <= target:
        return 0.0
    classic = rho + 2 * math.sqrt(-rho * target)  # Bun and Steinke 2016, proposition 1.3
    return _bisect(lambda epsilon: _log_delta(rho, epsilon) > target, 0.0, classic)[1]


def epsilon_grid_rdp(rho: float, delta: float) -> float:
    """Epsilon of zCDP rho by the best Renyi order on TensorFlow Privacy's grid, never too small.

    Raises:
        ValueError: rho is not positive and finite, or delta not in (0, 1).
    """
    from dp_accounting import rdp

    check_positive("rho", rho)
    check_delta(delta)
    epsilon, _ = rdp.compute_epsilon(_RDP_ORDERS, [rho * order for order in _RDP_ORDERS], delta)
    return float(epsilon)


def rho_from_epsilon(epsilon: float, delta: float) -> float:
    """Largest rho of a Gaussian mechanism that meets (epsilon, delta): undoes `epsilon_from_rho`.

    Raises:
        ValueError: epsilon is not positive and finite, or delta not in (0, 1).
    """
    check_positive("epsilon", epsilon)
    check_delta(delta)
    target = math.log(delta)
    # The classic bound of epsilon_from_rho, solved for rho, is where the search starts.
    low = (epsilon / (math.sqrt(epsilon - target) + math.sqrt(-target))) ** 2
    high = 2 * low
    while _log_delta(high, epsilon) <= target:
        high *= 2
    return _bisect(lambda rho: _log_delta(rho, epsilon) <= target, low, high)[0]


def _log_delta(rho: float, epsilon: float) -> float:
    """log delta(epsilon) of a Gaussian mechanism (Balle and Wang 2018, theorem 8)."""
    from scipy.special import log_ndtr

    mu = math.sqrt(2 * rho)
    log_first = float(log_ndtr(mu / 2 - epsilon / mu))
    log_ratio = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)) - log_first
    if log_ratio >= 0:  # lost to rounding; the first term alone is never too small
        return log_first
    return log_first + math.log(-math.expm1(log_ratio))


def _bisect(goes_right: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Narrows [low, high] to 2**-50 of its width; goes_right holds at low and not at high."""
    for _ in range(50):
        middle = (low + high) / 2
        if goes_right(middle):
            low = middle
        else:
            high = middle
    return low, high


def check_positive(name: str, value: float) -> None:
    """Raises ValueError with the name if the value is not positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}, must be positive and finite")


def check_delta(delta: float) -> None:
    """Raises ValueError if delta is not in (0, 1)."""
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta!r}, must be in (0, 1)")

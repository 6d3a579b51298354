"""The best banded Toeplitz and BLT strategies for a number of rounds and a (b, k) participation.

The loss of a strategy is sqrt(squared sensitivity * error): the noise in the sum of the rounds so far at rho = 1/2,
where the noise multiplier is the sensitivity. Both factors and their gradients are exact here, for the strategy's
first column c and the first column d of its inverse: the noise in the sum of t rounds has the variance of the first t
numbers of g = cumsum(d), squared and summed, and the derivative of d by c_j is d * d, shifted by j and negated.
L-BFGS finds the parameters in well under a second for 2,000 rounds.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from federated.sensitivity import most_participations
from federated.strategies import BandedToeplitz, Blt, Strategy

Error = Literal["max", "mean"]

_FIRST_GAPS = (
    0.1,
    1.0,
    10.0,
)  # tuned on the golden cases: the best of these starts is within 1e-4 of the best known
_FIRST_SUM = 0.45  # sums of scales of optimised BLTs are 0.35 to 0.55
_MOST_STEPS = 500


def prefix_loss(
    strategy: Strategy, rounds: int, min_separation: int, max_participations: int, error: Error
) -> float:
    """Noise in the sum of the rounds so far at rho = 1/2, in clip norms: its largest or root-mean-square deviation.

    At another rho it is 1 / sqrt(2 rho) times as much.

    Args:
        strategy: of the noise.
        rounds, min_separation, max_participations: the run's.
        error: `max` over the rounds, or root of the `mean` of the variances.

    Raises:
        ValueError: as `Strategy.squared_sensitivity`.
    """
    sensitivity = strategy.squared_sensitivity(rounds, min_separation, max_participations)
    variances = strategy.prefix_variances(rounds)
    return float(np.sqrt(sensitivity * (variances.max() if error == "max" else variances.mean())))


def most_bands(rounds: int, min_separation: int, max_participations: int) -> int:
    """Bands with which columns of one device cannot overlap: b, but no bound where it takes part only once.

    Raises:
        ValueError: an argument is not a positive integer.
    """
    once = most_participations(rounds, min_separation, max_participations) == 1
    return rounds if once else min(rounds, min_separation)


def optimise_toeplitz(
    rounds: int, min_separation: int, max_participations: int, bands: int, error: Error = "max"
) -> BandedToeplitz:
    """Banded Toeplitz strategy of least loss, scaled so that one participation costs 1 clip norm squared.

    Args:
        rounds, min_separation, max_participations: the run's.
        bands: h, 1 to `most_bands`.
        error: see `prefix_loss`.

    Raises:
        ValueError: an argument is out of its range.
    """
    from scipy.signal import lfilter

    participations = most_participations(rounds, min_separation, max_participations)
    most = most_bands(rounds, min_separation, max_participations)
    if not 1 <= bands <= most:
        raise ValueError(
            f"bands is {bands!r}, must be 1 to {most}, with which columns of one device do not overlap"
        )
    weights = _error_weights(rounds, error)
    first_round = np.zeros(rounds)
    first_round[0] = 1

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        column = np.zeros(rounds)
        column[:bands] = 1, *free
        inverse = lfilter([1.0], column[:bands], first_round)
        value, gradient = _log_loss(column, inverse, weights, min_separation, participations)
        return value, gradient[1:bands]

    # The optimum for one participation and unlimited bands is the root of the ones, 1, 1/2, 3/8, ...
    steps = np.arange(1, bands)
    coefficients = np.array([1.0, *_minimise(loss, np.cumprod(1 - 1 / (2 * steps)))])
    return BandedToeplitz(tuple(coefficients / np.linalg.norm(coefficients)))


def optimise_blt(
    rounds: int, min_separation: int, max_participations: int, buffers: int, error: Error = "max"
) -> Blt:
    """BLT strategy of least loss with this many buffers: best of several descents, which end in local optima.

    Args:
        rounds, min_separation, max_participations: the run's.
        buffers: 1 to 8; from 4 on, a further one gains next to nothing.
        error: see `prefix_loss`.

    Raises:
        ValueError: an argument is out of its range.
    """
    participations = most_participations(rounds, min_separation, max_participations)
    if not 1 <= buffers <= 8:
        raise ValueError(f"buffers is {buffers!r}, must be 1 to 8")
    if rounds < 2:
        return Blt((0.0,) * buffers, (0.0,) * buffers)  # one round has nothing to correlate with
    weights = _error_weights(rounds, error)
    exponents = np.arange(rounds - 1)[:, None]

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        decays, scales = _blt_parameters(free)
        powers = decays**exponents
        column = np.concatenate([[1.0], powers @ scales])
        inverse = _blt_inverse_column(decays, scales, rounds)
        value, gradient = _log_loss(column, inverse, weights, min_separation, participations)
        slopes = np.zeros_like(powers)
        slopes[1:] = exponents[1:] * powers[:-1]
        by_decay = scales * (slopes.T @ gradient[1:])
        by_scale = powers.T @ gradient[1:]
        by_logit = scales * (by_scale - scales @ by_scale)
        return value, np.concatenate([by_decay * decays * (1 - decays), by_logit])

    found = []
    for last_gap in _FIRST_GAPS:
        gaps = np.geomspace(0.5, min(0.4, last_gap / rounds), buffers)
        shares = np.sqrt(gaps) / np.sqrt(gaps).sum() * _FIRST_SUM
        start = np.concatenate([np.log(1 / gaps - 1), np.log(shares / (1 - _FIRST_SUM))])
        found.append(_minimise(loss, start))
    decays, scales = _blt_parameters(min(found, key=lambda free: loss(free)[0]))
    order = np.argsort(-decays)
    return Blt(tuple(decays[order]), tuple(scales[order]))


def _blt_parameters(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decays in (0, 1), scales above 0 that add up to less than 1, from any real numbers."""
    logits, scale_logits = np.split(free, 2)
    scales = np.exp(scale_logits)
    return np.minimum(1 / (1 + np.exp(-logits)), 1 - 1e-15), scales / (1 + scales.sum())


def _blt_inverse_column(decays: np.ndarray, scales: np.ndarray, rounds: int) -> np.ndarray:
    """First column of C^-1 = Q / P, for C(x) = 1 + x sum w_j / (1 - th_j x) = P / Q, in rounds * buffers steps."""
    from scipy.signal import lfilter

    denominator = np.poly(decays)
    numerator = denominator.copy()
    for j, scale in enumerate(scales):
        numerator[1:] += scale * np.poly(np.delete(decays, j))
    first_round = np.zeros(rounds)
    first_round[0] = 1
    return lfilter(denominator, numerator, first_round)


def _error_weights(rounds: int, error: Error) -> np.ndarray:
    """Share of the prefix sums, or of the last one, in which the number g_i is."""
    if error == "max":
        return np.ones(rounds)
    return 1 - np.arange(rounds) / rounds


def _log_loss(
    column: np.ndarray,
    inverse: np.ndarray,
    weights: np.ndarray,
    min_separation: int,
    participations: int,
) -> tuple[float, np.ndarray]:
    """log(squared sensitivity * error), and its gradient by the entries of the column."""
    from scipy.signal import fftconvolve

    rounds = len(column)
    starts = [min_separation * index for index in range(participations)]
    total = np.zeros(rounds)
    for start in starts:
        total[start:] += column[: rounds - start]
    sensitivity = total @ total
    by_sensitivity = np.zeros(rounds)
    for start in starts:
        by_sensitivity[: rounds - start] += 2 * total[start:]

    prefix = np.cumsum(inverse)
    error = weights @ prefix**2
    by_inverse = np.cumsum((2 * weights * prefix)[::-1])[::-1]
    twice = fftconvolve(inverse, inverse)[:rounds]
    by_error = -fftconvolve(by_inverse, twice[::-1])[rounds - 1 :]
    return float(np.log(sensitivity * error)), by_sensitivity / sensitivity + by_error / error


def _minimise(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray
) -> np.ndarray:
    from scipy.optimize import minimize

    if not start.size:
        return start
    options = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "ftol": 1e-13, "gtol": 1e-9}
    bounds = [(-36.0, 36.0)] * len(start)  # where the sigmoid is 0 or 1 in float64
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

"""What a federated run guarantees: zCDP rho and (epsilon, delta) of its noise mechanism.

The unit of privacy is the device; neighbouring runs differ by one device whose updates are replaced
by zero. Participation is (b, k): a device takes part in at most k rounds, any two of them at least
b apart (|i - j| >= b). TensorFlow Privacy and the published launches count the rounds in between,
which are b - 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

_LEAST_NOISE = 1e-6  # beyond it, and its inverse, float64 no longer resolves epsilon
# The grid of the launches of 2022 (tensorflow_privacy, tree_aggregation_accountant.py).
_RDP_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))


@dataclass(frozen=True)
class PrivacyGuarantee:
    """What one device can lose by the release of every model of a run, and what that follows from.

    epsilon is exact for the Gaussian mechanism that the release is; epsilon_rdp is the looser
    figure that Renyi orders on TensorFlow Privacy's grid give, for comparison with launches
    published that way. squared_sensitivity is in squared clip norms, noise_multiplier in clip
    norms.
    """

    mechanism: str
    rho: float
    epsilon: float
    epsilon_rdp: float
    delta: float
    squared_sensitivity: int
    rounds: int
    min_separation: int
    max_participations: int
    noise_multiplier: float


@dataclass(frozen=True)
class ProjectedGuarantee:
    """The guarantee of a deployment that nobody has run: the simulated run at a production scale.

    The deployment has the simulated run's rounds and noise / cohort ratio, hence about its utility,
    and draws each device at most once in floor(production_population / production_cohort) rounds.
    """

    guarantee: PrivacyGuarantee
    simulated_cohort: int
    production_cohort: int
    production_population: int


@dataclass(frozen=True)
class ComposedGuarantee:
    """What one device can lose by several releases together, each of which may look at those before it.

    Every part is a Gaussian mechanism, so rho adds up and the total is one too (Dong, Roth & Su 2019,
    corollary 3.3): epsilon is exact. A device is taken to be in every part at its worst.
    """

    parts: tuple[PrivacyGuarantee, ...]
    rho: float
    epsilon: float
    epsilon_rdp: float
    delta: float


class _Corner(NamedTuple):
    """A cost in reach while at most `head` first and `tail` last rounds of a span are barred."""

    head: int
    tail: int
    value: int


@dataclass(frozen=True)
class _Span:
    """Consecutive rounds, and what each number of participations in them can cost."""

    rounds: int
    corners: dict[int, list[_Corner]]

    def slack(self, participations: int, min_separation: int) -> int:
        """Most rounds that may be barred, head and tail together, with that many participations."""
        return self.rounds - 1 - (participations - 1) * min_separation


def tree_squared_sensitivity(rounds: int, min_separation: int, max_participations: int) -> int:
    """Squared L2 sensitivity of one binary tree over `rounds` leaves, in squared clip norms; exact.

    A node is a complete dyadic interval of rounds and a pattern of participations costs the sum
    over nodes of its squared count of participations (Kairouz et al. 2021, arXiv:2103.00039,
    appendix D); the result is the largest cost of a (b, k) pattern. TensorFlow Privacy computes it
    by dynamic programming over every number h of rounds barred at the head of an interval, by the
    participation before it, and t at its tail. Here the programme runs on the corners of those
    tables: with n participations in m rounds, cost v is within reach on a union of regions {h <= H,
    t <= T, h + t <= m - 1 - (n - 1) b}, the last bound being common to all, so that neither time
    nor memory grows with b. Joining two intervals eliminates the bars at the seam, which have to
    add up to b - 1 (difference constraints: exact on integers).

    Args:
        rounds: leaves of the tree, >= 1.
        min_separation: b >= 1.
        max_participations: k >= 1; more than fit into `rounds` is no error.

    Raises:
        ValueError: an argument is not a positive integer.
    """
    _check_positive_integer("rounds", rounds)
    _check_positive_integer("min_separation", min_separation)
    _check_positive_integer("max_participations", max_participations)
    bar = min_separation - 1
    nothing = [_Corner(bar, bar, 0)]
    whole = _Span(0, {0: [_Corner(bar, 0, 0)]})  # nothing follows the last round
    tree = _Span(1, {0: nothing, 1: [_Corner(0, 0, 1)]})
    leaves = int(rounds)
    while True:
        if leaves & 1:
            whole = _join(tree, whole, min_separation, max_participations, is_node=False)
        leaves >>= 1
        if not leaves:
            return max(corner.value for corners in whole.corners.values() for corner in corners)
        tree = _join(tree, tree, min_separation, max_participations, is_node=True)


def _join(
    left: _Span, right: _Span, min_separation: int, max_participations: int, is_node: bool
) -> _Span:
    """The two spans one after the other; together a node of the tree, or just a run of rounds."""
    joined = _Span(left.rounds + right.rounds, {})
    bar = min_separation - 1
    best: dict[int, dict[tuple[int, int], int]] = {}
    for i, left_corners in left.corners.items():
        left_spare = left.slack(i, min_separation) - bar
        for j, right_corners in right.corners.items():
            if i + j > max_participations or joined.slack(i + j, min_separation) < 0:
                continue
            right_spare = right.slack(j, min_separation) - bar
            values = best.setdefault(i + j, {})
            bonus = (i + j) ** 2 if is_node else 0
            for left_head, left_tail, left_value in left_corners:
                for right_head, right_tail, right_value in right_corners:
                    if left_tail + right_head < bar:
                        continue
                    head = min(left_head, left_spare + right_head)
                    tail = min(right_tail, right_spare + left_tail)
                    value = left_value + right_value + bonus
                    if head >= 0 and tail >= 0 and value > values.get((head, tail), -1):
                        values[head, tail] = value
    for n, values in best.items():
        if values:
            joined.corners[n] = _prune(values, joined.slack(n, min_separation))
    return joined


def _prune(values: dict[tuple[int, int], int], slack: int) -> list[_Corner]:
    """Fewest corners that describe the same table below the line head + tail = slack."""
    kept: list[_Corner] = []
    stairs: list[tuple[int, int]] = []  # corners of every value so far: head falls, tail rises
    for value in sorted(set(values.values()), reverse=True):
        points = [point for point, v in values.items() if v == value]
        merged: list[tuple[int, int]] = []
        for head, tail in sorted(stairs + points, reverse=True):
            if merged and tail <= merged[-1][1]:
                continue
            # The first entry that neither corner covers may lie beyond the line: then they are one.
            if merged and head + merged[-1][1] + 2 > slack:
                merged[-1] = (merged[-1][0], tail)
            else:
                merged.append((head, tail))
        known = set(stairs)
        kept += [_Corner(head, tail, value) for head, tail in merged if (head, tail) not in known]
        stairs = merged
    return kept


def epsilon_from_rho(rho: float, delta: float) -> float:
    """Exact epsilon of a Gaussian mechanism of zCDP rho, mu = sqrt(2 rho); only for that one.

    Balle and Wang 2018 (arXiv:1805.06530), theorem 8, in logarithms, so that no delta is too small.
    Solved from above: the last bit errs on the safe side.

    Raises:
        ValueError: rho is not positive and finite, or delta not in (0, 1).
    """
    _check_positive("rho", rho)
    _check_delta(delta)
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

    _check_positive("rho", rho)
    _check_delta(delta)
    epsilon, _ = rdp.compute_epsilon(_RDP_ORDERS, [rho * order for order in _RDP_ORDERS], delta)
    return float(epsilon)


def rho_from_epsilon(epsilon: float, delta: float) -> float:
    """Largest rho of a Gaussian mechanism that meets (epsilon, delta): undoes `epsilon_from_rho`.

    Raises:
        ValueError: epsilon is not positive and finite, or delta not in (0, 1).
    """
    _check_positive("epsilon", epsilon)
    _check_delta(delta)
    target = math.log(delta)
    # The classic bound of epsilon_from_rho, solved for rho, is where the search starts.
    low = (epsilon / (math.sqrt(epsilon - target) + math.sqrt(-target))) ** 2
    high = 2 * low
    while _log_delta(high, epsilon) <= target:
        high *= 2
    return _bisect(lambda rho: _log_delta(rho, epsilon) <= target, low, high)[0]


def noise_multiplier_for(epsilon: float, delta: float, squared_sensitivity: float) -> float:
    """Smallest noise multiplier, in clip norms, at which a Gaussian release meets (epsilon, delta).

    Raises:
        ValueError: epsilon or squared_sensitivity is not positive and finite, or delta not in
            (0, 1).
    """
    _check_positive("squared_sensitivity", squared_sensitivity)
    return math.sqrt(squared_sensitivity / (2 * rho_from_epsilon(epsilon, delta)))


def account_tree(
    noise_multiplier: float,
    rounds: int,
    min_separation: int,
    max_participations: int,
    delta: float,
) -> PrivacyGuarantee:
    """Guarantee of one tree, never restarted, with noise_multiplier clip norms of noise a node.

    rho = squared sensitivity / (2 noise_multiplier**2).

    Raises:
        ValueError: noise_multiplier is not in [1e-6, 1e6], delta not in (0, 1), or another argument not a
            positive integer.
    """
    squared_sensitivity = tree_squared_sensitivity(rounds, min_separation, max_participations)
    return _account(
        "tree",
        squared_sensitivity,
        noise_multiplier,
        rounds,
        min_separation,
        max_participations,
        delta,
    )


def account_gaussian(
    noise_multiplier: float,
    rounds: int,
    min_separation: int,
    max_participations: int,
    delta: float,
) -> PrivacyGuarantee:
    """Guarantee of `rounds` sums that are released one by one, each with noise of its own.

    Each participation costs 1 squared clip norm, and min(k, ceil(rounds / b)) of them fit in.

    Raises:
        ValueError: as `account_tree`.
    """
    _check_positive_integer("rounds", rounds)
    _check_positive_integer("min_separation", min_separation)
    _check_positive_integer("max_participations", max_participations)
    participations = min(int(max_participations), -(-int(rounds) // int(min_separation)))
    return _account(
        "gaussian",
        participations,
        noise_multiplier,
        rounds,
        min_separation,
        max_participations,
        delta,
    )


def _account(
    mechanism: str,
    squared_sensitivity: int,
    noise_multiplier: float,
    rounds: int,
    min_separation: int,
    max_participations: int,
    delta: float,
) -> PrivacyGuarantee:
    if not _LEAST_NOISE <= noise_multiplier <= 1 / _LEAST_NOISE:
        raise ValueError(
            f"noise_multiplier is {noise_multiplier!r}, must be in [{_LEAST_NOISE:g}, {1 / _LEAST_NOISE:g}]"
        )
    _check_delta(delta)
    rho = squared_sensitivity / (2 * noise_multiplier**2)
    return PrivacyGuarantee(
        mechanism=mechanism,
        rho=rho,
        epsilon=epsilon_from_rho(rho, delta),
        epsilon_rdp=epsilon_grid_rdp(rho, delta),
        delta=delta,
        squared_sensitivity=squared_sensitivity,
        rounds=int(rounds),
        min_separation=int(min_separation),
        max_participations=int(max_participations),
        noise_multiplier=noise_multiplier,
    )


def compose(parts: Sequence[PrivacyGuarantee]) -> ComposedGuarantee:
    """Guarantee of all parts together.

    Raises:
        ValueError: there is no part, or they differ in delta.
    """
    deltas = {part.delta for part in parts}
    if len(deltas) != 1:
        raise ValueError(f"guarantees to compose have the deltas {sorted(deltas)}, give one")
    delta = deltas.pop()
    rho = math.fsum(part.rho for part in parts)
    epsilons = epsilon_from_rho(rho, delta), epsilon_grid_rdp(rho, delta)
    return ComposedGuarantee(tuple(parts), rho, *epsilons, delta)


_ACCOUNTANTS: dict[str, Callable[..., PrivacyGuarantee]] = {
    "tree": account_tree,
    "gaussian": account_gaussian,
}


def account(
    mechanism: str,
    noise_multiplier: float,
    rounds: int,
    min_separation: int,
    max_participations: int,
    delta: float,
) -> PrivacyGuarantee:
    """Guarantee of a run with the named mechanism.

    Raises:
        ValueError: no accountant covers the mechanism, or an argument is out of its range.
    """
    check_mechanism(mechanism)
    return _ACCOUNTANTS[mechanism](
        noise_multiplier, rounds, min_separation, max_participations, delta
    )


def check_mechanism(mechanism: str) -> None:
    """Raises ValueError if no accountant covers the mechanism."""
    if mechanism not in _ACCOUNTANTS:
        raise ValueError(
            f"mechanism is {mechanism!r}, and only {', '.join(_ACCOUNTANTS)} can be accounted for"
        )


def project(
    guarantee: PrivacyGuarantee,
    simulated_cohort: int,
    production_cohort: int,
    production_population: int,
) -> ProjectedGuarantee:
    """Projects a simulated run to a production fleet at equal noise / cohort ratio, rounds, delta.

    The noise multiplier grows with the cohort; min separation is floor(population / cohort) and max
    participations ceil(rounds / min separation).

    Raises:
        ValueError: an argument is not a positive integer, or the population is below the cohort.
    """
    _check_positive_integer("simulated_cohort", simulated_cohort)
    _check_positive_integer("production_cohort", production_cohort)
    _check_positive_integer("production_population", production_population)
    min_separation = production_population // production_cohort
    if min_separation < 1:
        raise ValueError(
            f"production_population is {production_population}, must be at least "
            f"production_cohort, {production_cohort}"
        )
    projected = account(
        guarantee.mechanism,
        guarantee.noise_multiplier * production_cohort / simulated_cohort,
        guarantee.rounds,
        min_separation,
        -(-guarantee.rounds // min_separation),
        guarantee.delta,
    )
    return ProjectedGuarantee(projected, simulated_cohort, production_cohort, production_population)


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


def _check_positive_integer(name: str, value: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, must be an integer of at least 1")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}, must be positive and finite")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta!r}, must be in (0, 1)")

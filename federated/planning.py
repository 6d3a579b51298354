"""What a private deployment needs: noise, cohort, separation and days that meet a target, for each mechanism.

A run of `rounds` rounds with cohorts of n from N devices lets each device wait b rounds between two of its own, so that
it takes part k = ceil(rounds / b) times at most. Larger cohorts drown more noise and shorten b. Utility goes with the
noise in the model, for one mechanism with noise multiplier / cohort. Mechanisms are compared by the ratio of a tree
that leaves as much noise in the model, since production's figures are of trees.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from federated.accounting import PrivacyGuarantee, account, calibrate_noise_multiplier
from federated.mechanism_choice import MechanismChoice
from federated.sensitivity import most_participations
from federated.strategies import Strategy, Tree

PRODUCTION_NOISE_TO_COHORT = 7 / 6500
"""Of the launch of 2022, a tree (Xu et al. 2023, arXiv:2305.18465)."""

_DAY_S = 86_400
_ROUNDING = 1e-9  # of quotients whose exact value may be a whole number
_PARTICIPATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class InfeasibleError(ValueError):
    """The target cannot be met; the message names the binding constraint."""


@dataclass(frozen=True)
class Fleet:
    """The devices of a deployment.

    Attributes:
        population: N >= 1.
        daily_availability: share of them, in (0, 1], that can take part on a given day, once each.
        local_seconds: >= 0, a device's part of a round; the next round waits for it. 0: no limit.
    """

    population: int
    daily_availability: float = 1.0
    local_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.population < 1:
            raise ValueError(f"population is {self.population}, must be at least 1")
        if not 0 < self.daily_availability <= 1:
            raise ValueError(f"daily_availability is {self.daily_availability}, must be in (0, 1]")
        if not 0 <= self.local_seconds < math.inf:
            raise ValueError(
                f"local_seconds is {self.local_seconds}, must be finite and at least 0"
            )

    @property
    def devices_a_day(self) -> int:
        """Devices that can take part on a day."""
        return math.floor(self.population * self.daily_availability)

    def largest_separation(self, cohort: int) -> int:
        """b such that of the devices that are not waiting enough are available: a (N - n (b - 1)) >= n."""
        return math.floor(self.population / cohort - 1 / self.daily_availability + 1 + _ROUNDING)

    def largest_cohort(self, min_separation: int) -> int:
        """Largest n with `largest_separation(n) >= min_separation`."""
        wait = min_separation - 1 + 1 / self.daily_availability
        return math.floor(self.population / (wait - _ROUNDING))

    def days(self, rounds: int, cohort: int) -> tuple[float, str]:
        """Days for that many rounds, and the setting that binds them."""
        by_devices = rounds * cohort / (self.population * self.daily_availability)
        by_time = rounds * self.local_seconds / _DAY_S
        return max((by_devices, "daily_availability"), (by_time, "local_seconds"))


@dataclass(frozen=True)
class Target:
    """What is asked for; None leaves a setting to the plan.

    Attributes:
        delta: in (0, 1).
        rounds: server steps.
        epsilon: > 0 at delta; or
        noise_multiplier: > 0 in clip norms, to see which epsilon it gives. One of the two.
        cohort: devices a round; None: the smallest that meets noise_to_cohort.
        min_separation: b; None: the largest that the fleet allows.
        max_participations: k; None: as many as fit in.
        noise_to_cohort: the largest tree_noise_to_cohort of a plan; None: production's if the cohort is left to the
            plan, else no limit.
        days: the most; None: no limit.
    """

    delta: float
    rounds: int
    epsilon: float | None = None
    noise_multiplier: float | None = None
    cohort: int | None = None
    min_separation: int | None = None
    max_participations: int | None = None
    noise_to_cohort: float | None = None
    days: float | None = None

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                f"epsilon is {self.epsilon} and noise_multiplier {self.noise_multiplier}: give one of the two"
            )
        if self.epsilon is None and self.cohort is None:
            raise ValueError("cohort is not given: give it with a noise_multiplier")
        for name in ("rounds", "cohort", "min_separation", "max_participations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, must be at least 1")
        for name in ("epsilon", "noise_multiplier", "noise_to_cohort", "days"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, must be positive and finite")


@dataclass(frozen=True)
class MeasuredPoint:
    """Top-1 accuracy, with its 95 % interval, after a simulated run at a noise multiplier / cohort."""

    mechanism: str
    noise_to_cohort: float
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """Settings that meet a target.

    Attributes:
        guarantee: mechanism, noise multiplier, rounds, b, k, and the rho and epsilon they give.
        cohort: devices a round.
        noise_to_cohort: noise multiplier / cohort.
        tree_noise_to_cohort: that of a tree that leaves as much noise in the model; what mechanisms are compared by.
        days: that the rounds take at least.
        days_bound_by: the setting of the fleet that decides it.
        accuracy: interpolated between measured points, or None.
        accuracy_note: where the accuracy comes from, or why there is none.
    """

    guarantee: PrivacyGuarantee
    cohort: int
    noise_to_cohort: float
    tree_noise_to_cohort: float
    days: float
    days_bound_by: str
    accuracy: MeasuredPoint | None
    accuracy_note: str


def plan(
    mechanism: str, target: Target, fleet: Fleet, points: Sequence[MeasuredPoint] = ()
) -> Plan:
    """Settings of one mechanism that meet the target.

    Args:
        mechanism: one of strategies.MECHANISMS, with its options left to their defaults.
        target: what is asked for.
        fleet: the devices.
        points: measured accuracy, of any mechanism.

    Raises:
        InfeasibleError: names the binding constraint.
        ValueError: a setting is out of its range.
    """
    cohort = target.cohort or _smallest_cohort(mechanism, target, fleet)
    guarantee = _guarantee(mechanism, target, fleet, cohort)
    ratio, tree_ratio = guarantee.noise_multiplier / cohort, _tree_ratio(guarantee, cohort)
    if target.noise_to_cohort is not None and tree_ratio > target.noise_to_cohort * (1 + _ROUNDING):
        asked = "noise_multiplier" if target.epsilon is None else f"epsilon {target.epsilon:g}"
        raise InfeasibleError(
            f"cohort {cohort:,} is too small: {asked} gives noise / cohort {tree_ratio:.3g}, and"
            f" noise_to_cohort is {target.noise_to_cohort:.3g}: raise the cohort, or leave it to the plan"
        )
    days, bound_by = fleet.days(target.rounds, cohort)
    if target.days is not None and days > target.days:
        raise InfeasibleError(
            f"{bound_by} {getattr(fleet, bound_by):g} lets {target.rounds:,} rounds of {cohort:,} devices take"
            f" {days:.3g} days at least, and days is {target.days:g}: allow more days or fewer rounds"
        )
    if any(point.mechanism == mechanism for point in points):
        accuracy, note = interpolate(points, mechanism, ratio)
    else:
        accuracy, note = interpolate(points, "tree", tree_ratio)
        note = f"none measured with {mechanism}; as of a tree with as much noise: {note}"
    return Plan(guarantee, cohort, ratio, tree_ratio, days, bound_by, accuracy, note)


def interpolate(
    points: Sequence[MeasuredPoint], mechanism: str, noise_to_cohort: float
) -> tuple[MeasuredPoint | None, str]:
    """Accuracy at a ratio between measured ones, linear in its logarithm, and a note on it; never beyond them."""
    own = sorted(
        (point for point in points if point.mechanism == mechanism),
        key=lambda point: point.noise_to_cohort,
    )
    if not own:
        return None, f"none measured with {mechanism}"
    low, high = own[0].noise_to_cohort, own[-1].noise_to_cohort
    if not low <= noise_to_cohort <= high:
        return None, f"measured from noise / cohort {low:.3g} to {high:.3g} only"
    ratios = np.log([point.noise_to_cohort for point in own])
    figures = {
        name: float(
            np.interp(math.log(noise_to_cohort), ratios, [getattr(point, name) for point in own])
        )
        for name in ("top1", "low", "high")
    }
    return MeasuredPoint(mechanism, noise_to_cohort, **figures), "interpolated, simulated runs"


def _guarantee(mechanism: str, target: Target, fleet: Fleet, cohort: int) -> PrivacyGuarantee:
    """What the target's noise, or the noise for its epsilon, gives with that cohort."""
    if cohort > fleet.devices_a_day:
        raise InfeasibleError(
            f"daily_availability {fleet.daily_availability:g} of population {fleet.population:,} is"
            f" {fleet.devices_a_day:,} devices a day, and the cohort {cohort:,}: lower the cohort"
        )
    largest = fleet.largest_separation(cohort)
    separation = target.min_separation or min(largest, target.rounds)
    if separation > largest:
        raise InfeasibleError(
            f"population {fleet.population:,} at daily_availability {fleet.daily_availability:g} gives cohorts of"
            f" {cohort:,} a min_separation of {largest} at the most, not {separation}: lower it or the cohort"
        )
    fitting = most_participations(target.rounds, separation, target.rounds)
    participations = min(target.max_participations or fitting, fitting)
    run = target.rounds, separation, participations
    strategy = _build_strategy(mechanism, *run)
    noise = target.noise_multiplier
    if noise is None:
        assert target.epsilon is not None
        noise = calibrate_noise_multiplier(strategy, target.epsilon, *run, target.delta)
    return account(strategy, noise, *run, target.delta)


@cache
def _build_strategy(
    mechanism: str, rounds: int, min_separation: int, max_participations: int
) -> Strategy:
    return MechanismChoice(mechanism).build(rounds, min_separation, max_participations)


def _tree_ratio(guarantee: PrivacyGuarantee, cohort: int) -> float:
    """Noise / cohort of a tree that leaves as much noise in the model, by root mean square over the rounds."""
    variances = (s.prefix_variances(guarantee.rounds).mean() for s in (guarantee.strategy, Tree()))
    own, tree = variances
    return guarantee.noise_multiplier / cohort * math.sqrt(own / tree)


def _smallest_cohort(mechanism: str, target: Target, fleet: Fleet) -> int:
    """Smallest cohort, to within 2 %, whose noise is low enough.

    The largest cohorts that force 1, 2, 3, 4, 6, ... participations are tried until one will do, and then smaller ones.
    """
    limit = target.noise_to_cohort or PRODUCTION_NOISE_TO_COHORT
    separations = (
        [target.min_separation]
        if target.min_separation
        else [-(-target.rounds // k) for k in _PARTICIPATIONS if k <= target.rounds]
    )
    best_ratio, best_cohort, too_small = math.inf, 0, 0
    for separation in separations:
        largest = fleet.largest_cohort(separation)
        if largest < 1:
            continue
        ratio = _tree_ratio(_guarantee(mechanism, target, fleet, largest), largest)
        if ratio <= limit:
            enough = largest
            while enough - too_small > 1 + 0.02 * too_small:
                middle = (too_small + enough) // 2
                ratio = _tree_ratio(_guarantee(mechanism, target, fleet, middle), middle)
                too_small, enough = (too_small, middle) if ratio <= limit else (middle, enough)
            return enough
        if ratio < best_ratio:
            best_ratio, best_cohort = ratio, largest
    if not best_cohort:
        raise InfeasibleError(
            f"population {fleet.population:,} at daily_availability {fleet.daily_availability:g} is too small for any"
            f" cohort at min_separation {separation}: lower it"
        )
    needed = math.ceil(fleet.population * best_ratio / limit)
    raise InfeasibleError(
        f"population {fleet.population:,} is too small: epsilon {target.epsilon:g} needs noise / cohort"
        f" {best_ratio:.3g} at the least (cohort {best_cohort:,}), and noise_to_cohort is {limit:.3g}: about"
        f" {needed:,} devices would do, or fewer rounds, or a larger epsilon"
    )

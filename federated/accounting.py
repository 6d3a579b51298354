"""What a federated run guarantees: zCDP rho and (epsilon, delta) of its noise.

The unit of privacy is the device; neighbouring runs differ by one device whose updates are replaced by zero.
Participation is (b, k): a device takes part in at most k rounds, any two of them at least b apart (|i - j| >= b).
TensorFlow Privacy and the published launches count the rounds in between, which are b - 1. Whatever is not covered
exactly is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from federated.sensitivity import most_participations
from federated.skellam import RENYI_ORDERS
from federated.strategies import Gaussian, Skellam, Strategy
from federated.zcdp import (
    check_delta,
    check_positive,
    epsilon_from_rho,
    epsilon_grid_rdp,
    rho_from_epsilon,
)

_LEAST_NOISE = 1e-6  # beyond it, and its inverse, float64 no longer resolves epsilon


@dataclass(frozen=True)
class PrivacyGuarantee:
    """What one device can lose by the release of every model of a run, and what that follows from.

    epsilon is exact for the Gaussian mechanism that the release is, and with Poisson sampling dp-accounting's upper
    bound from privacy loss distributions, which is tight to 2e-3. epsilon_rdp is the looser figure that Renyi orders on
    a grid give, for comparison with launches published that way. rho is None with Poisson sampling, which zCDP does
    not describe, and for Skellam noise, whose divergence is bounded at whole Renyi orders only: both epsilons are what
    these give. squared_sensitivity is in squared clip norms, noise_multiplier, of the updates, in clip norms;
    max_participations None stands for no limit.
    """

    mechanism: str
    rho: float | None
    epsilon: float
    epsilon_rdp: float
    delta: float
    squared_sensitivity: float
    rounds: int
    min_separation: int
    max_participations: int | None
    noise_multiplier: float
    strategy: Strategy

    def event(self) -> Any:
        """The run as an event of dp-accounting, for its accountants.

        Raises:
            ValueError: the noise is Skellam's, which it has no event for.
        """
        import dp_accounting

        if self.rho is not None:
            return dp_accounting.GaussianDpEvent((2 * self.rho) ** -0.5)
        if not isinstance(self.strategy, Gaussian):
            raise ValueError(f"mechanism {self.mechanism} is no event of dp-accounting's")
        return _sampled_event(self.strategy, self.noise_multiplier, self.rounds)

    def divergences(self) -> np.ndarray:
        """Renyi divergences of the run at RENYI_ORDERS, at most.

        Raises:
            ValueError: with Poisson sampling, which is composed by privacy loss distributions.
        """
        if self.rho is not None:
            return self.rho * np.array(RENYI_ORDERS, np.float64)
        if not isinstance(self.strategy, Skellam):
            raise ValueError(
                "Poisson sampling together with Skellam noise: no accountant covers it"
            )
        limit = self.rounds if self.max_participations is None else self.max_participations
        participations = most_participations(self.rounds, self.min_separation, limit)
        return participations * self.strategy.divergences(self.noise_multiplier)


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

    If every part is a Gaussian mechanism, rho adds up and the total is one too (Dong, Roth & Su 2019, corollary 3.3):
    epsilon is exact. Otherwise rho is None, and epsilon dp-accounting's, with Skellam noise in a part by
    Renyi orders. A device is taken to be in every part at its
    worst.
    """

    parts: tuple[PrivacyGuarantee, ...]
    rho: float | None
    epsilon: float
    epsilon_rdp: float
    delta: float


def effective_noise_multiplier(update_multiplier: float, count_stddev: float | None) -> float:
    """Noise multiplier left for the update once adaptive clipping has spent some on its count.

    One device changes the update by at most the clip norm and the centred count by 1/2, so both releases together
    are one Gaussian with z = (z_u**-2 + (2 s)**-2) ** -0.5 (Andrew et al. 2021, theorem 1).

    Args:
        update_multiplier: z_u > 0, noise on the summed update in clip norms.
        count_stddev: s > 0, noise on the count of unclipped devices; None if nothing is counted.

    Raises:
        ValueError: an argument is not positive and finite.
    """
    check_positive("noise_multiplier", update_multiplier)
    if count_stddev is None:
        return update_multiplier
    check_positive("count_stddev", count_stddev)
    return (update_multiplier**-2 + (2 * count_stddev) ** -2) ** -0.5


def account(
    strategy: Strategy,
    noise_multiplier: float,
    rounds: int,
    min_separation: int,
    max_participations: int | None,
    delta: float,
) -> PrivacyGuarantee:
    """Guarantee of a run: rho = squared sensitivity / (2 z**2), z being the effective noise multiplier.

    Skellam noise is accounted for by its Renyi divergences, which are a little more than that.

    Args:
        strategy: how the noise of the rounds is correlated, and what else it is spent on.
        noise_multiplier: of the updates, 1e-6 to 1e6 clip norms.
        rounds: released, >= 1.
        min_separation: b >= 1; 1 with Poisson sampling.
        max_participations: k >= 1, or None for as many as fit; None with Poisson sampling.
        delta: in (0, 1).

    Raises:
        ValueError: an argument is out of its range, or the combination is not covered.
    """
    participations = most_participations(
        rounds, min_separation, rounds if max_participations is None else max_participations
    )
    if not _LEAST_NOISE <= noise_multiplier <= 1 / _LEAST_NOISE:
        raise ValueError(
            f"noise_multiplier is {noise_multiplier!r}, must be in [{_LEAST_NOISE:g}, {1 / _LEAST_NOISE:g}]"
        )
    check_delta(delta)
    strategy.check(min_separation, max_participations)
    rho: float | None
    if isinstance(strategy, Gaussian) and strategy.sampling_rate is not None:
        rho, squared_sensitivity = None, 1.0
        epsilons = _epsilons([_sampled_event(strategy, noise_multiplier, rounds)], delta)
    elif isinstance(strategy, Skellam):
        squared_sensitivity = strategy.squared_sensitivity(rounds, min_separation, participations)
        rho = None
        epsilons = _renyi_epsilons(participations * strategy.divergences(noise_multiplier), delta)
    else:
        squared_sensitivity = strategy.squared_sensitivity(rounds, min_separation, participations)
        count_stddev = strategy.count_stddev if isinstance(strategy, Gaussian) else None
        noise = effective_noise_multiplier(noise_multiplier, count_stddev)
        rho = squared_sensitivity / (2 * noise**2)
        epsilons = epsilon_from_rho(rho, delta), epsilon_grid_rdp(rho, delta)
    return PrivacyGuarantee(
        mechanism=strategy.name,
        rho=rho,
        epsilon=epsilons[0],
        epsilon_rdp=epsilons[1],
        delta=delta,
        squared_sensitivity=squared_sensitivity,
        rounds=int(rounds),
        min_separation=int(min_separation),
        max_participations=None if max_participations is None else int(max_participations),
        noise_multiplier=noise_multiplier,
        strategy=strategy,
    )


def calibrate_noise_multiplier(
    strategy: Strategy,
    epsilon: float,
    rounds: int,
    min_separation: int,
    max_participations: int | None,
    delta: float,
) -> float:
    """Smallest noise multiplier of the updates at which `account` gives at most epsilon.

    It is exact, and with Poisson sampling or Skellam noise at most a factor of 1.0002 above the smallest. Skellam
    noise is given the grid that fits it, `Skellam.for_noise`, whatever the strategy's.

    Raises:
        ValueError: as `account`, or the noise on the count of adaptive clipping alone is too little, or no grid fits
            what would be needed.
    """
    check_positive("epsilon", epsilon)
    run = (rounds, min_separation, max_participations, delta)
    if isinstance(strategy, Skellam):
        return _calibrate_skellam(strategy, epsilon, *run)
    probe = account(strategy, 1.0, *run)
    if probe.rho is not None:
        noise = noise_multiplier_for(epsilon, delta, probe.squared_sensitivity)
    else:
        assert isinstance(strategy, Gaussian)
        noise = _calibrate_sampled(Gaussian(sampling_rate=strategy.sampling_rate), epsilon, *run)
    count_stddev = strategy.count_stddev if isinstance(strategy, Gaussian) else None
    if count_stddev is None:
        return noise
    if noise >= 2 * count_stddev:
        raise ValueError(
            f"count_stddev is {count_stddev!r}, must be above {noise / 2:g} for epsilon {epsilon:g}: the count of "
            "unclipped devices alone costs more"
        )
    # What effective_noise_multiplier turns into the noise; a few bits more err on the safe side.
    return (noise**-2 - (2 * count_stddev) ** -2) ** -0.5 * (1 + 1e-12)


def noise_multiplier_for(epsilon: float, delta: float, squared_sensitivity: float) -> float:
    """Smallest noise multiplier, in clip norms, at which a Gaussian release meets (epsilon, delta).

    Raises:
        ValueError: epsilon or squared_sensitivity is not positive and finite, or delta not in
            (0, 1).
    """
    check_positive("squared_sensitivity", squared_sensitivity)
    return math.sqrt(squared_sensitivity / (2 * rho_from_epsilon(epsilon, delta)))


def compose(parts: Sequence[PrivacyGuarantee]) -> ComposedGuarantee:
    """Guarantee of all parts together.

    Raises:
        ValueError: there is no part, they differ in delta, or some have Poisson sampling and some Skellam noise.
    """
    deltas = {part.delta for part in parts}
    if len(deltas) != 1:
        raise ValueError(f"guarantees to compose have the deltas {sorted(deltas)}, give one")
    delta = deltas.pop()
    if len(parts) == 1:
        [part] = parts
        return ComposedGuarantee((part,), part.rho, part.epsilon, part.epsilon_rdp, delta)
    rhos = [part.rho for part in parts if part.rho is not None]
    if any(isinstance(part.strategy, Skellam) for part in parts):
        divergences = np.sum([part.divergences() for part in parts], axis=0)
        return ComposedGuarantee(tuple(parts), None, *_renyi_epsilons(divergences, delta), delta)
    if len(rhos) < len(parts):
        epsilons = _epsilons([part.event() for part in parts], delta)
        return ComposedGuarantee(tuple(parts), None, *epsilons, delta)
    rho = math.fsum(rhos)
    epsilons = epsilon_from_rho(rho, delta), epsilon_grid_rdp(rho, delta)
    return ComposedGuarantee(tuple(parts), rho, *epsilons, delta)


def project(
    guarantee: PrivacyGuarantee,
    simulated_cohort: int,
    production_cohort: int,
    production_population: int,
) -> ProjectedGuarantee:
    """Projects a simulated run to a production fleet at equal noise / cohort ratio, rounds, delta.

    Noise, also of a count, grows with the cohort; min separation is floor(population / cohort) and max participations
    ceil(rounds / min separation), and with Poisson sampling the rate is cohort / population. Integer messages get the
    grid that fits there, and more bits if they need some.

    Raises:
        ValueError: an argument is not a positive integer, or the population is below the cohort, or the strategy is not
            covered at the production's separation, or no grid fits its cohort.
    """
    for name, value in (
        ("simulated_cohort", simulated_cohort),
        ("production_cohort", production_cohort),
        ("production_population", production_population),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value!r}, must be an integer of at least 1")
    if production_population < production_cohort:
        raise ValueError(
            f"production_population is {production_population}, must be at least "
            f"production_cohort, {production_cohort}"
        )
    scale = production_cohort / simulated_cohort
    strategy, rounds = guarantee.strategy, guarantee.rounds
    min_separation = production_population // production_cohort
    max_participations: int | None = most_participations(rounds, min_separation, rounds)
    if isinstance(strategy, Gaussian):
        if strategy.count_stddev is not None:
            strategy = replace(strategy, count_stddev=strategy.count_stddev * scale)
        if strategy.sampling_rate is not None:
            rate = production_cohort / production_population
            strategy = replace(strategy, sampling_rate=rate)
            min_separation, max_participations = 1, None
    if isinstance(strategy, Skellam):
        noise = guarantee.noise_multiplier * scale
        strategy = strategy.for_cohort(production_cohort, noise)
    projected = account(
        strategy,
        guarantee.noise_multiplier * scale,
        rounds,
        min_separation,
        max_participations,
        guarantee.delta,
    )
    return ProjectedGuarantee(projected, simulated_cohort, production_cohort, production_population)


def _sampled_event(strategy: Gaussian, noise_multiplier: float, rounds: int) -> Any:
    import dp_accounting

    noise = effective_noise_multiplier(noise_multiplier, strategy.count_stddev)
    single = dp_accounting.PoissonSampledDpEvent(
        strategy.sampling_rate, dp_accounting.GaussianDpEvent(noise)
    )
    return dp_accounting.SelfComposedDpEvent(single, int(rounds))


def _epsilons(events: Sequence[Any], delta: float) -> tuple[float, float]:
    """Upper bounds for the events' composition, by privacy loss distributions and by Renyi orders."""
    from dp_accounting import pld, rdp

    accountants = pld.PLDAccountant(), rdp.RdpAccountant()
    for accountant in accountants:
        for event in events:
            accountant.compose(event)
    tight, loose = (float(accountant.get_epsilon(delta)) for accountant in accountants)
    return min(tight, loose), loose


def _renyi_epsilons(divergences: np.ndarray, delta: float) -> tuple[float, float]:
    """Both epsilons from divergences at RENYI_ORDERS."""
    from dp_accounting import rdp

    epsilon, _ = rdp.compute_epsilon(RENYI_ORDERS, divergences.tolist(), delta)
    return float(epsilon), float(epsilon)


def _calibrate_skellam(
    strategy: Skellam,
    epsilon: float,
    rounds: int,
    min_separation: int,
    max_participations: int | None,
    delta: float,
) -> float:
    run = (rounds, min_separation, max_participations, delta)

    def is_enough(noise: float) -> bool:
        return account(strategy.for_noise(noise), noise, *run).epsilon <= epsilon

    # Gaussian noise without rounding needs less
    low = high = calibrate_noise_multiplier(Gaussian(), epsilon, *run)
    while not is_enough(high):
        low, high = high, 1.1 * high
    while high > 1.0001 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _calibrate_sampled(
    strategy: Gaussian,
    epsilon: float,
    rounds: int,
    min_separation: int,
    max_participations: int | None,
    delta: float,
) -> float:
    import dp_accounting
    from dp_accounting import pld

    run = (rounds, min_separation, max_participations, delta)
    low = high = 1.0
    while account(strategy, high, *run).epsilon > epsilon:
        low, high = high, 2 * high
    while low == high or account(strategy, low, *run).epsilon <= epsilon:
        low, high = low / 2, low
    return float(
        dp_accounting.calibrate_dp_mechanism(
            pld.PLDAccountant,
            lambda noise: _sampled_event(strategy, noise, rounds),
            epsilon,
            delta,
            dp_accounting.ExplicitBracketInterval(low, high),
            tol=1e-4 * high,
        )
    )

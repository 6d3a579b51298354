"""Plans against published launches, brute force over small fleets, and every way of being refused."""

import dataclasses
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import calibrate_noise_multiplier
from federated.planning import (
    PRODUCTION_NOISE_TO_COHORT,
    Fleet,
    InfeasibleError,
    MeasuredPoint,
    Target,
    interpolate,
    plan,
)
from federated.strategies import MECHANISMS, Gaussian, Tree

LAUNCH = Target(
    delta=1e-10,
    rounds=2000,
    noise_multiplier=7.0,
    cohort=6_500,
    min_separation=314,
    max_participations=6,
)
LAUNCH_FLEET = Fleet(6_500 * 314)
POINTS = [
    MeasuredPoint("tree", ratio, top1, top1 - 0.01, top1 + 0.01)
    for ratio, top1 in ((1e-2, 0.14), (1e-4, 0.18), (1e-3, 0.16))
]


def test_the_launch_of_2022_gives_its_figures_back() -> None:
    """Spanish of Spain: rho 0.81, epsilon 8.90 as published (grid RDP), 8.53 exactly."""
    made = plan("tree", LAUNCH, LAUNCH_FLEET)
    assert made.guarantee.squared_sensitivity == 79
    assert made.guarantee.rho == pytest.approx(0.8061224489795918, rel=1e-12)
    assert made.guarantee.epsilon == pytest.approx(8.526093443452094, abs=1e-6)
    assert made.guarantee.epsilon_rdp == pytest.approx(8.898605012965973, abs=1e-9)
    assert made.noise_to_cohort == PRODUCTION_NOISE_TO_COHORT == pytest.approx(1.08e-3, abs=1e-5)
    back = dataclasses.replace(LAUNCH, noise_multiplier=None, epsilon=made.guarantee.epsilon)
    again = plan("tree", back, LAUNCH_FLEET)
    assert again.guarantee.noise_multiplier == pytest.approx(7.0, rel=1e-9)
    assert again.guarantee.rho == pytest.approx(made.guarantee.rho, rel=1e-9)


@pytest.mark.parametrize(
    ("epsilon", "rho"),
    [(3.42400727306104, 0.1506840301548885), (0.9935499570195393, 0.014342572340349278)],
)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_launches_of_2024_give_their_rho_back(mechanism, epsilon, rho) -> None:
    """Whatever the mechanism, a Gaussian one of that epsilon at delta 1e-10 has that rho."""
    target = Target(1e-10, 2000, epsilon=epsilon, cohort=1_000, min_separation=485)
    assert plan(mechanism, target, Fleet(10**6)).guarantee.rho == pytest.approx(rho, rel=1e-8)


def test_the_launch_of_2024_from_its_noise() -> None:
    """Clip noise 1.411 in units of sqrt(5) unit columns, of which 3 were used: epsilon 3.42 (b 485, k 3)."""
    noise = math.sqrt(5 * 0.6 / (2 * 0.1506840301548885))
    assert noise / math.sqrt(5) == pytest.approx(1.411, abs=5e-4)
    target = Target(
        1e-10,
        2000,
        noise_multiplier=noise,
        cohort=6_500,
        min_separation=485,
        max_participations=3,
    )
    made = plan("gaussian", target, Fleet(6_500 * 485))
    assert made.guarantee.epsilon == pytest.approx(3.42400727306104, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(50, 1_000), st.integers(1, 60))
def test_separation_by_counting_devices(population, per_mille, cohort) -> None:
    """The largest b with which available devices that are not waiting make up a cohort."""
    availability = per_mille / 1_000
    fleet = Fleet(population, availability)
    allowed = [
        b
        for b in range(1, population + 2)
        if availability * (population - cohort * (b - 1)) >= cohort - 1e-6
    ]
    assert fleet.largest_separation(cohort) == max(
        allowed, default=fleet.largest_separation(cohort)
    )
    assert bool(allowed) == (fleet.largest_separation(cohort) >= 1)
    if allowed:
        assert fleet.largest_cohort(max(allowed)) >= cohort


@pytest.mark.parametrize("strategy", [Tree(), Gaussian()], ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("availability", [1.0, 0.4])
def test_the_smallest_cohort_by_trying_all(strategy, availability) -> None:
    """The noise is that of a tree with as much in the model, by the closed forms of both: t, and a sum over bits."""
    fleet = Fleet(round(1_200 / availability), availability)
    target = Target(1e-6, 60, epsilon=4.0, noise_to_cohort=0.08)
    made = plan(strategy.name, target, fleet)
    assert made.guarantee.epsilon == pytest.approx(4.0)
    assert made.tree_noise_to_cohort <= 0.08 * (1 + 1e-9)
    bits = [[d for d in range(6) if t >> d & 1] for t in range(1, 61)]
    tree = sum(1 / (2 - 2**-d) for own in bits for d in own)
    scale = 1.0 if strategy == Tree() else math.sqrt(60 * 61 / 2 / tree)

    def ratio(cohort: int) -> float:
        separation = min(60, fleet.largest_separation(cohort))
        run = 60, separation, -(-60 // separation)
        return scale * calibrate_noise_multiplier(strategy, 4.0, *run, 1e-6) / cohort

    assert made.tree_noise_to_cohort == pytest.approx(ratio(made.cohort))

    enough = [n for n in range(1, fleet.devices_a_day // 3) if ratio(n) <= 0.08]
    assert enough[0] <= made.cohort <= 1.05 * enough[0]
    assert made.cohort in enough


def test_days_are_bound_by_devices_or_by_time() -> None:
    target = Target(1e-6, 100, epsilon=4.0, cohort=50)
    slow, scarce = Fleet(10_000, 0.5, 3_600.0), Fleet(10_000, 0.1, 60.0)
    assert plan("tree", target, slow).days == pytest.approx(100 / 24)
    assert plan("tree", target, slow).days_bound_by == "local_seconds"
    assert plan("tree", target, scarce).days == pytest.approx(100 * 50 / 1_000)
    assert plan("tree", target, scarce).days_bound_by == "daily_availability"


@pytest.mark.parametrize(
    ("settings", "fleet", "message"),
    [
        ({}, Fleet(1_000), "population 1,000 is too small: epsilon 2 needs noise / cohort"),
        ({"cohort": 200}, Fleet(1_000, 0.1), "daily_availability 0.1 of population 1,000 is 100"),
        (
            {"cohort": 200, "min_separation": 6},
            Fleet(1_000),
            "population 1,000 .* min_separation of 5 at the most, not 6",
        ),
        (
            {"min_separation": 2_000},
            Fleet(1_000),
            "too small for any cohort at min_separation 2000",
        ),
        (
            {"cohort": 200, "days": 2},
            Fleet(1_000),
            "daily_availability 1 lets .* take 20 days at least, and days is 2",
        ),
        (
            {"cohort": 200, "days": 2},
            Fleet(10**6, local_seconds=7_200),
            "local_seconds 7200 lets .* take 8.33 days",
        ),
        (
            {"cohort": 200, "noise_to_cohort": 1e-4},
            Fleet(1_000),
            "cohort 200 is too small: epsilon 2 gives noise / cohort",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_binds(settings, fleet, message) -> None:
    target = Target(**{"delta": 1e-6, "rounds": 100, "epsilon": 2.0} | settings)
    with pytest.raises(InfeasibleError, match=message):
        plan("tree", target, fleet)


def test_the_population_named_as_enough_is_enough() -> None:
    target = Target(1e-6, 100, epsilon=2.0)
    with pytest.raises(InfeasibleError) as refused:
        plan("tree", target, Fleet(1_000))
    named = re.search(r"about ([\d,]+) devices", str(refused.value))
    assert named is not None
    enough = int(named[1].replace(",", ""))
    assert plan("tree", target, Fleet(round(1.01 * enough))).cohort <= enough
    with pytest.raises(InfeasibleError, match="is too small"):
        plan("tree", target, Fleet(round(0.97 * enough)))


def test_accuracy_is_read_between_measured_points_only() -> None:
    middle, note = interpolate(POINTS, "tree", math.sqrt(1e-3 * 1e-2))
    assert middle is not None and "simulated" in note
    assert (middle.top1, middle.low, middle.high) == pytest.approx((0.15, 0.14, 0.16))
    exact, _ = interpolate(POINTS, "tree", 1e-3)
    assert exact is not None and exact.top1 == pytest.approx(0.16)
    assert interpolate(POINTS, "tree", 2e-2) == (
        None,
        "measured from noise / cohort 0.0001 to 0.01 only",
    )
    assert interpolate(POINTS, "gaussian", 1e-3) == (None, "none measured with gaussian")
    measured = plan("tree", LAUNCH, LAUNCH_FLEET, POINTS)
    assert measured.accuracy is not None and measured.accuracy.noise_to_cohort == 7 / 6500
    borrowed = plan(
        "gaussian", dataclasses.replace(LAUNCH, noise_multiplier=0.7), LAUNCH_FLEET, POINTS
    )
    assert borrowed.accuracy is not None
    assert (
        borrowed.accuracy.noise_to_cohort
        == borrowed.tree_noise_to_cohort
        > borrowed.noise_to_cohort
    )
    assert "none measured with gaussian; as of a tree with as much noise" in borrowed.accuracy_note


def test_blt_needs_fewer_devices_than_a_tree_and_independent_noise() -> None:
    target = Target(1e-10, 200, epsilon=6.0)
    cohorts = {
        name: plan(name, target, Fleet(400_000)).cohort for name in ("gaussian", "tree", "blt")
    }
    assert cohorts["blt"] < cohorts["tree"] < cohorts["gaussian"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Fleet(0), "population is 0, must be at least 1"),
        (lambda: Fleet(9, 0.0), r"daily_availability is 0.0, must be in \(0, 1\]"),
        (lambda: Fleet(9, 1.0, -1), "local_seconds is -1"),
        (lambda: Target(1e-6, 5), "epsilon is None and noise_multiplier None: give one"),
        (lambda: Target(1e-6, 5, epsilon=1, noise_multiplier=1), "give one of the two"),
        (lambda: Target(1e-6, 5, noise_multiplier=1.0), "cohort is not given"),
        (lambda: Target(1e-6, 0, epsilon=1.0), "rounds is 0, must be at least 1"),
        (lambda: Target(1e-6, 5, epsilon=-1.0), "epsilon is -1.0, must be positive"),
        (lambda: plan("magic", LAUNCH, LAUNCH_FLEET), "mechanism is 'magic'"),
        (lambda: plan("tree", Target(2.0, 5, epsilon=1.0), Fleet(9**9)), "delta is 2.0"),
    ],
)
def test_bad_settings_are_named(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()

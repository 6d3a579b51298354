"""The accountant against published launches, TensorFlow Privacy's grid, dp-accounting and its own inverses."""

import dataclasses
import itertools
import math
from typing import Any

import dp_accounting
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import (
    account,
    calibrate_noise_multiplier,
    compose,
    effective_noise_multiplier,
    noise_multiplier_for,
    project,
)
from federated.strategies import BandedToeplitz, Blt, Gaussian, Strategy, Tree
from federated.zcdp import epsilon_from_rho, epsilon_grid_rdp, rho_from_epsilon
from tests.federated.participation import list_patterns

# (rounds, b, k, noise multiplier, delta) -> squared sensitivity, exact epsilon and by grid RDP.
# The first is the launch of 2022; the others were computed independently of this code.
TREES: list[tuple[tuple, tuple]] = [
    ((2000, 314, 6, 7.0, 1e-10), (79, 8.526093443452094, 8.898605012965973)),
    ((2048, 342, 6, 7.0, 1e-10), (118, 10.679268212816446, 11.137458081010497)),
    ((2000, 1429, 2, 7.0, 1e-10), (21, 4.134563282560895, 4.323887761322911)),
    ((512, 64, 8, 10.0, 1e-8), (168, 7.728583233169576, 8.133981004918724)),
    ((13, 3, 4, 4.0, 1e-6), (23, 6.015346801727738, 6.4196324140370535)),
    ((4, 1, 2, 4.0, 1e-6), (10, 3.7472179914268127, 4.010376255051982)),
    ((1, 1, 1, 4.0, 1e-6), (1, 1.0607018623282738, 1.1431687205814116)),
]
# (rho, delta) -> exact epsilon, epsilon by grid RDP.
# The first two are the matrix mechanism launches of 2024.
CONVERSIONS: list[tuple[tuple, tuple]] = [
    ((0.1506840301548885, 1e-10), (3.42400727306104, 3.583924815379924)),
    ((0.014342572340349278, 1e-10), (0.9935499570195393, 1.042356657802843)),
    ((2.0, 1e-8), (12.749246399635696, 13.38639080137985)),
]
INVERSES: list[tuple[tuple, tuple]] = [
    ((8.0, 1e-10), (0.7188679480490496, 0.833989229537989)),
    ((1.0, 1e-6), (0.028014481912631166, 4.224678889326773)),
]


@pytest.mark.parametrize(("case", "expected"), TREES, ids=str)
def test_tree_guarantee(case, expected) -> None:
    rounds, b, k, noise_multiplier, delta = case
    squared_sensitivity, epsilon, epsilon_rdp = expected
    guarantee = account(Tree(), noise_multiplier, rounds, b, k, delta)
    assert guarantee.squared_sensitivity == squared_sensitivity
    assert guarantee.rho == pytest.approx(
        squared_sensitivity / (2 * noise_multiplier**2), rel=1e-12
    )
    assert guarantee.epsilon == pytest.approx(epsilon, abs=1e-6)
    assert guarantee.epsilon_rdp == pytest.approx(epsilon_rdp, abs=1e-9)


def test_published_figures_of_the_2022_launch() -> None:
    guarantee = account(Tree(), 7.0, 2000, 314, 6, 1e-10)
    figures = (guarantee.rho, guarantee.epsilon_rdp, guarantee.epsilon)
    assert tuple(round(figure, 2) for figure in figures) == (0.81, 8.90, 8.53)


@pytest.mark.parametrize("rounds", range(1, 10))
def test_separate_gaussians_cost_the_most_participations_that_fit(rounds: int) -> None:
    for b, k in itertools.product(range(1, rounds + 2), range(1, rounds + 1)):
        most = max(patterns.shape[1] for patterns in list_patterns(rounds, b, k))
        guarantee = account(Gaussian(), 2.0, rounds, b, k, 1e-6)
        assert guarantee.squared_sensitivity == most
        assert guarantee.rho == pytest.approx(most / 8)


@pytest.mark.parametrize(
    "strategy", [Tree(), BandedToeplitz((1.0, 0.5)), Blt((0.9,), (0.3,)), Tree(3)], ids=repr
)
def test_one_round_is_one_gaussian(strategy: Strategy) -> None:
    single = account(Gaussian(), 3.0, 1, 1, 1, 1e-6)
    other = account(strategy, 3.0, 1, 1, 1, 1e-6)
    assert other == dataclasses.replace(single, mechanism=strategy.name, strategy=strategy)


@pytest.mark.parametrize(
    "strategy", [Gaussian(), Tree(), BandedToeplitz((1.0, 0.5)), Blt((0.9,), (0.3,))], ids=repr
)
def test_no_limit_is_as_many_participations_as_fit(strategy: Strategy) -> None:
    unlimited = account(strategy, 3.0, 20, 6, None, 1e-6)
    assert unlimited == dataclasses.replace(
        account(strategy, 3.0, 20, 6, 4, 1e-6), max_participations=None
    )
    assert unlimited.rho > account(strategy, 3.0, 20, 6, 3, 1e-6).rho  # type: ignore[operator]


@given(st.floats(0.5, 20), st.floats(0.5, 20))
@settings(deadline=None, max_examples=20)
def test_the_count_of_adaptive_clipping_is_one_more_release(noise: float, stddev: float) -> None:
    """Its sensitivity is 1/2: a second Gaussian of the same rounds, composed."""
    run = (5, 1, 5, 1e-6)
    both = account(Gaussian(count_stddev=stddev), noise, *run)
    parts = [account(Gaussian(), z, *run) for z in (noise, 2 * stddev)]
    assert both.rho == pytest.approx(compose(parts).rho)
    assert both.noise_multiplier == noise
    assert effective_noise_multiplier(noise, None) == noise
    effective = effective_noise_multiplier(noise, stddev)
    assert both.epsilon == pytest.approx(account(Gaussian(), effective, *run).epsilon)


CALIBRATED = [
    (Gaussian(), 3),
    (Gaussian(count_stddev=8.0), 3),
    (Tree(), 3),
    (Tree(restart_every=7), None),
    (BandedToeplitz((1.0, 0.5, 0.3)), 3),
    (Blt((0.9, 0.5), (0.2, 0.25)), None),
]


@given(st.sampled_from(CALIBRATED), st.floats(0.3, 20), st.floats(-25, -2))
@settings(deadline=None, max_examples=40)
def test_calibrated_noise_meets_the_target_and_no_less_does(case, epsilon, log_delta) -> None:
    strategy, participations = case
    run = (30, 9, participations, math.exp(log_delta))
    try:
        noise = calibrate_noise_multiplier(strategy, epsilon, *run)
    except ValueError as error:
        assert "count_stddev is 8.0, must be above" in str(error)
        count_alone = account(Gaussian(), 16.0, *run)
        assert count_alone.epsilon >= epsilon * (1 - 1e-9)
        return
    assert account(strategy, noise, *run).epsilon <= epsilon * (1 + 1e-9)
    assert account(strategy, noise * 0.999, *run).epsilon > epsilon * (1 + 1e-6)


def test_poisson_sampling_by_privacy_loss_distributions() -> None:
    """Against dp-accounting's distribution of one round, composed by itself; and the calibration inverts it."""
    strategy = Gaussian(sampling_rate=0.1)
    guarantee = account(strategy, 4.0, 40, 1, None, 1e-5)
    loss = pld.privacy_loss_distribution.from_gaussian_mechanism(
        4.0, value_discretization_interval=1e-4, sampling_prob=0.1
    )
    expected = loss.self_compose(40).get_epsilon_for_delta(1e-5)
    assert guarantee.epsilon == pytest.approx(expected, abs=1e-3)
    assert guarantee.epsilon < guarantee.epsilon_rdp
    assert (guarantee.rho, guarantee.max_participations) == (None, None)
    noise = calibrate_noise_multiplier(strategy, guarantee.epsilon, 40, 1, None, 1e-5)
    assert noise == pytest.approx(4.0, rel=1e-3)
    assert account(strategy, noise, 40, 1, None, 1e-5).epsilon <= guarantee.epsilon


def test_sampling_with_certainty_is_no_sampling() -> None:
    sampled = account(Gaussian(sampling_rate=1.0), 10.0, 50, 1, None, 1e-6)
    exact = account(Gaussian(), 10.0, 50, 1, 50, 1e-6)
    assert exact.epsilon <= sampled.epsilon <= exact.epsilon + 2e-3


def test_a_sampled_run_composes_with_an_unsampled_one() -> None:
    """An almost certain sample against the closed form of two Gaussians."""
    parts = [
        account(Gaussian(), 4.0, 1, 1, 1, 1e-6),
        account(Gaussian(sampling_rate=1.0), 10.0, 50, 1, None, 1e-6),
    ]
    exact = epsilon_from_rho(1 / 32 + 50 / 200, 1e-6)
    composed = compose(parts)
    assert exact <= composed.epsilon <= exact + 2e-3
    assert composed.rho is None
    assert composed.epsilon < composed.epsilon_rdp


def test_sampling_and_separation_are_not_covered_together() -> None:
    for b, k in ((3, None), (1, 4)):
        with pytest.raises(ValueError, match="must be 1 and None with a sampling_rate"):
            account(Gaussian(sampling_rate=0.1), 1.0, 20, b, k, 1e-6)


@pytest.mark.parametrize("case", INVERSES, ids=str)
def test_the_noise_for_a_target_epsilon_meets_it(case) -> None:
    (epsilon, delta), (_, noise_multiplier) = case
    found = account(Gaussian(), noise_multiplier_for(epsilon, delta, 1), 1, 1, 1, delta)
    assert found.noise_multiplier == pytest.approx(noise_multiplier, rel=1e-6)
    assert found.epsilon == pytest.approx(epsilon, rel=1e-6)


@given(st.floats(0.8, 20), st.floats(0.8, 20))
@settings(deadline=None, max_examples=20)
def test_composition_equals_composed_privacy_losses(first: float, second: float) -> None:
    """Against dp-accounting's numerical convolution, an upper bound on a grid of 1e-3."""
    losses = [
        dp_accounting.pld.privacy_loss_distribution.from_gaussian_mechanism(
            z, value_discretization_interval=1e-3
        )
        for z in (first, second)
    ]
    expected = losses[0].compose(losses[1]).get_epsilon_for_delta(1e-5)
    parts = [account(Gaussian(), z, 1, 1, 1, 1e-5) for z in (first, second)]
    composed = compose(parts)
    assert composed.rho == pytest.approx(1 / (2 * first**2) + 1 / (2 * second**2))
    assert expected - 5e-3 <= composed.epsilon <= expected + 1e-6
    assert composed.epsilon <= composed.epsilon_rdp
    assert composed.parts == tuple(parts)


def test_only_guarantees_of_one_delta_compose() -> None:
    parts = [account(Gaussian(), 2.0, 1, 1, 1, delta) for delta in (1e-5, 1e-6)]
    with pytest.raises(ValueError, match=r"have the deltas \[1e-06, 1e-05\], give one"):
        compose(parts)
    with pytest.raises(ValueError, match=r"have the deltas \[\], give one"):
        compose([])
    part = account(Tree(), 7.0, 2000, 314, 6, 1e-10)
    alone = compose([part])
    assert (alone.rho, alone.epsilon, alone.epsilon_rdp) == (
        part.rho,
        part.epsilon,
        part.epsilon_rdp,
    )


@pytest.mark.parametrize(("case", "expected"), CONVERSIONS, ids=str)
def test_epsilon_of_rho(case, expected) -> None:
    assert epsilon_from_rho(*case) == pytest.approx(expected[0], abs=1e-6, rel=1e-7)
    assert epsilon_grid_rdp(*case) == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize(("case", "expected"), INVERSES, ids=str)
def test_inverses_of_epsilon(case, expected) -> None:
    epsilon, delta = case
    rho, noise_multiplier = expected
    assert rho_from_epsilon(epsilon, delta) == pytest.approx(rho, rel=1e-6)
    for sensitivity in (1, 9):
        found = noise_multiplier_for(epsilon, delta, sensitivity**2)
        assert found == pytest.approx(sensitivity * noise_multiplier, rel=1e-6)


@given(st.floats(1e-6, 1e3), st.floats(-60, -0.1))
@settings(deadline=None)
def test_exact_epsilon_bounds_and_inverse(rho: float, log_delta: float) -> None:
    delta = math.exp(log_delta)
    epsilon = epsilon_from_rho(rho, delta)
    assert 0 <= epsilon <= epsilon_grid_rdp(rho, delta) + 1e-9
    if epsilon > 1e-3:
        assert rho_from_epsilon(epsilon, delta) == pytest.approx(rho, rel=1e-6)


@given(st.floats(0.01, 10), st.floats(0.1, 10))
@settings(deadline=None)
def test_exact_epsilon_equals_dp_accounting(rho: float, epsilon: float) -> None:
    privacy_loss = dp_accounting.pld.privacy_loss_mechanism.GaussianPrivacyLoss
    delta = privacy_loss(1 / math.sqrt(2 * rho)).get_delta_for_epsilon([epsilon])[0]
    if delta > 1e-8:  # the library subtracts, and loses what is smaller
        assert epsilon_from_rho(rho, delta) == pytest.approx(epsilon, abs=1e-6)


def test_a_loose_delta_costs_no_epsilon() -> None:
    assert epsilon_from_rho(0.001, 0.5) == 0


def test_projection_of_a_published_launch() -> None:
    """6,500 of 2,041,000 devices are one in 314: the launch's separation, and ceil(2000 / 314)."""
    simulated = account(Tree(), 7.0 * 20 / 6500, 2000, 314, 7, 1e-10)
    projection = project(simulated, 20, 6500, 2_041_000)
    assert projection.guarantee == account(
        Tree(), simulated.noise_multiplier * 6500 / 20, 2000, 314, 7, 1e-10
    )
    assert projection.guarantee.noise_multiplier == pytest.approx(7.0)
    assert projection.guarantee.epsilon < simulated.epsilon
    assert (projection.production_cohort, projection.production_population) == (6500, 2_041_000)


def test_projection_to_its_own_fleet_changes_nothing() -> None:
    guarantee = account(Tree(), 3.0, 60, 10, 6, 1e-6)
    assert project(guarantee, 20, 20, 200).guarantee == guarantee


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier is nan"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 2.5}, "rounds is 2.5"),
        ({"min_separation": 0}, "min_separation is 0"),
        ({"max_participations": 0}, "max_participations is 0"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"delta": 1.0}, "delta is 1.0"),
    ],
)
def test_account_names_the_argument_at_fault(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "strategy": Tree(),
        "noise_multiplier": 7.0,
        "rounds": 20,
        "min_separation": 4,
        "max_participations": 3,
        "delta": 1e-6,
    }
    with pytest.raises(ValueError, match=message):
        account(**arguments | change)


def test_projection_names_the_argument_at_fault() -> None:
    guarantee = account(Tree(), 3.0, 60, 10, 6, 1e-6)
    with pytest.raises(ValueError, match="production_population is 100, must be at least"):
        project(guarantee, 20, 6500, 100)
    with pytest.raises(ValueError, match="simulated_cohort is 0"):
        project(guarantee, 0, 6500, 10**6)


def test_projection_scales_the_noise_on_the_count_and_the_sampling_rate() -> None:
    strategy = Gaussian(count_stddev=2.0)
    projection = project(account(strategy, 3.0, 60, 10, 6, 1e-6), 20, 200, 10_000)
    expected = account(Gaussian(count_stddev=20.0), 30.0, 60, 50, 2, 1e-6)
    assert projection.guarantee == expected
    sampled = account(Gaussian(sampling_rate=0.5), 8.0, 10, 1, None, 1e-6)
    projection = project(sampled, 20, 200, 10_000)
    assert projection.guarantee == account(Gaussian(sampling_rate=0.02), 80.0, 10, 1, None, 1e-6)


def test_projection_of_a_strategy_that_production_does_not_cover_is_refused() -> None:
    simulated = account(BandedToeplitz((1.0, 0.2, 0.9)), 3.0, 60, 10, 6, 1e-6)
    with pytest.raises(ValueError, match="up to min_separation, 2, bands: take fewer"):
        project(simulated, 20, 200, 400)

"""Skellam noise costs what brute force says it does, and its sums fit into their bits."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import account, calibrate_noise_multiplier, compose, project
from federated.config import FederatedConfig
from federated.ledger import Ledger, Promise
from federated.skellam import (
    RENYI_ORDERS,
    WRAP_CHANCE,
    finest_scale,
    log_wrap_chance,
    padded_dimension,
    rounded_norm,
    skellam_divergence,
)
from federated.strategies import (
    Gaussian,
    Skellam,
    Tree,
    read_strategy,
    strategy_document,
)

LAUNCH = (2000, 314, None, 1e-10)  # rounds, separation, participations, delta
COHORT, PARAMETERS = 6500, 1_400_000


def log_pmf(values: np.ndarray, variance: float) -> np.ndarray:
    return np.log(scipy.special.ive(np.abs(values), variance))


def divergence_by_hand(shift: int, variance: float, order: int) -> float:
    """Renyi divergence of Skellam noise shifted by a whole number from itself, summed value by value."""
    values = np.arange(-40, 41) + shift // 2
    shifted, noise = log_pmf(values - shift, variance), log_pmf(values, variance)
    return scipy.special.logsumexp(order * shifted + (1 - order) * noise) / (order - 1)


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("scale", "dimension"), [(1.0, 2), (2.0, 4), (3.0, 1)])
def test_no_rounded_update_diverges_more_than_the_bound(noise_multiplier, scale, dimension) -> None:
    """All vectors of whole numbers that the rounding lets through, by brute force."""
    orders = [2, 3, 5, 8]
    variance = (noise_multiplier * scale) ** 2
    most = rounded_norm(scale, dimension)
    places = range(-int(most), int(most) + 1)
    per_value = {(j, a): divergence_by_hand(j, variance, a) for j in places for a in orders}
    bounds = skellam_divergence(noise_multiplier, scale, dimension, orders)
    for order, bound in zip(orders, bounds, strict=True):
        worst = max(
            sum(per_value[value, order] for value in vector)
            for vector in itertools.product(places, repeat=dimension)
            if np.square(vector).sum() <= most**2
        )
        assert worst <= bound


def test_the_bound_is_sharp_where_the_grid_is_fine() -> None:
    """One value, 20 steps of noise: the bound is within 2 % of the truth for the norm that it bounds."""
    scale, dimension, noise_multiplier = 7.0, 1, 3.0
    shift = int(rounded_norm(scale, dimension))
    for order in (2, 4, 8):
        [bound] = skellam_divergence(noise_multiplier, scale, dimension, [order])
        values = np.arange(-400, 401)
        variance = (noise_multiplier * scale) ** 2
        log_p, log_q = log_pmf(values - shift, variance), log_pmf(values, variance)
        truth = scipy.special.logsumexp(order * log_p + (1 - order) * log_q) / (order - 1)
        inflation = (rounded_norm(scale, dimension) / shift) ** 2
        assert truth <= bound <= 1.02 * truth * inflation


@pytest.mark.parametrize("participations", [1, 2])
def test_the_epsilon_holds_by_its_definition(participations) -> None:
    """The hockey-stick divergence at the reported epsilon, over all outcomes, is at most delta."""
    delta, noise_multiplier = 1e-4, 1.5
    strategy = Skellam(bits=20, scale=3.0, dimension=1, cohort=8, min_reports=8)
    guarantee = account(strategy, noise_multiplier, participations, 1, None, delta)
    variance, shift = (noise_multiplier * 3.0) ** 2, int(rounded_norm(3.0, 1))
    values = np.arange(-80, 81)
    p, q = np.exp(log_pmf(values - shift, variance)), np.exp(log_pmf(values, variance))
    for _ in range(participations - 1):
        p, q = np.multiply.outer(p, p).ravel(), np.multiply.outer(q, q).ravel()

    def measure_delta(epsilon: float) -> float:
        return np.maximum(0, p - math.exp(epsilon) * q).sum()

    assert measure_delta(guarantee.epsilon) <= delta
    assert measure_delta(0.5 * guarantee.epsilon) > delta  # and is no empty promise
    assert guarantee.rho is None


def test_a_fine_grid_costs_what_gaussian_noise_does() -> None:
    strategy = Skellam.lay_out(24, PARAMETERS, COHORT, COHORT, 7.0)
    epsilon = account(strategy, 7.0, *LAUNCH).epsilon
    gaussian = account(Gaussian(), 7.0, *LAUNCH)
    assert gaussian.epsilon < epsilon < 1.005 * gaussian.epsilon_rdp


def test_fewer_bits_cost_more() -> None:
    epsilons = [
        account(Skellam.lay_out(bits, PARAMETERS, COHORT, COHORT, 7.0), 7.0, *LAUNCH).epsilon
        for bits in (18, 19, 20, 22, 24)
    ]
    assert epsilons == sorted(epsilons, reverse=True) and epsilons[0] > 1.05 * epsilons[-1]
    with pytest.raises(ValueError, match="bits is 16, too few for a cohort of 6500"):
        Skellam.lay_out(16, PARAMETERS, COHORT, COHORT, 7.0)


def test_each_participation_is_charged() -> None:
    """k participations as if k devices' divergences were added by hand; the limit and the separation both count."""
    strategy = Skellam.lay_out(20, 1000, 50, 40, 2.0)
    single = skellam_divergence(2.0, strategy.scale, strategy.dimension, RENYI_ORDERS)
    for (rounds, separation, limit), most in (
        ((10, 1, None), 10),
        ((10, 4, None), 3),
        ((10, 1, 2), 2),
    ):
        guarantee = account(strategy, 2.0, rounds, separation, limit, 1e-6)
        candidates = [
            most * d + math.log1p(-1 / a) - math.log(1e-6 * a) / (a - 1)
            for a, d in zip(RENYI_ORDERS, single, strict=True)
        ]  # Canonne, Kamath & Steinke 2020, proposition 12
        assert guarantee.epsilon == pytest.approx(min(candidates), rel=1e-9)
        np.testing.assert_allclose(guarantee.divergences(), most * single)


def test_only_whole_orders_are_bounded() -> None:
    for orders in ([1.5], [1], [2, 2.5]):
        with pytest.raises(ValueError, match="whole numbers of at least 2"):
            skellam_divergence(1.0, 100.0, 16, orders)


@given(
    bits=st.integers(12, 24),
    cohort=st.integers(1, 500),
    log_dimension=st.integers(3, 22),
    noise=st.floats(1e-3, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_grid_is_the_finest_that_fits(bits, cohort, log_dimension, noise) -> None:
    dimension = 2**log_dimension
    try:
        scale = finest_scale(bits, dimension, cohort, cohort, noise)
    except ValueError:
        return

    def chance(scale: float) -> float:
        return math.exp(log_wrap_chance(bits, scale, dimension, cohort, (noise * scale) ** 2))

    assert chance(scale) <= WRAP_CHANCE * (1 + 1e-9)
    assert chance(1.0001 * scale) > WRAP_CHANCE or scale > 2**23.99
    assert (rounded_norm(scale, dimension) / scale) ** 2 <= 2


def test_sums_wrap_around_no_more_often_than_bounded() -> None:
    """Worst case played: all devices send the same full update. In few bits, so that it happens at all."""
    bits, dimension, cohort, noise_multiplier, scale, rounds = 9, 64, 8, 1.0, 48.0, 8000
    variance = (noise_multiplier * scale) ** 2
    bound = math.exp(log_wrap_chance(bits, scale, dimension, cohort, variance))
    random = np.random.default_rng(3)
    signs = random.choice([-1, 1], (rounds, dimension))
    update = np.full(dimension, dimension**-0.5)
    rotated = scale * (signs * update) @ scipy.linalg.hadamard(dimension) / dimension**0.5
    noise = scipy.stats.skellam.rvs(
        variance / 2, variance / 2, size=(rounds, dimension), random_state=random
    )
    rounded = np.floor(rotated[..., None] + random.random((rounds, dimension, cohort))).sum(-1)
    wrapped = (np.abs(rounded + noise) >= 2 ** (bits - 1)).any(axis=1).mean()
    assert 0.002 < wrapped < bound < 1


def test_the_ledger_keeps_the_grid() -> None:
    strategy = Skellam.lay_out(20, PARAMETERS, 60, 50, 0.7)
    assert read_strategy(strategy_document(strategy)) == strategy
    ledger = Ledger(Promise(strategy, 0.7, 0.3, 2))
    for round_index in range(4):
        ledger.record(round_index, range(3), range(3) if round_index % 2 else [])
    again = Ledger.from_json(ledger.to_json())
    assert again.guarantee(1e-6) == ledger.guarantee(1e-6)
    assert ledger.guarantee(1e-6).epsilon == account(strategy, 0.7, 4, 2, 2, 1e-6).epsilon
    with pytest.raises(ValueError, match="bits is 30"):
        read_strategy(strategy_document(strategy) | {"bits": 30})


def test_the_noise_for_an_epsilon_is_the_least() -> None:
    draft = Skellam(19, 1.0, padded_dimension(PARAMETERS), COHORT, 6000)
    noise = calibrate_noise_multiplier(draft, 2.5, *LAUNCH)
    strategy = draft.for_noise(noise)
    assert account(strategy, noise, *LAUNCH).epsilon <= 2.5
    less = noise / 1.0002
    assert account(draft.for_noise(less), less, *LAUNCH).epsilon > 2.5
    assert strategy == Skellam.lay_out(19, PARAMETERS, COHORT, 6000, noise)
    with pytest.raises(ValueError, match="bits is 16, too few"):
        calibrate_noise_multiplier(Skellam(16, 1.0, 2**21, COHORT, 6000), 2.5, *LAUNCH)


def test_it_composes_with_gaussian_releases_and_nothing_else() -> None:
    strategy = Skellam.lay_out(24, 1000, 60, 60, 3.0)
    skellam, gaussian = (account(s, 3.0, 4, 1, None, 1e-6) for s in (strategy, Gaussian()))
    both = compose([gaussian, skellam])
    twice = account(Gaussian(), 3.0, 8, 1, None, 1e-6)
    assert both.rho is None
    assert twice.epsilon < both.epsilon == pytest.approx(twice.epsilon_rdp, rel=0.01)
    sampled = account(Gaussian(sampling_rate=0.1), 3.0, 4, 1, None, 1e-6)
    with pytest.raises(ValueError, match="Poisson sampling together with Skellam"):
        compose([sampled, skellam])
    with pytest.raises(ValueError, match="no event"):
        skellam.event()


def test_the_projection_has_a_grid_of_its_own() -> None:
    strategy = Skellam.lay_out(14, PARAMETERS, 20, 15, 0.1)
    made = account(strategy, 0.1, 2000, 1, None, 1e-10)
    projected = project(made, 20, COHORT, COHORT * 314).guarantee
    assert isinstance(projected.strategy, Skellam)
    assert (projected.strategy.cohort, projected.strategy.min_reports) == (COHORT, 4875)
    assert 14 < projected.strategy.bits <= 24
    gaussian = project(account(Gaussian(), 0.1, 2000, 1, None, 1e-10), 20, COHORT, COHORT * 314)
    assert gaussian.guarantee.epsilon < projected.epsilon < 2 * gaussian.guarantee.epsilon


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 1), ("scale", 0.0), ("scale", math.nan), ("dimension", 12), ("min_reports", 9)],
)
def test_a_strategy_out_of_range_is_refused(field, value) -> None:
    sound = {"bits": 20, "scale": 10.0, "dimension": 16, "cohort": 8, "min_reports": 8}
    with pytest.raises(ValueError, match=f"{field} is"):
        Skellam(**{**sound, field: value})


def test_the_padding_is_the_next_power_of_two() -> None:
    assert [padded_dimension(n) for n in (1, 2, 3, 4, 5, 1 << 20, (1 << 20) + 1)] == [
        *(1, 2, 4, 4, 8, 1 << 20, 1 << 21)
    ]


SETTINGS = {
    **{"rounds": 5, "cohort": 20, "min_separation": 2, "local_learning_rate": 0.5},
    **{"clip_norm": 0.3, "noise_multiplier": 0.5, "mechanism": "skellam", "bits": 20},
}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"bits": None}, "mechanism skellam needs bits"),
        ({"bits": 25}, "less than or equal to 24"),
        ({"bands": 3}, "mechanism skellam has no bands"),
        (
            {"adaptive_clipping": {"count_stddev": 1.0}},
            "mechanism skellam has no adaptive_clipping",
        ),
        ({"sampling": "poisson"}, "sampling is poisson, must be fixed"),
        ({"min_reports": 21}, "min_reports is 21, must be at most cohort, 20"),
        ({"mechanism": "tree"}, "bits is for mechanism skellam, not tree"),
        (
            {"mechanism": "tree", "bits": None, "min_reports": 3},
            "min_reports is 3, and without a fleet",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(settings_, message) -> None:
    with pytest.raises(ValueError, match=message):
        FederatedConfig(**{**SETTINGS, **settings_})


def test_the_configuration_says_what_devices_add() -> None:
    config = FederatedConfig(**SETTINGS)
    noise = config.device_noise(1000)
    assert noise is not None and noise.strategy == config.strategy(1000)
    assert (noise.strategy.min_reports, noise.noise_multiplier) == (20, 0.5)
    tree = FederatedConfig(**{**SETTINGS, "mechanism": "tree", "bits": None})
    assert tree.device_noise(1000) is None and tree.strategy(1000) == Tree()
    with pytest.raises(ValueError, match="too few for a cohort of 6500"):
        FederatedConfig(**{**SETTINGS, "production_cohort": 6500, "noise_multiplier": 20}).strategy(
            1 << 22
        )

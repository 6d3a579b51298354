"""The accountant against published launches, brute force, TensorFlow Privacy and dp-accounting."""

import dataclasses
import importlib.util
import itertools
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import dp_accounting
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import (
    account,
    account_gaussian,
    account_tree,
    compose,
    epsilon_from_rho,
    epsilon_grid_rdp,
    noise_multiplier_for,
    project,
    rho_from_epsilon,
    tree_squared_sensitivity,
)

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


def add_golden_entries(file: Path) -> None:
    """Adds the reference numbers that lie beside the checkout where the project is developed."""
    for entry in json.loads(file.read_text())["entries"]:
        inputs, expected = entry["inputs"], entry["expected"]
        kind = entry["id"].split("/")[0]
        if kind == "tree_single":
            case = tuple(inputs[name] for name in ("T", "b", "k", "sigma", "delta"))
            names = ["sens_sq", "eps_exact_gaussian", "eps_improved_tfp_orders"]
            TREES.append((case, tuple(expected[name] for name in names)))
        elif kind in ("zcdp_to_eps", "published_anchor", "tree_restart_once_per_tree"):
            case = (inputs.get("rho", expected.get("rho")), inputs["delta"])
            names = ["eps_exact_gaussian", "eps_improved_tfp_orders"]
            CONVERSIONS.append((case, tuple(expected[name] for name in names)))
        elif kind == "eps_to_rho":
            names = ["rho_exact_gaussian", "noise_multiplier_exact_gaussian"]
            case = (inputs["eps"], inputs["delta"])
            INVERSES.append((case, tuple(expected[name] for name in names)))
        elif kind == "delta_of_eps":
            case = (inputs["eps"], expected["delta_exact_gaussian"])
            INVERSES.append((case, (inputs["rho"], (2 * inputs["rho"]) ** -0.5)))


GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "golden_public.json"
if GOLDEN.exists():
    add_golden_entries(GOLDEN)


def brute_force_squared_sensitivity(
    rounds: int, min_separation: int, max_participations: int
) -> int:
    """Largest squared norm of a pattern's columns, summed, of the tree matrix [nodes, rounds]."""
    tree = np.array(
        [
            [start <= i < start + 2**level for i in range(rounds)]
            for level in range(rounds.bit_length())
            for start in range(0, rounds - 2**level + 1, 2**level)
        ],
        dtype=np.int64,
    )
    worst = 0
    for size in range(1, min(max_participations, (rounds - 1) // min_separation + 1) + 1):
        # Patterns that keep b apart are the sets of rounds with the gaps of b - 1 closed up.
        closed_up = range(rounds - (size - 1) * (min_separation - 1))
        patterns = np.array(list(itertools.combinations(closed_up, size)))
        patterns += np.arange(size) * (min_separation - 1)
        worst = max(worst, int((tree[:, patterns].sum(-1) ** 2).sum(0).max()))
    return worst


def tensorflow_privacy_accountant() -> ModuleType:
    """TensorFlow Privacy's module alone: its package imports TensorFlow, the module does not."""
    package = importlib.util.find_spec("tensorflow_privacy")
    assert package is not None and package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "privacy" / "analysis"
    spec = importlib.util.spec_from_file_location(
        "tree_aggregation_accountant", folder / "tree_aggregation_accountant.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("case", "expected"), TREES, ids=str)
def test_tree_guarantee(case, expected) -> None:
    rounds, b, k, noise_multiplier, delta = case
    squared_sensitivity, epsilon, epsilon_rdp = expected
    guarantee = account_tree(noise_multiplier, rounds, b, k, delta)
    assert guarantee.squared_sensitivity == squared_sensitivity
    assert guarantee.rho == pytest.approx(
        squared_sensitivity / (2 * noise_multiplier**2), rel=1e-12
    )
    assert guarantee.epsilon == pytest.approx(epsilon, abs=1e-6)
    assert guarantee.epsilon_rdp == pytest.approx(epsilon_rdp, abs=1e-9)


def test_published_figures_of_the_2022_launch() -> None:
    guarantee = account("tree", 7.0, 2000, 314, 6, 1e-10)
    figures = (guarantee.rho, guarantee.epsilon_rdp, guarantee.epsilon)
    assert tuple(round(figure, 2) for figure in figures) == (0.81, 8.90, 8.53)


@pytest.mark.parametrize("rounds", range(1, 10))
def test_separate_gaussians_cost_the_most_participations_that_fit(rounds: int) -> None:
    for b, k in itertools.product(range(1, rounds + 2), range(1, rounds + 1)):
        most = max(
            size
            for size in range(1, k + 1)
            for pattern in itertools.combinations(range(rounds), size)
            if all(j - i >= b for i, j in itertools.pairwise(pattern))
        )
        guarantee = account_gaussian(2.0, rounds, b, k, 1e-6)
        assert guarantee.squared_sensitivity == most
        assert guarantee.rho == pytest.approx(most / 8)


def test_one_gaussian_is_a_tree_of_one_round() -> None:
    single, tree = (f(3.0, 1, 1, 1, 1e-6) for f in (account_gaussian, account_tree))
    assert dataclasses.replace(single, mechanism="tree") == tree


@pytest.mark.parametrize("case", INVERSES, ids=str)
def test_the_noise_for_a_target_epsilon_meets_it(case) -> None:
    (epsilon, delta), (_, noise_multiplier) = case
    found = account_gaussian(noise_multiplier_for(epsilon, delta, 1), 1, 1, 1, delta)
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
    parts = [account_gaussian(z, 1, 1, 1, 1e-5) for z in (first, second)]
    composed = compose(parts)
    assert composed.rho == pytest.approx(1 / (2 * first**2) + 1 / (2 * second**2))
    assert expected - 5e-3 <= composed.epsilon <= expected + 1e-6
    assert composed.epsilon <= composed.epsilon_rdp
    assert composed.parts == tuple(parts)


def test_only_guarantees_of_one_delta_compose() -> None:
    parts = [account_gaussian(2.0, 1, 1, 1, delta) for delta in (1e-5, 1e-6)]
    with pytest.raises(ValueError, match=r"have the deltas \[1e-06, 1e-05\], give one"):
        compose(parts)
    with pytest.raises(ValueError, match=r"have the deltas \[\], give one"):
        compose([])
    part = account_tree(7.0, 2000, 314, 6, 1e-10)
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


@pytest.mark.parametrize("rounds", range(1, 13))
def test_sensitivity_is_the_worst_of_all_patterns(rounds: int) -> None:
    for b, k in itertools.product(range(1, rounds + 1), repeat=2):
        assert tree_squared_sensitivity(rounds, b, k) == brute_force_squared_sensitivity(
            rounds, b, k
        ), (b, k)


@pytest.mark.parametrize(
    ("rounds", "b", "k"), [(40, 10, 4), (64, 19, 4), (100, 30, 4), (127, 38, 4), (200, 91, 3)]
)
def test_sensitivity_is_the_worst_of_all_patterns_far_apart(rounds: int, b: int, k: int) -> None:
    expected = brute_force_squared_sensitivity(rounds, b, k)
    assert tree_squared_sensitivity(rounds, b, k) == expected


def test_sensitivity_equals_tensorflow_privacy() -> None:
    accountant = tensorflow_privacy_accountant()
    for rounds, b, k in itertools.product((20, 32, 45, 63), (1, 2, 5, 9, 16), (1, 3, 6, 10)):
        rho = accountant.compute_zcdp_single_tree(1.0, rounds, k, b - 1)
        assert tree_squared_sensitivity(rounds, b, k) == 2 * rho, (rounds, b, k)


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 30))
@settings(deadline=None, max_examples=50)
def test_sensitivity_is_monotone(rounds: int, b: int, k: int) -> None:
    sensitivity = tree_squared_sensitivity(rounds, b, k)
    assert sensitivity <= tree_squared_sensitivity(rounds, b, k + 1)
    assert sensitivity <= tree_squared_sensitivity(rounds + 1, b, k)
    assert sensitivity >= tree_squared_sensitivity(rounds, b + 1, k)


def test_sensitivity_of_full_participation() -> None:
    """A device in all of 2**9 rounds adds 4**level to all 2**(9 - level) nodes of a level."""
    assert tree_squared_sensitivity(2**9, 1, 10**6) == sum(2 ** (9 + level) for level in range(10))


def test_sensitivity_of_a_single_participation() -> None:
    assert (
        tree_squared_sensitivity(10**6, 10**6, 1) == 20
    )  # leaf and its ancestors, up to 2**19 rounds


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
    simulated = account_tree(7.0 * 20 / 6500, 2000, 314, 7, 1e-10)
    projection = project(simulated, 20, 6500, 2_041_000)
    assert projection.guarantee == account_tree(
        simulated.noise_multiplier * 6500 / 20, 2000, 314, 7, 1e-10
    )
    assert projection.guarantee.noise_multiplier == pytest.approx(7.0)
    assert projection.guarantee.epsilon < simulated.epsilon
    assert (projection.production_cohort, projection.production_population) == (6500, 2_041_000)


def test_projection_to_its_own_fleet_changes_nothing() -> None:
    guarantee = account_tree(3.0, 60, 10, 6, 1e-6)
    assert project(guarantee, 20, 20, 200).guarantee == guarantee


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mechanism": "laplace"}, "mechanism is 'laplace', and only tree"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier is nan"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 2.5}, "rounds is 2.5"),
        ({"min_separation": 0}, "min_separation is 0"),
        ({"max_participations": -1}, "max_participations is -1"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"delta": 1.0}, "delta is 1.0"),
    ],
)
def test_account_names_the_argument_at_fault(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "mechanism": "tree",
        "noise_multiplier": 7.0,
        "rounds": 20,
        "min_separation": 4,
        "max_participations": 3,
        "delta": 1e-6,
    }
    with pytest.raises(ValueError, match=message):
        account(**arguments | change)


def test_projection_names_the_argument_at_fault() -> None:
    guarantee = account_tree(3.0, 60, 10, 6, 1e-6)
    with pytest.raises(ValueError, match="production_population is 100, must be at least"):
        project(guarantee, 20, 6500, 100)
    with pytest.raises(ValueError, match="simulated_cohort is 0"):
        project(guarantee, 0, 6500, 10**6)

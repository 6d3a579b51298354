"""Strategies: variances from the matrices themselves, the best parameters, the JSON form, what is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.comparison import compare_mechanisms
from federated.factorisation import optimise_blt, optimise_toeplitz, prefix_loss
from federated.mechanism_choice import MechanismChoice
from federated.sensitivity import most_participations
from federated.strategies import (
    BandedToeplitz,
    Blt,
    Gaussian,
    Strategy,
    Tree,
    is_alike,
    read_strategy,
    strategy_document,
)
from tests.federated.participation import (
    brute_force_squared_sensitivity,
    toeplitz_matrix,
    tree_matrix,
)

BANDED = BandedToeplitz((0.9, 0.5, 0.3))
BLT = Blt((0.9, 0.5), (0.2, 0.25))
ALL: list[Strategy] = [
    Gaussian(),
    Gaussian(count_stddev=5.0, sampling_rate=0.1),
    Tree(),
    Tree(restart_every=3),
    BANDED,
    BLT,
]


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_json_form_is_the_strategy(strategy: Strategy) -> None:
    assert read_strategy(json.loads(json.dumps(strategy_document(strategy)))) == strategy


def test_strategies_are_alike_whose_coefficients_alone_differ() -> None:
    others = [BandedToeplitz((0.8, 0.5, 0.4)), Blt((0.8, 0.5), (0.2, 0.3))]
    near = {frozenset((BANDED, others[0])), frozenset((BLT, others[1]))}
    strategies = [*ALL, *others, BandedToeplitz((0.9, 0.5)), Blt((0.9,), (0.2,))]
    for first in strategies:
        for second in strategies:
            expected = first == second or frozenset((first, second)) in near
            assert is_alike(first, second) == expected


@pytest.mark.parametrize("strategy", [BANDED, BLT], ids=["toeplitz", "blt"])
@pytest.mark.parametrize("rounds", [1, 2, 9])
def test_toeplitz_variances_are_the_matrices(strategy, rounds: int) -> None:
    matrix = toeplitz_matrix(strategy.first_column(rounds), rounds)
    prefix = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(matrix)
    np.testing.assert_allclose(strategy.prefix_variances(rounds), (prefix**2).sum(1), rtol=1e-12)
    for b in (1, 3):
        expected = brute_force_squared_sensitivity(matrix, b, 3)
        assert strategy.squared_sensitivity(rounds, b, 3) == pytest.approx(expected)


def test_restarted_trees_leave_their_last_noise_behind() -> None:
    """Rounds 1 to 7 in trees of 3: each full tree leaves the variance of its third prefix, 1 + 2/3."""
    one = [1, 2 / 3, 1 + 2 / 3]
    expected = [*one, *(one[2] + v for v in one), 2 * one[2] + one[0]]
    assert Tree(restart_every=3).prefix_variances(7) == pytest.approx(expected)
    assert Tree(restart_every=9).prefix_variances(7) == pytest.approx(Tree().prefix_variances(7))
    assert Tree(restart_every=1).prefix_variances(7) == pytest.approx(range(1, 8))


@pytest.mark.parametrize("rounds", [2, 3, 7, 9])
def test_restarts_count_whole_trees_and_the_rest(rounds: int) -> None:
    segments = [3] * (rounds // 3) + [rounds % 3] * (rounds % 3 > 0)
    for b, k in ((1, 1), (1, 4), (2, 3)):
        expected = brute_force_squared_sensitivity(tree_matrix(segments), b, k)
        assert Tree(restart_every=3).squared_sensitivity(rounds, b, k) == expected


@given(
    st.lists(
        st.tuples(st.floats(0, 0.99), st.floats(0.01, 1)),
        min_size=1,
        max_size=4,
        unique_by=lambda pair: round(pair[0], 1),
    )
)
@settings(deadline=None, max_examples=50)
def test_the_inverse_of_a_blt_is_a_blt(pairs: list[tuple[float, float]]) -> None:
    total = sum(scale for _, scale in pairs)
    strategy = Blt(tuple(d for d, _ in pairs), tuple(s / total * 0.6 for _, s in pairs))
    decays, scales = strategy.inverse()
    column = np.concatenate([[1.0], decays ** np.arange(11)[:, None] @ scales])
    product = toeplitz_matrix(strategy.first_column(12), 12) @ column
    np.testing.assert_allclose(product, np.eye(12)[0], atol=1e-7)


RUNS = st.tuples(st.integers(2, 60), st.integers(1, 30), st.integers(1, 8))


@given(RUNS, st.integers(1, 4), st.sampled_from(["max", "mean"]))
@settings(deadline=None, max_examples=15)
def test_optimised_strategies_are_no_worse_than_those_they_generalise(run, size, error) -> None:
    """No scales, or one band, is independent noise; more buffers or bands hold fewer among them."""
    rounds, b, k = run
    independent = prefix_loss(Gaussian(), rounds, b, k, error)
    blt = prefix_loss(optimise_blt(rounds, b, k, size, error), rounds, b, k, error)
    assert blt <= independent * (1 + 1e-6)
    bands = min(size, rounds, b)
    banded = optimise_toeplitz(rounds, b, k, bands, error)
    assert prefix_loss(banded, rounds, b, k, error) <= independent * (1 + 1e-9)
    if bands > 1:
        fewer = optimise_toeplitz(rounds, b, k, bands - 1, error)
        loss = prefix_loss(fewer, rounds, b, k, error)
        assert prefix_loss(banded, rounds, b, k, error) <= loss * (1 + 1e-9)


@pytest.mark.parametrize("error", ["max", "mean"])
def test_no_direction_improves_an_optimised_strategy(error) -> None:
    """Around the optimum, any small change of a parameter loses: descent ended in a minimum of the true loss."""
    run = (64, 16, 4)
    blt = optimise_blt(*run, 2, error)
    banded = optimise_toeplitz(*run, 4, error)
    best = prefix_loss(blt, *run, error), prefix_loss(banded, *run, error)
    for i in range(2):
        for factor in (0.99, 1.01):
            gaps = [1 - d for d in blt.decays]
            gaps[i] *= factor
            scales = list(blt.scales)
            scales[i] *= factor
            decays = tuple(1 - gap for gap in gaps)
            assert prefix_loss(Blt(decays, blt.scales), *run, error) >= best[0] * (1 - 1e-9)
            assert prefix_loss(Blt(blt.decays, tuple(scales)), *run, error) > best[0]
    for i in range(4):
        for factor in (0.99, 1.01):
            coefficients = list(banded.coefficients)
            coefficients[i] *= factor
            assert prefix_loss(BandedToeplitz(tuple(coefficients)), *run, error) > best[1]


def test_one_participation_of_an_optimised_toeplitz_costs_one() -> None:
    strategy = optimise_toeplitz(64, 16, 4, 16)
    assert strategy.squared_sensitivity(64, 64, 1) == pytest.approx(1)
    assert strategy.squared_sensitivity(64, 16, 4) == pytest.approx(4)


def test_blt_beats_the_tree_with_a_few_models_kept() -> None:
    """The golden (rounds, separation, participation) cases; the golden tests compare them to reference values."""
    for run in ((64, 16, 4), (512, 64, 8), (2048, 342, 6), (2048, 484, 3), (2048, 1, 1)):
        rows = {row.mechanism: row for row in compare_mechanisms(*run, rho=0.5, bands=1)}
        assert rows["blt"].rms_deviation < 0.58 * rows["tree"].rms_deviation
        assert rows["blt"].max_deviation < 0.5 * rows["tree"].max_deviation
        assert rows["blt"].models_kept == 4
        assert rows["toeplitz"].rms_deviation == pytest.approx(rows["gaussian"].rms_deviation)


def test_compared_mechanisms_are_at_the_same_rho() -> None:
    for rho in (0.5, 2.0):
        for row in compare_mechanisms(40, 10, 4, rho):
            sensitivity = row.strategy.squared_sensitivity(40, 10, 4)
            assert sensitivity / (2 * row.noise_multiplier**2) == pytest.approx(rho)
            variances = row.strategy.prefix_variances(40) * row.noise_multiplier**2
            assert row.max_deviation == pytest.approx(math.sqrt(max(variances)))
            assert row.rms_deviation == pytest.approx(math.sqrt(sum(variances) / 40))


def test_a_choice_builds_its_strategy() -> None:
    run = (60, 12, 5)
    assert MechanismChoice("tree", restart_every=7).build(*run) == Tree(7)
    chosen = MechanismChoice("gaussian", count_stddev=2.0, sampling_rate=0.5)
    assert chosen.build(*run) == Gaussian(2.0, 0.5)
    assert MechanismChoice("toeplitz", bands=5).build(*run) == optimise_toeplitz(*run, 5)
    assert MechanismChoice("toeplitz").build(*run) == optimise_toeplitz(*run, 12)
    assert MechanismChoice("toeplitz").build(60, 12, 1) == optimise_toeplitz(60, 60, 1, 32)
    assert MechanismChoice("blt").build(*run) == optimise_blt(*run, 4)
    assert most_participations(*run) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "laplace"}, "mechanism is 'laplace', must be one of gaussian, tree"),
        ({"name": "tree", "bands": 3}, "bands is 3, and mechanism tree has none"),
        ({"name": "blt", "restart_every": 3}, "restart_every is 3, and mechanism blt has none"),
        ({"name": "toeplitz", "sampling_rate": 0.1}, "sampling_rate is 0.1, and mechanism"),
    ],
)
def test_a_choice_with_anothers_option_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MechanismChoice(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(count_stddev=0.0), "count_stddev is 0.0"),
        (lambda: Gaussian(sampling_rate=1.5), "sampling_rate is 1.5"),
        (lambda: Gaussian(sampling_rate=0.1).check(3, None), "min_separation is 3"),
        (lambda: Gaussian(sampling_rate=0.1).check(1, 4), "max_participations 4"),
        (lambda: Tree(restart_every=0), "restart_every is 0"),
        (lambda: BandedToeplitz(()), "coefficients are empty"),
        (lambda: BandedToeplitz((0.0, 1.0)), "coefficients start with 0.0"),
        (lambda: BandedToeplitz((1.0, 0.2, 0.9)).check(2, None), "up to min_separation, 2"),
        (lambda: BandedToeplitz((1.0, math.inf)), "coefficients are empty or not finite"),
        (lambda: Blt((0.5,), (0.1, 0.1)), "1 decays and 2 scales"),
        (lambda: Blt((1.0,), (0.1,)), r"decays are \(1.0,\), must be in \[0, 1\)"),
        (lambda: Blt((0.5, 0.1), (0.8, 0.3)), "add up to at most 1"),
        (lambda: Blt((0.5,), (-0.1,)), "must be at least 0"),
        (lambda: optimise_blt(10, 2, 2, 9), "buffers is 9, must be 1 to 8"),
        (lambda: optimise_toeplitz(10, 4, 2, 5), "bands is 5, must be 1 to 4"),
        (lambda: optimise_toeplitz(3, 4, 2, 0), "bands is 0, must be 1 to 3"),
        (lambda: compare_mechanisms(10, 2, 2, rho=0), "rho is 0"),
        (lambda: read_strategy({"name": "laplace"}), "mechanism is 'laplace'"),
        (lambda: read_strategy({"name": "tree"}), r"parameters \[\], must be \['restart_every'\]"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_not_ordered_is_covered_up_to_min_separation() -> None:
    BandedToeplitz((1.0, 0.2, 0.9)).check(3, None)
    BandedToeplitz((1.0, 0.2, 0.9)).check(2, 1)
    Gaussian(sampling_rate=0.1).check(1, None)

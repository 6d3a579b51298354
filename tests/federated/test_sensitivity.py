"""Exact sensitivities against every pattern, TensorFlow Privacy and closed forms."""

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.sensitivity import (
    most_participations,
    toeplitz_squared_sensitivity,
    tree_squared_sensitivity,
)
from tests.federated.participation import (
    brute_force_squared_sensitivity,
    list_patterns,
    toeplitz_matrix,
    tree_matrix,
)


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


@pytest.mark.parametrize("rounds", range(1, 10))
def test_most_participations_is_the_largest_pattern(rounds: int) -> None:
    for b, k in itertools.product(range(1, rounds + 2), range(1, rounds + 1)):
        largest = max(patterns.shape[1] for patterns in list_patterns(rounds, b, k))
        assert most_participations(rounds, b, k) == largest


@pytest.mark.parametrize("rounds", range(1, 13))
def test_one_tree_is_the_worst_of_all_patterns(rounds: int) -> None:
    matrix = tree_matrix([rounds])
    for b, k in itertools.product(range(1, rounds + 1), repeat=2):
        expected = brute_force_squared_sensitivity(matrix, b, k)
        assert tree_squared_sensitivity([rounds], b, k) == expected, (b, k)


@pytest.mark.parametrize(
    ("rounds", "b", "k"), [(40, 10, 4), (64, 19, 4), (100, 30, 4), (127, 38, 4), (200, 91, 3)]
)
def test_one_tree_is_the_worst_of_all_patterns_far_apart(rounds: int, b: int, k: int) -> None:
    expected = brute_force_squared_sensitivity(tree_matrix([rounds]), b, k)
    assert tree_squared_sensitivity([rounds], b, k) == expected


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_restarted_trees_are_the_worst_of_all_patterns(segments: list[int], b: int, k: int) -> None:
    """b is counted across restarts."""
    expected = brute_force_squared_sensitivity(tree_matrix(segments), b, k)
    assert tree_squared_sensitivity(segments, b, k) == expected


def test_one_tree_equals_tensorflow_privacy() -> None:
    accountant = tensorflow_privacy_accountant()
    for rounds, b, k in itertools.product((20, 32, 45, 63), (1, 2, 5, 9, 16), (1, 3, 6, 10)):
        rho = accountant.compute_zcdp_single_tree(1.0, rounds, k, b - 1)
        assert tree_squared_sensitivity([rounds], b, k) == 2 * rho, (rounds, b, k)


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 30))
@settings(deadline=None, max_examples=50)
def test_trees_are_monotone(rounds: int, b: int, k: int) -> None:
    sensitivity = tree_squared_sensitivity([rounds], b, k)
    assert sensitivity <= tree_squared_sensitivity([rounds], b, k + 1)
    assert sensitivity <= tree_squared_sensitivity([rounds + 1], b, k)
    assert sensitivity >= tree_squared_sensitivity([rounds], b + 1, k)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_a_tree_of_each_round_is_independent_noise(rounds: int, b: int, k: int) -> None:
    assert tree_squared_sensitivity([1] * rounds, b, k) == most_participations(rounds, b, k)


def test_a_tree_in_full_participation() -> None:
    """A device in all of 2**9 rounds adds 4**level to all 2**(9 - level) nodes of a level."""
    assert tree_squared_sensitivity([2**9], 1, 10**6) == sum(2 ** (9 + n) for n in range(10))


def test_a_tree_in_a_single_participation() -> None:
    """A leaf and its ancestors, up to 2**19 rounds."""
    assert tree_squared_sensitivity([10**6], 10**6, 1) == 20


ORDERED = st.lists(st.floats(0, 1), min_size=1, max_size=9).map(
    lambda steps: np.cumsum(steps)[::-1] + 1e-3
)


@given(ORDERED, st.integers(1, 11), st.integers(1, 6), st.integers(1, 6))
@settings(deadline=None, max_examples=80)
def test_ordered_toeplitz_is_the_worst_of_all_patterns(
    column: np.ndarray, rounds: int, b: int, k: int
) -> None:
    expected = brute_force_squared_sensitivity(toeplitz_matrix(column, rounds), b, k)
    assert toeplitz_squared_sensitivity(column, rounds, b, k) == pytest.approx(expected, rel=1e-9)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=4),
    st.integers(1, 10),
    st.integers(1, 6),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=80)
def test_any_toeplitz_is_exact_or_refused(column: list[float], rounds: int, b: int, k: int) -> None:
    """Signs, steps up, overlap: what comes out is the worst over all patterns and signs, or an error."""
    expected = brute_force_squared_sensitivity(toeplitz_matrix(np.array(column), rounds), b, k)
    try:
        found = toeplitz_squared_sensitivity(column, rounds, b, k)
    except ValueError:
        assert b < len(column) and most_participations(rounds, b, k) > 1
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("column", [[1.0, -0.5, 0.25], [1.0, 0.2, 0.9]])
def test_overlapping_columns_that_are_not_ordered_are_refused(column: list[float]) -> None:
    with pytest.raises(ValueError, match=r"3 bands .* up to min_separation, 2, bands: take fewer"):
        toeplitz_squared_sensitivity(column, 8, 2, 3)
    toeplitz_squared_sensitivity(column, 8, 3, 3)
    toeplitz_squared_sensitivity(column, 8, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 3), "rounds is 0"),
        ((2.5, 4, 3), "rounds is 2.5"),
        ((20, 0, 3), "min_separation is 0"),
        ((20, True, 3), "min_separation is True"),
        ((20, 4, -1), "max_participations is -1"),
    ],
)
def test_the_argument_at_fault_is_named(arguments: tuple, message: str) -> None:
    rounds, b, k = arguments
    for refused in (
        lambda: most_participations(rounds, b, k),
        lambda: toeplitz_squared_sensitivity([1.0], rounds, b, k),
        lambda: tree_squared_sensitivity([rounds], b, k),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_empty_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="segments is empty"):
        tree_squared_sensitivity([], 1, 1)
    for column in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="column is empty or not finite"):
            toeplitz_squared_sensitivity(column, 4, 1, 1)

"""The definition of sensitivity, spelled out: every (b, k) pattern of rounds, every sign of the updates."""

import itertools
from collections.abc import Iterator

import numpy as np


def list_patterns(rounds: int, min_separation: int, most: int) -> Iterator[np.ndarray]:
    """All sets of rounds, at least 1 and at most `most`, that keep apart: int [patterns, size] for each size."""
    for size in range(1, min(most, (rounds - 1) // min_separation + 1) + 1):
        # They are the sets of rounds with the gaps of b - 1 closed up.
        closed_up = range(rounds - (size - 1) * (min_separation - 1))
        patterns = np.array(list(itertools.combinations(closed_up, size)))
        yield patterns + np.arange(size) * (min_separation - 1)


def brute_force_squared_sensitivity(
    strategy_matrix: np.ndarray, min_separation: int, max_participations: int
) -> float:
    """Largest squared norm of a signed sum of columns. With products of one sign, no signs are needed."""
    worst = 0.0
    products = strategy_matrix.T @ strategy_matrix
    signs_matter = bool((products < 0).any())
    for patterns in list_patterns(len(products), min_separation, max_participations):
        size = patterns.shape[1]
        signs = itertools.product([1, -1], repeat=size - 1) if signs_matter else [[1] * (size - 1)]
        for others in signs:
            sign = np.array([1, *others])
            columns = strategy_matrix[:, patterns] * sign
            worst = max(worst, float((columns.sum(-1) ** 2).sum(0).max()))
    return worst


def toeplitz_matrix(column: np.ndarray, rounds: int) -> np.ndarray:
    """The lower-triangular Toeplitz matrix."""
    full = np.zeros(rounds)
    full[: len(column)] = column[:rounds]
    places = np.arange(rounds)[:, None] - np.arange(rounds)
    return np.where(places >= 0, full[places], 0)


def tree_matrix(segments: list[int]) -> np.ndarray:
    """One row a node, complete dyadic intervals of each segment; one column a round."""
    rounds = sum(segments)
    rows = []
    for offset, leaves in zip(np.cumsum([0, *segments]), segments, strict=False):
        for level in range(leaves.bit_length()):
            for start in range(0, leaves - 2**level + 1, 2**level):
                row = np.zeros(rounds)
                row[offset + start : offset + start + 2**level] = 1
                rows.append(row)
    return np.array(rows)

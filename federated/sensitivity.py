"""Exact L2 sensitivity of a release under (b, k) participation, in squared clip norms.

Neighbouring runs differ by one device, whose updates, each of norm at most 1 clip norm, are replaced by zero. It takes
part in at most k rounds, any two of them at least b apart (|i - j| >= b). The sensitivity of a strategy matrix C is the
largest norm of the sum of the columns that such a pattern of rounds picks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np


def most_participations(rounds: int, min_separation: int, max_participations: int) -> int:
    """Rounds that fit: min(k, ceil(rounds / b)). It is also the squared sensitivity of independent noise.

    Raises:
        ValueError: an argument is not a positive integer.
    """
    check_participation(rounds, min_separation, max_participations)
    return min(int(max_participations), -(-int(rounds) // int(min_separation)))


def toeplitz_squared_sensitivity(
    column: Sequence[float] | np.ndarray,
    rounds: int,
    min_separation: int,
    max_participations: int,
) -> float:
    """Squared L2 sensitivity of the lower-triangular Toeplitz matrix with this first column; exact.

    The worst pattern is 0, b, 2 b, ... as often as fits if the column is non-negative and non-increasing
    (Kalinin & Lampert 2024, arXiv:2405.13763, theorem 2). It also is if columns of two participations cannot overlap
    (at most b bands), since the norm of a column falls with its place; then any column will do.

    Args:
        column: its entries from the diagonal down, zeros beyond; at least 1, as many as `rounds` count.
        rounds: rows, >= 1.
        min_separation: b >= 1.
        max_participations: k >= 1; more than fit into `rounds` is no error.

    Raises:
        ValueError: an argument is out of its range, or neither of the two conditions holds.
    """
    participations = most_participations(rounds, min_separation, max_participations)
    entries = np.asarray(column, np.float64)[:rounds]
    if not entries.size or not np.isfinite(entries).all():
        raise ValueError("column is empty or not finite, must be at least one finite number")
    bands = int(np.flatnonzero(entries)[-1]) + 1 if entries.any() else 1
    ordered = bool((entries >= 0).all() and (np.diff(entries) <= 0).all())
    if participations > 1 and bands > min_separation and not ordered:
        raise ValueError(
            f"column has {bands} bands and is not non-negative and non-increasing, and its exact sensitivity is known "
            f"for such a one only up to min_separation, {min_separation}, bands: take fewer bands"
        )
    total = np.zeros(int(rounds))
    for start in range(0, participations * int(min_separation), int(min_separation)):
        overlap = min(entries.size, int(rounds) - start)
        total[start : start + overlap] += entries[:overlap]
    return float(total @ total)


def tree_squared_sensitivity(
    segments: Sequence[int], min_separation: int, max_participations: int
) -> int:
    """Squared L2 sensitivity of binary trees one after the other, one for each segment of rounds; exact.

    A node is a complete dyadic interval of rounds and a pattern of participations costs the sum
    over nodes of its squared count of participations (Kairouz et al. 2021, arXiv:2103.00039,
    appendix D); the result is the largest cost of a (b, k) pattern. TensorFlow Privacy computes it
    by dynamic programming over every number h of rounds barred at the head of an interval, by the
    participation before it, and t at its tail. Here the programme runs on the corners of those
    tables: with n participations in m rounds, cost v is within reach on a union of regions {h <= H,
    t <= T, h + t <= m - 1 - (n - 1) b}, the last bound being common to all, so that neither time
    nor memory grows with b. Joining two intervals eliminates the bars at the seam, which have to
    add up to b - 1 (difference constraints: exact on integers).

    The bars reach across restarts: b is counted over all rounds.

    Args:
        segments: rounds, each >= 1, after which a new tree is started; one segment is a tree never restarted.
        min_separation: b >= 1.
        max_participations: k >= 1; more than fit into the rounds is no error.

    Raises:
        ValueError: there is no segment, or an argument is not a positive integer.
    """
    if not segments:
        raise ValueError("segments is empty, must hold the rounds of one tree at least")
    for leaves in segments:
        check_participation(leaves, min_separation, max_participations)
    bar = min_separation - 1
    nothing = [_Corner(bar, bar, 0)]
    nodes = [_Span(1, {0: nothing, 1: [_Corner(0, 0, 1)]})]  # of 1, 2, 4, ... rounds
    while nodes[-1].rounds * 2 <= max(segments):
        nodes.append(_join(nodes[-1], nodes[-1], min_separation, max_participations, is_node=True))
    whole = _Span(0, {0: [_Corner(bar, 0, 0)]})  # nothing follows the last round
    for leaves in reversed(segments):
        for level, node in enumerate(nodes):
            if int(leaves) >> level & 1:
                whole = _join(node, whole, min_separation, max_participations, is_node=False)
    return max(corner.value for corners in whole.corners.values() for corner in corners)


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


def check_participation(rounds: int, min_separation: int, max_participations: int) -> None:
    """Raises ValueError, naming the argument, if one is not a positive integer."""
    for name, value in (
        ("rounds", rounds),
        ("min_separation", min_separation),
        ("max_participations", max_participations),
    ):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}, must be an integer of at least 1")

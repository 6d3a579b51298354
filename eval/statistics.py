"""Certainty: percentile bootstrap over users, the unit sampled (Efron and Tibshirani 1993, ch. 13).

Words of one user resemble each other, so resampling words would promise too much. A resample draws
as many users as there are, with replacement; all that is computed from it uses the same draw, which
is what makes a difference paired.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
LEVEL = 0.95
_CHUNK_CELLS = 4_000_000  # bounds the weights held at once to 32 MB, whatever the number of users


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, low <= high."""

    value: float
    low: float
    high: float


def resample_sums(
    columns: NDArray[np.float64], seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Sums [resamples, C] of `columns` [users, C] over users drawn with replacement."""
    users = len(columns)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_CELLS // users)
    sums = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(users, size=(count, users)) + users * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * users).reshape(count, users)
        sums.append(weights @ columns)
    return np.concatenate(sums)


def share_interval(
    hits: ArrayLike,
    totals: ArrayLike,
    seed: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """The share sum(hits) / sum(totals) over users, each user weighing as many words as they wrote.

    Users without a total are left out. One user alone says nothing about others: the interval is
    then [0, 1].

    Args:
        hits, totals: counts [users], 0 <= hits <= totals.

    Raises:
        ValueError: shapes differ, a count is out of range, or all totals are zero.
    """
    columns = _checked_counts(hits, totals)
    columns = columns[columns[:, 1] > 0]
    value = columns[:, 0].sum() / columns[:, 1].sum()
    if len(columns) == 1:
        return Interval(float(value), 0.0, 1.0)
    sums = resample_sums(columns, seed, resamples)
    return Interval(float(value), *_percentiles(sums[:, 0] / sums[:, 1], level))


def paired_lift(
    hits_a: ArrayLike,
    totals_a: ArrayLike,
    hits_b: ArrayLike,
    totals_b: ArrayLike,
    seed: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Relative lift share_b / share_a - 1, the same users drawn for both.

    `high` is infinite where many resamples leave the baseline `a` without a hit. One user alone
    says nothing about others: the interval is then [-1, inf].

    Args:
        hits_a, totals_a: counts [users] of the baseline.
        hits_b, totals_b: counts of the same users in the same order.

    Raises:
        ValueError: shapes differ, a count is out of range, totals are zero, or `a` has no hit.
    """
    columns_a, columns_b = _checked_counts(hits_a, totals_a), _checked_counts(hits_b, totals_b)
    if len(columns_a) != len(columns_b):
        raise ValueError(
            f"{len(columns_a)} users against {len(columns_b)}; pair the same users in one order"
        )
    columns = np.hstack([columns_a, columns_b])
    columns = columns[(columns[:, 1] > 0) & (columns[:, 3] > 0)]
    if not columns[:, 0].any():
        raise ValueError("the baseline has no hit: a relative lift over it is undefined")
    value = float(_relative(columns.sum(axis=0, keepdims=True))[0])
    if len(columns) == 1:
        return Interval(value, -1.0, float("inf"))
    return Interval(value, *_percentiles(_relative(resample_sums(columns, seed, resamples)), level))


def gap_interval(
    hits_low: ArrayLike,
    hits: ArrayLike,
    hits_high: ArrayLike,
    totals: ArrayLike,
    seed: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Share of a gap that is closed: (share - share_low) / (share_high - share_low), paired.

    A resample without a gap bounds the ratio on neither side, so it counts as -inf for `low` and as
    inf for `high`. Where all resamples have one this is the percentile interval; where too many do not, both
    ends are infinite, as in Fieller's theorem (Franz 2007, arXiv:0710.2024, for the
    ratio's unbounded intervals). Where the users themselves show no gap the value is NaN.

    Args:
        hits_low, hits, hits_high: counts [users] of the gap's lower end, of what is to close it, and
            of its upper end, 0 <= hits <= totals.
        totals: words asked [users], of all three.

    Raises:
        ValueError: shapes differ, a count is out of range, or all totals are zero.
    """
    counts = [_checked_counts(column, totals) for column in (hits_low, hits, hits_high)]
    columns = np.stack([column[:, 0] for column in counts], axis=1)[counts[0][:, 1] > 0]
    low, middle, high = columns.sum(axis=0)
    if high <= low:
        return Interval(float("nan"), -float("inf"), float("inf"))
    value = float((middle - low) / (high - low))
    if len(columns) == 1:
        return Interval(value, -float("inf"), float("inf"))
    low, middle, high = resample_sums(columns, seed, resamples).T
    gap = high - low
    ratios = (middle - low) / np.where(gap > 0, gap, 1)
    lowest, _ = _percentiles(np.where(gap > 0, ratios, -np.inf), level)
    _, highest = _percentiles(np.where(gap > 0, ratios, np.inf), level)
    return Interval(value, lowest, highest)


def _relative(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    hits_a, totals_a, hits_b, totals_b = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (hits_b / totals_b) / (hits_a / totals_a) - 1
    return np.where(np.isnan(lift), 0.0, lift)  # neither has a hit: no difference


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Order statistics, rounded outwards, so that infinite values need no interpolation."""
    tail = (1 - level) / 2
    return (
        float(np.quantile(values, tail, method="lower")),
        float(np.quantile(values, 1 - tail, method="higher")),
    )


def _checked_counts(hits: ArrayLike, totals: ArrayLike) -> NDArray[np.float64]:
    hits, totals = np.asarray(hits, np.float64), np.asarray(totals, np.float64)
    if hits.ndim != 1 or hits.shape != totals.shape:
        raise ValueError(f"hits {hits.shape} and totals {totals.shape} must be equal [users]")
    if not (hits >= 0).all() or not (hits <= totals).all():
        raise ValueError("hits must lie between 0 and totals for every user")
    if not totals.any():
        raise ValueError("all totals are zero: there is nothing to take a share of")
    return np.stack([hits, totals], axis=1)

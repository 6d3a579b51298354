"""Two models on the same users: how much better is the second, how sure is that, how many users it takes to see."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from eval.next_word import WordScores
from eval.statistics import (
    LEVEL,
    Interval,
    SeedVariance,
    difference_errors,
    paired_difference,
    paired_lift,
    share_interval,
    user_variance,
)

POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """A figure of one model over that of a baseline, paired by user.

    Attributes:
        difference: of the shares, in [-1, 1]; 0.01 is a point.
        relative: of the baseline's share; None if the baseline has no hit.
        users_needed: users like these, of whom a paired test at level 0.05 finds a difference of this
            size with probability 0.8; None if there is no difference.
    """

    difference: Interval
    relative: Interval | None
    users_needed: int | None


def compare_scores(
    baselines: Sequence[WordScores],
    scores: Sequence[WordScores],
    seed: int,
    *,
    figure: str = "top1",
    level: float = LEVEL,
    seed_variance: SeedVariance | None = None,
) -> Comparison:
    """Compares models asked the same words of the same users.

    With one score each the intervals are over users: another training seed may differ by more. With
    several, the i-th of both belong together, and the intervals are over users and training seeds.

    Args:
        baselines, scores: of one or more training seeds, as many of both.
        seed: of the bootstrap.
        figure: one of `next_word.FIGURES`.
        seed_variance: of the logarithm of the relative lift, if more is known of it than these seeds show.

    Raises:
        ValueError: not as many of both, not asked the same targets, or none in the figure's total.
    """
    if len(baselines) != len(scores):
        raise ValueError(
            f"{len(baselines)} baselines against {len(scores)} scores; pair them by seed"
        )
    totals = check_targets([*baselines, *scores]).counts(figure)[1]
    hits_a, hits_b = stack_hits(baselines, figure), stack_hits(scores, figure)
    difference = paired_difference(hits_a, hits_b, totals, seed, level=level)
    relative = None
    if hits_a.any():
        relative = paired_lift(
            hits_a, hits_b, totals, seed, level=level, seed_variance=seed_variance
        )
    variance = user_variance(difference_errors(hits_a, hits_b, totals)[:, totals > 0])
    return Comparison(difference, relative, count_users_needed(difference.value, variance))


def seed_interval(scores: Sequence[WordScores], figure: str, seed: int) -> Interval:
    """A figure of one model over users, and over training seeds if there are several scores.

    Raises:
        ValueError: no scores, not asked the same targets, or none in the figure's total.
    """
    totals = check_targets(scores).counts(figure)[1]
    return share_interval(stack_hits(scores, figure), totals, seed)


def stack_hits(scores: Sequence[WordScores], figure: str) -> NDArray[np.int64]:
    """Hits [seeds, users] of a figure."""
    return np.stack([score.counts(figure)[0] for score in scores])


def check_targets(scores: Sequence[WordScores]) -> WordScores:
    """The first of scores that were all asked the same; raises ValueError if they were not."""
    if not scores:
        raise ValueError("no scores to compare")
    if not all(scores[0].has_targets_of(other) for other in scores):
        raise ValueError(
            "the scores differ in users, targets or vocabulary; score all on the same ones"
        )
    return scores[0]


def count_users_needed(difference: float, variance: float) -> int | None:
    """Users of whom a two-sided paired t test at level 0.05 finds `difference` with power 0.8.

    n = (z_0.975 + z_0.8)**2 variance / difference**2 + z_0.975**2 / 2, the last term for t in place of
    z (Guenther 1981, The Statistician 30(4)). None if the difference is 0.

    Args:
        variance: of a user's part in the difference, see `statistics.user_variance`.
    """
    if difference == 0:
        return None
    at_level = float(ndtri((1 + LEVEL) / 2))
    needed = (at_level + float(ndtri(POWER))) ** 2 * variance / difference**2
    return math.ceil(needed + at_level**2 / 2)

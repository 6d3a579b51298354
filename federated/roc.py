"""How well scores tell canaries that took part from those that did not: the ROC curve, and estimates from it.

Nothing here is a bound with confidence; those are in `audit`. "In" is guessed for a score at or above a threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Scores = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Guesses:
    """What guessing "in" for some canaries came to.

    Attributes:
        true_positives: guessed and in.
        false_positives: guessed and out.
        taken: canaries that are in, >= 1.
        left: canaries that are out, >= 1.
    """

    true_positives: int
    false_positives: int
    taken: int
    left: int

    def __post_init__(self) -> None:
        for name, total in (("true_positives", "taken"), ("false_positives", "left")):
            value, most = getattr(self, name), getattr(self, total)
            if most < 1:
                raise ValueError(f"{total} is {most}, must be at least 1")
            if not 0 <= value <= most:
                raise ValueError(f"{name} is {value}, must be in [0, {total}], {total} is {most}")

    def mirrored(self) -> "Guesses":
        """The same split of the canaries, read as guesses of "out"."""
        return Guesses(
            self.left - self.false_positives,
            self.taken - self.true_positives,
            self.left,
            self.taken,
        )


def guess_at(in_scores: Scores, out_scores: Scores, threshold: float) -> Guesses:
    """Guesses of "in" at one threshold."""
    taken, left = _check_scores(in_scores, out_scores)
    return Guesses(
        int(np.sum(taken >= threshold)), int(np.sum(left >= threshold)), len(taken), len(left)
    )


def hull_guesses(in_scores: Scores, out_scores: Scores) -> tuple[list[float], list[Guesses]]:
    """Thresholds at the corners of the ROC curve's convex hull, ascending from "all are in", and the guesses there.

    Raises:
        ValueError: a list is empty or holds something that is no finite number.
    """
    taken, left = (np.sort(scores) for scores in _check_scores(in_scores, out_scores))
    thresholds = np.append(np.union1d(taken, left), math.inf)
    false_negatives = np.searchsorted(taken, thresholds)
    true_negatives = np.searchsorted(left, thresholds)
    corners: list[int] = []
    for new, (x, y) in enumerate(zip(false_negatives, true_negatives, strict=True)):
        while len(corners) >= 2:
            (x0, x1), (y0, y1) = false_negatives[corners[-2:]], true_negatives[corners[-2:]]
            if (y1 - y0) * (x - x1) > (y - y1) * (x1 - x0):
                break
            corners.pop()
        corners.append(new)
    guesses = [
        Guesses(
            len(taken) - int(false_negatives[corner]),
            len(left) - int(true_negatives[corner]),
            len(taken),
            len(left),
        )
        for corner in corners
    ]
    return [float(thresholds[corner]) for corner in corners], guesses


def area_under_roc(in_scores: Scores, out_scores: Scores) -> float:
    """Share of (in, out) pairs of which the one that is in scores higher, ties counting half (Mann & Whitney 1947)."""
    taken, left = _check_scores(in_scores, out_scores)
    left = np.sort(left)
    below = np.searchsorted(left, taken, "left") + np.searchsorted(left, taken, "right")
    return float(below.sum() / (2 * len(taken) * len(left)))


def area_under_hull(in_scores: Scores, out_scores: Scores) -> float:
    """Area under the ROC curve's hull: what randomising between thresholds reaches. Above 1/2 by chance alone."""
    _, corners = hull_guesses(in_scores, out_scores)
    true, false = _rates(corners)
    return float(np.sum((true[:-1] + true[1:]) / 2 * np.diff(false)))


def true_positive_rate(in_scores: Scores, out_scores: Scores, false_positive_rate: float) -> float:
    """Highest true positive rate at a false positive rate in [0, 1], on the hull.

    Raises:
        ValueError: the rate is not in [0, 1].
    """
    if not 0 <= false_positive_rate <= 1:
        raise ValueError(f"false_positive_rate is {false_positive_rate!r}, must be in [0, 1]")
    _, corners = hull_guesses(in_scores, out_scores)
    true, false = _rates(corners)
    right = min(int(np.searchsorted(false, false_positive_rate, "right")), len(false) - 1)
    step = (false_positive_rate - false[right - 1]) / (false[right] - false[right - 1])
    return float(true[right - 1] + step * (true[right] - true[right - 1]))


def best_accuracy(in_scores: Scores, out_scores: Scores) -> float:
    """Largest share of canaries that one threshold tells rightly."""
    _, corners = hull_guesses(in_scores, out_scores)
    return max(
        (at.true_positives + at.left - at.false_positives) / (at.taken + at.left) for at in corners
    )


def estimate_from_counts(
    in_scores: Scores, out_scores: Scores, least_false_positives: int
) -> float:
    """log(true / false positive rate) at that many false positives on the hull: an estimate of epsilon, no bound."""
    left = len(out_scores)
    if least_false_positives >= left:
        return 0.0
    rate = least_false_positives / left
    return max(0.0, math.log(true_positive_rate(in_scores, out_scores, rate) / rate))


def _rates(corners: Sequence[Guesses]) -> tuple[np.ndarray, np.ndarray]:
    """True and false positive rates of corners, ascending."""
    true = np.array([at.true_positives / at.taken for at in reversed(corners)])
    return true, np.array([at.false_positives / at.left for at in reversed(corners)])


def _check_scores(in_scores: Scores, out_scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for name, scores in (("in_scores", in_scores), ("out_scores", out_scores)):
        array = np.asarray(scores, np.float64)
        if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
            raise ValueError(f"{name}: give a list of at least one finite number")
        arrays.append(array)
    return arrays[0], arrays[1]

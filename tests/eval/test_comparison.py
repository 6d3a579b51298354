"""Models against themselves and near copies; the number of users against simulated tests; through real bundles."""

import math

import numpy as np
import pytest
from scipy import stats

from eval.comparison import compare_scores, count_users_needed, seed_interval
from eval.next_word import CLASSES, WordScores
from eval.statistics import Interval, difference_errors, user_variance


def _scores(targets, hits):
    classes = np.zeros((len(targets), len(CLASSES), 3), int)
    return WordScores(targets, targets, hits, hits, hits, hits, classes)


def _simulate(rng, users, gain):
    """Two models that agree on most words, and the second right on a few more."""
    targets = np.minimum(np.exp(rng.normal(4, 1, users)).astype(int) + 1, 100)
    both, only_a, only_b = (
        rng.binomial(targets, share * rng.beta(8, 8, users)) for share in (0.2, 0.1, 0.1 + 2 * gain)
    )
    hits_a, hits_b = np.minimum(both + only_a, targets), np.minimum(both + only_b, targets)
    return hits_a, hits_b, targets


def test_a_model_against_itself_does_not_differ():
    hits, _, targets = _simulate(np.random.default_rng(1), 40, 0)
    comparison = compare_scores([_scores(targets, hits)], [_scores(targets, hits)], seed=1)
    assert comparison.difference == comparison.relative == Interval(0, 0, 0)
    assert comparison.users_needed is None


def test_difference_and_lift_are_those_of_the_shares():
    rng = np.random.default_rng(2)
    a, b, targets = _simulate(rng, 50, 0.02)
    more = np.minimum(b + rng.integers(0, 2, 50), targets)
    arms = [_scores(targets, a), _scores(targets, a)], [_scores(targets, b), _scores(targets, more)]
    comparison = compare_scores(*arms, seed=1, figure="top3_all")
    share_a, share_b = a.sum() / targets.sum(), (b.sum() + more.sum()) / targets.sum() / 2
    assert comparison.difference.value == pytest.approx(share_b - share_a)
    assert comparison.relative.value == pytest.approx(share_b / share_a - 1)
    assert seed_interval(arms[1], "top1", 1).value == pytest.approx(share_b)
    silent = compare_scores([_scores(targets, 0 * a)], [_scores(targets, a)], seed=1)
    assert silent.relative is None and silent.difference.value == pytest.approx(share_a)


def test_users_needed_give_the_power_promised():
    """Differences found in simulated experiments of that many users, by a t test on users' parts."""
    rng, gain = np.random.default_rng(3), 0.01
    a, b, targets = _simulate(rng, 200_000, gain)
    difference = float((b - a).sum() / targets.sum())
    variance = user_variance(difference_errors(a, b, targets))
    users = count_users_needed(difference, variance)
    assert 50 < users < 1_000
    found = 0
    for _ in range(2_000):
        a, b, targets = _simulate(rng, users, gain)
        [errors] = difference_errors(a, b, targets)
        value = (b - a).sum() / targets.sum()
        error = math.sqrt((errors**2).sum() * users / (users - 1))
        found += value > stats.t.ppf(0.975, users - 1) * error
    assert 0.77 <= found / 2_000 <= 0.83
    assert count_users_needed(difference / 2, variance) == pytest.approx(4 * users, rel=0.02)


def test_scores_that_cannot_be_paired_are_refused():
    a, b, targets = _simulate(np.random.default_rng(4), 9, 0)
    one, other = _scores(targets, a), _scores(targets[:-1], b[:-1])
    with pytest.raises(ValueError, match="differ in users, targets or vocabulary"):
        compare_scores([one], [other], seed=1)
    with pytest.raises(ValueError, match="2 baselines against 1 scores"):
        compare_scores([one, one], [one], seed=1)
    with pytest.raises(ValueError, match="no scores"):
        compare_scores([], [], seed=1)

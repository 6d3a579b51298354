"""Intervals against closed forms, brute force and the truth of simulated experiments."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import statistics
from eval.statistics import Interval, paired_lift, resample_sums, share_interval


def _simulate(rng, users=60):
    """Users of unequal skill and unequal diligence: (hits, totals), true share 0.2."""
    totals = rng.integers(20, 200, users)
    return rng.binomial(totals, rng.beta(4, 16, users)), totals


def test_resamples_have_the_moments_of_drawing_users_with_replacement():
    values = np.arange(12.0)[:, None] ** 2
    sums = resample_sums(np.hstack([values, np.ones((12, 1))]), seed=3, resamples=20_000)
    assert sums.shape == (20_000, 2)
    assert (sums[:, 1] == 12).all()
    assert sums[:, 0].mean() == pytest.approx(values.sum(), rel=0.01)
    assert sums[:, 0].std() == pytest.approx(math.sqrt(12) * values.std(), rel=0.02)


def test_resamples_do_not_depend_on_how_they_are_cut(monkeypatch):
    columns = np.random.default_rng(0).random((17, 3))
    whole = resample_sums(columns, seed=5, resamples=100)
    monkeypatch.setattr(statistics, "_CHUNK_CELLS", 7 * 17)
    assert resample_sums(columns, seed=5, resamples=100) == pytest.approx(whole)


def test_share_interval_agrees_with_the_normal_approximation():
    """Equal totals: the share is a mean over users, whose standard error is known."""
    rng = np.random.default_rng(1)
    totals = np.full(400, 50)
    hits = rng.binomial(totals, rng.beta(4, 16, 400))
    interval = share_interval(hits, totals, seed=2, resamples=8_000)
    error = (hits / totals).std() / math.sqrt(400)
    assert interval.value == hits.sum() / totals.sum()
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.1 * error)


def test_paired_lift_agrees_with_a_loop_over_drawn_users():
    rng = np.random.default_rng(4)
    hits_a, totals = _simulate(rng, 40)
    hits_b = rng.binomial(totals, np.minimum(1.4 * hits_a / totals, 1))
    interval = paired_lift(hits_a, totals, hits_b, totals, seed=9, resamples=6_000)
    slow, lifts = random.Random(8), []
    for _ in range(6_000):
        drawn = slow.choices(range(40), k=40)
        total = sum(int(totals[user]) for user in drawn)
        share_a, share_b = (
            sum(int(hits[user]) for user in drawn) / total for hits in (hits_a, hits_b)
        )
        lifts.append(share_b / share_a - 1)
    lifts.sort()
    assert interval.value == pytest.approx(hits_b.sum() / hits_a.sum() - 1)
    width = lifts[5_849] - lifts[149]
    assert interval.low == pytest.approx(lifts[149], abs=0.06 * width)
    assert interval.high == pytest.approx(lifts[5_849], abs=0.06 * width)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(5)
    hits, totals = _simulate(rng)
    better = np.minimum(hits + rng.integers(0, 3, len(hits)), totals)
    paired = paired_lift(hits, totals, better, totals, seed=1)
    order = rng.permutation(len(hits))
    shuffled = paired_lift(hits, totals, better[order], totals[order], seed=1)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.3 * (shuffled.high - shuffled.low)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(6)
    held_share = held_lift = 0
    for experiment in range(400):
        hits, totals = _simulate(rng)
        interval = share_interval(hits, totals, seed=experiment, resamples=500)
        held_share += interval.low <= 0.2 <= interval.high
        skill = rng.beta(4, 16, 60)
        hits_a, hits_b = (
            rng.binomial(totals, skill),
            rng.binomial(totals, 1.5 * skill * (skill < 2 / 3)),
        )
        lift = paired_lift(hits_a, totals, hits_b, totals, seed=experiment, resamples=500)
        held_lift += lift.low <= 0.5 <= lift.high
    assert 0.92 <= held_share / 400 <= 0.98
    assert 0.92 <= held_lift / 400 <= 0.98


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=30),
    st.integers(0, 99),
)
def test_a_model_against_itself_has_no_lift_and_scaling_changes_nothing(pairs, seed):
    hits, totals = np.array([(min(hit, total), total) for hit, total in pairs]).T
    share = share_interval(hits, totals, seed, resamples=200)
    assert share_interval(3 * hits, 3 * totals, seed, resamples=200) == share
    assert 0 <= share.low <= share.high <= 1
    misses = share_interval(totals - hits, totals, seed, resamples=200)
    assert (misses.low, misses.high) == pytest.approx((1 - share.high, 1 - share.low))
    if hits.any():
        assert paired_lift(hits, totals, hits, totals, seed, resamples=200) == Interval(
            0.0, 0.0, 0.0
        )


def test_what_cannot_be_known_is_not_claimed():
    assert share_interval([3], [4], seed=0) == Interval(0.75, 0, 1)
    assert share_interval([3, 0], [4, 0], seed=0) == Interval(0.75, 0, 1)
    assert paired_lift([1], [4], [2], [4], seed=0) == Interval(1.0, -1.0, math.inf)
    assert paired_lift([1, 0, 0], [9, 9, 9], [1, 2, 2], [9, 9, 9], seed=0).high == math.inf


@pytest.mark.parametrize(
    ("hits", "totals", "problem"),
    [
        ([1, 2], [3], "equal"),
        ([[1]], [[3]], "equal"),
        ([4], [3], "between 0 and totals"),
        ([-1], [3], "between 0 and totals"),
        ([0, 0], [0, 0], "all totals are zero"),
        ([], [], "all totals are zero"),
    ],
)
def test_counts_that_are_no_counts_are_refused(hits, totals, problem):
    with pytest.raises(ValueError, match=problem):
        share_interval(hits, totals, seed=0)


def test_lifts_that_are_no_lifts_are_refused():
    with pytest.raises(ValueError, match="baseline has no hit"):
        paired_lift([0, 0], [5, 5], [1, 1], [5, 5], seed=0)
    with pytest.raises(ValueError, match="3 users against 2"):
        paired_lift([1, 1, 1], [5, 5, 5], [1, 1], [5, 5], seed=0)

"""Intervals against closed forms, brute force and the truth of simulated experiments."""

import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import statistics
from eval.statistics import (
    Interval,
    lift_errors,
    paired_difference,
    paired_lift,
    ratio_interval,
    resample_sums,
    share_interval,
    simultaneous_level,
)


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
    interval = paired_lift(hits_a, hits_b, totals, seed=9, resamples=6_000)
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
    wider = scipy.stats.t.ppf(0.975, 39) / scipy.stats.norm.ppf(0.975) * math.sqrt(40 / 39)
    width, value = lifts[5_849] - lifts[149], math.log1p(interval.value)
    for end, found in ((interval.low, lifts[149]), (interval.high, lifts[5_849])):
        widened = math.expm1(value + wider * (math.log1p(found) - value))
        assert end == pytest.approx(widened, abs=0.06 * width)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(5)
    hits, totals = _simulate(rng)
    better = np.minimum(hits + rng.integers(0, 3, len(hits)), totals)
    paired = paired_lift(hits, better, totals, seed=1)
    totals = np.full(len(hits), totals.max())  # or hits of one user exceed what another was asked
    order = rng.permutation(len(hits))
    shuffled = paired_lift(hits, better[order], totals, seed=1)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.3 * (shuffled.high - shuffled.low)


def _ask_users(rng, users):
    """Words asked of users as unequal as ours (log-normal, cap 100), their skill, and taste for each of two arms."""
    diligence, skill, *tastes = rng.normal(size=(4, users))
    totals = np.minimum(np.exp(5.2 + 2 * diligence).astype(int) + 1, 100)
    return totals, 0.1 * diligence + 0.33 * skill - 1.75, 0.15 * np.array(tastes)


def _answer(rng, totals, logits, seeds, seed_sd):
    """Hits [seeds, users] of an arm: its seeds differ, and so does each user's luck with them."""
    shifts = seed_sd * rng.normal(size=(seeds, 1)) + 0.1 * rng.normal(size=(seeds, len(totals)))
    return rng.binomial(totals, 1 / (1 + np.exp(-logits - shifts)))


def _find_truth(seed_sd):
    """Shares of the two arms among all users and seeds, by drawing very many of both."""
    rng = np.random.default_rng(12)
    totals, skill, tastes = _ask_users(rng, 400_000)
    shift = rng.normal(size=(2, 400_000)) * math.hypot(seed_sd, 0.1)
    chances = 1 / (1 + np.exp(-skill - tastes - shift - [[0.0], [0.2]]))
    return (chances * totals).sum(axis=1) / totals.sum()


def _count_held(experiments, users, seeds, seed_sd, resamples):
    share_a, share_b = _find_truth(seed_sd)
    truth = (share_b, share_b - share_a, share_b / share_a - 1)
    held = np.zeros(3)
    for experiment in range(experiments):
        rng = np.random.default_rng([users, seeds, experiment])
        totals, skill, tastes = _ask_users(rng, users)
        hits_a, hits_b = (
            _answer(rng, totals, skill + gain + taste, seeds, seed_sd)
            for gain, taste in zip((0.0, 0.2), tastes, strict=True)
        )
        intervals = (
            share_interval(hits_b, totals, experiment, resamples=resamples),
            paired_difference(hits_a, hits_b, totals, experiment, resamples=resamples),
            paired_lift(hits_a, hits_b, totals, experiment, resamples=resamples),
        )
        held += [i.low <= true <= i.high for i, true in zip(intervals, truth, strict=True)]
    return held / experiments


@pytest.mark.parametrize("users", [12, 30])
def test_intervals_hold_the_truth_as_often_as_they_say(users):
    held = _count_held(300, users, seeds=1, seed_sd=0, resamples=200)
    assert (held >= 0.92).all() and (held <= 0.98).all(), held


@pytest.mark.slow
@pytest.mark.parametrize(
    "users",
    [264, 30],
)
def test_95_percent_intervals_hold_the_truth_in_93_to_97_percent_of_1000_experiments(users):
    held = _count_held(1_000, users, seeds=1, seed_sd=0, resamples=1_000)
    assert (held >= 0.93).all() and (held <= 0.97).all(), held


@pytest.mark.slow
@pytest.mark.parametrize(
    ("users", "seeds", "seed_sd"),
    [(264, 3, 0), (264, 3, 0.02), (264, 3, 0.05), (264, 3, 0.2), (264, 5, 0.05), (30, 3, 0.05)],
)
def test_few_seeds_hold_the_truth_in_93_to_97_percent_of_1000_experiments(users, seeds, seed_sd):
    held = _count_held(1_000, users, seeds, seed_sd, resamples=1_000)
    assert (held >= 0.93).all() and (held <= 0.97).all(), held


@pytest.mark.slow
def test_two_seeds_tell_little_but_are_not_far_off():
    held = _count_held(1_000, 264, seeds=2, seed_sd=0.05, resamples=1_000)
    assert (held >= 0.91).all() and (held <= 0.985).all(), held


def test_variances_of_users_and_seeds_add_up():
    """Widths against a jackknife over users and the spread of seeds: between too wide and too narrow."""
    rng, users, seeds = np.random.default_rng(13), 60, 3
    totals, skill, tastes = _ask_users(rng, users)
    a, b = (_answer(rng, totals, skill + taste, seeds, 0.1) for taste in tastes)

    def jackknife(estimate):
        """Covariance [seeds, seeds] of the seeds' estimates, by leaving out one user at a time."""
        kept = [np.arange(users) != user for user in range(users)]
        left_out = np.array([[estimate(s, keep) for s in range(seeds)] for keep in kept])
        off = left_out - left_out.mean(axis=0)
        return off.T @ off * (users - 1) / users

    def difference(s, keep):
        return (b[s][keep].sum() - a[s][keep].sum()) / totals[keep].sum()

    def log_ratio(s, keep):
        return math.log(b[s][keep].sum() / a[s][keep].sum())

    found = paired_difference(a, b, totals, 1, resamples=20_000)
    lift = paired_lift(a, b, totals, 1, resamples=20_000)
    widths = (found.high - found.low, math.log1p(lift.high) - math.log1p(lift.low))
    for estimate, width in zip((difference, log_ratio), widths, strict=True):
        covariance = jackknife(estimate)
        common = (covariance.sum() - covariance.trace()) / 6
        each = [estimate(s, np.full(users, True)) for s in range(seeds)]
        parts = (common, np.var(each, ddof=1) / seeds)
        wide = math.hypot(
            *(
                scipy.stats.t.ppf(0.975, freedom) * math.sqrt(part)
                for part, freedom in zip(parts, (users - 1, seeds - 1), strict=True)
            )
        )
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (users - 1) + parts[1] ** 2 / (seeds - 1))
        narrow = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
        assert width == pytest.approx(2 * (wide + 2 * narrow) / 3, rel=0.06)
    assert found.value == pytest.approx(np.mean(b - a) / np.mean(totals))


def test_a_higher_level_is_wider_by_its_quantile():
    rng = np.random.default_rng(14)
    hits, totals = _simulate(rng)
    usual, high = (share_interval(hits, totals, 1, level=level) for level in (0.95, 0.99))
    quantiles = scipy.stats.t.ppf([0.975, 0.995], 59)
    assert (high.high - high.low) / (usual.high - usual.low) == pytest.approx(
        quantiles[1] / quantiles[0]
    )


def test_simultaneous_level_is_that_of_known_maxima():
    """K independent errors: level ** (1 / K) (Sidak 1967); errors all alike: nothing to correct."""
    errors = np.eye(6)[:, None] - 1 / 6
    independent = np.stack([np.kron(np.eye(5), [1, -1])[k] for k in range(5)])[:, None]
    assert simultaneous_level(independent, 1) == pytest.approx(0.95 ** (1 / 5), abs=1.5e-3)
    assert simultaneous_level([errors[0], 3 * errors[0], -errors[0]], 1) == pytest.approx(
        0.95, abs=3e-3
    )
    assert simultaneous_level([errors[0], 0 * errors[0]], 1) == 0.95
    assert simultaneous_level([], 1) == 0.95


def test_simultaneous_intervals_hold_all_truths_as_often_as_they_say():
    """Six arms over one baseline, whose hits all six share."""
    rng, held, each = np.random.default_rng(15), 0, 0
    for experiment in range(100):
        totals, skill, _ = _ask_users(rng, 40)
        base, *arms = (_answer(rng, totals, skill, 1, 0) for _ in range(7))
        level = simultaneous_level([lift_errors(base, arm) for arm in arms], experiment)
        for corrected in (True, False):
            lifts = [
                paired_lift(base, arm, totals, 1, level=level if corrected else 0.95, resamples=200)
                for arm in arms
            ]
            all_hold = all(lift.low <= 0 <= lift.high for lift in lifts)
            held, each = held + (all_hold and corrected), each + (all_hold and not corrected)
    assert 0.91 <= held / 100 <= 0.98 and each / 100 < 0.9


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=30),
    st.integers(0, 99),
)
def test_a_model_against_itself_has_no_lift_and_scaling_changes_nothing(pairs, seed):
    hits, totals = np.array([(min(hit, total), total) for hit, total in pairs]).T
    share = share_interval(hits, totals, seed, resamples=200)
    thrice = share_interval(3 * hits, 3 * totals, seed, resamples=200)
    assert (thrice.low, thrice.high) == pytest.approx((share.low, share.high))
    assert 0 <= share.low <= share.high <= 1
    misses = share_interval(totals - hits, totals, seed, resamples=200)
    assert (misses.low, misses.high) == pytest.approx((1 - share.high, 1 - share.low))
    if hits.any():
        assert paired_lift(hits, hits, totals, seed, resamples=200) == Interval(0.0, 0.0, 0.0)
    assert paired_difference(hits, hits, totals, seed, resamples=200) == Interval(0.0, 0.0, 0.0)
    thrice = share_interval([hits] * 3, totals, seed, resamples=200)
    assert (thrice.low, thrice.high) == pytest.approx((share.low, share.high))


def test_what_cannot_be_known_is_not_claimed():
    assert share_interval([3], [4], seed=0) == Interval(0.75, 0, 1)
    assert share_interval([3, 0], [4, 0], seed=0) == Interval(0.75, 0, 1)
    assert paired_lift([1], [2], [4], seed=0) == Interval(pytest.approx(1.0), -1.0, math.inf)
    assert paired_difference([1], [2], [4], seed=0) == Interval(0.25, -1.0, 1.0)
    assert paired_lift([1, 0, 0], [1, 2, 2], [9, 9, 9], seed=0).high == math.inf
    silent = paired_lift([[0, 0, 0], [3, 2, 1]], [[1, 2, 2]] * 2, [9, 9, 9], seed=0)
    assert (silent.low, silent.high) == (-1.0, math.inf)  # one seed's lift has no bound
    assert ratio_interval([7.0], [2], seed=0) == Interval(3.5, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("hits", "totals", "problem"),
    [
        ([1, 2], [3], "2 users against 1"),
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
        paired_lift([0, 0], [1, 1], [5, 5], seed=0)
    with pytest.raises(ValueError, match="3 users against 2"):
        paired_lift([1, 1, 1], [1, 1, 1], [5, 5], seed=0)
    with pytest.raises(ValueError, match="must be equal"):
        paired_lift([1, 1], [1, 1, 1], [5, 5], seed=0)

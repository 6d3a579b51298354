"""A study's figures against loops over drawn users, and what it must not claim."""

import json
import math
import random
import statistics

import numpy as np
import pytest
from scipy import stats

from eval.next_word import CLASSES, WordScores
from eval.statistics import SeedVariance, gap_interval, paired_lift
from eval.study import (
    ADAPTED,
    ARMS,
    BARS,
    CEILING,
    MIX,
    PARTS,
    ArmRun,
    Bars,
    build_study,
    find_lift,
)

SHARES = {
    "web_news": 0.10,
    "web_all": 0.13,
    "filtered": 0.14,
    "converted": 0.15,
    "generated": 0.17,
    MIX: 0.19,
    "synthetic_no_typing": 0.19,
    "synthetic_with_typing": 0.15,
    "synthetic_no_dedup": 0.15,
    "synthetic_with_dedup": 0.23,
    "synthetic_no_floor": 0.23,
    "synthetic_no_everyday": 0.15,
    ADAPTED: 0.23,
    CEILING: 0.21,
}
USERS = 40
TARGETS = np.random.default_rng(0).integers(50, 300, USERS)
IN_VOCAB = TARGETS - np.random.default_rng(1).integers(0, 9, USERS)


NO_CLASSES = np.zeros((USERS, len(CLASSES), 3), int)


def _run(arm, hits, seed=1, **facts):
    hits = np.asarray(hits)
    top3 = np.minimum(2 * hits, IN_VOCAB)
    scores = WordScores(TARGETS, IN_VOCAB, hits, top3, hits, top3, NO_CLASSES)
    return ArmRun(
        arm, seed, scores, **({"words_read": 900, "distinct_words": 300, "seconds": 60.0} | facts)
    )


def _simulate(arm, seed, **facts):
    rng = np.random.default_rng([ARMS.index(arm), seed])
    skill = np.random.default_rng(2).beta(20, 20, USERS) * 2
    return _run(arm, rng.binomial(IN_VOCAB, SHARES[arm] * skill), seed, **facts)


RUNS = [_simulate(arm, seed) for arm in ARMS for seed in (1, 2, 3)]
STUDY = build_study(RUNS, seed=7)


def _hits(arm, seeds=(1, 2, 3)):
    return sum(run.scores.top1_in for run in RUNS if run.arm == arm and run.seed in seeds)


def _draw_users(count=6_000):
    rng = random.Random(8)
    return [rng.choices(range(USERS), k=USERS) for _ in range(count)]


def _sum(hits, drawn):
    return sum(int(hits[user]) for user in drawn)


WIDER = stats.t.ppf(0.975, USERS - 1) / stats.norm.ppf(0.975) * math.sqrt(USERS / (USERS - 1))


def _agrees(interval, values, name="value"):
    """Percentiles of drawn users, widened for there being few; lifts on the scale of logarithms."""
    to, back = (math.log1p, math.expm1) if name == "relative" else (float, float)
    values = sorted(values)
    low, value, high = (to(x) for x in (values[149], interval[name], values[5_849]))
    assert low <= value <= high
    assert interval["low"] == pytest.approx(
        back(value - WIDER * (value - low)), abs=0.08 * (back(high) - back(low))
    )
    assert interval["high"] == pytest.approx(
        back(value + WIDER * (high - value)), abs=0.08 * (back(high) - back(low))
    )


def test_figures_of_one_seed_agree_with_a_loop_over_drawn_users():
    study = build_study([run for run in RUNS if run.seed == 2], seed=7)
    mix, web, news, chat = (_hits(arm, (2,)) for arm in (MIX, "web_all", "web_news", CEILING))
    draws = _draw_users()
    sums = [[_sum(hits, drawn) for hits in (mix, web, news, chat)] for drawn in draws]
    _agrees(find_lift(study, MIX, "web_all"), [m / w - 1 for m, w, _, _ in sums], "relative")
    _agrees(find_lift(study, MIX, "web_news"), [m / n - 1 for m, _, n, _ in sums], "relative")
    _agrees(study["gap_closed"]["web_all"], [(m - w) / (c - w) for m, w, _, c in sums])
    _agrees(study["gap_closed"]["web_news"], [(m - n) / (c - n) for m, _, n, c in sums])
    totals = [_sum(IN_VOCAB, drawn) for drawn in draws]
    _agrees(study["arms"][MIX]["top1"], [m / t for (m, *_), t in zip(sums, totals, strict=True)])
    assert find_lift(study, MIX, "web_all")["relative"] == pytest.approx(mix.sum() / web.sum() - 1)


def test_figures_of_several_seeds_are_over_users_and_seeds():
    mix, web = (np.stack([_hits(arm, (seed,)) for seed in (1, 2, 3)]) for arm in (MIX, "web_all"))
    logs = [[math.log(_hits(arm, (seed,)).sum()) for seed in (1, 2, 3)] for arm in ARMS]
    pooled = SeedVariance(2 * np.var(logs, axis=1, ddof=1).mean(), 2 * len(ARMS))
    expected = paired_lift(web, mix, IN_VOCAB, 7, seed_variance=pooled)
    lift = find_lift(STUDY, MIX, "web_all")
    assert (lift["relative"], lift["low"], lift["high"]) == pytest.approx(
        (mix.sum() / web.sum() - 1, expected.low, expected.high)
    )
    same = [
        build_study(
            [_run(arm, _hits(arm, (1,)), seed) for arm in (MIX, "web_all") for seed in seeds], 7
        )
        for seeds in ((1,), (1, 2, 3))
    ]
    narrow = find_lift(same[0], MIX, "web_all")
    for name in ("low", "high"):  # seeds that do not differ add nothing
        assert find_lift(same[1], MIX, "web_all")[name] == pytest.approx(narrow[name])


def test_counts_and_spread_over_seeds():
    assert STUDY["seeds"] == [1, 2, 3] and STUDY["users"] == USERS
    assert STUDY["targets"] == TARGETS.sum()
    assert list(STUDY["arms"]) == list(ARMS)
    for arm, row in STUDY["arms"].items():
        shares = [_hits(arm, (seed,)).sum() / IN_VOCAB.sum() for seed in (1, 2, 3)]
        assert list(row["top1_by_seed"].values()) == pytest.approx(shares)
        assert row["top1_seed_sd"] == pytest.approx(statistics.stdev(shares))
        assert row["top1"]["value"] == pytest.approx(statistics.mean(shares))
        assert row["oov_rate"]["value"] == pytest.approx(1 - IN_VOCAB.sum() / TARGETS.sum())
    by_seed = find_lift(STUDY, MIX, "web_news")["by_seed"]
    for seed in (1, 2, 3):
        expected = _hits(MIX, (seed,)).sum() / _hits("web_news", (seed,)).sum() - 1
        assert by_seed[str(seed)] == pytest.approx(expected)
        web, mix, chat = (_hits(arm, (seed,)).sum() for arm in ("web_all", MIX, CEILING))
        gap = STUDY["gap_closed"]["web_all"]["by_seed"][str(seed)]
        assert gap == pytest.approx((mix - web) / (chat - web))
    assert json.loads(json.dumps(STUDY, allow_nan=False)) == STUDY


def test_every_arm_is_set_against_all_web_text_and_the_mix():
    pairs = [(lift["arm"], lift["over"]) for lift in STUDY["lifts"]]
    assert len(pairs) == len(set(pairs))
    expected = {(arm, over) for arm in ARMS for over in ("web_all", MIX) if arm != over}
    assert set(pairs) == expected | {(MIX, "web_news"), (ADAPTED, "web_news")}


def test_parts_help_or_hurt_by_the_interval_over_the_mix():
    study = build_study([run for run in RUNS if run.seed == 1], seed=7)
    effects = {row["arm"]: row["effect"] for row in study["ablations"]}
    assert effects == {
        "web_news": "helps",
        "web_all": "helps",
        "filtered": "helps",
        "converted": "helps",
        "generated": "helps",
        "synthetic_no_typing": "no clear difference",
        "synthetic_with_typing": "helps",  # with it the mix is worse: leaving it out helps
        "synthetic_no_dedup": "helps",  # without it the mix is worse
        "synthetic_with_dedup": "hurts",
        "synthetic_no_floor": "hurts",  # without it the mix is better
        "synthetic_no_everyday": "helps",
        ADAPTED: "helps",  # with it the mix is better
    }
    assert [row["part"] for row in study["ablations"]] == list(PARTS.values())
    for row in study["ablations"]:
        alone = find_lift(study, row["arm"], MIX)
        assert row["relative"] == alone["relative"]
        assert row["low"] < alone["low"] and row["high"] > alone["high"]
    worse = build_study([_simulate(MIX, 1), _run(ADAPTED, _hits("web_news", (1,)))], seed=7)
    assert [row["effect"] for row in worse["ablations"]] == ["hurts"]
    [row], lift = worse["ablations"], find_lift(worse, ADAPTED, MIX)
    assert (row["low"], row["high"]) == (
        lift["low"],
        lift["high"],
    )  # one comparison: nothing to correct


def _study_of_equals(rng, seed_sd):
    """Three seeds of three arms, one seed of a fourth, all as good as each other but for their seeds."""
    skill = rng.normal(-1.5, 0.3, USERS)
    seeds = {"web_news": (1, 2, 3), "web_all": (1, 2, 3), MIX: (1, 2, 3), "filtered": (1,)}
    runs = []
    for arm, of_arm in seeds.items():
        for seed in of_arm:
            logits = skill + 0.1 * rng.normal(size=USERS) + seed_sd * rng.normal()
            runs.append(_run(arm, rng.binomial(IN_VOCAB, 1 / (1 + np.exp(-logits))), seed))
    return build_study(runs, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0, 0.1])
def test_lifts_hold_the_truth_whatever_the_seeds_do(seed_sd):
    rng, held, lifts, wrong = np.random.default_rng(21), 0, 0, 0
    for _ in range(300):
        study = _study_of_equals(rng, seed_sd)
        held += sum(lift["low"] <= 0 <= lift["high"] for lift in study["lifts"])
        lifts += len(study["lifts"])
        wrong += any(row["effect"] != "no clear difference" for row in study["ablations"])
    assert 0.93 <= held / lifts <= 0.985
    assert wrong / 300 <= 0.08


def test_seeds_of_all_arms_tell_more_than_those_of_one_pair():
    """Three seeds that differ: what a pair alone cannot see, a study of thirteen arms can."""
    row = next(row for row in STUDY["ablations"] if row["arm"] == "generated")
    assert row["effect"] == "helps"
    mix, generated = (
        np.stack([_hits(arm, (seed,)) for seed in (1, 2, 3)]) for arm in (MIX, "generated")
    )
    assert paired_lift(mix, generated, IN_VOCAB, 7, level=0.995).high > 0


def test_only_common_seeds_are_paired():
    runs = [
        run
        for run in RUNS
        if (run.arm, run.seed) in {(MIX, 1), (MIX, 2), ("web_all", 2), ("web_all", 3)}
    ]
    study = build_study(runs, seed=7)
    alone = build_study([run for run in runs if run.seed == 2], seed=7)
    assert len(study["lifts"]) == 2
    for lift, expected in zip(study["lifts"], alone["lifts"], strict=True):
        for name in ("arm", "over", "relative", "seeds", "by_seed"):
            assert lift[name] == expected[name]
        assert lift["low"] < expected["low"]  # how seeds differ is known, from both arms
    assert study["arms"][MIX]["seeds"] == [1, 2] and study["seeds"] == [1, 2, 3]
    assert study["cost"] == alone["cost"]
    disjoint = build_study([_simulate(MIX, 1), _simulate("web_all", 2)], seed=7)
    assert disjoint["lifts"] == [] and disjoint["gap_closed"] == {}
    assert set(disjoint["cost"][MIX].values()) == {None}


def test_runs_may_come_in_any_order():
    assert build_study(RUNS[::-1], seed=7) == STUDY


def test_missing_arms_are_left_out_and_change_no_other_value():
    study = build_study(
        [run for run in RUNS if run.arm not in (CEILING, "web_news", "filtered")], seed=7
    )
    assert study["gap_closed"] == {}
    assert [bar["reached"] for bar in study["bars"]["gap_closed"]] == [None, None]
    assert [bar["reached"] for bar in study["bars"]["lifts"]] == [True, None]
    assert "filtered" not in study["arms"] and "filtered" not in study["cost"]
    assert find_lift(study, MIX, "web_news") is None
    for name in ("relative", "seeds", "by_seed"):  # intervals also learn from other arms' seeds
        assert find_lift(study, MIX, "web_all")[name] == find_lift(STUDY, MIX, "web_all")[name]
    without_web = build_study([_simulate(MIX, 1)], seed=7)
    assert (
        without_web["lifts"] == [] and without_web["cost"] == {} and without_web["ablations"] == []
    )
    assert without_web["arms"][MIX]["top1_seed_sd"] is None


def test_bars_want_both_the_figure_and_its_interval():
    lift, gap = find_lift(STUDY, MIX, "web_all"), STUDY["gap_closed"]["web_all"]["value"]

    def reached(relative, low, share):
        study = build_study(RUNS, seed=7, bars=Bars({"web_all": (relative, low)}, share))
        return study["bars"]["lifts"][0]["reached"], study["bars"]["gap_closed"][0]["reached"]

    assert reached(lift["relative"], lift["low"] - 1e-9, gap) == (True, True)
    assert reached(lift["relative"], lift["low"], gap + 1e-9) == (False, False)
    assert reached(lift["relative"] + 1e-9, 0.0, gap) == (False, True)
    assert Bars({"web_all": (0.35, 0.228), "web_news": (0.60, 0.45)}, 0.80) == BARS


def test_cost_is_spent_over_points_gained():
    web = _run("web_all", IN_VOCAB // 10)
    gain = (IN_VOCAB // 5).sum() / IN_VOCAB.sum() - (IN_VOCAB // 10).sum() / IN_VOCAB.sum()
    runs = [
        web,
        _run(MIX, IN_VOCAB // 5, seconds=120.0, distinct_words=5_000),
        _run("filtered", web.scores.top1_in, seconds=120.0),
        _run("web_news", IN_VOCAB // 20),
    ]
    cost = build_study(runs, seed=7)["cost"]
    assert cost[MIX]["gain"] == pytest.approx(gain)
    assert cost[MIX]["seconds_per_point"] == pytest.approx(1.2 / gain)
    assert cost[MIX]["words_per_point"] == pytest.approx(50 / gain)
    for arm in ("filtered", "web_news"):
        assert cost[arm]["gain"] <= 0
        assert cost[arm]["seconds_per_point"] is None and cost[arm]["words_per_point"] is None
    assert "web_all" not in cost


def test_what_is_not_defined_is_null():
    nothing, some = np.zeros(USERS, int), IN_VOCAB // 10
    study = build_study([_run("web_all", nothing), _run(MIX, some), _run(CEILING, nothing)], seed=7)
    lift = find_lift(study, MIX, "web_all")
    assert lift["relative"] is lift["low"] is lift["high"] is lift["by_seed"]["1"] is None
    assert study["bars"]["lifts"][0]["reached"] is None
    gap = study["gap_closed"]["web_all"]
    assert gap["value"] is gap["low"] is gap["high"] is gap["by_seed"]["1"] is None
    one = np.zeros(USERS, int)
    one[0] = 1
    rare = build_study([_run("web_all", one), _run(MIX, some)], seed=7)
    lift = find_lift(rare, MIX, "web_all")
    assert (
        lift["relative"] == pytest.approx(some.sum() - 1)
        and lift["high"] is None
        and lift["low"] is not None
    )


def test_a_gap_that_may_not_be_there_bounds_nothing():
    """The ceiling leads by users 0 and 1 alone, whom (1 - 2 / n)**n, 13 % of draws, miss."""
    low = IN_VOCAB // 10
    high = low + 5 * (np.arange(USERS) < 2)
    interval = gap_interval(low, low + 1, high, IN_VOCAB, seed=0)
    assert interval.value == pytest.approx(USERS / 10)
    assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_gap_interval_is_what_a_test_of_each_share_does_not_reject():
    """Fieller's set: a share s stays where 0 is inside the interval of (mix - low) - s * (high - low)."""
    rng = np.random.default_rng(3)
    totals = np.full(30, 60)
    low = rng.binomial(totals, 0.2)
    mix, high = (np.minimum(low + rng.integers(-2, top, 30), 60).clip(0) for top in (6, 9))
    interval = gap_interval(low, mix, high, totals, seed=4, resamples=4_000)
    slow = np.random.default_rng(5)
    drawn = slow.integers(30, size=(4_000, 30))
    closed, gap = (mix - low)[drawn].sum(axis=1), (high - low)[drawn].sum(axis=1)
    shares = np.linspace(-1, 3, 2_001)
    below = np.array([((closed - share * gap) < 0).mean() for share in shares])
    kept = shares[(below >= 0.025) & (below <= 0.975)]
    width = kept[-1] - kept[0]
    assert interval.low == pytest.approx(kept[0], abs=0.08 * width)
    assert interval.high == pytest.approx(kept[-1], abs=0.08 * width)


def test_gap_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(6), 0
    for experiment in range(400):
        totals = rng.integers(20, 200, 60)
        skill = rng.beta(20, 20, 60) * 2
        low, mix, high = (rng.binomial(totals, share * skill) for share in (0.1, 0.16, 0.2))
        interval = gap_interval(low, mix, high, totals, seed=experiment, resamples=500)
        held += interval.low <= 0.6 <= interval.high
    assert 0.92 <= held / 400 <= 0.98


def test_ends_of_the_gap_close_none_and_all_of_it():
    low, high = IN_VOCAB // 10, IN_VOCAB // 5
    assert gap_interval(low, low, high, IN_VOCAB, 0) == gap_interval(low, low, high, IN_VOCAB, 9)
    none, whole = (gap_interval(low, hits, high, IN_VOCAB, seed=0) for hits in (low, high))
    assert (none.value, none.low, none.high) == (0, 0, 0)
    assert (whole.value, whole.low, whole.high) == (1, 1, 1)
    alone = gap_interval([1], [2], [3], [9], seed=0)
    assert (alone.value, alone.low, alone.high) == (0.5, -math.inf, math.inf)
    assert math.isnan(gap_interval([3, 3], [3, 3], [2, 3], [9, 9], seed=0).value)


def test_runs_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="no runs"):
        build_study([], seed=7)
    with pytest.raises(ValueError, match="web_all comes twice with seed 2"):
        build_study([*RUNS, _simulate("web_all", 2)], seed=7)
    with pytest.raises(ValueError, match="arm is 'webb', must be one of web_news"):
        _run("webb", IN_VOCAB)
    with pytest.raises(ValueError, match="web_all, seed 1: seconds is nan"):
        _simulate("web_all", 1, seconds=math.nan)
    scores = WordScores(*([TARGETS + 1] * 6), NO_CLASSES)
    other = ArmRun(MIX, 9, scores, words_read=1, distinct_words=1, seconds=1.0)
    with pytest.raises(ValueError, match="synthetic, seed 9: other users, targets or vocabulary"):
        build_study([*RUNS, other], seed=7)

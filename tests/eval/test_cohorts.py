"""Users told apart by hand, rows against shares by hand, harm found where it was planted and not elsewhere."""

import dataclasses

import numpy as np
import pytest

from eval.cohorts import UserCohort, compare_cohorts, compare_rates, find_cohorts
from eval.next_word import CLASSES, WordScores
from eval.statistics import paired_difference

BY_WRITING = {
    "messages": ("few messages", "many messages"),
    "words": ("short messages", "long messages"),
    "lower_case": ("mostly upper-case starts", "mostly lower-case starts"),
    "slang": ("little slang", "much slang"),
    "punctuation": ("little end punctuation", "much end punctuation"),
    "emoji": ("few emoji", "many emoji"),
}


def _scores(rng, chances):
    """Counts of users whose words, by class, are right with the chances [users, classes given]."""
    users = len(chances)
    asked = rng.integers(40, 90, (users, 4))
    right = rng.binomial(asked, chances)
    first = rng.binomial(asked.sum(axis=1), 0.2)
    right_first = np.minimum((right.sum(axis=1) * 0.2).astype(int), first)
    by_class = np.zeros((users, len(CLASSES), 3), int)
    by_class[:, :4, 0], by_class[:, :4, 1] = asked, right
    by_class[:, 4, 0], by_class[:, 4, 1] = first, right_first
    by_class[:, 5, 0], by_class[:, 5, 1] = (
        asked.sum(axis=1) - first,
        np.minimum(right.sum(axis=1) - right_first, asked.sum(axis=1) - first),
    )
    in_vocab, hits = asked[:, :3].sum(axis=1), right[:, :3].sum(axis=1)
    return WordScores(
        asked.sum(axis=1), in_vocab, hits, hits, right.sum(axis=1), right.sum(axis=1), by_class
    )


def _pair(users, harm=0.0, harmed=None, word_class=None):
    """A baseline and a model equally good, but for some users' or words' chances."""
    chances = np.full((users, 4), 0.3)
    other = chances.copy()
    other[
        slice(None) if harmed is None else harmed, slice(None) if word_class is None else word_class
    ] -= harm
    return [
        _scores(np.random.default_rng(1), chances),
        _scores(np.random.default_rng(1), other),
    ]


def test_users_are_split_by_what_and_how_they_write():
    plain = ["See you there."]
    apart = {
        "messages": ["See you there.", "See you there."],
        "words": ["See you there at the house of my friend."],
        "lower_case": ["see you there."],
        "slang": ["See u tmrw."],
        "punctuation": ["See you there"],
        "emoji": ["See you there. 😂"],
    }
    for split, messages in apart.items():
        cohorts = find_cohorts([plain, messages, plain])
        assert [c.name for c in cohorts] == [name for pair in BY_WRITING.values() for name in pair]
        low, high = (cohort.users.tolist() for cohort in cohorts if cohort.split == split)
        if split == "punctuation":  # less of it than the median: one cannot be above
            assert high == [False] * 3 and low == [True] * 3
            continue
        assert high == [False, True, False] and low == [True, False, True]
    lazy = find_cohorts([["hi"], ["hi"], ["hi!"]])
    assert {c.name: c.users.tolist() for c in lazy}["much end punctuation"] == [False, False, True]
    assert all(len(cohort.users) == 2 for cohort in find_cohorts([[], [""]]))


def test_waves_are_parted_by_the_widest_gap_between_users_first_messages():
    spring, autumn = ["2018-05-20T10:00:00Z", "2018-04-02"], ["2018-09-30", "2018-11-01T09:30:00Z"]
    users = [["hi"]] * 5
    times = [spring, ["2018-10-05"], autumn, [""], ["2018-05-09", "2018-11-11"]]
    waves = {c.name: c.users.tolist() for c in find_cohorts(users, times) if c.split == "wave"}
    assert waves == {
        "first wave": [True, False, False, False, True],
        "second wave": [False, True, True, False, False],
    }
    seconds = [[f"{day * 86_400:030.6f}"] for day in (1, 40, 3, 2, 45)]
    waves = {c.name: c.users.tolist() for c in find_cohorts(users, seconds) if c.split == "wave"}
    assert waves["second wave"] == [False, True, False, False, True]
    for close in ([["2018-04-02"], ["2018-04-20"]] * 2 + [["nonsense"]], [[""]] * 5):
        assert not [c for c in find_cohorts(users, close) if c.split == "wave"]


def test_rows_are_the_shares_of_their_cohorts_and_wider_than_alone():
    baseline, scores = _pair(60, harm=0.05)
    half = np.arange(60) < 25
    cohorts = [UserCohort("half", "a", half), UserCohort("half", "b", ~half)]
    rows = compare_cohorts([baseline], [scores], cohorts, seed=3)
    assert [row.cohort for row in rows][:3] == ["a", "b", "words of rank 1 to 100"] and len(
        rows
    ) == 8
    for row, users in ((rows[0], half), (rows[1], ~half)):
        assert (row.users, row.targets) == (users.sum(), baseline.in_vocab[users].sum())
        assert row.baseline == pytest.approx(baseline.top1_in[users].sum() / row.targets)
        assert row.share == pytest.approx(scores.top1_in[users].sum() / row.targets)
        alone = paired_difference(
            baseline.top1_in[users], scores.top1_in[users], baseline.in_vocab[users], seed=3
        )
        assert row.difference.value == pytest.approx(alone.value)
        assert row.difference.high - row.difference.low > 1.2 * (alone.high - alone.low)
    of_class = baseline.by_class.sum(axis=0)
    for row, name in zip(rows[2:], CLASSES, strict=True):
        asked, right, _ = of_class[CLASSES.index(name)]
        assert row.targets == asked and row.baseline == pytest.approx(right / asked)


def test_harm_is_found_where_it_is():
    harmed = np.arange(80) < 40
    cohorts = [UserCohort("half", "harmed", harmed), UserCohort("half", "spared", ~harmed)]
    rows = compare_cohorts(*([s] for s in _pair(80, 0.1, harmed)), cohorts, seed=1)
    flags = {row.cohort: row.hurts for row in rows}
    assert flags["harmed"] and not flags["spared"]
    rows = compare_cohorts(*([s] for s in _pair(80, 0.1, word_class=2)), cohorts, seed=1)
    flags = {row.cohort: row.hurts for row in rows}
    assert flags["words of a higher rank"]
    assert not flags["words of rank 1 to 100"] and not flags["words outside the vocabulary"]
    same = compare_cohorts(*([s] for s in _pair(80)), cohorts, seed=1)
    assert not any(row.hurts for row in same)
    better = compare_cohorts(*([s] for s in _pair(80, -0.1)), cohorts, seed=1)
    assert not any(row.hurts for row in better) and better[0].difference.low > 0


@pytest.mark.slow
def test_models_as_good_as_each_other_rarely_seem_to_hurt_anyone():
    rng, wrong = np.random.default_rng(5), 0
    cohorts = [
        UserCohort(
            str(split), f"{split} {side}", (np.arange(40) // 2**split % 2 == 0) == bool(side)
        )
        for split in range(5)
        for side in range(2)
    ]
    for _ in range(100):
        arms = [_scores(rng, np.full((40, 4), 0.2))]
        right = rng.binomial(arms[0].by_class[..., 0], 0.2)
        other = arms[0].by_class.copy()
        other[..., 1] = right
        hits = right[:, :3].sum(axis=1)
        arms.append(dataclasses.replace(arms[0], top1_in=hits, by_class=other))
        wrong += any(
            row.hurts for row in compare_cohorts(*([arm] for arm in arms), cohorts, seed=1)
        )
    assert wrong <= 8


def test_nobody_is_shown_in_a_group_of_less_than_five_or_its_complement():
    few = np.arange(60) < 4
    cohorts = [
        UserCohort("few", "four", few),
        UserCohort("few", "all but four", ~few),
        UserCohort("half", "five", np.arange(60) < 5),
        UserCohort("half", "all but five", np.arange(60) >= 5),
    ]
    baseline, scores = _pair(60)
    names = [row.cohort for row in compare_cohorts([baseline], [scores], cohorts, seed=1)]
    assert names[:2] == ["five", "all but five"] and len(names) == 8
    for score in (baseline, scores):
        score.by_class[4:, CLASSES.index("outside")] = 0
    names = [row.cohort for row in compare_cohorts([baseline], [scores], cohorts, seed=1)]
    assert names == ["five", "all but five", "first words of sentences", "other words"]


def test_users_served_worst_are_each_models_own():
    baseline, scores = _pair(60, harm=0.1, harmed=np.arange(60) < 6)
    rates = compare_rates([baseline], [scores], seed=1)
    worst = [np.sort(arm.top1_in / arm.in_vocab)[:6].mean() for arm in (baseline, scores)]
    assert rates.users == 60
    assert rates.worst_decile.value == pytest.approx(worst[1] - worst[0])
    assert rates.worst_decile.high < 0
    assert rates.baseline == pytest.approx(
        tuple(np.quantile(baseline.top1_in / baseline.in_vocab, (0.1, 0.5, 0.9)))
    )
    assert compare_rates([baseline], [baseline], seed=1).worst_decile.value == 0
    assert compare_rates(*([s] for s in _pair(49)), seed=1) is None

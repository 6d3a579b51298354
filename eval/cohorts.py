"""For whom: two models compared in groups of users and of words, and among the users served worst.

A split is shown whole or not at all: a group of fewer than five users could be told from its
complement. Intervals of a table hold together with 95 %.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from device_runtime.words import is_word, split_words
from eval.comparison import check_targets, stack_hits
from eval.next_word import CLASSES, WordScores
from eval.statistics import (
    Interval,
    difference_errors,
    paired_difference,
    simultaneous_level,
    tail_difference,
)

MIN_USERS = 5
MIN_TARGETS = 20  # of a user who has a rate of their own
WAVES_APART = timedelta(days=28)

# Deliberate variants of chat, ours: what counts as slang is no more than these.
SLANG = frozenset(
    "u ur r im ive dont cant wont didnt doesnt isnt thats whats lets gonna wanna gotta kinda dunno lemme gimme tho"  # noqa: SIM905
    " thru cuz coz bc lol lmao omg idk tbh btw brb rn ngl imo imho ikr np ty thx pls plz yea yeah yep yup nope nah"
    " ok okay k hey haha hahaha hehe bro dude sup yo ya yall wtf af fr sry tmr tmrw".split()
)

# Each trait and what users at most, and above, the median of it are called.
_SPLITS = {
    "messages": ("few messages", "many messages"),
    "words": ("short messages", "long messages"),
    "lower_case": ("mostly upper-case starts", "mostly lower-case starts"),
    "slang": ("little slang", "much slang"),
    "punctuation": ("little end punctuation", "much end punctuation"),
    "emoji": ("few emoji", "many emoji"),
}
_WORD_SPLITS = (("frequent", "middling", "rare", "outside"), ("first", "later"))
_WORD_NAMES = {
    "frequent": "words of rank 1 to 100",
    "middling": "words of rank 101 to 1,000",
    "rare": "words of a higher rank",
    "outside": "words outside the vocabulary",
    "first": "first words of sentences",
    "later": "other words",
}


@dataclass(frozen=True, eq=False)
class UserCohort:
    """Users [users] of one side of a split."""

    split: str
    name: str
    users: NDArray[np.bool_]


@dataclass(frozen=True)
class CohortRow:
    """Two models in one cohort.

    Attributes:
        cohort: its name.
        users: with a target in it, at least five.
        targets: asked of them.
        baseline, share: top-1 of the two; of in-vocab targets in cohorts of users, of the cohort's own
            targets in cohorts of words.
        difference: share - baseline; corrected, see `compare_cohorts`.
        hurts: whether all of the interval is below zero.
    """

    cohort: str
    users: int
    targets: int
    baseline: float
    share: float
    difference: Interval
    hurts: bool


@dataclass(frozen=True)
class UserRates:
    """How unequally users are served: first suggestion right, of users with at least 20 in-vocab targets.

    Attributes:
        users: that many.
        baseline, scores: the users' 10th, 50th and 90th percentile under either model.
        worst_decile: difference of the mean rate of the worst tenth, 95 % interval.
    """

    users: int
    baseline: tuple[float, float, float]
    scores: tuple[float, float, float]
    worst_decile: Interval


def find_cohorts(
    users: Sequence[Sequence[str]], timestamps: Sequence[Sequence[str]] | None = None
) -> list[UserCohort]:
    """Users split at the median of what and how they write, and by when they came.

    Args:
        users: messages as they were written.
        timestamps: of each user's messages, ISO 8601 or seconds as text; empty where unknown. Users are
            of the first or the second wave if the widest gap between two users' first messages is at
            least 28 days, and left out where they have no timestamp.
    """
    traits = np.array([_describe_user(messages) for messages in users]).reshape(-1, len(_SPLITS))
    cohorts = []
    for (split, (low, high)), values in zip(_SPLITS.items(), traits.T, strict=True):
        above = values > np.median(values)
        cohorts += [UserCohort(split, low, ~above), UserCohort(split, high, above)]
    return cohorts + _find_waves(timestamps or ())


def compare_cohorts(
    baselines: Sequence[WordScores],
    scores: Sequence[WordScores],
    cohorts: Sequence[UserCohort],
    seed: int,
) -> list[CohortRow]:
    """One row for each cohort of users, then of words; splits with too small a side are left out.

    The intervals are wide enough that all hold together with 95 %: `hurts` is said wrongly of any
    cohort at all in one table of forty.

    Args:
        baselines, scores: of one or more training seeds, as many of both.
        cohorts: of the users scored, in their order.
        seed: of the bootstrap.

    Raises:
        ValueError: not asked the same targets.
    """
    totals = check_targets([*baselines, *scores]).in_vocab
    hits_a, hits_b = stack_hits(baselines, "top1"), stack_hits(scores, "top1")
    splits = [
        [
            (cohort.name, hits_a * cohort.users, hits_b * cohort.users, totals * cohort.users)
            for cohort in split
        ]
        for _, split in itertools.groupby(cohorts, key=lambda cohort: cohort.split)
    ]
    for names in _WORD_SPLITS:
        of_a, of_b = (np.stack([score.by_class for score in arm]) for arm in (baselines, scores))
        at = [(name, CLASSES.index(name)) for name in names]
        splits.append(
            [
                (_WORD_NAMES[name], of_a[..., i, 1], of_b[..., i, 1], of_a[0, :, i, 0])
                for name, i in at
            ]
        )
    shown = [case for split in splits if _is_shown(split) for case in split]
    errors = [difference_errors(a, b, asked) for _, a, b, asked in shown]
    level = simultaneous_level(errors, seed)
    rows = []
    for name, a, b, asked in shown:
        difference = paired_difference(a, b, asked, seed, level=level)
        share_a, share_b = (float(hits.mean(axis=0).sum() / asked.sum()) for hits in (a, b))
        users, targets = int((asked > 0).sum()), int(asked.sum())
        hurts = difference.high < 0
        rows.append(CohortRow(name, users, targets, share_a, share_b, difference, hurts))
    return rows


def compare_rates(
    baselines: Sequence[WordScores], scores: Sequence[WordScores], seed: int
) -> UserRates | None:
    """How users' own rates are spread under two models; None if a tenth of them is below five users."""
    totals = check_targets([*baselines, *scores]).in_vocab
    rated = totals >= MIN_TARGETS
    if rated.sum() < 10 * MIN_USERS:
        return None
    rates_a, rates_b = (
        stack_hits(arm, "top1").mean(axis=0)[rated] / totals[rated] for arm in (baselines, scores)
    )
    of_a, of_b = (np.percentile(rates, (10, 50, 90)).tolist() for rates in (rates_a, rates_b))
    worst = tail_difference(rates_a, rates_b, seed)
    return UserRates(int(rated.sum()), tuple(of_a), tuple(of_b), worst)


def _is_shown(
    split: Sequence[tuple[str, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]],
) -> bool:
    return all((asked > 0).sum() >= MIN_USERS for *_, asked in split)


def _describe_user(messages: Sequence[str]) -> tuple[float, ...]:
    """The traits of `_SPLITS`, in their order."""
    tokens = [split_words(message) for message in messages]
    words = [word for message in tokens for word in message if is_word(word)]
    letters = [next((c for c in message if c.isalpha()), "") for message in messages]
    written = max(1, len(messages))
    return (
        len(messages),
        len(words) / written,
        sum(letter.islower() for letter in letters) / written,
        sum(word in SLANG for word in words) / max(1, len(words)),
        sum(bool(message) and message[-1][0] in ".!?…" for message in tokens) / written,
        sum(_is_emoji(token) for message in tokens for token in message) / written,
    )


def _is_emoji(token: str) -> bool:
    """Pictographs' blocks; other symbols are rare in chat."""
    return not is_word(token) and any(ord(c) >= 0x1F000 or 0x2600 <= ord(c) < 0x2800 for c in token)


def _find_waves(timestamps: Sequence[Sequence[str]]) -> list[UserCohort]:
    first = [min(map(_read_time, of_user), default=np.inf) for of_user in timestamps]
    known = sorted(time for time in first if np.isfinite(time))
    gaps = np.diff(known)
    if not len(gaps) or gaps.max() < WAVES_APART.total_seconds():
        return []
    border = known[int(gaps.argmax())]
    at = np.array(first)
    return [
        UserCohort("wave", "first wave", at <= border),
        UserCohort("wave", "second wave", (at > border) & np.isfinite(at)),
    ]


def _read_time(timestamp: str) -> float:
    """Seconds since 1970; infinite where there is no time to read."""
    try:
        return float(timestamp)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return np.inf

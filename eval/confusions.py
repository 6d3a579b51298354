"""What is confused: the word that was meant, what the baseline said first, and what ours did.

The words that people meant are private. A confusion is shown only where at least five of the people tested were
behind it, and only of words that each at least five of them meant and that are in the public vocabulary: a model
trained on private text may suggest a word of somebody's, too. Counters hold everything, and stay in memory.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from device_runtime.words import normalize, split_words
from eval.cohorts import MIN_USERS
from eval.next_word import WordPredictor
from eval.targets import EvaluationVocabulary, take_targets

MOST_ROWS = 10  # of a kind, those of the most people

Confused = tuple[str, str, str]
"""Word meant, the baseline's first suggestion, ours; a suggestion is empty where there was none."""


@dataclass(frozen=True)
class Confusion:
    """A row that may be shown: `times` targets of `users` >= 5 people."""

    meant: str
    baseline: str
    ours: str
    users: int
    times: int


@dataclass(frozen=True)
class Confusions:
    """Two models side by side on the same words.

    Attributes:
        users: people tested.
        targets: words of the vocabulary that were asked for, which is the sum of the next four.
        both_right, ours_right, baseline_right, both_wrong: by whose first suggestion it was.
        gained: confusions of the baseline's where ours is right; most people first, 10 at most.
        lost: of ours where the baseline is right.
        missed: where neither is, each in its own way: what both say alike tells nothing of the text they read.
    """

    users: int
    targets: int
    both_right: int
    ours_right: int
    baseline_right: int
    both_wrong: int
    gained: tuple[Confusion, ...]
    lost: tuple[Confusion, ...]
    missed: tuple[Confusion, ...]


def confuse_user(
    keyboards: tuple[WordPredictor, WordPredictor],
    messages: Sequence[str],
    vocabulary: EvaluationVocabulary,
    max_targets: int | None = None,
) -> Counter[Confused]:
    """How often one person meant, and either keyboard said, what; of targets in the vocabulary.

    Args:
        keyboards: baseline and ours.
        messages: the person's, each from an empty context.
        max_targets: most targets taken, in the vocabulary or not.
    """
    counts: Counter[Confused] = Counter()
    for words, targeted in take_targets(map(split_words, messages), max_targets):
        at = np.isin(np.arange(len(words)), targeted).tolist()
        said = [keyboard.predict_words(words, at, count=1) for keyboard in keyboards]
        for word, asked, *firsts in zip(words, at, *said, strict=True):
            if asked and word in vocabulary:
                baseline, ours = (normalize(first[0].text) if first else "" for first in firsts)
                counts[word, baseline, ours] += 1
    return counts


def find_confusions(
    people: Iterable[Counter[Confused]], vocabulary: EvaluationVocabulary
) -> Confusions:
    """What may be shown of what each of the people meant and was told.

    Args:
        people: one counter a person, as `confuse_user` gives it.
        vocabulary: public; words outside of it are never shown.
    """
    users = 0
    times: Counter[Confused] = Counter()
    behind: Counter[Confused] = Counter()
    writers: Counter[str] = Counter()
    for counts in people:
        users += 1
        times.update(counts)
        behind.update(counts.keys())
        writers.update({meant for meant, _, _ in counts})
    outcomes: Counter[tuple[bool, bool]] = Counter()
    for (meant, baseline, ours), count in times.items():
        outcomes[baseline == meant, ours == meant] += count
    shown: dict[tuple[bool, bool], list[Confusion]] = {}
    for words, people_behind in sorted(
        behind.items(), key=lambda row: (-row[1], -times[row[0]], row[0])
    ):
        if people_behind < MIN_USERS or not all(
            writers[word] >= MIN_USERS and word in vocabulary for word in words
        ):
            continue
        meant, baseline, ours = words
        if baseline == ours:
            continue
        rows = shown.setdefault((baseline == meant, ours == meant), [])
        if len(rows) < MOST_ROWS:
            rows.append(Confusion(*words, people_behind, times[words]))
    return Confusions(
        users=users,
        targets=times.total(),
        both_right=outcomes[True, True],
        ours_right=outcomes[False, True],
        baseline_right=outcomes[True, False],
        both_wrong=outcomes[False, False],
        gained=tuple(shown.get((False, True), ())),
        lost=tuple(shown.get((True, False), ())),
        missed=tuple(shown.get((False, False), ())),
    )

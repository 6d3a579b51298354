"""Next-word accuracy: do the suggestions, given only what precedes, hold the word written next?"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.words import normalize, split_words
from eval.processes import join_scores, score_each
from eval.statistics import Interval, share_interval
from eval.targets import EvaluationVocabulary, find_sentence_starts, take_targets

SUGGESTIONS = 3
RANKS = (100, 1_000)  # by which words of the vocabulary are frequent, middling and rare
CLASSES = ("frequent", "middling", "rare", "outside", "first", "later")
FIGURES = ("top1", "top3", "top1_all", "top3_all", "oov_rate")


class Suggested(Protocol):
    """One suggestion, in any casing."""

    @property
    def text(self) -> str: ...


class WordPredictor(Protocol):
    """What is measured: `device_runtime.keyboard.Keyboard`, or anything beside it."""

    def predict_words(
        self, words: list[str], at: list[bool], count: int = 3
    ) -> Sequence[Sequence[Suggested]]:
        """For each word, up to `count` suggestions made from the words before it, best first.

        Where `at` is false nothing is asked, and the list is empty.
        """
        ...


@dataclass(frozen=True, eq=False)
class WordScores:
    """Counts [users] of one model; `a + b` is the users of a, then those of b.

    One user's messages belong in one entry. No name or text is kept.

    Attributes:
        targets: words asked for.
        in_vocab: of these, words of the evaluation vocabulary.
        top1_in, top3_in: in-vocab targets that were the first, or among three suggestions.
        top1_all, top3_all: the same among all targets: a word the model cannot say is a miss.
        by_class: [users, CLASSES, 3]: targets, first suggestions and ones among three that were right, of
            words in the vocabulary's first 100, up to its 1,000th, behind and outside of it, and again of
            words that begin a sentence and of all others.
    """

    targets: NDArray[np.int64]
    in_vocab: NDArray[np.int64]
    top1_in: NDArray[np.int64]
    top3_in: NDArray[np.int64]
    top1_all: NDArray[np.int64]
    top3_all: NDArray[np.int64]
    by_class: NDArray[np.int64]

    def __add__(self, other: "WordScores") -> "WordScores":
        pairs = zip(_columns(self), _columns(other), strict=True)
        return WordScores(*(np.concatenate(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.targets)

    def has_targets_of(self, other: "WordScores") -> bool:
        """Whether both were asked the same: equal targets in equal vocabulary, user by user."""
        return np.array_equal(self.targets, other.targets) and np.array_equal(
            self.in_vocab, other.in_vocab
        )

    def intervals(self, seed: int) -> dict[str, Interval]:
        """The shares of results.json, by its names, with 95 % bootstrap intervals over users.

        Raises:
            ValueError: there is no in-vocab target at all.
        """
        return {name: share_interval(*self.counts(name), seed) for name in FIGURES}

    def counts(self, figure: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hits and totals [users] that one of `FIGURES` is the share of."""
        return {
            "top1": (self.top1_in, self.in_vocab),
            "top3": (self.top3_in, self.in_vocab),
            "top1_all": (self.top1_all, self.targets),
            "top3_all": (self.top3_all, self.targets),
            "oov_rate": (self.targets - self.in_vocab, self.targets),
        }[figure]


def score_user(
    keyboard: WordPredictor,
    messages: Sequence[str],
    vocabulary: EvaluationVocabulary,
    max_targets: int | None = None,
) -> WordScores:
    """Count one user's messages, each from an empty context, up to `max_targets` targets."""
    targets = in_vocab = top1_in = top3_in = top1_all = top3_all = 0
    by_class = np.zeros((1, len(CLASSES), 3), np.int64)
    for words, targeted in take_targets(map(split_words, messages), max_targets):
        at = np.isin(np.arange(len(words)), targeted).tolist()
        predicted = keyboard.predict_words(words, at, count=SUGGESTIONS)
        starts = find_sentence_starts(words)
        for word, asked, start, suggestions in zip(words, at, starts, predicted, strict=True):
            if not asked:
                continue
            ranked = [normalize(suggestion.text) for suggestion in suggestions[:SUGGESTIONS]]
            known, first, among = word in vocabulary, ranked[:1] == [word], word in ranked
            targets += 1
            in_vocab += known
            top1_in += known and first
            top3_in += known and among
            top1_all += first
            top3_all += among
            for name in (_name_rank(vocabulary.rank(word)), "first" if start else "later"):
                by_class[0, CLASSES.index(name)] += (1, first, among)
    counts = (targets, in_vocab, top1_in, top3_in, top1_all, top3_all)
    columns = [np.array([count], np.int64) for count in counts]
    return WordScores(*[*columns, by_class])


def score_users(
    open_keyboard: Callable[[], WordPredictor],
    users: Sequence[Sequence[str]],
    vocabulary: EvaluationVocabulary,
    max_targets: int | None = None,
    *,
    processes: int = 1,
    on_user: Callable[[int], None] | None = None,
) -> WordScores:
    """Count each user's messages, in the order given, whatever the number of processes.

    Args:
        open_keyboard: called once in each process; with several it must pickle, as
            `partial(Keyboard.open, path)` does.
        users: the messages of each user.
        max_targets: most targets taken of one user.
        on_user: told the number of users finished after each of them.

    Raises:
        ValueError: no users.
        RuntimeError: a scoring process died.
    """
    if not users:
        raise ValueError("no users to score")
    score = partial(score_user, vocabulary=vocabulary, max_targets=max_targets)
    return join_scores(list(score_each(open_keyboard, score, users, processes, on_user)))


def _name_rank(rank: int | None) -> str:
    if rank is None:
        return "outside"
    return "frequent" if rank <= RANKS[0] else "middling" if rank <= RANKS[1] else "rare"


def _columns(scores: WordScores) -> tuple[NDArray[np.int64], ...]:
    return astuple(scores)

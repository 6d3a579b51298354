"""Next-word accuracy: do the suggestions, given only what precedes, hold the word written next?"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.words import normalize, split_words
from eval.processes import join_scores, score_each
from eval.statistics import Interval, paired_lift, share_interval
from eval.targets import EvaluationVocabulary, find_targets

SUGGESTIONS = 3


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
    """

    targets: NDArray[np.int64]
    in_vocab: NDArray[np.int64]
    top1_in: NDArray[np.int64]
    top3_in: NDArray[np.int64]
    top1_all: NDArray[np.int64]
    top3_all: NDArray[np.int64]

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
        return {
            "top1": share_interval(self.top1_in, self.in_vocab, seed),
            "top3": share_interval(self.top3_in, self.in_vocab, seed),
            "top1_all": share_interval(self.top1_all, self.targets, seed),
            "top3_all": share_interval(self.top3_all, self.targets, seed),
            "oov_rate": share_interval(self.targets - self.in_vocab, self.targets, seed),
        }


def top1_lift(baseline: WordScores, scores: WordScores, seed: int) -> Interval:
    """Relative lift of in-vocab top-1 over a baseline, paired by user.

    Raises:
        ValueError: the two were not asked the same targets, or the baseline has no hit.
    """
    if not baseline.has_targets_of(scores):
        raise ValueError(
            "the two scores differ in users, targets or vocabulary; score both on the same ones"
        )
    return paired_lift(baseline.top1_in, baseline.in_vocab, scores.top1_in, scores.in_vocab, seed)


def pool_scores(scores: Sequence[WordScores]) -> WordScores:
    """The same users asked of several models (an arm's training seeds): counts added by user.

    Raises:
        ValueError: no scores, or they were not asked the same targets.
    """
    if not scores:
        raise ValueError("no scores to pool")
    if not all(scores[0].has_targets_of(other) for other in scores):
        raise ValueError(
            "the scores differ in users, targets or vocabulary; score all on the same ones"
        )
    return WordScores(*(sum(column) for column in zip(*map(_columns, scores), strict=True)))


def score_user(
    keyboard: WordPredictor,
    messages: Sequence[str],
    vocabulary: EvaluationVocabulary,
    max_targets: int | None = None,
) -> WordScores:
    """Count one user's messages, each from an empty context, up to `max_targets` targets."""
    if max_targets is not None and max_targets < 1:
        raise ValueError(f"max_targets is {max_targets}, must be at least 1 or None")
    targets = in_vocab = top1_in = top3_in = top1_all = top3_all = 0
    for message in messages:
        words = split_words(message)
        targeted = find_targets(words)
        if max_targets is not None:
            targeted = targeted[: max_targets - targets]
        if not targeted:
            continue
        at = np.isin(np.arange(len(words)), targeted).tolist()
        predicted = keyboard.predict_words(words, at, count=SUGGESTIONS)
        for word, asked, suggestions in zip(words, at, predicted, strict=True):
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
    counts = (targets, in_vocab, top1_in, top3_in, top1_all, top3_all)
    return WordScores(*(np.array([count], np.int64) for count in counts))


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


def _columns(scores: WordScores) -> tuple[NDArray[np.int64], ...]:
    return astuple(scores)

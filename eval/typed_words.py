"""Correction and completion: what a keyboard makes of words as fingers typed them.

Whose fingers is the caller's affair: words come with the letters and touches that were made for them. The context is
what was meant, word by word.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.touch import Touches
from device_runtime.words import normalize, split_words
from eval.next_word import SUGGESTIONS, Suggested
from eval.statistics import Interval, share_interval
from eval.targets import EvaluationVocabulary, find_targets

TYPED_LETTERS = 2
"""Letters after which the intended word should be among the suggestions."""


@dataclass(frozen=True)
class TypedWord:
    """A word as fingers typed it.

    Attributes:
        letters: what was typed, character for character.
        touches_mm: where each was touched; None for one that has no key on the page of letters.
        misses: touches that fell on another key than was aimed at.
    """

    letters: str
    touches_mm: Touches
    misses: int


Fingers = Callable[[str], TypedWord | None]
"""Types a word; None if they have no keys for it."""


class TypingSession(Protocol):
    """One message of a keyboard: `device_runtime.session.Session`, or anything beside it."""

    def commit(self, text: str) -> None: ...

    def suggest(self, prefix: str = "", count: int = 3) -> Sequence[Suggested]: ...

    def autocorrect(self, typed: str, touches_mm: Touches | None = None) -> str: ...


class TypingKeyboard(Protocol):
    """What is measured."""

    def session(self) -> TypingSession: ...


@dataclass(frozen=True, eq=False)
class TypedWordScores:
    """Counts [users] of one keyboard; `a + b` is the users of a, then those of b. No name or text is kept.

    Attributes:
        missed: words typed with one touch that fell on another key.
        corrected, corrected_by_letters: of these, put right: with the touches, and without.
        right: words typed without any miss.
        changed, changed_by_letters: of these, words that were replaced all the same.
        begun: words of the vocabulary with more than TYPED_LETTERS letters.
        completed: of these, among SUGGESTIONS after the first TYPED_LETTERS, typed without a miss.
    """

    missed: NDArray[np.int64]
    corrected: NDArray[np.int64]
    corrected_by_letters: NDArray[np.int64]
    right: NDArray[np.int64]
    changed: NDArray[np.int64]
    changed_by_letters: NDArray[np.int64]
    begun: NDArray[np.int64]
    completed: NDArray[np.int64]

    def __add__(self, other: "TypedWordScores") -> "TypedWordScores":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return TypedWordScores(*(np.concatenate(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.missed)

    def intervals(self, seed: int) -> dict[str, Interval]:
        """Shares with 95 % bootstrap intervals over users; those of nothing are left out."""
        shares = {
            "correction": (self.corrected, self.missed),
            "correction_by_letters": (self.corrected_by_letters, self.missed),
            "false_correction": (self.changed, self.right),
            "false_correction_by_letters": (self.changed_by_letters, self.right),
            "completion": (self.completed, self.begun),
        }
        return {
            name: share_interval(hits, totals, seed)
            for name, (hits, totals) in shares.items()
            if totals.any()
        }


def score_typed_words(
    keyboard: TypingKeyboard,
    messages: Sequence[str],
    fingers: Fingers,
    vocabulary: EvaluationVocabulary,
    max_words: int | None = None,
) -> TypedWordScores:
    """Count one user's messages, each from an empty context.

    Every word is typed once. With one miss it is to be corrected, without one to be left alone; with more it is context
    alone.

    Args:
        keyboard: what is measured.
        messages: of one user.
        fingers: type them.
        vocabulary: words that count for completion.
        max_words: most words that are typed; None for all.

    Raises:
        ValueError: max_words is below 1.
    """
    if max_words is not None and max_words < 1:
        raise ValueError(f"max_words is {max_words}, must be at least 1 or None")
    missed = corrected = corrected_by_letters = 0
    right = changed = changed_by_letters = begun = completed = 0
    left = len(messages) and (max_words or -1)
    for message in messages:
        if not left:
            break
        words = split_words(message)
        targets = frozenset(find_targets(words))
        session = keyboard.session()
        for position, word in enumerate(words):
            typed = fingers(word) if position in targets and left else None
            if typed is not None:
                left -= 1
                if typed.misses <= 1:
                    put_in = normalize(session.autocorrect(typed.letters, typed.touches_mm))
                    by_letters = normalize(session.autocorrect(typed.letters))
                    if typed.misses:
                        missed += 1
                        corrected += put_in == word
                        corrected_by_letters += by_letters == word
                    else:
                        right += 1
                        changed += put_in != word
                        changed_by_letters += by_letters != word
                if len(word) > TYPED_LETTERS and word in vocabulary:
                    found = session.suggest(word[:TYPED_LETTERS], SUGGESTIONS)
                    begun += 1
                    completed += word in [normalize(suggestion.text) for suggestion in found]
            session.commit(word)
    counts = (missed, corrected, corrected_by_letters, right, changed, changed_by_letters)
    return TypedWordScores(*(np.array([count], np.int64) for count in (*counts, begun, completed)))

"""Keystroke savings: the taps that a typist without errors is spared who takes the first right suggestion of three.

Before each letter of a word, none typed, one, two and so on, the typist looks at the suggestions. If the word is
there, one tap commits it and types the blank behind it; if not, the next letter is typed. Marks, emoji and all other
blanks are typed. The characters that the message needs are those of its normalised text: shift is never counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.words import is_word, normalize, split_words
from eval.next_word import SUGGESTIONS
from eval.processes import join_scores
from eval.statistics import Interval, share_interval
from eval.typed_words import TypingKeyboard, TypingSession

WORDS_A_USER = 20
"""Typed of each user: 264 users then tell savings within 0.9 points; 50 words take twice as long for 0.7."""


@dataclass(frozen=True, eq=False)
class TapCounts:
    """Counts [users] of one keyboard; `a + b` is the users of a, then those of b. No name or text is kept.

    Attributes:
        characters: that the text has, blanks included.
        taps: that typed it, at most as many.
    """

    characters: NDArray[np.int64]
    taps: NDArray[np.int64]

    def __add__(self, other: "TapCounts") -> "TapCounts":
        return join_scores([self, other])

    def __len__(self) -> int:
        return len(self.taps)

    def savings(self, seed: int) -> Interval:
        """1 - taps / characters with its 95 % bootstrap interval over users.

        Raises:
            ValueError: there is no character.
        """
        return share_interval(self.characters - self.taps, self.characters, seed)


def count_taps(
    keyboard: TypingKeyboard, messages: Sequence[str], max_words: int | None = None
) -> TapCounts:
    """Type one user's messages, each from an empty context.

    Args:
        keyboard: what is measured.
        messages: of one user.
        max_words: typing stops before the word after so many; None for all.

    Raises:
        ValueError: max_words is below 1.
    """
    if max_words is not None and max_words < 1:
        raise ValueError(f"max_words is {max_words}, must be at least 1 or None")
    characters = taps = words = 0
    for message in messages:
        text = normalize(message)
        session, at = keyboard.session(), 0
        for token in split_words(text):
            if is_word(token):
                if words == max_words:
                    break
                words += 1
            at += len(token)
            blanks = text.startswith(" ", at)
            at += blanks
            characters += len(token) + blanks
            taps += _tap_word(session, token, blanks) if is_word(token) else len(token) + blanks
            session.commit(token)
        if words == max_words:
            break
    return TapCounts(np.array([characters], np.int64), np.array([taps], np.int64))


def _tap_word(session: TypingSession, word: str, blanks: int) -> int:
    """Taps for a word and the 0 or 1 blanks behind it."""
    for letters in range(len(word)):
        found = session.suggest(word[:letters], SUGGESTIONS)
        if word in [normalize(suggestion.text) for suggestion in found]:
            return letters + 1
    return len(word) + blanks

"""What typed letters, and the touches that made them, say about the word that was meant.

A channel model P(typed | word): every letter of the word is touched with a Gaussian error that may fall on another key,
and at most one letter of it is left out, doubled, or swapped with the next. The simulated typists of
`synthetic_text.slips` type so; their constants are here again, for the device knows nothing of them.
"""

import math
from collections.abc import Sequence

import numpy as np

from device_runtime.layouts import Layout

Touches = Sequence[tuple[float, float] | None]

# Spread of touches over users (dual Gaussian of Bi, Li & Zhai 2013): the finger's 1.5 mm, the median user's
# speed-accuracy part, and 0.5 mm by which users' own offsets differ. They fall right of and below the centre.
SIGMA_MM = math.hypot(1.5, 0.945, 0.5)
OFFSET_MM = (0.3, 0.4)

# Per letter, from 3.98 errors per 100 first-typed keys (990 typists): 22 % of them another key than a neighbour,
# 27 % a letter left out, 7 % one too many, 7 % two swapped.
_DISTANT = 0.009
_OMITTED = 0.011
_INSERTED = 0.0028
_SWAPPED = 0.0028
_BOUNCED = 0.5  # of the letters too many: the same key once more, else a neighbour of it
# Real chat writes im, dont, thats without their apostrophe in 20 to 31 % of all cases.
_APOSTROPHE_OMITTED = 0.25
_IMPOSSIBLE = -1e4  # finite, so that sums of it stay comparable

MOST_LETTERS = 32
"""Longer words are never corrected, and never a correction."""


class WordTouches:
    """A list of words, and how likely what was typed is for each of them.

    Args:
        words: each once, as `words.normalize` gives them, of at most MOST_LETTERS characters.
        layout: the keyboard that is typed on.

    Attributes:
        words: the same, the shortest first, those of a length sorted.
    """

    def __init__(self, words: Sequence[str], layout: Layout) -> None:
        self.words = tuple(sorted(words, key=lambda word: (len(word), word)))
        self._layout = layout
        lengths = np.array([len(word) for word in self.words], np.intp)
        # Where the words of each length begin.
        self._first = np.searchsorted(lengths, np.arange(MOST_LETTERS + 3))
        self._symbols = sorted(set("".join(self.words)))
        codes = np.zeros((len(self.words), MOST_LETTERS + 2), np.uint32)
        letters = np.frombuffer("".join(self.words).encode("utf-32-le"), np.uint32)
        codes[np.arange(codes.shape[1]) < lengths[:, None]] = letters
        known = np.array([ord(symbol) for symbol in self._symbols], np.uint32)
        # [position, word] symbol + 1, and 0 after the word's end.
        self._letters = np.ascontiguousarray(
            np.where(codes, np.searchsorted(known, codes) + 1, 0).T.astype(np.uint16)
        )
        self._keys = layout.key_indices(known.astype(np.int64))
        self._confusion = _by_aim(layout.touch_probabilities(SIGMA_MM, OFFSET_MM).T)
        near = layout.adjacent / layout.adjacent.sum(axis=1, keepdims=True)
        self._after_insertion = _BOUNCED * np.eye(len(layout.keys)) + (1 - _BOUNCED) * near
        self._omitted = np.full(len(known) + 1, math.log(_OMITTED), np.float32)
        self._omitted[0] = _IMPOSSIBLE
        if "'" in self._symbols:
            self._omitted[self._symbols.index("'") + 1] = math.log(_APOSTROPHE_OMITTED)

    def whole(self, typed: str, touches_mm: Touches | None = None) -> tuple[range, np.ndarray]:
        """Which words may have been typed as `typed`, and float32 log-likelihoods up to a common term.

        Args:
            typed: normalised, 1 to MOST_LETTERS characters.
            touches_mm: where each was touched, from the first key's centre; None without a touch.
        """
        n = len(typed)
        first, last = int(self._first[n - 1]), int(self._first[n + 2])
        plain, swapped, omitted, inserted = self._align(typed, touches_mm, first, last)
        shorter, longer = int(self._first[n]) - first, int(self._first[n + 1]) - first
        found = np.maximum(plain, swapped)
        found[:shorter] = inserted[:shorter]
        last_omitted = plain[longer:] + self._omitted[self._letters[n, first + longer : last]]
        found[longer:] = np.maximum(omitted[longer:], last_omitted)
        return range(first, last), found

    def beginning(self, typed: str, touches_mm: Touches | None = None) -> tuple[range, np.ndarray]:
        """Which words may begin with what was typed as `typed`; otherwise as `whole`."""
        first, last = int(self._first[max(len(typed) - 1, 1)]), len(self.words)
        paths = self._align(typed, touches_mm, first, last)
        return range(first, last), np.maximum.reduce(paths)

    def _align(
        self, typed: str, touches_mm: Touches | None, first: int, last: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Best alignments of all of `typed` with words' beginnings.

        Without an edit, after two letters swapped, after one omitted, after one inserted.
        """
        likely, inserted_after = self._emissions(typed, touches_mm)
        letters = self._letters[:, first:last]
        nothing = np.full(last - first, _IMPOSSIBLE, np.float32)
        plain, swapped, omitted, inserted = np.zeros_like(nothing), nothing, nothing, nothing
        before = nothing  # `plain` one letter ago
        for i in range(len(typed)):
            here, emitted = likely[i], likely[i][letters[i]]
            skipped = np.maximum(omitted, plain + self._omitted[letters[i]])
            omitted = skipped + here[letters[i + 1]]
            swapped = swapped + emitted
            if i:
                previous = letters[i - 1]
                both = before + (likely[i - 1][letters[i]] + here[previous])
                swapped = np.maximum(swapped, both + math.log(_SWAPPED))
                inserted = np.maximum(inserted + here[previous], plain + inserted_after[i][previous])
            before, plain = plain, plain + emitted
        return plain, swapped, omitted, inserted

    def _emissions(
        self, typed: str, touches_mm: Touches | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 [n, symbols + 1] log-likelihood of each typed letter for each symbol: meant, and inserted after it."""
        layout, on_key = self._layout, self._keys >= 0
        shape = (len(typed), len(self._symbols) + 1)
        meant, inserted = np.full(shape, _IMPOSSIBLE), np.full(shape, _IMPOSSIBLE)
        for i, character in enumerate(typed):
            key, touch = layout.key_index(character), touches_mm[i] if touches_mm else None
            if key < 0:  # typed on purpose, from another page
                same = [j + 1 for j, symbol in enumerate(self._symbols) if symbol == character]
                meant[i, same] = 0.0
                continue
            by_key = self._confusion[key]
            if touch is not None and np.isfinite(touch).all():
                away = np.asarray(touch) - layout.centres_mm - OFFSET_MM
                by_key = -(away**2).sum(axis=1) / (2 * SIGMA_MM**2)
                by_key = np.exp(by_key - by_key.max())
                by_key /= by_key.sum()
            mixed = (1 - _DISTANT) * by_key + _DISTANT / len(by_key)
            meant[i, 1:][on_key] = np.log(mixed)[self._keys[on_key]]
            inserted[i, 1:][on_key] = np.log(_INSERTED * (self._after_insertion @ mixed))[
                self._keys[on_key]
            ]
        return meant.astype(np.float32), inserted.astype(np.float32)


def _by_aim(likelihoods: np.ndarray) -> np.ndarray:
    """Each row scaled to sum to one, as those of touches are: terms common to all words do not matter."""
    return likelihoods / likelihoods.sum(axis=1, keepdims=True)

"""What typed letters, and the touches that made them, say about the word that was meant.

A channel P(typed | word): each letter is touched with a Gaussian error that may fall on another key, and at most once
in a word a letter is left out, one too many, or swapped with the next. The simulated typists of synthetic_text/slips.py
type so; their constants stand here again, as a device has no part of them.
"""

import math
from collections.abc import Sequence

import numpy as np

from device_runtime.layouts import Layout

Touches = Sequence[tuple[float, float] | None]
"""Where each letter was touched, in mm right of and below the first key's centre; None: not known."""

MOST_LETTERS = 32
"""Longer words are never corrected, and never a correction."""

# Touches over all users (dual Gaussian of Bi, Li & Zhai 2013): the finger's own 1.5 mm, the median user's
# speed-accuracy part, and 0.5 mm by which users' offsets differ. They fall right of and below the key's centre.
SIGMA_MM = math.hypot(1.5, 0.945, 0.5)
OFFSET_MM = (0.3, 0.4)

# A letter's, from 3.98 errors per 100 first-typed keys (990 typists, 504,992 keys): 22 % are a key that is no
# neighbour, 27 % a letter left out, 7 % one too many, 7 % two swapped.
_DISTANT = 0.009
_OMITTED = 0.011
_INSERTED = 0.0028
_SWAPPED = 0.0028
_BOUNCED = 0.5  # of the letters too many are the same key once more, the others a neighbour of it
_APOSTROPHE_OMITTED = 0.25  # real chat: im 20 %, dont 25 %, thats 31 % of both forms

_FARTHEST_MM = 1_000.0  # so that no distance overflows
_IMPOSSIBLE = np.float32(-1e4)  # finite, so that sums of it stay comparable
# Nats behind the likeliest word after two letters that end the search; a key that is no neighbour costs about 8.
_HOPELESS = 12.0


class WordTouches:
    """A list of words, and how likely what was typed is for each of them.

    Args:
        words: each once, normalised as by `words.normalize`, of 1 to MOST_LETTERS characters.
        layout: the keyboard that is typed on.

    Attributes:
        words: the same, shortest first, those of one length sorted.
    """

    def __init__(self, words: Sequence[str], layout: Layout) -> None:
        self.words = tuple(sorted(sorted(words), key=len))
        self._layout = layout
        self._lengths = np.array([len(word) for word in self.words], np.intp)
        self._first_of_length = np.searchsorted(self._lengths, np.arange(MOST_LETTERS + 3))
        codes = np.frombuffer("".join(self.words).encode("utf-32-le"), np.uint32)
        self._symbols = np.unique(codes)
        # [position, word]: 0 after the word's end, else 1 + index of the symbol.
        self._letters = np.zeros((MOST_LETTERS + 2, len(self.words)), np.uint16)
        within = np.arange(len(self._letters)) < self._lengths[:, None]
        self._letters.T[within] = np.searchsorted(self._symbols, codes) + 1
        self._keys = layout.key_indices(self._symbols.astype(np.int64))
        aimed = layout.touch_probabilities(SIGMA_MM, OFFSET_MM)
        self._aims_of_key = (aimed / aimed.sum(axis=0)).T
        near = layout.adjacent / layout.adjacent.sum(axis=1, keepdims=True)
        self._inserted = _INSERTED * (_BOUNCED * np.eye(len(near)) + (1 - _BOUNCED) * near)
        self._omitted = np.full(len(self._symbols) + 1, math.log(_OMITTED), np.float32)
        self._omitted[0] = _IMPOSSIBLE
        self._omitted[1:][self._symbols == ord("'")] = math.log(_APOSTROPHE_OMITTED)

    def whole(self, typed: str, touches_mm: Touches | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Words that may have been typed as `typed`: indices, and float32 log P(typed | word).

        The log-probabilities lack a term that is the same for all words and for `as_typed`.

        Args:
            typed: 1 to MOST_LETTERS characters, normalised.
            touches_mm: of each character; None where none is known.
        """
        n = len(typed)
        first, last = self._first_of_length[[n - 1, n + 2]].tolist()
        ids, letters, (plain, swapped, omitted, inserted) = self._align(
            typed, touches_mm, first, last
        )
        longer = np.maximum(omitted, plain + self._omitted[letters[n]])
        lengths = self._lengths[ids]
        same = np.maximum(plain, swapped)
        return ids, np.where(lengths == n, same, np.where(lengths > n, longer, inserted))

    def beginning(
        self, typed: str, touches_mm: Touches | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Words whose first letters may have been typed as `typed`; otherwise as `whole`."""
        first = int(self._first_of_length[max(len(typed) - 1, 1)])
        ids, _, paths = self._align(typed, touches_mm, first, len(self.words))
        return ids, np.maximum.reduce(paths)

    def as_typed(self, typed: str, touches_mm: Touches | None = None) -> float:
        """The same log-probability for a word that is spelt as it was typed."""
        by_key = np.log(self._aims(typed, touches_mm))
        keys = self._layout.key_indices(np.array([ord(c) for c in typed], np.int64))
        return float(by_key[np.arange(len(keys)), keys][keys >= 0].sum())

    def _align(
        self, typed: str, touches_mm: Touches | None, first: int, last: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """All of `typed` against the first letters of words first to last, at one edit at most.

        Returns:
            indices of the words that are not hopeless; their letters; and log-probabilities without an edit, after two
            letters swapped, one omitted, one inserted.
        """
        meant, too_many = self._emissions(typed, touches_mm)
        ids, letters = np.arange(first, last), self._letters[:, first:last]
        plain = np.zeros(last - first, np.float32)
        swapped = omitted = inserted = before = np.full_like(plain, _IMPOSSIBLE)
        for i in range(len(typed)):
            here, emitted = meant[i], meant[i][letters[i]]
            omitted = np.maximum(omitted, plain + self._omitted[letters[i]])
            omitted = omitted + here[letters[i + 1]]
            swapped = swapped + emitted
            if i:
                last_letter = letters[i - 1]
                backwards = here[last_letter]
                both = before + (meant[i - 1][letters[i]] + backwards)
                swapped = np.maximum(swapped, both + np.float32(math.log(_SWAPPED)))
                inserted = np.maximum(inserted + backwards, plain + too_many[i][last_letter])
            before, plain = plain, plain + emitted
            if i == 1 and len(typed) > 2 and len(ids):
                best = np.maximum.reduce((plain, swapped, omitted, inserted))
                alive = np.flatnonzero(best > best.max() - _HOPELESS)
                ids, letters = ids[alive], letters[: len(typed) + 1, alive]
                before, plain, swapped = before[alive], plain[alive], swapped[alive]
                omitted, inserted = omitted[alive], inserted[alive]
        return ids, letters, (plain, swapped, omitted, inserted)

    def _emissions(self, typed: str, touches_mm: Touches | None) -> tuple[np.ndarray, np.ndarray]:
        """float32 [n, symbols + 1], log-probability of each typed letter where a symbol is meant, and where it is one
        too many after that symbol."""
        aims = self._aims(typed, touches_mm)
        on_page = self._keys >= 0
        codes = np.array([ord(character) for character in typed], np.int64)
        typed_on_page = self._layout.key_indices(codes) >= 0
        meant = np.full((len(typed), len(self._keys) + 1), _IMPOSSIBLE)
        too_many = meant.copy()
        by_symbol = typed_on_page[:, None] & on_page
        meant[:, 1:][by_symbol] = np.log(aims)[:, self._keys][by_symbol]
        too_many[:, 1:][by_symbol] = np.log(aims @ self._inserted.T)[:, self._keys][by_symbol]
        # Whatever is on another page than the letters was chosen with care.
        meant[:, 1:][~typed_on_page[:, None] & (codes[:, None] == self._symbols)] = 0.0
        return meant.astype(np.float32), too_many.astype(np.float32)

    def _aims(self, typed: str, touches_mm: Touches | None) -> np.ndarray:
        """[n, keys] how likely each typed letter is for each key that was aimed at, scaled to sum to one over the keys.

        The scale, which is the same for all words, makes letters with and without a touch comparable.
        """
        layout = self._layout
        keys = layout.key_indices(np.array([ord(c) for c in typed], np.int64))
        aims = self._aims_of_key[keys]
        if touches_mm is not None:
            nowhere = (math.nan, math.nan)
            points = np.array([nowhere if touch is None else touch for touch in touches_mm])
            known = np.isfinite(points).all(axis=1)
            points = np.clip(points, -_FARTHEST_MM, _FARTHEST_MM)
            away = points[known, None] - (layout.centres_mm + OFFSET_MM)
            log_density = -(away**2).sum(axis=2) / (2 * SIGMA_MM**2)
            density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
            aims[known] = density / density.sum(axis=1, keepdims=True)
        return (1 - _DISTANT) * aims + _DISTANT / len(layout.keys)

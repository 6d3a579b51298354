"""How often words and pairs of words were seen, in room that is taken once and never grows."""

from collections.abc import Iterable, Iterator

import numpy as np

WORD_BYTES = 96
"""Longest word counted, in UTF-8: 24 characters of any script."""

FORMS = 3
"""Most ways of writing counted for a word; the least frequent makes room, of these the one seen longest ago."""

MOST = 999_999_999
"""Counts end here."""

_PART = 256  # places looked at together


class Counts:
    """Counts of at most `words` words and `pairs` pairs of them; the least used of those seen longest ago makes room.

    That is: of the words seen fewer than `often` times the one seen longest ago, or if these are fewer than a quarter
    of all, the one that of all words was seen longest ago. So a word that is used stays while others come and go, and
    there is always room in which new ones can become frequent. Likewise pairs, with `pair_often`. A word takes its
    pairs along.

    Memory is 16 bytes a word and 24 a pair from the beginning, and text: a word's, once, and up to three forms of it
    where it is not written as it is normalised.

    Args:
        words: most words, >= 1.
        pairs: most pairs, >= 1.
        often: how often a word that is used was seen.
        pair_often: how often a pair was.
    """

    def __init__(self, words: int, pairs: int, often: int, pair_often: int) -> None:
        self._often, self._pair_often = often, pair_often
        self._places: dict[str, int] = {}
        self._texts = [""] * words  # by place; "" where it is free
        self._forms: dict[int, dict[str, int]] = {}  # by place; where it is the text alone, none
        self._word_counts = np.zeros(words, np.int64)  # 0 where it is free
        self._word_seen = np.zeros(words, np.int64)  # by the clock
        self._before = np.full(pairs, -1, np.int32)
        self._after = np.full(pairs, -1, np.int32)
        self._pair_counts = np.zeros(pairs, np.int64)
        self._pair_seen = np.zeros(pairs, np.int64)
        self._clock = 0

    def see(self, word: str, form: str, times: int = 1) -> None:
        """The word, written as `form`, was seen; one that is too long is not counted."""
        if max(len(text.encode("utf-8", "replace")) for text in (word, form)) > WORD_BYTES:
            return
        place = self._places.get(word)
        if place is None:
            place = len(self._places)
            if place == len(self._texts) or self._texts[place]:  # what was removed left gaps
                place = _least_used(self._word_counts, self._word_seen, self._often)
            self.remove(self._texts[place])
            self._places[word] = place
            self._texts[place] = word
        self._clock += 1
        self._word_seen[place] = self._clock
        forms = self.forms(word)
        forms[form] = min(forms.pop(form, 0) + times, MOST)
        if len(forms) > FORMS:
            del forms[min(list(forms)[:-1], key=forms.__getitem__)]
        self._word_counts[place] = sum(forms.values())
        if list(forms) == [word]:
            self._forms.pop(place, None)
        else:
            self._forms[place] = forms

    def see_pair(self, before: str, after: str, times: int = 1) -> None:
        """`after` was seen right after `before`: counted if both are words counted here."""
        pair = self._places.get(before, -1), self._places.get(after, -1)
        if min(pair) < 0:
            return
        [found] = np.nonzero((self._before == pair[0]) & (self._after == pair[1]))
        if len(found):
            place = int(found[0])
        else:
            place = _least_used(self._pair_counts, self._pair_seen, self._pair_often)
            self._before[place], self._after[place] = pair
            self._pair_counts[place] = 0
        self._clock += 1
        self._pair_seen[place] = self._clock
        self._pair_counts[place] = min(self._pair_counts[place] + times, MOST)

    def load_pairs(self, counted: Iterable[tuple[str, str, int]]) -> None:
        """The same of many pairs, the last seen last, where none is counted yet: hundreds of times as fast."""
        totals: dict[tuple[int, int], int] = {}
        for before, after, times in counted:
            pair = self._places.get(before, -1), self._places.get(after, -1)
            if min(pair) >= 0:
                totals[pair] = min(totals.pop(pair, 0) + times, MOST)
        kept = list(totals.items())[-len(self._before) :]
        used = slice(len(kept))
        self._before[used] = [before for (before, _), _ in kept]
        self._after[used] = [after for (_, after), _ in kept]
        self._pair_counts[used] = [times for _, times in kept]
        self._pair_seen[used] = self._clock + 1 + np.arange(len(kept))
        self._clock += len(kept)

    def remove(self, word: str) -> None:
        """The word was never seen."""
        place = self._places.pop(word, None)
        if place is None:
            return
        self._texts[place] = ""
        self._forms.pop(place, None)
        self._word_counts[place] = self._word_seen[place] = 0
        gone = (self._before == place) | (self._after == place)
        self._before[gone] = self._after[gone] = -1
        self._pair_counts[gone] = self._pair_seen[gone] = 0

    def count(self, word: str) -> int:
        """How often it was seen; 0 if it is not counted."""
        place = self._places.get(word)
        return 0 if place is None else int(self._word_counts[place])

    def forms(self, word: str) -> dict[str, int]:
        """How often it was seen written how, the last seen last; nothing if it is not counted."""
        place = self._places.get(word)
        if place is None or not self._word_counts[place]:
            return {}
        return dict(self._forms.get(place) or {word: int(self._word_counts[place])})

    def words(self, at_least: int) -> list[str]:
        """The words seen so often, the last seen last."""
        parts = _in_order(self._word_counts >= at_least, self._word_seen)
        return [self._texts[place] for part in parts for place in part.tolist()]

    def written(self) -> Iterator[tuple[str, int]]:
        """All words as they were written and how often, the last seen last."""
        for part in _in_order(self._word_counts > 0, self._word_seen):
            for place, times in zip(part.tolist(), self._word_counts[part].tolist(), strict=True):
                forms = self._forms.get(place)
                if forms is None:
                    yield self._texts[place], times
                else:
                    yield from forms.items()

    def total(self, at_least: int) -> int:
        """Sum of the counts of the words seen so often."""
        return int(self._word_counts[self._word_counts >= at_least].sum())

    def followers(self, word: str, at_least: int) -> dict[str, int]:
        """Counts of the pairs seen so often that begin with `word`, by their other word."""
        place = self._places.get(word)
        if place is None:
            return {}
        [found] = np.nonzero((self._before == place) & (self._pair_counts >= at_least))
        return {self._texts[self._after[at]]: int(self._pair_counts[at]) for at in found}

    def pairs(self) -> Iterator[tuple[str, str, int]]:
        """All pairs with their counts, the last seen last."""
        texts = self._texts
        for part in _in_order(self._pair_counts > 0, self._pair_seen):
            columns = (self._before[part], self._after[part], self._pair_counts[part])
            for before, after, times in zip(*(column.tolist() for column in columns), strict=True):
                yield texts[before], texts[after], times


def _in_order(wanted: np.ndarray, seen: np.ndarray) -> Iterator[np.ndarray]:
    """Places, the last seen last, some at a time: as Python's numbers, all of them would take a megabyte."""
    places = np.flatnonzero(wanted)
    places = places[np.argsort(seen[places])]
    for start in range(0, len(places), _PART):
        yield places[start : start + _PART]


def _least_used(counts: np.ndarray, seen: np.ndarray, often: int) -> int:
    """A free place, which was seen at 0, or that of what makes room."""
    rare = np.flatnonzero(counts < often)
    places = rare if 4 * len(rare) >= len(counts) else np.arange(len(counts))
    return int(places[seen[places].argmin()])

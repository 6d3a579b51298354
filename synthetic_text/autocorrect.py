"""A keyboard's autocorrect: what is no word becomes the likeliest word one slip away."""

from functools import cache, lru_cache
from string import punctuation

import numpy as np

from device_runtime.layouts import Layout
from synthetic_text.misspellings import misspellings

_MIN_FREQUENCY = 1e-6  # of all words: about 33,000 words are known; chosen
_MIN_LETTERS = 2
_REMEMBERED_FORMS = 2**17
_AROUND = punctuation + " "
# How likely a slip is, next to any other, when the keyboard asks what was meant; chosen.
_ADJACENT, _DISTANT, _LENGTH, _SWAP = 1.0, 0.1, 0.5, 0.5


class Autocorrect:
    """English words (wordfreq) and the forms one edit away from them on a layout."""

    def __init__(self, layout: Layout) -> None:
        from wordfreq import get_frequency_dict

        misspelt = {form for forms, _ in misspellings().values() for form in forms}
        self._adjacent = {layout.keys[i] + layout.keys[j] for i, j in np.argwhere(layout.adjacent)}
        self._frequencies = {
            word: frequency
            for word, frequency in get_frequency_dict("en", wordlist="best").items()
            if frequency >= _MIN_FREQUENCY
            and word not in misspelt
            and word.replace("'", "").isalpha()
        }
        self._words_without_letter: dict[str, list[str]] = {}
        for word in self._frequencies:
            for rest in _without_a_letter(word):
                self._words_without_letter.setdefault(rest, []).append(word)
        self.correct = lru_cache(_REMEMBERED_FORMS)(self._correct)

    def _correct(self, form: str) -> str:
        """The form, or the word that replaces it, with the same capitals and marks around it."""
        core = form.strip(_AROUND)
        small = core.lower()
        if small in self._frequencies or len(core) < _MIN_LETTERS:
            return form
        if not core.replace("'", "").isalpha():
            return form
        word = self._find(small)
        if core.isupper():
            word = word.upper()
        elif core[0].isupper():
            word = word[0].upper() + word[1:]
        return form.replace(core, word, 1) if word.lower() != small else form

    def _find(self, form: str) -> str:
        """The likeliest word one edit away, the form itself if there is none."""
        best, score = form, 0.0
        frequencies = self._frequencies
        for word in self._words_without_letter.get(form, ()):
            if frequencies[word] * _LENGTH > score:
                best, score = word, frequencies[word] * _LENGTH
        for rest in _without_a_letter(form):
            if frequencies.get(rest, 0.0) * _LENGTH > score:
                best, score = rest, frequencies[rest] * _LENGTH
            for word in self._words_without_letter.get(rest, ()):
                if frequencies[word] > score:
                    likelihood = self._change_likelihood(form, word)
                    if frequencies[word] * likelihood > score:
                        best, score = word, frequencies[word] * likelihood
        return best

    def _change_likelihood(self, form: str, word: str) -> float:
        """For words of one length: a letter changed, or two swapped; 0 for more than that."""
        places = [i for i, (a, b) in enumerate(zip(form, word, strict=True)) if a != b]
        i, j = places[0], places[-1]
        if i == j:
            return _ADJACENT if form[i] + word[i] in self._adjacent else _DISTANT
        swapped = len(places) == 2 and j == i + 1 and form[i] == word[j] and form[j] == word[i]
        return _SWAP if swapped else 0.0


@cache
def load_autocorrect(layout: Layout) -> Autocorrect:
    """The layout's autocorrect, built once (under a second)."""
    return Autocorrect(layout)


def _without_a_letter(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}

"""What thumbs make of intended words: the slips, lapses and misspellings left in sent text."""

import json
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import accumulate
from math import exp, hypot
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEYBOARDS = Path(__file__).parent / "keyboards"

# Wrong characters in a user's chat text, p50, and the log-spreads that put p10 and p90 where DESIGN
# measured them: 0.14 / 0.64 / 2.3 %. Chat is re-read and forgiving to short messages, so this, not
# the 2.3 % that 37,370 phone typists left on average in a timed transcription, is the rate of chat
# text.
MEDIAN_ERROR_RATE = 0.0064
LOG_SPREAD_BELOW = 1.186  # ln(0.64 / 0.14) / 1.2816
LOG_SPREAD_ABOVE = 0.998  # ln(2.3 / 0.64) / 1.2816
MAX_ERROR_RATE = 0.15

# Dual Gaussian touch (Bi, Li & Zhai 2013): the finger's own spread and the speed-accuracy part add
# as variances. Together 0.286 widths of a 6.2 mm key for the median user, which misses 8 %
# laterally.
FINGER_SIGMA_MM = 1.5
SPEED_SIGMA_MM = 0.945
SPEED_LOG_SPREAD = 0.3  # chosen; the user's draw is the one that sets the error rate
MEAN_OFFSET_MM = (0.3, 0.4)  # touches skew right and down; sizes chosen
OFFSET_SPREAD_MM = 0.5  # over users; chosen

# Of the errors left, chosen: a misspelling where the word has a known one, or the word typed twice.
MISSPELLING_SHARE = 0.15
DOUBLED_WORD_SHARE = 0.01
# The others are slips, in the mix measured on first-typed keys (990 typists). A tenth of the
# omissions there are blanks; here words stay apart, so those are left out.
SLIP_MIX = {"substitution": 45, "omission": 27, "insertion": 7, "transposition": 7, "case": 11}
ADJACENT_SHARE = 0.5  # of substitutions, measured; the others are wrong letters from afar
REPEATED_INSERTION_SHARE = 0.5  # the key bounces, or else a neighbour is hit with it; chosen

EDITS_PER_ERROR = 1.14
"""Levenshtein distance an error adds on average (a transposition 2, a doubled word its length and a
blank), measured on LLM-written chat and converted news with the shares above."""

_GRID_STEP = 0.125  # of a key, for integrating touches over the keyboard
_GRID_MARGIN = 1.5  # keys beyond the outermost centres
_RARE = 1e-9  # weight of a misspelling too rare for the frequency list, which ends at 1e-8
_TOO_COMMON = (
    0.01  # of its word's frequency: a "misspelling" above is a word, name or variant of its own
)


@dataclass(frozen=True, eq=False)
class Layout:
    """A phone keyboard's letter keys.

    Attributes:
        name: as in the file's name.
        keys: the character of each key.
        centres_mm: [keys, 2] x to the right and y downwards, from the first key's centre.
        key_size_mm: width and height of a key.
        long_press: letter -> key that it hides behind; accented letters hide behind their base
            letter anyway.
    """

    name: str
    keys: str
    centres_mm: NDArray[np.float64]
    key_size_mm: tuple[float, float]
    long_press: dict[str, str]

    def key_index(self, character: str) -> int:
        """Which key makes the character, whatever its case; -1 where no letter key does."""
        return _key_index(self, character)

    def can_type(self, text: str) -> bool:
        """Whether every letter is on the layout. Digits, marks and emoji are on other pages."""
        return all(not c.isalpha() or self.key_index(c) >= 0 for c in set(text))

    def nearest_key(self, points_mm: NDArray[np.float64]) -> NDArray[np.intp]:
        """Index of the key whose centre is nearest to each of the [N, 2] touch points."""
        offsets = points_mm[:, None, :] - self.centres_mm
        return np.asarray((offsets**2).sum(axis=2).argmin(axis=1))

    def are_adjacent(self, key: int, other: int) -> bool:
        """Whether two different keys are at most one key apart each way."""
        apart = np.abs(self.centres_mm[key] - self.centres_mm[other]) / self.key_size_mm
        return key != other and bool((apart < 1.01).all())


@cache
def load_layout(name: str) -> Layout:
    """The layout in keyboards/`name`.json.

    Raises:
        ValueError: no such layout, or its file is malformed.
    """
    known = sorted(path.stem for path in KEYBOARDS.glob("*.json"))
    if name not in known:
        raise ValueError(f"layout {name!r} is unknown; known are {', '.join(known)}")
    path = KEYBOARDS / f"{name}.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        width, height = float(table["key_width_mm"]), float(table["key_height_mm"])
        places = [
            (key, (row["first_x"] + column) * width, line * height)
            for line, row in enumerate(table["rows"])
            for column, key in enumerate(row["keys"])
        ]
        long_press = dict(table["long_press"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name}: malformed layout ({error!r}); see qwerty.json for its shape"
        ) from error
    keys = "".join(key for key, _, _ in places)
    if len(set(keys)) < len(keys) or not set(long_press.values()) <= set(keys):
        raise ValueError(f"{path.name}: rows must hold each key once and every long_press key")
    return Layout(
        name, keys, np.array([place[1:] for place in places]), (width, height), long_press
    )


@dataclass(frozen=True)
class Typist:
    """One simulated user.

    Attributes:
        layout: the keyboard in use.
        error_rate: wrong characters among those of the user's text, blanks included, after all
            correction.
        sigma_mm: standard deviation of touches around their mean, both ways.
        offset_mm: where touches fall on average, right of and below the key's centre.
    """

    layout: Layout
    error_rate: float
    sigma_mm: float
    offset_mm: tuple[float, float]

    @classmethod
    def sample(cls, layout: Layout, rng: np.random.Generator) -> "Typist":
        """A user drawn from the population; those with a less precise thumb leave more errors."""
        clumsiness = rng.normal()
        spread = LOG_SPREAD_BELOW if clumsiness < 0 else LOG_SPREAD_ABOVE
        right, down = rng.normal(MEAN_OFFSET_MM, OFFSET_SPREAD_MM)
        return cls(
            layout,
            min(MEDIAN_ERROR_RATE * exp(spread * clumsiness), MAX_ERROR_RATE),
            hypot(FINGER_SIGMA_MM, SPEED_SIGMA_MM * exp(SPEED_LOG_SPREAD * clumsiness)),
            (float(right), float(down)),
        )

    @cached_property
    def touch_probabilities(self) -> NDArray[np.float64]:
        """[keys, keys] probability that a touch aimed at the row's key falls to the column's."""
        columns, lines, nearest = _grid(self.layout)
        aims = self.layout.centres_mm + self.offset_mm
        across = np.exp(-0.5 * ((columns - aims[:, :1]) / self.sigma_mm) ** 2)
        down = np.exp(-0.5 * ((lines - aims[:, 1:]) / self.sigma_mm) ** 2)
        density = (across[:, :, None] * down[:, None, :]).reshape(len(aims), -1)
        return density @ nearest / density.sum(axis=1, keepdims=True)

    def type_words(self, words: Sequence[str], rng: np.random.Generator) -> list[str]:
        """What stands in the message for each intended word, one to one.

        Typed forms are context, intended words remain the targets. A form is never empty; a word
        typed twice is one form with a blank in it. Words without letters stay as they are. Drawn by
        `rng` alone.

        Raises:
            ValueError: a letter that the layout cannot type; see `Layout.can_type`.
        """
        self._check_script(words)
        characters = (
            np.fromiter(map(len, words), dtype=np.float64, count=len(words)) + 1
        )  # and the blank
        errors = rng.poisson(self.error_rate / EDITS_PER_ERROR * characters)
        hit = np.flatnonzero(errors)
        draws = iter(rng.random((int(errors.sum()), 5)).tolist())
        typed = list(words)
        for i, count in zip(hit.tolist(), errors[hit].tolist(), strict=True):
            for _ in range(count):
                typed[i] = self._mistype(typed[i], *next(draws))
        return typed

    def _check_script(self, words: Sequence[str]) -> None:
        for character in sorted(set("".join(words))):
            if character.isalpha() and self.layout.key_index(character) < 0:
                script = unicodedata.name(character, "unnamed").split()[0]
                raise ValueError(
                    f"layout {self.layout.name!r} has no key for a {script} letter"
                    f" (U+{ord(character):04X}); leave out text for which Layout.can_type is false,"
                    " or choose another layout"
                )

    def _mistype(
        self, word: str, kind: float, slip: float, place: float, near: float, key: float
    ) -> str:
        """The word with one error, chosen by uniform draws."""
        keyed = [i for i, c in enumerate(word) if self.layout.key_index(c) >= 0]
        if not keyed:
            return word
        if kind < DOUBLED_WORD_SHARE:
            return f"{word} {word}"
        if kind < DOUBLED_WORD_SHARE + MISSPELLING_SHARE and word.lower() in misspellings():
            forms, cumulative = misspellings()[word.lower()]
            form = forms[_pick(cumulative, key)]
            return form.capitalize() if word[0].isupper() else form
        return self._slip(word, keyed, _SLIPS[_pick(_SLIP_CUMULATIVE, slip)], place, near, key)

    def _slip(
        self, word: str, keyed: list[int], slip: str, place: float, near: float, key: float
    ) -> str:
        """The word with one slip of this kind, or a substitution where it has no room for it."""
        i = keyed[int(place * len(keyed))]
        if slip == "case":
            return word[: keyed[0]] + word[keyed[0]].swapcase() + word[keyed[0] + 1 :]
        if slip == "omission" and len(keyed) > 1:
            return word[:i] + word[i + 1 :]
        if slip == "insertion":
            extra = word[i] if near < REPEATED_INSERTION_SHARE else self._missed_key(word[i], key)
            return word[: i + 1] + extra + word[i + 1 :]
        if slip == "transposition":
            pairs = [j for j in keyed if j + 1 in keyed and word[j].lower() != word[j + 1].lower()]
            if pairs:
                j = pairs[int(place * len(pairs))]
                return word[:j] + word[j + 1] + word[j] + word[j + 2 :]
        wrong = (
            self._missed_key(word[i], key) if near < ADJACENT_SHARE else self._far_key(word[i], key)
        )
        return word[:i] + wrong + word[i + 1 :]

    def _missed_key(self, character: str, draw: float) -> str:
        """What a touch that misses the character's key makes instead."""
        cumulative = self._miss_cumulative[self.layout.key_index(character)]
        return _in_case_of(character, self.layout.keys[_pick(cumulative, draw)])

    def _far_key(self, character: str, draw: float) -> str:
        """A letter that no slip of the thumb explains."""
        far = _far_keys(self.layout)[self.layout.key_index(character)]
        return _in_case_of(character, far[int(draw * len(far))])

    @cached_property
    def _miss_cumulative(self) -> list[list[float]]:
        misses = self.touch_probabilities * (1 - np.eye(len(self.layout.keys)))
        return [row.tolist() for row in misses.cumsum(axis=1)]


@cache
def misspellings() -> dict[str, tuple[list[str], list[float]]]:
    """Word -> its misspellings and their cumulative weights: how often each is met in English text.

    codespell's pairs with one single-word correction, weighted by wordfreq's frequency of the wrong
    form.
    """
    from wordfreq import get_frequency_dict

    frequencies = get_frequency_dict("en", wordlist="best")
    pairs = files("codespell_lib").joinpath("data", "dictionary.txt").read_text(encoding="utf-8")
    weights: dict[str, dict[str, float]] = {}
    for line in pairs.splitlines():
        wrong, _, right = line.lower().partition("->")
        frequency = frequencies.get(wrong, 0.0)
        if (
            right.isalpha()
            and wrong.isalpha()
            and frequency <= _TOO_COMMON * frequencies.get(right, 0.0)
        ):
            weights.setdefault(right, {})[wrong] = frequency + _RARE
    return {
        right: (list(forms), list(accumulate(forms.values()))) for right, forms in weights.items()
    }


_SLIPS = tuple(SLIP_MIX)
_SLIP_CUMULATIVE = list(accumulate(map(float, SLIP_MIX.values())))


def _in_case_of(model: str, character: str) -> str:
    return character.upper() if model.isupper() else character


def _pick(cumulative: Sequence[float], draw: float) -> int:
    """Index of the class that a uniform draw in [0, 1) falls in, given cumulative weights."""
    return min(bisect_right(cumulative, draw * cumulative[-1]), len(cumulative) - 1)


@cache
def _key_index(layout: Layout, character: str) -> int:
    small = character.lower()
    for form in (small, unicodedata.normalize("NFD", small)[:1]):
        index = layout.keys.find(layout.long_press.get(form, form)) if form else -1
        if index >= 0:
            return index
    return -1


@cache
def _far_keys(layout: Layout) -> list[list[str]]:
    everyone = range(len(layout.keys))
    return [
        [layout.keys[j] for j in everyone if j != i and not layout.are_adjacent(i, j)]
        for i in everyone
    ]


@cache
def _grid(layout: Layout) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Columns and lines of touch points in mm, and [points, keys] which key is nearest (1 or 0)."""
    columns, lines = (
        # Midpoints: a point on the border of two keys would always go to the first.
        np.arange(
            low / size - _GRID_MARGIN + _GRID_STEP / 2, high / size + _GRID_MARGIN, _GRID_STEP
        )
        * size
        for low, high, size in zip(
            layout.centres_mm.min(axis=0),
            layout.centres_mm.max(axis=0),
            layout.key_size_mm,
            strict=True,
        )
    )
    points = np.stack(np.meshgrid(columns, lines, indexing="ij"), axis=-1).reshape(-1, 2)
    nearest = np.eye(len(layout.keys))[layout.nearest_key(points)]
    return columns, lines, nearest

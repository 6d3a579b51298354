"""What the motor system makes of a planned text: touch points, and the slips among them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from device_runtime.layouts import Layout

# Dual Gaussian touch (Bi, Li & Zhai 2013): the finger's own spread and the speed-accuracy part add
# as variances. Together 0.286 widths of a 6.2 mm key for the median user, which misses 8 %
# laterally.
FINGER_SIGMA_MM = 1.5
SPEED_SIGMA_MM = 0.945

# Slips per 100 errors. Measured on first-typed keys of 990 typists (DESIGN): substitution 45,
# omission 30, a tenth of them blanks, insertion 7, transposition 7, case 11. Misspellings and
# doubled words add omissions and insertions of their own, so slips have fewer of those: tuned until
# the whole of the output has the measured mix, see typing_check.py.
SLIP_MIX = {
    "adjacent": 25.0,
    "distant": 22.9,
    "omission": 27.6,
    "blank": 3.6,
    "insertion": 2.2,
    "transposition": 5.4,
    "case": 13.3,
}
REPEATED_INSERTION_SHARE = 0.5  # the key bounces, or else a neighbour is hit with it; chosen

_BLANK = ord(" ")
_NONE, _ADJACENT, _DISTANT, _INSERTION, _CASE, _OMISSION, _TRANSPOSITION = range(7)

Codes = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Thumb:
    """Where one user's touches fall.

    Attributes:
        layout: the keyboard in use.
        sigma_mm: standard deviation of touches around their mean, both ways.
        offset_mm: where touches fall on average, right of and below the key's centre.
    """

    layout: Layout
    sigma_mm: float
    offset_mm: tuple[float, float]

    def touch(self, keys: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        """[N, 2] touch points in mm, aimed at the keys with these indices."""
        points = rng.standard_normal((len(keys), 2)) * self.sigma_mm
        points += (self.layout.centres_mm + self.offset_mm)[keys]
        return points

    @cached_property
    def touch_probabilities(self) -> NDArray[np.float64]:
        """[keys, keys] probability that a touch aimed at the row's key falls to the column's."""
        return self.layout.touch_probabilities(self.sigma_mm, self.offset_mm)


@dataclass(frozen=True, eq=False)
class Slipped:
    """A planned text after the slips.

    Attributes:
        codes: [M] code points that were typed.
        owners: [M] index of the planned character that each came from, ascending.
        touches_mm: [M, 2] where the finger came down; NaN for all but letters.
        slips: [E] planned indices that an error starts at, ascending.
        widths: [E] planned characters that it takes to see the error: 1, or 2 where one is missing
            or two are swapped.
    """

    codes: Codes
    owners: NDArray[np.intp]
    touches_mm: NDArray[np.float64]
    slips: NDArray[np.intp]
    widths: NDArray[np.intp]


def slip(
    thumb: Thumb,
    codes: Codes,
    words: NDArray[np.intp],
    errors: float,
    rng: np.random.Generator,
    keep_blanks: bool = False,
) -> Slipped:
    """Type planned characters with slips.

    Every letter gets a touch point. The keyboard's decoder repairs most touches that fall to
    another key (DESIGN: 8 to 9 % of letters miss, one key in a hundred is wrong for it); those it
    lets through are the substitutions by an adjacent key. The other slips fall anywhere.

    Args:
        codes: [N] planned code points.
        words: [N] word each belongs to, ascending. Slips never join, swap across or empty words,
            but for a missing blank; a blank belongs to the word after it.
        errors: expected number of slips; a little less where they are dense, for want of room.
        keep_blanks: whether no blank is ever missed.
    """
    layout = thumb.layout
    keys = layout.key_indices(codes)
    letters = np.flatnonzero(keys >= 0)
    touches = np.full((len(codes), 2), np.nan)
    kinds = np.zeros(len(codes), dtype=np.int8)
    counts = np.ones(len(codes), dtype=np.intp)
    typed = codes.copy()
    if not len(letters):
        nothing = np.array([], dtype=np.intp)
        return Slipped(typed, np.arange(len(codes)), touches, nothing, nothing)
    expected = {kind: errors * share for kind, share in _shares(keep_blanks).items()}
    pressed = _touch_letters(thumb, keys, letters, touches, rng)

    misses = 1 - thumb.touch_probabilities.diagonal()
    let_through = min(1.0, expected["adjacent"] / misses[keys[letters]].sum())
    kinds[letters[(pressed != keys[letters]) & (rng.random(len(letters)) < let_through)]] = (
        _ADJACENT
    )
    word_of_letter = words[letters]
    starts = letters[np.diff(word_of_letter, prepend=-1) != 0]
    in_longer_words = letters[np.bincount(word_of_letter)[word_of_letter] > 1]
    kinds[_pick(letters, expected["distant"], rng)] = _DISTANT
    kinds[_pick(letters, expected["insertion"], rng)] = _INSERTION
    kinds[_pick(starts, expected["case"], rng)] = _CASE
    kinds[_pick(in_longer_words, expected["omission"], rng)] = _OMISSION
    kinds[_pick(np.flatnonzero(codes == _BLANK), expected["blank"], rng)] = _OMISSION
    kinds[1:][(kinds[1:] == _OMISSION) & (kinds[:-1] == _OMISSION)] = _NONE
    swaps = _pick(_swappable(keys, words, letters), expected["transposition"], rng)
    swaps = np.unique(swaps[(kinds[swaps] == _NONE) & (kinds[swaps + 1] == _NONE)])
    swaps = swaps[np.diff(swaps, prepend=-2) > 1]
    kinds[swaps] = _TRANSPOSITION

    _press(thumb, typed, touches, np.flatnonzero(kinds == _DISTANT), ~layout.adjacent, keys, rng)
    near = np.flatnonzero(kinds == _ADJACENT)
    typed[near] = _letters(layout, pressed[np.searchsorted(letters, near)], codes[near])
    for i in np.flatnonzero(kinds == _CASE):
        other = chr(codes[i]).swapcase()
        typed[i] = ord(other) if len(other) == 1 else codes[i]
    both, swapped = np.r_[swaps, swaps + 1], np.r_[swaps + 1, swaps]
    typed[both], touches[both] = typed[swapped], touches[swapped]

    extra = np.flatnonzero(kinds == _INSERTION)
    counts[kinds == _OMISSION] = 0
    counts[extra] = 2
    owners = np.repeat(np.arange(len(codes)), counts)
    out, out_touches = typed[owners], touches[owners]
    places = np.cumsum(counts)[extra] - 1
    bounced = rng.random(len(extra)) < REPEATED_INSERTION_SHARE
    key_of_place = np.zeros(len(out), dtype=np.int64)
    key_of_place[places] = keys[extra]
    _press(thumb, out, out_touches, places[~bounced], layout.adjacent, key_of_place, rng)
    slips = np.flatnonzero(kinds)
    widths = np.where(np.isin(kinds[slips], (_OMISSION, _TRANSPOSITION)), 2, 1)
    return Slipped(out, owners, out_touches, slips, widths)


def _shares(keep_blanks: bool) -> dict[str, float]:
    mix = SLIP_MIX | ({"blank": 0.0} if keep_blanks else {})
    return {kind: share / sum(mix.values()) for kind, share in mix.items()}


def _touch_letters(
    thumb: Thumb,
    keys: NDArray[np.int64],
    letters: NDArray[np.intp],
    touches: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Fill in a touch point for every letter; which key each fell on."""
    pressed = keys[letters]
    points = thumb.touch(pressed, rng)
    touches[letters] = points
    away = ((points - thumb.layout.centres_mm[pressed]) ** 2).sum(axis=1)
    doubtful = np.flatnonzero(away > thumb.layout.safe_radius_mm**2)
    pressed[doubtful] = thumb.layout.nearest_key(points[doubtful])
    return pressed


def _pick(places: NDArray[np.intp], expected: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """A Poisson number of the places, any of them."""
    if not len(places):
        return places
    return places[rng.integers(len(places), size=rng.poisson(expected))]


def _swappable(
    keys: NDArray[np.int64], words: NDArray[np.intp], letters: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Letters followed by another letter of their word."""
    first = letters[letters + 1 < len(keys)]
    after = first + 1
    return first[(keys[after] >= 0) & (keys[after] != keys[first]) & (words[after] == words[first])]


def _press(
    thumb: Thumb,
    codes: Codes,
    touches: NDArray[np.float64],
    places: NDArray[np.intp],
    allowed: NDArray[np.bool_],
    keys: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Put another key's letter at each place, any that is allowed in the row of the place's key."""
    aimed = keys[places]
    draws = rng.random((len(places), allowed.shape[1])) * allowed[aimed]
    draws[np.arange(len(places)), aimed] = 0
    pressed = draws.argmax(axis=1)
    codes[places] = _letters(thumb.layout, pressed, codes[places])
    touches[places] = thumb.touch(pressed, rng)


def _letters(layout: Layout, keys: NDArray[np.int64], models: Codes) -> list[int]:
    """Code points of the keys, each in the case of its model."""
    return [
        ord(layout.keys[key].upper() if chr(model).isupper() else layout.keys[key])
        for key, model in zip(keys.tolist(), models.tolist(), strict=True)
    ]

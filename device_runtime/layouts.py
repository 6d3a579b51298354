"""Phone keyboards as data: where each letter's key is, and which key a touch falls on."""

import json
import math
import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEYBOARDS = Path(__file__).parent / "keyboards"

_CODES_WITH_KEYS = 0x3000  # no letter above has a Latin base letter
_GRID_STEP = 0.25  # of a key, for integrating touches over the keyboard
_GRID_MARGIN = 1.5  # keys beyond the outermost centres


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
        return int(self._key_of_code[min(ord(character), _CODES_WITH_KEYS)])

    def key_indices(self, codes: NDArray[np.integer]) -> NDArray[np.int64]:
        """The same for an array of code points."""
        return self._key_of_code[np.minimum(codes, _CODES_WITH_KEYS)]

    def can_type(self, text: str) -> bool:
        """Whether every letter is on the layout. Digits, marks and emoji are on other pages."""
        return all(not c.isalpha() or self.key_index(c) >= 0 for c in set(text))

    def check_script(self, text: str) -> None:
        """Pass text that `can_type` accepts.

        Raises:
            ValueError: naming the first letter's script and code point, and never the text.
        """
        for character in sorted(set(text)):
            if character.isalpha() and self.key_index(character) < 0:
                script = unicodedata.name(character, "unnamed").split()[0]
                raise ValueError(
                    f"layout {self.name!r} has no key for a {script} letter"
                    f" (U+{ord(character):04X}); leave out text for which Layout.can_type is false,"
                    " or choose another layout"
                )

    def nearest_key(self, points_mm: NDArray[np.float64]) -> NDArray[np.intp]:
        """Index of the key whose centre is nearest to each of the [N, 2] touch points."""
        right, down = (points_mm[:, axis, None] - self.centres_mm[:, axis] for axis in (0, 1))
        return np.asarray((right**2 + down**2).argmin(axis=1))

    @cached_property
    def safe_radius_mm(self) -> float:
        """A touch at most this far from a key's centre falls on that key: half the closest gap."""
        gaps = np.linalg.norm(self.centres_mm[:, None] - self.centres_mm, axis=2)
        return float(gaps[gaps > 0].min()) / 2

    @cached_property
    def adjacent(self) -> NDArray[np.bool_]:
        """[keys, keys] whether two different keys are at most one key apart each way."""
        apart = np.abs(self.centres_mm[:, None] - self.centres_mm) / self.key_size_mm
        return np.asarray((apart < 1.01).all(axis=2)) & ~np.eye(len(self.keys), dtype=bool)

    def touch_probabilities(
        self, sigma_mm: float, offset_mm: tuple[float, float]
    ) -> NDArray[np.float64]:
        """[keys, keys] probability that a touch aimed at the row's key falls to the column's.

        Touches are Gaussian with `sigma_mm` both ways around the key's centre plus `offset_mm`.
        """
        columns, lines, nearest = self._grid
        aims = self.centres_mm + offset_mm
        across = np.diff(_normal_cdf((columns - aims[:, :1]) / sigma_mm))
        down = np.diff(_normal_cdf((lines - aims[:, 1:]) / sigma_mm))
        mass = (across[:, :, None] * down[:, None, :]).reshape(len(aims), -1)
        return np.asarray(mass @ nearest / mass.sum(axis=1, keepdims=True))

    @cached_property
    def _key_of_code(self) -> NDArray[np.int64]:
        found = np.full(_CODES_WITH_KEYS + 1, -1)
        for code in range(_CODES_WITH_KEYS):
            small = chr(code).lower()
            for form in (unicodedata.normalize("NFD", small)[:1], small):
                index = self.keys.find(self.long_press.get(form, form))
                found[code] = index if index >= 0 else found[code]
        return found

    @cached_property
    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Edges of cells across and down, and [cells, keys] which key is nearest (1 or 0)."""
        columns, lines = (
            np.arange(
                low / size - _GRID_MARGIN, high / size + _GRID_MARGIN + _GRID_STEP / 2, _GRID_STEP
            )
            * size
            for low, high, size in zip(
                self.centres_mm.min(axis=0),
                self.centres_mm.max(axis=0),
                self.key_size_mm,
                strict=True,
            )
        )
        # Middles: a point on the border of two keys would always go to the first.
        middles = [(edges[1:] + edges[:-1]) / 2 for edges in (columns, lines)]
        points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
        return columns, lines, np.eye(len(self.keys))[self.nearest_key(points)]


def _normal_cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 + 0.5 * np.vectorize(math.erf)(values / math.sqrt(2))


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

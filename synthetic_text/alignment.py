"""Edit operations between intended and typed messages, by optimal string alignment of a batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BATCH = 4096
_PADDING = 0
_BLANK = ord(" ")


@dataclass(frozen=True)
class Edits:
    """Fewest edits that turn intended text into typed text.

    Attributes:
        counts: [messages] edits in each.
        substitutions: (intended, typed) characters that differ in more than case.
        case: number of letters in the wrong case.
        omitted: characters left out.
        inserted: characters too many.
        transpositions: swapped neighbours, one edit each.
    """

    counts: NDArray[np.int64]
    substitutions: list[tuple[str, str]]
    case: int
    omitted: str
    inserted: str
    transpositions: int

    def total(self) -> int:
        """All edits."""
        return int(self.counts.sum())


def find_edits(intended: Sequence[str], typed: Sequence[str]) -> Edits:
    """Align each typed message with its intended one (Damerau 1964, adjacent swaps, no overlap).

    Where several alignments are shortest, a match or substitution is preferred to a swap, a swap to
    an insertion, that to an omission.
    """
    counts = np.zeros(len(intended), dtype=np.int64)
    substitutions: list[tuple[str, str]] = []
    omitted: list[int] = []
    inserted: list[int] = []
    case = transpositions = 0
    differing = [i for i, (a, b) in enumerate(zip(intended, typed, strict=True)) if a != b]
    differing.sort(key=lambda i: len(intended[i]))
    for start in range(0, len(differing), _BATCH):
        rows = differing[start : start + _BATCH]
        a, b = _pad([intended[i] for i in rows]), _pad([typed[i] for i in rows])
        lengths = (
            np.array([len(intended[i]) for i in rows]),
            np.array([len(typed[i]) for i in rows]),
        )
        distances = _distances(a, b)
        counts[rows] = distances[lengths[0], lengths[1], np.arange(len(rows))]
        for kind, x, y in _trace(distances, a, b, *lengths):
            if kind == "changed":
                pairs = [(chr(p), chr(q)) for p, q in zip(x.tolist(), y.tolist(), strict=True)]
                wrong = [(p, q) for p, q in pairs if p.lower() != q.lower()]
                substitutions += wrong
                case += len(pairs) - len(wrong)
            elif kind == "swapped":
                transpositions += len(x)
            elif kind == "inserted":
                inserted += y.tolist()
            else:
                omitted += x.tolist()
    return Edits(
        counts,
        substitutions,
        case,
        "".join(map(chr, omitted)),
        "".join(map(chr, inserted)),
        transpositions,
    )


def _pad(texts: list[str]) -> NDArray[np.uint32]:
    """[longest, texts] code points, of at least two rows."""
    table = np.full((len(texts), max(2, *map(len, texts))), _PADDING, dtype=np.uint32)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return np.ascontiguousarray(table.T)


def _distances(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> NDArray[np.int16]:
    """[len a + 1, len b + 1, texts] edits between all prefixes."""
    d = np.zeros((len(a) + 1, len(b) + 1, a.shape[1]), dtype=np.int16)
    d[:, 0] = np.arange(len(a) + 1)[:, None]
    d[0] = np.arange(len(b) + 1)[:, None]
    for i in range(1, len(a) + 1):
        changed = d[i - 1, :-1] + (a[i - 1] != b)
        best = np.minimum(changed, d[i - 1, 1:] + 1)
        if i > 1 and len(b) > 1:
            swap = (a[i - 1] == b[:-1]) & (a[i - 2] == b[1:]) & (a[i - 1] != a[i - 2])
            best[1:] = np.where(swap, np.minimum(best[1:], d[i - 2, :-2] + 1), best[1:])
        for j in range(1, len(b) + 1):
            np.minimum(best[j - 1], d[i, j - 1] + 1, out=d[i, j])
    return d


def _trace(
    d: NDArray[np.int16],
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    i: NDArray[np.intp],
    j: NDArray[np.intp],
) -> list[tuple[str, NDArray[np.uint32], NDArray[np.uint32]]]:
    """Edits from the ends to the starts of all texts at once."""
    found = []
    texts = np.arange(a.shape[1])
    while len(texts):
        here = d[i, j, texts]
        x, y = a[i - 1, texts], b[j - 1, texts]  # wrong where i or j is 0, and then not used
        inner = (i > 0) & (j > 0)
        same = inner & (x == y) & (d[i - 1, j - 1, texts] == here)
        changed = inner & (x != y) & (d[i - 1, j - 1, texts] + 1 == here)
        deep = (i > 1) & (j > 1)
        swapped = deep & (x == b[j - 2, texts]) & (y == a[i - 2, texts]) & (x != y)
        swapped &= (d[i - 2, j - 2, texts] + 1 == here) & ~changed
        inserted = (j > 0) & (d[i, j - 1, texts] + 1 == here) & ~(same | changed | swapped)
        omitted = ~(same | changed | swapped | inserted)
        for kind, mask in (
            ("changed", changed),
            ("swapped", swapped),
            ("inserted", inserted),
            ("omitted", omitted),
        ):
            if mask.any():
                found.append((kind, x[mask], y[mask]))
        i = i - (same | changed | omitted) - 2 * swapped
        j = j - (same | changed | inserted) - 2 * swapped
        open_ = (i > 0) | (j > 0)
        texts, i, j = texts[open_], i[open_], j[open_]
    return found

"""Who was selected and who reported, round by round: 4 bytes and a bit for each device that was selected."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

_NUMBER = np.dtype("<u4")
MAX_DEVICE = (1 << 31) - 1


@dataclass(frozen=True)
class RoundRecord:
    """Ids of the devices asked to take part and of those whose updates were summed, ascending."""

    selected: tuple[int, ...]
    reported: tuple[int, ...]


class RoundRecords(Sequence[RoundRecord]):
    """Rounds in the form they also have on disk, made readable one at a time.

    A round is the number of its selected devices and their ids, uint32 each, then a bit for each of them, the first in
    the highest bit of the first byte: 1 if it reported.
    """

    def __init__(self) -> None:
        self._rounds: list[bytes] = []

    def append(self, selected: np.ndarray, reported: np.ndarray) -> None:
        """Adds a round.

        Args:
            selected: ids, ascending, 0 to MAX_DEVICE.
            reported: some of them, ascending.
        """
        has_reported = np.zeros(len(selected), bool)
        has_reported[np.searchsorted(selected, reported)] = True
        numbers = np.concatenate([[len(selected)], selected]).astype(_NUMBER)
        self._rounds.append(numbers.tobytes() + np.packbits(has_reported).tobytes())

    def encoded(self, start: int) -> bytes:
        """The rounds from `start` on, one after the other."""
        return b"".join(self._rounds[start:])

    def selected(self, round_index: int) -> np.ndarray:
        """Ids of the devices asked to take part in a round, ascending, int64."""
        return next(decode_rounds(self._rounds[round_index]))[0]

    def __len__(self) -> int:
        return len(self._rounds)

    @overload
    def __getitem__(self, index: int) -> RoundRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[RoundRecord]: ...
    def __getitem__(self, index: int | slice) -> RoundRecord | list[RoundRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        selected, reported = next(decode_rounds(self._rounds[index]))
        return RoundRecord(tuple(selected.tolist()), tuple(reported.tolist()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoundRecords) and self._rounds == other._rounds

    __hash__ = None  # type: ignore[assignment]  # it grows


def decode_rounds(content: bytes | memoryview) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Selected and reported ids, int64, of each round of `RoundRecords.encoded`.

    Raises:
        ValueError: `content` ends within a round.
    """
    place = 0
    while place < len(content):
        (count,) = np.frombuffer(content, _NUMBER, 1, place)
        selected = np.frombuffer(content, _NUMBER, count, place + 4).astype(np.int64)
        place += 4 + 4 * int(count)
        bits = np.frombuffer(content, np.uint8, -(-int(count) // 8), place)
        place += len(bits)
        yield selected, selected[np.unpackbits(bits, count=int(count)).astype(bool)]

"""Reads FlatBuffers that nobody vouches for: every place is looked up within the buffer, or refused.

TFLite's interpreters follow a model file's offsets without such a look (tflite-runtime does; ai-edge-litert has a
verifier of its own). The format: https://flatbuffers.dev/internals/
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_UINT16 = struct.Struct("<H")
_SCALARS = {kind: struct.Struct("<" + kind) for kind in "bB?iIqQf"}


class Table:
    """A table in `content`, whose fields are read by their number in the schema.

    A field that is present and was read by nobody may hold anything, so `close` refuses it. Vectors are of a length
    that the caller bounds, because many offsets may point to the same large one.

    Args:
        content: the whole buffer.
        at: where the table begins.

    Raises:
        ValueError: the table, or in the methods a field, does not lie in `content` as the format wants it.
    """

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        (distance,) = _read(content, _INT32, at)
        fields = at - distance
        (size,) = _read(content, _UINT16, fields)
        (self._bytes,) = _read(content, _UINT16, fields + 2)
        if size < 4 or size % 2 or fields + size > len(content):
            raise _damaged(fields)
        if self._bytes < 4 or at + self._bytes > len(content):
            raise _damaged(at)
        places = struct.unpack_from(f"<{size // 2 - 2}H", content, fields + 4)
        self._unread = {number: place for number, place in enumerate(places) if place}

    def scalar(self, number: int, kind: str, default: Any = 0) -> Any:
        """A number of struct's `kind`, or `default` where the field is absent."""
        at = self._find(number, _SCALARS[kind])
        return default if at is None else _SCALARS[kind].unpack_from(self._content, at)[0]

    def table(self, number: int) -> "Table | None":
        """A table, or None where the field is absent."""
        at = self._follow(number)
        return None if at is None else Table(self._content, at)

    def tables(self, number: int, most: int) -> Iterator["Table"]:
        """The tables of a vector of at most `most`; none where the field is absent."""
        start, length = self._vector(number, 4, 4, most)
        for at in range(start, start + 4 * length, 4):
            yield Table(self._content, at + _read(self._content, _UINT32, at)[0])

    def numbers(self, number: int, kind: str, most: int) -> np.ndarray:
        """A vector of at most `most` numbers of numpy's little-endian `kind`; empty where the field is absent."""
        dtype = np.dtype(kind)
        start, length = self._vector(number, dtype.itemsize, dtype.itemsize, most)
        return np.frombuffer(self._content, dtype, length, start)

    def text(self, number: int, most: int) -> bytes:
        """A string of at most `most` bytes, ended by a zero; empty where the field is absent."""
        start, length = self._vector(number, 1, 1, most)
        if start and self._content[start + length : start + length + 1] != b"\0":
            raise _damaged(start)
        return self._content[start : start + length]

    def data(self, number: int, alignment: int) -> range:
        """Where the bytes of a vector are that begins at a multiple of `alignment`; empty where the field is absent."""
        start, length = self._vector(number, 1, alignment, len(self._content))
        return range(start, start + length)

    def close(self) -> None:
        """Refuses the table if it has fields that were not read."""
        if self._unread:
            raise ValueError(f"table at byte {self._at} has field {min(self._unread)}, not known")

    def _vector(self, number: int, item_bytes: int, alignment: int, most: int) -> tuple[int, int]:
        """Where its first item is, and how many there are."""
        at = self._follow(number)
        if at is None:
            return 0, 0
        (length,) = _read(self._content, _UINT32, at)
        start = at + 4
        if start + length * item_bytes > len(self._content) or (length and start % alignment):
            raise _damaged(at)
        if length > most:
            raise ValueError(f"{length} entries at byte {at}, more than the {most} allowed")
        return start, length

    def _follow(self, number: int) -> int | None:
        """Where the field's offset leads; None where the field is absent."""
        at = self._find(number, _UINT32)
        return None if at is None else at + _UINT32.unpack_from(self._content, at)[0]

    def _find(self, number: int, scalar: struct.Struct) -> int | None:
        """Where the field is, which counts as read from now on."""
        place = self._unread.pop(number, None)
        if place is None:
            return None
        at = self._at + place
        if place < 4 or place + scalar.size > self._bytes or at % scalar.size:
            raise _damaged(at)
        return at


def _read(content: bytes, scalar: struct.Struct, at: int) -> tuple[Any, ...]:
    if not 0 <= at <= len(content) - scalar.size or at % scalar.size:
        raise _damaged(at)
    return scalar.unpack_from(content, at)


def _damaged(at: int) -> ValueError:
    return ValueError(f"damaged at byte {at}")

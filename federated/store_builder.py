"""A device store from messages in any order, in bounded memory: grouped by user on disk, not in memory.

What is on disk meanwhile is encoded text in files without a name, which the system removes when the process ends,
however it ends. Two passes over it: messages that share a conversation meet first, so that those of conversations
across sides can be dropped; then those of each user meet.
"""

import collections
import contextlib
import functools
import hashlib
import itertools
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from federated.population import (
    SIDES,
    Fractions,
    Message,
    check_fractions,
    check_sides,
    find_fault,
    find_side,
    mask_pii,
    place_user,
)
from federated.store import Split, StoreWriter, write_store
from model.rows import pack_rows

_USER_BUCKETS, _CONVERSATION_BUCKETS = 256, 64  # as many files are open
_BUFFER_BYTES = 1 << 14


class _Entry(NamedTuple):
    """A message on its way: whose, in which conversation, why it is left out if it is, its pieces if they train."""

    user: bytes
    place: float
    conversation: bytes
    timestamp: str
    number: int
    fault: str | None
    masked: bool
    pieces: bytes


class _Buckets:
    """Entries in files without a name, appended to by bucket and read back bucket by bucket."""

    def __init__(self, count: int, folder: Path, files: contextlib.ExitStack) -> None:
        self._files: list[IO[bytes]] = [
            files.enter_context(tempfile.TemporaryFile(dir=folder, buffering=_BUFFER_BYTES))  # noqa: SIM115
            for _ in range(count)
        ]

    def add(self, bucket: int, entry: _Entry) -> None:
        pickle.dump(tuple(entry), self._files[bucket], pickle.HIGHEST_PROTOCOL)

    def read(self, bucket: int) -> Iterator[_Entry]:
        """The bucket's entries in the order they came."""
        file = self._files[bucket]
        file.seek(0)
        with contextlib.suppress(EOFError):
            while True:
                yield _Entry(*pickle.load(file))

    def empty(self, bucket: int) -> None:
        """Gives the bucket's place on disk back."""
        self._files[bucket].seek(0)
        self._files[bucket].truncate()


def build_store(
    messages: Iterable[Message],
    encode: Callable[[str], np.ndarray],
    folder: Path,
    row_tokens: int,
    vocabulary: int,
    rotation: int = 0,
    max_messages: int = 500,
    fractions: Fractions = (0.7, 0.1, 0.2),
    tokenizer: str | None = None,
) -> dict[str, int]:
    """Writes the training side of `split_population` as a device store: same devices, same order, same counts.

    Memory follows not the messages but the largest of 256 buckets of users, at about 500 bytes a message in it, and 8
    bytes a device.

    Args:
        messages: in any order, read once.
        encode: text to a message int32 [2, n + 1] of model.rows.
        folder: of the store; must not exist.
        row_tokens: T, pieces of a row.
        vocabulary: number of pieces.
        rotation, max_messages, fractions: as `split_population` takes them.
        tokenizer: SHA-256 of what encodes, for the store's facts.

    Returns:
        {reason: messages}, as of `split_population`.

    Raises:
        ValueError: as `split_population` and `write_store`.
    """
    check_fractions(fractions)
    counts: collections.Counter[str] = collections.Counter()
    with (
        write_store(
            folder, row_tokens, vocabulary, tokenizer, Split(rotation, *fractions[:2])
        ) as writer,
        contextlib.ExitStack() as files,
    ):
        by_conversation = _Buckets(_CONVERSATION_BUCKETS, folder.parent, files)
        by_user = _Buckets(_USER_BUCKETS, folder.parent, files)
        for number, message in enumerate(messages):
            entry = _enter(message, number, encode, rotation, fractions)
            if entry.conversation:
                by_conversation.add(entry.conversation[0] % _CONVERSATION_BUCKETS, entry)
            else:
                by_user.add(int(entry.place * _USER_BUCKETS), entry)
        for bucket in range(_CONVERSATION_BUCKETS):
            for entry in _drop_shared(functools.partial(by_conversation.read, bucket), fractions):
                by_user.add(int(entry.place * _USER_BUCKETS), entry)
            by_conversation.empty(bucket)
        for bucket in range(_USER_BUCKETS):  # in the order of places, as `split_population`
            entries = sorted(by_user.read(bucket), key=lambda e: (e.place, e.user))
            by_user.empty(bucket)
            for _, own in itertools.groupby(entries, lambda e: e.user):
                _write_user(list(own), writer, row_tokens, max_messages, fractions, counts)
        users = {side: counts[f"{side}_users"] for side in SIDES}
        check_sides(users, sum(users.values()) + counts["users_left_empty"])
    return dict(counts)


def _enter(
    message: Message,
    number: int,
    encode: Callable[[str], np.ndarray],
    rotation: int,
    fractions: Fractions,
) -> _Entry:
    place = place_user(message.user, rotation, fractions)
    fault = find_fault(message.text)
    masked = message.text if fault else mask_pii(message.text)
    trains = fault is None and find_side(place, fractions) == 0
    return _Entry(
        _hash(message.user),
        place,
        _hash(message.conversation) if message.conversation else b"",
        message.timestamp,
        number,
        fault,
        masked != message.text,
        encode(masked).astype("<u2").tobytes() if trains else b"",
    )


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _drop_shared(read: Callable[[], Iterator[_Entry]], fractions: Fractions) -> Iterator[_Entry]:
    """Whole conversations' entries, those whose side is nearer to training than the conversation's marked as lost."""
    sides: dict[bytes, int] = {}
    for entry in read():
        side = find_side(entry.place, fractions)
        sides[entry.conversation] = max(side, sides.get(entry.conversation, 0))
    for entry in read():
        side = find_side(entry.place, fractions)
        if sides[entry.conversation] != side:
            lost = f"{SIDES[side]}_lost_to_shared_conversations"
            entry = entry._replace(fault=lost, pieces=b"")
        yield entry


def _write_user(
    entries: list[_Entry],
    writer: StoreWriter,
    row_tokens: int,
    max_messages: int,
    fractions: Fractions,
    counts: collections.Counter[str],
) -> None:
    side = SIDES[find_side(entries[0].place, fractions)]
    kept: list[_Entry] = []
    for entry in sorted(entries, key=lambda e: (e.timestamp, e.number)):
        counts["messages"] += 1
        if entry.fault:
            counts[entry.fault] += 1
        elif len(kept) == max_messages:
            counts["over_cap"] += 1
        else:
            counts["masked"] += entry.masked
            kept.append(entry)
    if not kept:
        counts["users_left_empty"] += 1
        return
    counts[f"{side}_users"] += 1
    counts[f"{side}_messages"] += len(kept)
    if side == SIDES[0]:
        pieces = (np.frombuffer(e.pieces, "<u2").astype(np.int32).reshape(2, -1) for e in kept)
        rows = pack_rows(pieces, row_tokens)
        writer.append(rows, [len(rows)])

"""The devices' own storage in the simulation: packed training rows as flat arrays, in memory or mapped from disk.

On disk a store is a folder of `rows.bin` (uint16 [R, 2, T]), `offsets.npy` (int64 [devices + 1]) and `store.json`. Rows
are private text to whoever has the tokenizer: the folder is its owner's alone.
"""

import contextlib
import dataclasses
import fcntl
import json
import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_SCHEMA = "keyfed-devices/2"
_ROW_TYPE = np.dtype("<u2")
MAX_VOCABULARY = 1 << 16
# Touching a mapped page maps its neighbours too, nearly 1 MB as measured; so the pages are handed back every so many
# devices, and memory follows the cohort at hand, neither the store nor all cohorts so far.
_GATHERED_DEVICES = 32


class Split(NamedTuple):
    """What decides on which side a user is, whatever the other users are, see `split_population`."""

    rotation: int
    train_share: float
    validation_share: float


@dataclasses.dataclass(frozen=True)
class StoreFacts:
    """What `store.json` says of a store.

    Attributes:
        devices: with ids 0 to devices - 1.
        rows: of all devices together.
        row_tokens: T, pieces of a row.
        vocabulary: number of pieces of the tokenizer; every piece is below it.
        tokenizer: SHA-256 of the tokenizer's model file; None for pieces that were drawn without one.
        split: of the people whose training side it holds; None if its devices are nobody's.
    """

    devices: int
    rows: int
    row_tokens: int
    vocabulary: int
    tokenizer: str | None = None
    split: Split | None = None

    @classmethod
    def read(cls, folder: Path) -> "StoreFacts":
        """Facts of the store in `folder`.

        Raises:
            ValueError: there is no finished store, or `store.json` is none of this version's.
        """
        try:
            content = json.loads((folder / "store.json").read_text("utf-8"))
        except OSError as error:
            raise ValueError(
                f"{folder}: no device store ({error.strerror}): build one with keyfed fleet"
            ) from None
        except ValueError:
            raise ValueError(f"{folder}/store.json: not JSON: build the store anew") from None
        names = ("devices", "rows", "row_tokens", "vocabulary")
        if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
            raise ValueError(
                f"{folder}/store.json: schema is not {_SCHEMA!r}: build the store anew"
            )
        for name in names:
            if type(content.get(name)) is not int or content[name] < 1:
                raise ValueError(
                    f"{folder}/store.json: `{name}` is missing or no positive integer: build the store anew"
                )
        try:
            split = None if content["split"] is None else Split(**content["split"])
            return cls(
                **{n: content[n] for n in names}, tokenizer=content["tokenizer"], split=split
            )
        except (KeyError, TypeError):
            raise ValueError(
                f"{folder}/store.json: `tokenizer` or `split` is missing or wrong: build the store anew"
            ) from None


@dataclasses.dataclass(frozen=True, repr=False)
class DeviceStore:
    """Packed training rows of all devices.

    Attributes:
        rows: int32 or uint16 [R, 2, T], every device's rows one after the other.
        offsets: int64 [devices + 1], device d owns rows[offsets[d] : offsets[d + 1]].
    """

    rows: np.ndarray
    offsets: np.ndarray

    @classmethod
    def build(cls, devices: Sequence[np.ndarray]) -> "DeviceStore":
        """Store in memory, of devices given as row blocks [R_d, 2, T]."""
        offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in devices])])
        return cls(np.concatenate(devices), offsets.astype(np.int64))

    @classmethod
    def open(cls, folder: Path, vocabulary: int) -> "DeviceStore":
        """Store on disk, as `write_store` left it; reads nothing but its header until rows are asked for.

        Args:
            folder: of the store.
            vocabulary: pieces of the network that will read the rows.

        Raises:
            ValueError: there is no finished store, it is damaged, or it was made for another vocabulary.
        """
        facts = StoreFacts.read(folder)
        if facts.vocabulary != vocabulary:
            raise ValueError(
                f"{folder}: was built with a tokenizer of {facts.vocabulary} pieces, and the network has {vocabulary}:"
                " build it with the run's tokenizer"
            )
        shape = (facts.rows, 2, facts.row_tokens)
        try:
            offsets = np.load(folder / "offsets.npy", mmap_mode="r")
            rows = np.memmap(folder / "rows.bin", _ROW_TYPE, "r", shape=shape)
        except (OSError, ValueError):
            raise ValueError(
                f"{folder}: rows or offsets are damaged: build the store anew"
            ) from None
        if len(offsets) != facts.devices + 1 or offsets[0] != 0 or offsets[-1] != facts.rows:
            raise ValueError(f"{folder}: offsets are damaged: build the store anew")
        return cls(rows, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def count_rows(self, devices: np.ndarray) -> np.ndarray:
        """Number of rows of each of the devices, int64."""
        return self.offsets[devices + 1] - self.offsets[devices]

    def device_batches(self, device: int, batch_rows: int, max_batches: int) -> np.ndarray:
        """Rows of one device as int32 [batches, batch_rows, 2, T], padded with empty rows; at most `max_batches`."""
        batches, steps = self.shard([device], batch_rows, max_batches)
        return batches[0, : steps[0]]

    def shard(
        self, devices: Sequence[int] | np.ndarray, batch_rows: int, max_batches: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Work of one shard: batches int32 [D, S, batch_rows, 2, T] and each device's number of batches int32 [D]."""
        ids = np.asarray(devices, np.int64)
        used = np.minimum(self.count_rows(ids), batch_rows * max_batches)
        steps = (-(-used // batch_rows)).astype(np.int32)
        row_shape, longest = self.rows.shape[1:], max(1, int(steps.max(initial=0)))
        packed = np.zeros((len(ids), longest * batch_rows, *row_shape), np.int32)
        for start in range(0, len(ids), _GATHERED_DEVICES):
            part = slice(start, start + _GATHERED_DEVICES)
            self._gather(ids[part], used[part], packed[part])
        return packed.reshape(len(ids), longest, batch_rows, *row_shape), steps

    def _gather(self, ids: np.ndarray, used: np.ndarray, packed: np.ndarray) -> None:
        """Copies the first `used` rows of each device to its place in `packed`."""
        within = np.arange(used.sum()) - np.repeat(np.cumsum(used) - used, used)
        place = np.repeat(np.arange(len(ids)), used)
        packed[place, within] = self.rows[np.repeat(self.offsets[ids], used) + within]
        if isinstance(self.rows.base, mmap.mmap):  # of a np.memmap
            self.rows.base.madvise(mmap.MADV_DONTNEED)


class StoreWriter:
    """Appends devices to a store that is being written."""

    def __init__(
        self,
        rows_path: Path,
        row_tokens: int,
        vocabulary: int,
        tokenizer: str | None,
        split: Split | None,
    ) -> None:
        self._file = rows_path.open("xb")
        self._row_tokens, self._vocabulary = row_tokens, vocabulary
        self._tokenizer, self._split = tokenizer, split
        self._counts: list[np.ndarray] = []

    def append(self, rows: np.ndarray, counts: Sequence[int] | np.ndarray) -> None:
        """Adds devices that own `counts` of the rows [R, 2, T], one after the other.

        Raises:
            ValueError: the shape is another, a piece lies outside the vocabulary, or the counts do not sum to R.
        """
        counts = np.asarray(counts, np.int64)
        if rows.shape[1:] != (2, self._row_tokens) or counts.sum() != len(rows):
            raise ValueError(
                f"rows of shape {rows.shape} for {counts.sum()} rows of {len(counts)} devices: give"
                f" [{counts.sum()}, 2, {self._row_tokens}]"
            )
        if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < self._vocabulary:
            raise ValueError(f"a piece lies outside the vocabulary of {self._vocabulary} pieces")
        rows.astype(_ROW_TYPE).tofile(self._file)
        self._counts.append(counts)

    def _finish(self, folder: Path) -> None:
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *self._counts]))])
        offsets = offsets.astype(np.int64)
        if not offsets[-1]:
            raise ValueError("no device has any rows: give more text")
        facts = StoreFacts(
            len(offsets) - 1,
            int(offsets[-1]),
            self._row_tokens,
            self._vocabulary,
            self._tokenizer,
            self._split,
        )
        np.save(folder / "offsets.npy", offsets)
        split = None if self._split is None else self._split._asdict()
        document = {"schema": _SCHEMA} | dataclasses.asdict(facts) | {"split": split}
        (folder / "store.json").write_text(json.dumps(document), "utf-8")
        self._file.flush()
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def write_store(
    folder: Path,
    row_tokens: int,
    vocabulary: int,
    tokenizer: str | None = None,
    split: Split | None = None,
) -> Iterator[StoreWriter]:
    """Gives what writes a store; `folder` is there, whole, when all went well.

    The rows are written to a hidden folder beside it, mode 0700, that a killed build leaves and the next one removes.

    Args:
        folder: of the store; must not exist.
        row_tokens: T, pieces of a row.
        vocabulary: pieces of the tokenizer, at most MAX_VOCABULARY.
        tokenizer, split: as in StoreFacts.

    Raises:
        ValueError: the folder exists or cannot be written, another build is at work on it, or no row was written.
    """
    if not 1 <= vocabulary <= MAX_VOCABULARY:
        raise ValueError(f"vocabulary is {vocabulary}, must be 1 to {MAX_VOCABULARY}")
    if folder.exists():
        raise ValueError(f"{folder}: exists: remove it, or give another folder")
    partial = folder.with_name(f".{folder.name}.partial")
    with contextlib.ExitStack() as stack:
        try:
            partial.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in partial.iterdir():
                left.unlink()
        except BlockingIOError:
            raise ValueError(f"{folder}: another build is at work: wait for it") from None
        except OSError as error:
            raise ValueError(
                f"{folder}: cannot be written ({error.strerror}): give another folder"
            ) from None
        try:
            rows_path = partial / "rows.bin"
            writer = StoreWriter(rows_path, row_tokens, vocabulary, tokenizer, split)
            with writer._file:
                yield writer
                writer._finish(partial)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

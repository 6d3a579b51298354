"""A running ledger on disk: what holds for all rounds is written once, and each round is appended to it."""

import hashlib
import os
from pathlib import Path

from federated.ledger import Ledger
from federated.round_records import decode_rounds

Mark = dict[str, int | str]
"""`rounds`, `bytes` and `sha256` of a ledger file up to a round. What comes after it, a killed run has left."""


class LedgerFile:
    """A file of the ledger without its rounds, as one line of JSON, and of the rounds as `RoundRecords` encodes them.

    Whoever appends keeps the mark, and hands it in to read: rounds that were appended and not marked before the run was
    killed are left out, and overwritten by the next ones. So a round is there once, whenever the run ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._of: tuple[Ledger, tuple[Ledger, ...]] | None = None  # what the file holds
        self._rounds = self._bytes = 0
        self._digest = hashlib.sha256()

    def append(self, ledger: Ledger) -> Mark:
        """Adds the rounds that the file does not have yet; they are on disk when this returns."""
        if self._of is None or self._of[0] is not ledger or self._of[1] is not ledger.earlier:
            self._write(ledger)
        else:
            added = ledger.rounds.encoded(self._rounds)
            with self.path.open("r+b") as file:
                file.truncate(self._bytes)
                file.seek(self._bytes)
                file.write(added)
                file.flush()
                os.fsync(file.fileno())
            self._count(added)
        self._rounds = len(ledger.rounds)
        return {
            "rounds": self._rounds,
            "bytes": self._bytes,
            "sha256": self._digest.copy().hexdigest(),
        }

    def _write(self, ledger: Ledger) -> None:
        """All of it, under a temporary name: a checkpoint of the same run goes on with the new file as with the old."""
        without_rounds = Ledger(ledger.promise)
        without_rounds.earlier = ledger.earlier
        content = f"{without_rounds.to_json()}\n".encode() + ledger.rounds.encoded(0)
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path)
        self._of, self._bytes, self._digest = (ledger, ledger.earlier), 0, hashlib.sha256()
        self._count(content)

    def _count(self, added: bytes) -> None:
        self._bytes += len(added)
        self._digest.update(added)

    def read(self, mark: Mark) -> Ledger:
        """The ledger as it was when `mark` was returned, every round checked anew; later rounds go on from there.

        Raises:
            ValueError: the file is missing or not the one that was marked.
            LedgerError: a round breaks the ledger's own promise.
        """
        content = b""
        if self.path.exists():
            with self.path.open("rb") as file:
                content = file.read(int(mark["bytes"]))
        digest = hashlib.sha256(content)
        if digest.hexdigest() != mark["sha256"]:
            raise ValueError(
                f"{self.path}: is not the ledger that its checkpoint was saved with: remove both to start anew"
            )
        head, _, _ = content.partition(b"\n")
        ledger = Ledger.from_json(head.decode())
        for selected, reported in decode_rounds(memoryview(content)[len(head) + 1 :]):
            ledger.record(len(ledger.rounds), selected, reported)
        self._of, self._rounds = (ledger, ledger.earlier), len(ledger.rounds)
        self._bytes, self._digest = len(content), digest
        return ledger

"""The committed list of complete benchmark runs: entries are added at its end, and none is ever changed."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from eval.benchmark import Count, Protocol, Sha256, describe_fault

LEADERBOARD = Path(__file__).parent / "leaderboard.json"
Share = Annotated[float, pydantic.Field(ge=-1, le=1)]
_NAME = r"^[\w .+-]{1,60}$"


class Figure(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A share or a difference of two, and its interval."""

    value: Share
    low: Share
    high: Share


class Row(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A row of `benchmark.build_table`."""

    name: str
    title: str
    kind: str
    top1: Figure
    top3: Figure
    top1_all: Figure
    top3_all: Figure
    bytes: Count
    p50_ms: Annotated[float, pydantic.Field(gt=0)] | None
    difference: Figure | None


class ProtocolMark(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Which protocol a table was measured by."""

    version: Count
    sha256: Sha256


class Entry(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A complete run.

    Attributes:
        name: given by who submits; once in a leaderboard.
        sha256: of the entry before and all of this one, so that a change of either shows.
    """

    name: Annotated[str, pydantic.Field(pattern=_NAME)]
    protocol: ProtocolMark
    date: str
    version: str
    commit: str | None
    environment: dict[str, str | int | None]
    users: Count
    targets: Count
    finding: str
    rows: tuple[Row, ...]
    sha256: Sha256


class Leaderboard(pydantic.BaseModel, frozen=True, extra="forbid"):
    """All entries, the oldest first."""

    entries: tuple[Entry, ...]


def load_leaderboard(path: Path, protocol: Protocol) -> Leaderboard:
    """The leaderboard of a file.

    Args:
        path: the file.
        protocol: the current one.

    Raises:
        ValueError: no leaderboard; a name comes twice; an entry was changed after it was added; its protocol's hash is
            not that of the protocol of its version, or of others of that version.
    """
    try:
        board = Leaderboard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {describe_fault(error)}") from None
    hashes = {protocol.version: protocol.sha256}
    names: set[str] = set()
    before = ""
    for number, entry in enumerate(board.entries):
        where = f"{path}: entries.{number}"
        if entry.name in names:
            raise ValueError(f"{where}.name: {entry.name} is there already")
        names.add(entry.name)
        if entry.sha256 != _seal(before, entry.model_dump(mode="json", exclude={"sha256"})):
            raise ValueError(
                f"{where}.sha256: the entry, or one before it, was changed: restore it"
            )
        known = hashes.setdefault(entry.protocol.version, entry.protocol.sha256)
        if entry.protocol.sha256 != known:
            raise ValueError(
                f"{where}.protocol.sha256: is not the hash of protocol {entry.protocol.version}: a protocol never"
                " changes without its version"
            )
        before = entry.sha256
    return board


def check_name(board: Leaderboard, name: str) -> None:
    """Raises ValueError if an entry cannot be called so, or one is."""
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            f"{name!r}: a name has 1 to 60 letters, digits, spaces or . + - _: give another"
        )
    if any(entry.name == name for entry in board.entries):
        raise ValueError(f"{name} is in the leaderboard already: give another name")


def extend_leaderboard(
    path: Path,
    name: str,
    table: Mapping[str, Any],
    protocol: Protocol,
    facts: Mapping[str, Any],
) -> Entry:
    """Adds a complete table at the end.

    Args:
        path: the file.
        name: of the entry.
        table: what `keyfed benchmark` wrote.
        protocol: the current one.
        facts: `date`, `version`, `commit`, `environment` of the entry.

    Raises:
        ValueError: the table is not complete, is of another protocol or other users, the name is taken or no name, or
            `load_leaderboard` refuses the file.
    """
    board = load_leaderboard(path, protocol)
    check_name(board, name)
    if table["protocol"] != {"version": protocol.version, "sha256": protocol.sha256}:
        raise ValueError(
            f"the table is of protocol {table['protocol']['version']} with another hash than the committed one: run"
            " keyfed benchmark without --protocol"
        )
    missing = [row for row in protocol.rows if row not in {row["name"] for row in table["rows"]}]
    if missing:
        raise ValueError(f"the table is not complete: it has no {', '.join(missing)}")
    protocol.require(
        "test", protocol.facts["test"] | {key: table[key] for key in ("users", "targets")}
    )
    content: dict[str, Any] = {"name": name, "protocol": table["protocol"], **facts}
    content |= {key: table[key] for key in ("users", "targets", "finding", "rows")}
    before = board.entries[-1].sha256 if board.entries else ""
    try:
        plain = Entry.model_validate(content | {"sha256": "0" * 64})
    except pydantic.ValidationError as error:
        raise ValueError(f"{name}: {describe_fault(error)}") from None
    sealed = plain.model_dump(mode="json", exclude={"sha256"})
    entry = plain.model_copy(update={"sha256": _seal(before, sealed)})
    extended = Leaderboard(entries=(*board.entries, entry)).model_dump(mode="json")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(extended, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)
    return entry


def _seal(before: str, entry: Mapping[str, Any]) -> str:
    content = json.dumps([before, entry], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()

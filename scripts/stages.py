"""Resumable stages: a folder each, written whole or not at all, not run again while what it depends on is the same."""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.progress import say

_ROOT = Path(__file__).parent.parent
_RECORD = "stage.json"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: folder below the run's.
        settings: configuration and names of data that decide the result; JSON values, never private text.
        rooms: packages (or files of them) whose code decides the result.
        needs: stages whose folders it reads.
        build: fills the folder it is given; may find there what an earlier, interrupted call left.
    """

    name: str
    settings: Mapping[str, Any]
    rooms: tuple[str, ...]
    needs: tuple["Stage", ...]
    build: Callable[[Path], None]

    def fingerprint(self) -> str:
        """Hash of everything that decides the result."""
        facts = {
            "name": self.name,
            "settings": self.settings,
            "code": [hash_code(room) for room in self.rooms],
            "needs": [stage.fingerprint() for stage in self.needs],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@functools.cache
def hash_code(room: str) -> str:
    """Hash of a package's (or one file's) code and data files."""
    path = _ROOT / room
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        if file.suffix not in (".pyc", ".md"):
            digest.update(
                f"{file.relative_to(_ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest()
            )
    return digest.hexdigest()


@contextlib.contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Keeps a second process away from the run's folder.

    Raises:
        ValueError: the folder cannot be written, or another process works in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as error:
        raise ValueError(
            f"{out}: cannot be written ({error.strerror}): give another --out"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{out}: another keyfed works here: wait for it, or give another --out"
            ) from None
        yield


def run_stage(stage: Stage, out: Path, force: bool = False) -> Path:
    """The stage's folder, built if it is missing or out of date, or anyway with `force`.

    The folder gets its name when it is complete. What an interrupted build left is found again by the next one as long
    as nothing that decides the result has changed, and removed otherwise.
    """
    folder, fingerprint = out / stage.name, stage.fingerprint()
    if not force and _recorded_fingerprint(folder) == fingerprint:
        return folder
    prefix = "." + stage.name.replace("/", ".")
    partial = out / f"{prefix}.{fingerprint[:16]}"
    for stale in out.glob(f"{prefix}.*"):
        if force or stale != partial:
            shutil.rmtree(stale)
    if (
        _recorded_fingerprint(partial) != fingerprint
    ):  # else it was killed between the last two renames
        partial.mkdir(parents=True, exist_ok=True)
        say(f"{stage.name} ...")
        started = time.monotonic()
        stage.build(partial)
        record = {
            "fingerprint": fingerprint,
            "settings": stage.settings,
            "seconds": round(time.monotonic() - started, 2),
        }
        temporary = partial / f"{_RECORD}.tmp"
        temporary.write_text(json.dumps(record, indent=1), "utf-8")
        temporary.rename(partial / _RECORD)
        say(f"{stage.name}: {record['seconds']} s")
    if folder.exists():
        folder.rename(out / f"{prefix}.old")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(folder)
    shutil.rmtree(out / f"{prefix}.old", ignore_errors=True)
    return folder


def stage_seconds(folder: Path) -> float:
    """Seconds that the stage's last build took; one that was interrupted counts from where it went on."""
    return float(json.loads((folder / _RECORD).read_text("utf-8"))["seconds"])


def recorded_settings(folder: Path) -> Any:
    """Settings that the stage in a folder was built with; None if there is none."""
    return _read_record(folder).get("settings")


def _recorded_fingerprint(folder: Path) -> str | None:
    return _read_record(folder).get("fingerprint")


def _read_record(folder: Path) -> dict[str, Any]:
    """Empty where there is none that can be read."""
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}

"""The log of an LLM's answers: a line of JSON each, on disk before the next request follows.

A corpus is a pure function of its logs, so a killed run goes on where it was.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any


class AnswerLog:
    """The answers of a run as lines of JSON, open in one process at a time.

    What a killed process left of a line is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError where another process has the log open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"{path}: in use by another process; wait for it or stop it"
            ) from error
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Returns when the line is on disk."""
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_log(path: Path, known: Collection[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """The entries of a log; those from before there were families are of family "chat".

    Args:
        path: of the log.
        known: family and sha256 of the prompts at hand. With others, copies of what was shown
            could not be found.

    Raises:
        ValueError: names the line that is no answer, or was made with other prompts.
    """
    with path.open("rb") as log:
        for number, line in enumerate(log, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: no JSON; remove the line") from error
            match entry:
                case {
                    "run": {"seed": int(), "prompts_sha256": str(prompts_sha256)},
                    "number": int(),
                    "register": str(),
                    "topic": str(),
                    "sampling": {"temperature": float()},
                    "model": {"name": str()},
                    "text": str(),
                }:
                    family = entry.setdefault("family", "chat")
                    if (family, prompts_sha256) not in known:
                        raise ValueError(
                            f"{path}: line {number}: field run.prompts_sha256: made with other "
                            f"prompts of family {family}; start in another folder"
                        )
                    yield entry
                case _:
                    raise ValueError(f"{path}: line {number}: no answer of keyfed; remove the line")

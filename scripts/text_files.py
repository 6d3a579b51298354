"""Files of texts that commands read and write: a line each, or JSONL of {text}, both also as .gz."""

import contextlib
import gzip
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO


def read_lines(path: Path, title: str) -> Iterator[tuple[int, str]]:
    """Texts that are not blank, each on one line, with their numbers from 1, as they are asked for.

    The whole file is read once before, so that a fault in it shows before anything is done. Shows progress as `title`.

    Raises:
        ValueError: names file, line, field and what to mend.
    """
    from scripts.progress import show_progress
    from synthetic_text.corpora import read_texts

    total = sum(1 for _ in read_texts(path))
    with show_progress(title, total) as advance:
        for number, text in enumerate(read_texts(path), 1):
            if line := " ".join(text.split()):
                yield number, line
            advance(number)


def in_blocks(lines: Iterator[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    """The lines in lists of `size`, the last one shorter."""
    while block := list(itertools.islice(lines, size)):
        yield block


class Write:
    """Writes records to an open file: their text, or all of them as JSON."""

    def __init__(self, file: TextIO, is_json: bool) -> None:
        self._file = file
        self._is_json = is_json

    def __call__(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False) if self._is_json else record["text"]
        self._file.write(f"{line}\n")


@contextlib.contextmanager
def write_texts(path: Path, *endings: str) -> Iterator[Write]:
    """Gives what writes records to `path`; the file is there, whole, when all went well.

    Raises:
        ValueError: another ending than text or JSONL (or `endings`), or the file cannot be written.
    """
    plain = path.name.removesuffix(".gz")
    endings = endings or (".txt", ".jsonl")
    if not plain.endswith(endings):
        raise ValueError(f"{path}: its name ends in none of {', '.join(endings)}: rename it")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with contextlib.ExitStack() as files:
            raw: Any = files.enter_context(temporary.open("wb"))
            if path.suffix == ".gz":  # without name and time: equal text gives equal files
                raw = files.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
            file = files.enter_context(io.TextIOWrapper(raw, "utf-8"))
            yield Write(file, plain.endswith(".jsonl"))
        temporary.rename(path)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror}): give a file in a folder of yours"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)

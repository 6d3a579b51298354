"""The corpus of phone messages that a language model wrote: what may be in it, and its files.

`load_llm_chats` reads the corpus committed here; `Sift` takes what is good from answers as they
come. A file holds the answers of one family, one JSON object a line.
"""

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from synthetic_text.filters import (
    HEURISTIC_FILTERS,
    SHORT_WORDS,
    Filter,
    copy_filter,
    list_words,
    normalize_message,
)

CORPUS_NAMES: Mapping[str, str] = {
    "chat": "llm_chats",
    "everyday": "llm_everyday",
    "message": "llm_messages",
}
"""Name of the files of each family."""

_SHORT_REPEATS, _SHORT_REPEAT_SHARE = 20, 0.005
_LONG_REPEATS = 3
_SHORT_REPEATS_IN_CHAT, _LONG_REPEATS_IN_CHAT = 3, 1


@dataclass(frozen=True)
class Message:
    """One line of the corpus."""

    text: str
    family: str
    """chat, everyday or message."""
    stratum: str
    """Cell of the tables that it was written for."""
    topic: str
    chat: int
    """Number of the answer among those of its family, from 0."""
    speaker: str
    """A or B; single messages are all A's."""


@dataclass
class Counts:
    """What answers held and what became of it."""

    answers: int = 0
    lines: int = 0
    messages: int = 0
    words: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Lines by the first reason against them; `lines` is their sum and `messages`."""


class Sift:
    """Takes answers in order and keeps the messages that pass every heuristic filter.

    Besides these it rejects what other messages are needed to see: copies of the few-shot
    messages, and what has been said too often.

    Attributes:
        counts: of all answers so far.
    """

    def __init__(self, shown: Iterable[str]) -> None:
        self._filters = (*HEURISTIC_FILTERS, copy_filter(shown))
        self._seen: Counter[tuple[str, ...]] = Counter()
        self.counts = Counts()

    def accept(self, lines: Iterable[tuple[str, str]]) -> list[tuple[str, str, str | None]]:
        """Speaker, text, and the reason against it or None, of each line of an answer."""
        self.counts.answers += 1
        sifted = []
        in_answer: Counter[tuple[str, ...]] = Counter()
        for speaker, text in lines:
            self.counts.lines += 1
            plain = tuple(normalize_message(text).split())
            reason = self._find_reason(speaker, text, plain, in_answer)
            if reason:
                self.counts.rejected[reason] += 1
            else:
                self._seen[plain] += 1
                self.counts.messages += 1
                self.counts.words += len(list_words(text))
            in_answer[plain] += 1
            sifted.append((speaker, text, reason))
        return sifted

    def _find_reason(
        self,
        speaker: str,
        text: str,
        plain: tuple[str, ...],
        in_answer: Mapping[tuple[str, ...], int],
    ) -> str | None:
        if not speaker:
            return "no speaker"
        for one in self._filters:
            if one([text])[0]:
                return one.reason
        is_short = len(plain) <= SHORT_WORDS
        if in_answer[plain] >= (_SHORT_REPEATS_IN_CHAT if is_short else _LONG_REPEATS_IN_CHAT):
            return "repetition"
        if self._seen[plain] >= self._count_allowed(is_short):
            return "said too often"
        return None

    def _count_allowed(self, is_short: bool) -> int:
        """Short messages come again in any chat, in proportion to all of it; long ones hardly do."""
        if not is_short:
            return _LONG_REPEATS
        return max(_SHORT_REPEATS, round(_SHORT_REPEAT_SHARE * self.counts.messages))


def list_corpus_filters() -> list[Filter]:
    """What is tried on a whole corpus after the sift: personal data, language, toxicity."""
    from synthetic_text.filters import language_filter, personal_data_filter, toxicity_filter

    return [personal_data_filter(), language_filter(), toxicity_filter()]


def encode_messages(messages: Sequence[Message]) -> bytes:
    """A gzip file, the same for the same messages: an answer a line, its messages as [speaker, text]."""
    lines = []
    for (chat, topic, stratum), said in groupby(messages, lambda m: (m.chat, m.topic, m.stratum)):
        record = {
            "chat": chat,
            "topic": topic,
            "stratum": stratum,
            "messages": [[message.speaker, message.text] for message in said],
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return gzip.compress("".join(lines).encode(), mtime=0)


def decode_messages(data: bytes, family: str) -> list[Message]:
    """Inverse of `encode_messages`, for messages of one family."""
    return [
        Message(text, family, record["stratum"], record["topic"], record["chat"], speaker)
        for record in map(json.loads, gzip.decompress(data).decode().splitlines())
        for speaker, text in record["messages"]
    ]


def load_llm_chats() -> list[Message]:
    """The committed corpus, chats, everyday chats, single messages, each in the order they were written.

    Raises:
        ValueError: a file is not the one its card describes.
    """
    return [message for family in CORPUS_NAMES for message in read_corpus(family)[0]]


def read_corpus(family: str) -> tuple[list[Message], Mapping[str, Any]]:
    """Messages and card of a family's committed corpus.

    Args:
        family: chat, everyday or message.

    Raises:
        ValueError: the file is not the one its card describes.
    """
    folder = files("synthetic_text") / "data"
    name = CORPUS_NAMES[family]
    data = (folder / f"{name}.jsonl.gz").read_bytes()
    card: Mapping[str, Any] = json.loads((folder / f"{name}.card.json").read_text("utf-8"))
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ValueError(
            f"{name}.jsonl.gz: sha256 differs from the one in {name}.card.json; "
            "check both files out again"
        )
    return decode_messages(data, family), card


def write_file(path: Path, data: bytes) -> None:
    """By renaming; the folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)

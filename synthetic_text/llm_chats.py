"""The corpus of phone chats that a language model wrote: answers sifted, written with a card, read.

`load_llm_chats` reads the corpus committed here; `Sift` says what may be in it and counts the rest.
"""

import gzip
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

CORPUS_NAME = "llm_chats"

_MAX_WORDS = 60
_SHORT_WORDS = 3  # messages up to this length ("ok", "on my way") are anybody's: no copies
_SHORT_REPEATS, _SHORT_REPEAT_SHARE = 20, 0.005
_LONG_REPEATS = 3
_SHORT_REPEATS_IN_CHAT, _LONG_REPEATS_IN_CHAT = 3, 1
_COPY_RUN_WORDS = 6


@dataclass(frozen=True)
class Message:
    """One line of the corpus."""

    text: str
    topic: str
    chat: int
    """Number of the answer in the log, from 0."""
    speaker: str
    """A or B."""


@dataclass
class Counts:
    """What answers held and what became of it."""

    answers: int = 0
    lines: int = 0
    messages: int = 0
    words: int = 0
    word_forms: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Lines by the first reason against them; `lines` is their sum and `messages`."""


def parse_answer(text: str) -> list[tuple[str, str]]:
    """Speaker and text of each line of an answer, which goes on after "A:".

    The speaker is "" where a line names none.
    """
    messages = []
    for line in ("A:" + text).splitlines():
        speaker, colon, message = line.strip().partition(":")
        if colon and speaker in ("A", "B"):
            messages.append((speaker, " ".join(message.split())))
        elif line.strip():
            messages.append(("", " ".join(line.split())))
    return messages


def list_words(text: str) -> list[str]:
    """Lower-case words as blanks separate them, without outer punctuation."""
    stripped = (_OUTER_PUNCTUATION.sub("", word) for word in text.lower().split())
    return [word for word in stripped if word]


def normalize_message(text: str) -> str:
    """The form in which two messages are the same: words only, straight apostrophes."""
    return " ".join(list_words(unicodedata.normalize("NFKC", text).replace("’", "'")))


def is_empty(text: str) -> bool:
    """No word, and no emoji or "?!" either."""
    return not list_words(text) and not any(
        unicodedata.category(c) == "So" or c in "?!" for c in text
    )


def is_too_long(text: str) -> bool:
    return len(text.split()) > _MAX_WORDS or len(text) > 8 * _MAX_WORDS


def is_markup(text: str) -> bool:
    """Tags, brackets, list bullets, speaker labels, and phrases of assistants and of our prompt."""
    return _MARKUP.search(text) is not None


def is_repetitive(text: str) -> bool:
    """A word five times running, a phrase three times, a run of one character, few distinct words."""
    words = list_words(text)
    return (
        _CHARACTER_RUN.search(text) is not None
        or any(len(set(run)) == 1 for run in _runs(words, 5))
        or any(count >= 3 for count in Counter(_runs(words, 3)).values())
        or (len(words) >= 10 and len(set(words)) < 0.5 * len(words))
    )


def is_not_latin(text: str) -> bool:
    return any(c.isalpha() and not unicodedata.name(c, "").startswith("LATIN") for c in text)


def is_personal(text: str) -> bool:
    """An e-mail or web address, an @handle, or digits enough for a phone number."""
    return _PERSONAL.search(text) is not None


FILTERS: Sequence[tuple[str, Callable[[str], bool]]] = (
    ("empty", is_empty),
    ("too long", is_too_long),
    ("markup", is_markup),
    ("repetition", is_repetitive),
    ("not Latin", is_not_latin),
    ("personal data", is_personal),
)
"""Reasons against a message by itself, in the order they are tried."""


class Sift:
    """Takes answers in order and keeps the messages that pass every filter.

    Besides FILTERS it rejects what other messages are needed to see: copies of the few-shot
    dialogues, and what has been said too often.
    """

    def __init__(self, few_shot_messages: Iterable[str]) -> None:
        shown = [normalize_message(message).split() for message in few_shot_messages]
        self._shown = {tuple(words) for words in shown if len(words) > _SHORT_WORDS}
        self._shown_runs = {run for words in shown for run in _runs(words, _COPY_RUN_WORDS)}
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._forms: set[str] = set()
        self.counts = Counts()

    def accept(self, answer: str, topic: str) -> list[Message]:
        """The messages to keep of an answer."""
        chat = self.counts.answers
        self.counts.answers += 1
        kept: list[Message] = []
        in_chat: Counter[tuple[str, ...]] = Counter()
        for speaker, text in parse_answer(answer):
            self.counts.lines += 1
            plain = tuple(normalize_message(text).split())
            if reason := self._find_reason(speaker, text, plain, in_chat):
                self.counts.rejected[reason] += 1
            else:
                kept.append(Message(text, topic, chat, speaker))
                words = list_words(text)
                self._seen[plain] += 1
                self._forms.update(words)
                self.counts.messages += 1
                self.counts.words += len(words)
                self.counts.word_forms = len(self._forms)
            in_chat[plain] += 1
        return kept

    def _find_reason(
        self,
        speaker: str,
        text: str,
        plain: tuple[str, ...],
        in_chat: Mapping[tuple[str, ...], int],
    ) -> str | None:
        if not speaker:
            return "no speaker"
        for reason, is_bad in FILTERS:
            if is_bad(text):
                return reason
        if plain in self._shown or not self._shown_runs.isdisjoint(_runs(plain, _COPY_RUN_WORDS)):
            return "copy of a few-shot dialogue"
        if in_chat[plain] >= (
            _LONG_REPEATS_IN_CHAT if len(plain) > _SHORT_WORDS else _SHORT_REPEATS_IN_CHAT
        ):
            return "repetition"
        if self._seen[plain] >= self._count_allowed(len(plain)):
            return "said too often"
        return None

    def _count_allowed(self, words: int) -> int:
        """Short messages come again in any chat, in proportion to all of it; long ones hardly do."""
        if words > _SHORT_WORDS:
            return _LONG_REPEATS
        return max(_SHORT_REPEATS, round(_SHORT_REPEAT_SHARE * self.counts.messages))


def write_llm_chats(
    messages: Iterable[Message], counts: Counts, provenance: Mapping[str, Any], directory: Path
) -> None:
    """Writes `llm_chats.jsonl.gz` and its card, `.card.json` and `.card.md`, each by renaming.

    Args:
        messages: in the order to keep.
        counts: of the sift that let them through.
        provenance: models, prompts and sampling, as `generation.build_corpus` finds them in a log.
        directory: made if missing.
    """
    lines = [json.dumps(asdict(message), ensure_ascii=False) + "\n" for message in messages]
    data = gzip.compress("".join(lines).encode(), mtime=0)
    card = {
        "name": CORPUS_NAME,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "licence": _LICENCE,
        **provenance,
        "counts": asdict(counts) | {"rejected": dict(counts.rejected.most_common())},
        "known_gaps": _KNOWN_GAPS,
    }
    directory.mkdir(parents=True, exist_ok=True)
    for ending, content in (
        ("jsonl.gz", data),
        ("card.json", (json.dumps(card, indent=2) + "\n").encode()),
        ("card.md", _describe(card).encode()),
    ):
        temporary = directory / f"{CORPUS_NAME}.{ending}.tmp"
        temporary.write_bytes(content)
        temporary.replace(temporary.with_suffix(""))


def load_llm_chats() -> list[Message]:
    """The committed corpus, in the order it was written.

    Raises:
        ValueError: the file is not the one its card describes.
    """
    folder = files("synthetic_text") / "data"
    data = (folder / f"{CORPUS_NAME}.jsonl.gz").read_bytes()
    card = json.loads((folder / f"{CORPUS_NAME}.card.json").read_text("utf-8"))
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ValueError(
            f"{CORPUS_NAME}.jsonl.gz: sha256 differs from the one in {CORPUS_NAME}.card.json; "
            "check both files out again"
        )
    return [Message(**json.loads(line)) for line in gzip.decompress(data).decode().splitlines()]


_OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
_CHARACTER_RUN = re.compile(r"([^\W\d])\1{9}|(\S)\2{14}|(\S{2,4}?)\3{7}")
_MARKUP = re.compile(
    r"</?[a-z!]|[{}\[\]|\\�]|\*\*|__|```|&\w+;|##|^[-•]\s|^\d+[.)]\s|\b[a-z]:\s"
    r"|\b(?:as an ai|language model|phone chats)\b",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"\S@\S+\.\w|\bhttps?:|\bwww\.|\b[\w-]+\.(?:com|org|net|edu|gov|io|co\.uk|ly|tv)\b"
    r"|(?<!\w)@\w{2,}|\(?\d(?:[\s().-]{0,2}\d){6,}",
    re.IGNORECASE,
)
_LICENCE = (
    "Written by Gemma 3 270M. Gemma is provided under and subject to the Gemma Terms of Use found "
    "at ai.google.dev/gemma/terms; Google claims no rights in outputs. The prompts are this "
    "project's own."
)
_KNOWN_GAPS = [
    "A 270M base model wrote it: messages are fluent, but chats lose their thread, contradict "
    "themselves and often leave their topic.",
    "Facts, names and places are made up; any likeness to persons is chance.",
    "English only. Registers are those of the prompts, not sampled from a population; the casual "
    "one overdoes 'u' and 'ur'.",
    "No typing errors: the typing simulator adds them.",
    "Not screened for toxicity.",
]


def _describe(card: Mapping[str, Any]) -> str:
    counts = card["counts"]
    models = [f"{m['name']} (sha256 {m.get('sha256', 'unknown')})" for m in card["models"]]
    rows = {
        "file": f"`{card['name']}.jsonl.gz`, {card['bytes']:,} bytes, sha256 {card['sha256']}",
        "model": ", ".join(models),
        "licence": card["licence"],
        "prompts": f"{card['dialogues']} dialogues, {card['dialogues_per_prompt']} of one register "
        f"a prompt; {card['topics']} topics, {card['topics_used']} used; "
        f"sha256 {card['prompts_sha256']}",
        "sampling": "; ".join(json.dumps(settings) for settings in card["sampling"]),
        "seeds": json.dumps(card["seeds"]),
        "answers by temperature": json.dumps(card["answers_by_temperature"]),
        "answers by register": json.dumps(card["answers_by_register"]),
        "answers": f"{counts['answers']:,}",
        "lines in them": f"{counts['lines']:,}",
        **{f"rejected: {reason}": f"{count:,}" for reason, count in counts["rejected"].items()},
        "messages": f"{counts['messages']:,}",
        "words": f"{counts['words']:,}",
        "word forms": f"{counts['word_forms']:,}",
    }
    return "\n".join(
        [
            f"# {card['name']}",
            "",
            "Two-person phone chats written by a language model from few-shot prompts, for",
            "pre-training keyboards. One message a line: `text`, `topic`, `chat`, `speaker`.",
            "Made by `keyfed synthesize generate`. Sampling in batches does not repeat bit for",
            "bit, so this file, and not the seed, is the record.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            "Known gaps:",
            "",
            *(f"* {gap}" for gap in card["known_gaps"]),
            "",
        ]
    )


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))

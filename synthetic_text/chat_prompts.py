"""Prompts for chats between two personas: a few dialogues of one register, then a topic.

Two families, by what is shown. "chat" has dialogues full of particulars (`dialogues_*.json`) and writes a wide
vocabulary; "everyday" has plain ones of the phrases that most chats are made of (`everyday.json`), asked for at lower
temperatures. A word 4-gram of 150,000 words of either says 12.8 and 13.4 % of the next words of 254 people who are no
test users, and one of both 14.1 %.

The dialogues and topics (`prompts/`) are hand-written. Who chats is drawn from `tables/` and decides
the register, and whether the topic may be dating, but is not said in the prompt: the embedded model
made little of personas there (`message_prompts`), but it keeps to a topic that stands alone: 36 % of
5,457 chats had a word of theirs in them, 3 % one of another chat's topic.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from synthetic_text.personas import Persona, Tables, draw_group, draw_pair
from synthetic_text.prompting import (
    TEMPERATURES,
    Request,
    draw_sampling,
    hash_json,
    number_prompt_set,
    read_json,
)

HEADER = "Phone chats between two people."
DIALOGUES_PER_PROMPT = 4
MAX_TOKENS = 220

_DIALOGUES = {"chat": "dialogues*.json", "everyday": "everyday*.json"}
_REGISTERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "chat": {
        "casual": ("casual", "casual", "brief"),
        "expressive": ("casual",),
        "plain": ("plain", "plain", "brief"),
        "standard": ("plain",),
    },
    "everyday": {  # of chat messages 31 % start in lower case, so most are plain
        "casual": ("casual", "casual", "plain"),
        "expressive": ("casual", "plain"),
        "plain": ("plain",),
        "standard": ("plain",),
    },
}
_TEMPERATURES = {"chat": TEMPERATURES, "everyday": (0.8, 0.9, 1.0)}
_ADULT_GROUPS = frozenset({"dating and relationships"})


@dataclass(frozen=True)
class Dialogue:
    """A hand-written chat of two persons, A first, taking turns."""

    topic: str
    register: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class ChatPrompts:
    """What the model is shown: dialogues as examples, and topics to write about."""

    dialogues: tuple[Dialogue, ...]
    topics: tuple[str, ...]

    @cached_property
    def sha256(self) -> str:
        return hash_json(asdict(self))


@dataclass(frozen=True)
class FewShotChats:
    """Families "chat" and "everyday" for base models: the answer goes on after "A:"."""

    name: str
    """chat or everyday."""
    prompts: ChatPrompts
    topic_groups: Mapping[str, str]
    tables: Tables

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        return {
            "prompts_sha256": self.prompts.sha256,
            "tables_sha256": self.tables.sha256,
        }

    @cached_property
    def shown(self) -> tuple[str, ...]:
        return tuple(m for dialogue in self.prompts.dialogues for m in dialogue.messages)

    def build_request(self, seed: int, number: int) -> Request:
        """No topic comes again before all have come; dating is for adults."""
        prompt_set = number_prompt_set(number)
        dialect, style = draw_group(self.tables, seed, prompt_set)
        rng = random.Random(f"{seed}/dialogues/{prompt_set}")
        register = rng.choice(_REGISTERS[self.name][style])
        dialogues = [d for d in self.prompts.dialogues if d.register == register]
        shown = rng.sample(dialogues, DIALOGUES_PER_PROMPT)

        cycle, position = divmod(number, len(self.prompts.topics))
        rng = random.Random(f"{seed}/topics/{cycle}")
        topic = rng.sample(self.prompts.topics, len(self.prompts.topics))[position]
        first, second = draw_pair(
            self.tables, seed, number, dialect, style, self.topic_groups[topic] in _ADULT_GROUPS
        )
        cell = self.describe_cell(first, second, topic, register)
        rng = random.Random(f"{seed}/request/{number}")
        sampling = draw_sampling(rng, MAX_TOKENS, _TEMPERATURES[self.name])
        return Request(
            number=number,
            prompt_set=prompt_set,
            cell=cell,
            seed=rng.randrange(2**31),
            sampling=sampling,
            prompt="\n\n".join([HEADER, *map(_show, shown), f"[{topic}]\nA:"]),
        )

    def describe_cell(
        self, first: Persona, second: Persona, topic: str, register: str
    ) -> dict[str, Any]:
        return {
            "register": register,
            "topic": topic,
            "personas": [str(first), str(second)],
            "stratum": f"{self.topic_groups[topic]}/{first.age_band}/{first.dialect}",
        }

    def parse(self, answer: str) -> list[tuple[str, str]]:
        return parse_chat("A:" + answer)

    def stratum(self, entry: Mapping[str, Any]) -> str:
        """Topic group, age band and dialect; of old logs topic group and register."""
        return str(
            entry.get("stratum") or f"{self.topic_groups[entry['topic']]}/{entry['register']}"
        )


def load_chat_family(
    tables: Tables, directory: Path | None = None, name: str = "chat"
) -> FewShotChats:
    """Reads the dialogues of a family and `topics.json`, by default those of this package.

    Args:
        tables: personas and how often each is drawn.
        directory: of the files.
        name: "chat", of `dialogues*.json`, or "everyday", of `everyday*.json`.

    Raises:
        ValueError: names file, entry and what it needs.
    """
    root = directory or Path(str(files("synthetic_text") / "prompts"))
    pattern = _DIALOGUES[name]
    dialogues = [d for path in sorted(root.glob(pattern)) for d in _read_dialogues(path)]
    if not dialogues:
        raise ValueError(f"{root}: needs {pattern}")
    counts = Counter(dialogue.register for dialogue in dialogues)
    for register in sorted({register for row in _REGISTERS[name].values() for register in row}):
        if counts[register] < DIALOGUES_PER_PROMPT:
            raise ValueError(
                f"{root}/{pattern}: register {register!r} has {counts[register]} dialogues, "
                f"needs {DIALOGUES_PER_PROMPT}"
            )
    groups = _read_topics(root / "topics.json")
    return FewShotChats(name, ChatPrompts(tuple(dialogues), tuple(groups)), groups, tables)


def parse_chat(text: str) -> list[tuple[str, str]]:
    """Speaker and text of each line "A: text" or "B: text"."""
    messages = []
    for line in text.splitlines():
        speaker, colon, message = line.strip().partition(":")
        if colon and speaker in ("A", "B"):
            messages.append((speaker, " ".join(message.split())))
        elif line.strip():
            messages.append(("", " ".join(line.split())))
    return messages


def _show(dialogue: Dialogue) -> str:
    lines = [f"{'AB'[i % 2]}: {message}" for i, message in enumerate(dialogue.messages)]
    return "\n".join([f"[{dialogue.topic}]", *lines])


def _read_dialogues(path: Path) -> Iterable[Dialogue]:
    for number, entry in enumerate(read_json(path, list), start=1):
        match entry:
            case {"topic": str(topic), "register": str(register), "messages": [_, _, *_] as said}:
                if all(isinstance(message, str) and message.strip() for message in said):
                    yield Dialogue(topic, register, tuple(said))
                    continue
        raise ValueError(
            f"{path}: entry {number}: needs topic, register, and messages (two or more), all text"
        )


def _read_topics(path: Path) -> dict[str, str]:
    """Group of each topic."""
    groups: dict[str, str] = {}
    for group, topics in read_json(path, dict).items():
        if not isinstance(topics, list) or not all(isinstance(t, str) and t for t in topics):
            raise ValueError(f"{path}: group {group!r}: needs a list of topics, all text")
        if repeated := groups.keys() & topics:
            raise ValueError(f"{path}: group {group!r}: topic {min(repeated)!r} comes twice")
        groups |= dict.fromkeys(topics, group)
    return groups

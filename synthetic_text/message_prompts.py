"""Prompts for single messages by persona x relationship x situation x tone.

Shown are a few writers with what they wrote (`prompts/messages.json`, hand-written), of the
persona's typing style, the first of them of the persona's dialect where there is one; the model goes
on with messages to a relationship, about a situation, in a tone.

What the embedded model makes of it, measured on 2,253 answers whose head named the persona too:
style comes through (lower-case start 97 % of lines in casual, 0.6 % in standard; emoji 54 % in
expressive, 0.3 % in the others), relationship and situation in part (words of family in 7.7 % of lines
to relatives and 4.5 % of others, of school 6.9 and 2.0, of work 10.6 and 5.9; a word of the situation
in 10 % of answers, 5 % by chance), dialect and tone hardly (sorry in 5.8 % of apologetic lines, 2.5 %
of others; nothing to see for other tones).
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from synthetic_text.personas import Tables, draw_cell, draw_group
from synthetic_text.prompting import Request, draw_sampling, hash_json, number_prompt_set, read_json

HEADER = "Text messages that people sent from their phones."
EXAMPLES_PER_PROMPT = 4
MAX_TOKENS = 180


@dataclass(frozen=True)
class Example:
    """Hand-written messages of one writer."""

    persona: str
    relationship: str
    situation: str
    tone: str
    dialect: str
    style: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class MessagePrompts:
    """What the model is shown."""

    examples: tuple[Example, ...]

    @cached_property
    def sha256(self) -> str:
        return hash_json(asdict(self))


@dataclass(frozen=True)
class FewShotMessages:
    """Family "message" for base models: the answer is one message a line."""

    prompts: MessagePrompts
    tables: Tables

    name = "message"

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        return {
            "prompts_sha256": self.prompts.sha256,
            "tables_sha256": self.tables.sha256,
        }

    @cached_property
    def shown(self) -> tuple[str, ...]:
        return tuple(m for example in self.prompts.examples for m in example.messages)

    def build_request(self, seed: int, number: int) -> Request:
        """Dialect, style and examples are those of the prompt set."""
        prompt_set = number_prompt_set(number)
        dialect, style = draw_group(self.tables, seed, prompt_set)
        rng = random.Random(f"{seed}/shown/{prompt_set}")
        shown = self._choose_examples(rng, dialect, style)
        cell = draw_cell(self.tables, seed, number, dialect, style).describe()
        head = _head(cell["relationship"], cell["topic"], cell["tone"])
        rng = random.Random(f"{seed}/message/{number}")
        return Request(
            number=number,
            prompt_set=prompt_set,
            cell={**cell, "shown": list(shown)},
            seed=rng.randrange(2**31),
            sampling=draw_sampling(rng, MAX_TOKENS),
            prompt="\n\n".join(
                [HEADER, *(_show(self.prompts.examples[i]) for i in shown), head + "\n"]
            ),
        )

    def parse(self, answer: str) -> list[tuple[str, str]]:
        return parse_messages(answer)

    def stratum(self, entry: Mapping[str, Any]) -> str:
        """Domain, age band and dialect."""
        return str(entry["stratum"])

    def _choose_examples(self, rng: random.Random, dialect: str, style: str) -> tuple[int, ...]:
        numbered = list(enumerate(self.prompts.examples))
        native = [i for i, example in numbered if example.dialect == dialect]
        first = [rng.choice(native)] if native else []
        rest = [i for i, example in numbered if example.style == style and i not in first]
        return (*first, *rng.sample(rest, EXAMPLES_PER_PROMPT - len(first)))


def load_message_family(tables: Tables, directory: Path | None = None) -> FewShotMessages:
    """Reads `messages.json`, by default that of this package.

    Raises:
        ValueError: names file, entry and what it needs.
    """
    path = (directory or Path(str(files("synthetic_text") / "prompts"))) / "messages.json"
    examples = tuple(_read_examples(path))
    counts = Counter(example.style for example in examples)
    for style in {persona.style for persona in tables.personas}:
        if counts[style] <= EXAMPLES_PER_PROMPT:
            raise ValueError(
                f"{path}: style {style!r} has {counts[style]} entries, "
                f"needs {EXAMPLES_PER_PROMPT + 1}"
            )
    return FewShotMessages(MessagePrompts(examples), tables)


def parse_messages(text: str) -> list[tuple[str, str]]:
    """Speaker A and text of each line; the bullets that chat models like are dropped."""
    lines = (" ".join(line.removeprefix("- ").split()) for line in text.splitlines())
    return [("A", line) for line in lines if line]


def _head(relationship: str, situation: str, tone: str) -> str:
    return f"[to {relationship}: {situation}, {tone}]"


def _show(example: Example) -> str:
    head = _head(example.relationship, example.situation, example.tone)
    return "\n".join([head, *example.messages])


def _read_examples(path: Path) -> Iterable[Example]:
    names = {field.name for field in fields(Example)}
    for number, entry in enumerate(read_json(path, list), start=1):
        match entry:
            case {"messages": [_, *_] as messages} if entry.keys() == names:
                texts = {name: value for name, value in entry.items() if name != "messages"}
                if all(isinstance(text, str) and text for text in (*texts.values(), *messages)):
                    yield Example(**texts, messages=tuple(messages))
                    continue
        raise ValueError(
            f"{path}: entry {number}: needs {', '.join(sorted(names))}, messages a list, all text"
        )

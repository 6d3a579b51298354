"""Prompts for instruct models: chats, single messages, and web text rewritten as messages.

The embedded model is a base model, with which none of these works. Filtering by such a model is
`judge`.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Any

from synthetic_text.chat_prompts import FewShotChats, load_chat_family, parse_chat
from synthetic_text.llm import SLOTS
from synthetic_text.message_prompts import parse_messages
from synthetic_text.personas import Tables, draw_cell, draw_group
from synthetic_text.prompting import Request, hash_json, number_prompt_set

TEMPERATURES = (0.8, 1.0)

_MAX_TOKENS = 400
_NOTHING = "NONE"
_STYLES = {
    "casual": "lower case, abbreviations, no apostrophes, hardly any punctuation.",
    "expressive": "emoji, several exclamation marks, stretched words.",
    "plain": "short and quick, capitals and full stops only now and then.",
    "standard": "whole sentences with capitals and punctuation.",
}


@dataclass(frozen=True)
class InstructChats:
    """Family "chat" for instruct models: personas, topics and cells are those of the few-shot one."""

    template: str
    cells: FewShotChats

    name = "chat"
    shown = ()

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        return {
            "prompts_sha256": hash_json([self.template, self.cells.prompts.topics]),
            "tables_sha256": self.cells.tables.sha256,
        }

    def build_request(self, seed: int, number: int) -> Request:
        request = self.cells.build_request(seed, number)
        cell = request.cell
        first, second = cell["personas"]
        style = draw_group(self.cells.tables, seed, request.prompt_set)[1]
        values = {"first": first, "second": second, "topic": cell["topic"], "style": _STYLES[style]}
        return _build(
            request.number, request.prompt_set, cell, seed, self.template.format(**values)
        )

    def parse(self, answer: str) -> list[tuple[str, str]]:
        return parse_chat(answer)

    def stratum(self, entry: Mapping[str, Any]) -> str:
        return str(entry["stratum"])


@dataclass(frozen=True)
class InstructMessages:
    """Family "message" for instruct models."""

    template: str
    tables: Tables

    name = "message"
    shown = ()

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        return {
            "prompts_sha256": hash_json(self.template),
            "tables_sha256": self.tables.sha256,
        }

    def build_request(self, seed: int, number: int) -> Request:
        prompt_set = number_prompt_set(number)
        dialect, style = draw_group(self.tables, seed, prompt_set)
        cell = draw_cell(self.tables, seed, number, dialect, style).describe()
        prompt = self.template.format(**{**cell, "style": _STYLES[style]})
        return _build(number, prompt_set, cell, seed, prompt)

    def parse(self, answer: str) -> list[tuple[str, str]]:
        return parse_messages(answer)

    def stratum(self, entry: Mapping[str, Any]) -> str:
        return str(entry["stratum"])


def load_instruct_families(
    tables: Tables, directory: Path | None = None
) -> tuple[InstructChats, InstructMessages]:
    """Reads `generate_chat.txt` and `generate_messages.txt`, by default those of this package.

    Raises:
        ValueError: names the file and the fields it lacks or has too many.
    """
    chat = _read_template("generate_chat.txt", {"first", "second", "topic", "style"}, directory)
    messages = _read_template(
        "generate_messages.txt",
        {"persona", "relationship", "topic", "tone", "dialect", "style"},
        directory,
    )
    return (
        InstructChats(chat, load_chat_family(tables)),
        InstructMessages(messages, tables),
    )


def convert_with_llm(
    texts: Sequence[str], chat: Callable[[str], str], directory: Path | None = None
) -> list[list[str]]:
    """Web sentences as an instruct model would type them on a phone, SLOTS at a time.

    Args:
        texts: [n] sentences.
        chat: an instruct model, as `llm.connect_chat` gives it.
        directory: of `convert.txt`, by default that of this package.

    Returns:
        [n] messages of each sentence; none where the model says that nobody would type it.

    Raises:
        EndpointError: of the first request that failed, after those under way have ended.
        ValueError: the file lacks {line}.
    """
    template = _read_template("convert.txt", {"line"}, directory)

    def ask(text: str) -> list[str]:
        # As a JSON string a sentence cannot end its own quotation.
        answer = chat(template.format(line=json.dumps(text, ensure_ascii=False)))
        return [line for _, line in parse_messages(answer) if line.rstrip(".") != _NOTHING]

    with ThreadPoolExecutor(SLOTS) as pool:
        try:
            return list(pool.map(ask, texts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _build(
    number: int, prompt_set: int, cell: Mapping[str, Any], seed: int, prompt: str
) -> Request:
    rng = random.Random(f"{seed}/instruct/{number}")
    sampling = {"max_tokens": _MAX_TOKENS, "temperature": rng.choice(TEMPERATURES)}
    return Request(number, prompt_set, cell, rng.randrange(2**31), sampling, prompt)


def _read_template(name: str, fields: set[str], directory: Path | None) -> str:
    path = (directory or Path(str(files("synthetic_text") / "prompts"))) / name
    try:
        template = path.read_text("utf-8")
        found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a template: {error}") from error
    if found != fields:
        raise ValueError(
            f"{path}: has fields {', '.join(sorted(found)) or 'none'}; "
            f"needs {', '.join(sorted(fields))}"
        )
    return template

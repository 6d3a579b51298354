"""What the prompts of all families have in common: a request, a family, and JSON files of prompts."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synthetic_text.llm import SLOTS

REQUESTS_PER_PROMPT_SET = 24
SAMPLING: Mapping[str, Any] = {
    "stop": ["\n\n", "["],
    "repeat_penalty": 1.08,
    "top_k": 200,
    "top_p": 1.0,
}
"""Of base models, whose answer ends before the next entry."""
TEMPERATURES = (0.9, 1.0, 1.1, 1.2)
MIN_PS = (0.02, 0.05)


@dataclass(frozen=True)
class Request:
    """One prompt to the model, determined by the prompts, the run's seed and `number`."""

    number: int
    prompt_set: int
    """Which examples are shown."""
    cell: Mapping[str, Any]
    """What it is written for, as the log keeps it: `topic`, `register`, `stratum`, personas."""
    seed: int
    sampling: Mapping[str, Any]
    prompt: str


class Family(Protocol):
    """A way to ask for text. Requests follow from `hashes`, a seed and a number."""

    @property
    def name(self) -> str:
        """chat, everyday or message."""
        ...

    @property
    def hashes(self) -> Mapping[str, str]:
        """`prompts_sha256`, and `tables_sha256` where requests are drawn from tables."""
        ...

    @property
    def shown(self) -> tuple[str, ...]:
        """Hand-written messages in the prompts, copies of which are no new text."""
        ...

    def build_request(self, seed: int, number: int) -> Request: ...

    def parse(self, answer: str) -> list[tuple[str, str]]:
        """Speaker and text of each line of an answer; speaker "" for a line that names none."""
        ...

    def stratum(self, entry: Mapping[str, Any]) -> str:
        """Of an answer in a log."""
        ...


def number_prompt_set(number: int) -> int:
    """The same for REQUESTS_PER_PROMPT_SET requests SLOTS apart.

    Every slot of the server then finds its own examples in the prefix cache.
    """
    return number // (SLOTS * REQUESTS_PER_PROMPT_SET) * SLOTS + number % SLOTS


def draw_sampling(
    rng: random.Random, max_tokens: int, temperatures: Sequence[float] = TEMPERATURES
) -> dict[str, Any]:
    """SAMPLING with a temperature and a min-p."""
    drawn = {"temperature": rng.choice(temperatures), "min_p": rng.choice(MIN_PS)}
    return {**SAMPLING, "max_tokens": max_tokens, **drawn}


def hash_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, kind: type) -> Any:
    """A JSON array (list) or object (dict) that is not empty.

    Raises:
        ValueError: names the file and what it needs.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, kind) or not content:
        raise ValueError(f"{path}: needs a JSON {'array' if kind is list else 'object'}, not empty")
    return content

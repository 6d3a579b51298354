"""An instruct model as judge of lines: grades for several attributes, or a plain yes or no.

For instruct models only: a base model, such as the embedded one, answers at random (measured: area
under the curve 0.5), so no judge is in a list of filters unless its caller has a model for it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synthetic_text.filters import Filter

NO_VERDICT = "judge gave no verdict"
REQUESTS_AT_ONCE = 16


class Chat(Protocol):
    """An instruct model's answer to one message. Called from several threads."""

    def __call__(self, message: str, /) -> str: ...


@dataclass(frozen=True)
class Attribute:
    """Something that a line is graded for, from 1 (not at all) to 5 (fully)."""

    name: str
    description: str
    """Shown to the model."""
    least: int
    """Lines with a lower grade are rejected."""


ATTRIBUTES: Sequence[Attribute] = (
    Attribute("sounds_like_phone_chat", "reads like a message typed on a phone, not like prose", 3),
    Attribute("fluent", "is English that a native speaker might type, slips of the thumb aside", 3),
    Attribute(
        "coherent", "makes sense: its parts belong together and one can tell what it says", 3
    ),
    Attribute("harmless", "no abuse, threats, sexual content, hate or personal data", 4),
)
"""Tried in this order. The thresholds are by judgement; tune them where a model is at hand."""


@dataclass
class JudgeCounts:
    """What the judge was asked."""

    lines: int = 0
    """Different lines."""
    answers: int = 0
    unparseable: int = 0
    """Answers not in the form asked for: each line's first such answer is asked for again, once."""
    no_verdict: int = 0
    """Lines whose second answer was unparseable too."""


class Judge:
    """Asks a model about lines, each different line once, and holds the filters for the answers.

    A verdict is a mapping from an attribute's name to the line's grade.

    Attributes:
        filters: lines without a verdict, then one filter an attribute; for `apply_filters`.
        counts: of all that was asked so far.
    """

    def __init__(
        self,
        chat: Chat,
        section: str,
        attributes: Sequence[Attribute],
        parse: Callable[[str], Mapping[str, int] | None],
        prompts: Path | None,
    ) -> None:
        sections = _load_prompts(prompts)
        self._chat, self._parse, self._again = chat, parse, sections["again"]
        self._prompt = _fill(
            sections[section],
            {
                "attributes": "\n".join(f"* {a.name}: {a.description}" for a in attributes),
                "form": json.dumps({a.name: 1 for a in attributes}),
            },
        )
        self._verdicts: dict[str, Mapping[str, int] | None] = {}
        self.counts = JudgeCounts()
        self.filters: list[Filter] = [
            _VerdictFilter(NO_VERDICT, self, lambda verdict: verdict is None),
            *(
                _VerdictFilter(f"judge: {a.name} below {a.least}", self, _build_is_below(a))
                for a in attributes
            ),
        ]

    def find_verdicts(self, texts: Sequence[str]) -> list[Mapping[str, int] | None]:
        """The verdict on each line; None where the model gave none in two answers.

        Raises:
            Exception: what the model raised, after the requests under way have ended.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._verdicts]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            try:
                for text, (verdict, answers) in zip(new, pool.map(self._ask, new), strict=True):
                    self._verdicts[text] = verdict
                    self.counts.lines += 1
                    self.counts.answers += answers
                    self.counts.unparseable += answers - (verdict is not None)
                    self.counts.no_verdict += verdict is None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [self._verdicts[text] for text in texts]

    def _ask(self, text: str) -> tuple[Mapping[str, int] | None, int]:
        """Verdict, and the number of answers it took."""
        # As a JSON string a line cannot end its own quotation.
        prompt = _fill(self._prompt, {"line": json.dumps(text, ensure_ascii=False)})
        verdict = self._parse(self._chat(prompt))
        if verdict is not None:
            return verdict, 1
        return self._parse(self._chat(f"{prompt}\n\n{self._again}")), 2


def create_grading_judge(
    chat: Chat, attributes: Sequence[Attribute] = ATTRIBUTES, prompts: Path | None = None
) -> Judge:
    """A judge that grades each line for every attribute; the filters apply the thresholds.

    Args:
        chat: an instruct model.
        attributes: names differ, thresholds from 1 to 5.
        prompts: file like prompts/judge.txt, the default.

    Raises:
        ValueError: attributes or the file are not as said.
    """
    names = [attribute.name for attribute in attributes]
    if not names or len(set(names)) < len(names) or any(not 1 <= a.least <= 5 for a in attributes):
        raise ValueError(
            f"judge: attributes {', '.join(names) or 'none'}; give one or more with different names "
            "and thresholds from 1 to 5"
        )
    return Judge(chat, "grade", attributes, lambda answer: parse_grades(answer, names), prompts)


def create_deciding_judge(chat: Chat, prompts: Path | None = None) -> Judge:
    """A judge that says yes or no: is the line something one types on a phone?

    Args:
        chat: an instruct model.
        prompts: file like prompts/judge.txt, the default.

    Raises:
        ValueError: the file is not as said.
    """
    typed = Attribute("typed_on_a_phone", "", 1)
    return Judge(
        chat, "decide", [typed], lambda answer: parse_decision(answer, typed.name), prompts
    )


def parse_grades(answer: str, names: Sequence[str]) -> dict[str, int] | None:
    """Grades of an answer; None unless it is one JSON object of exactly `names`, each 1 to 5.

    A code fence around the object is the only thing forgiven.
    """
    match = _FENCE.fullmatch(answer.strip())
    try:
        pairs = json.loads(match[1] if match else answer, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, _Pairs) or sorted(name for name, _ in pairs) != sorted(names):
        return None
    if any(type(grade) is not int or not 1 <= grade <= 5 for _, grade in pairs):
        return None
    return dict(pairs)


def parse_decision(answer: str, name: str) -> dict[str, int] | None:
    """{name: 1} for yes, {name: 0} for no, in any case, with a full stop or without; else None."""
    word = answer.strip().removesuffix(".").lower()
    return {name: int(word == "yes")} if word in ("yes", "no") else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys."""


@dataclass(frozen=True)
class _VerdictFilter:
    reason: str
    judge: Judge
    is_bad: Callable[[Mapping[str, int] | None], bool]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.is_bad(verdict) for verdict in self.judge.find_verdicts(texts)], bool)


def _build_is_below(attribute: Attribute) -> Callable[[Mapping[str, int] | None], bool]:
    return lambda verdict: verdict is None or verdict[attribute.name] < attribute.least


def _load_prompts(path: Path | None) -> dict[str, str]:
    """Sections of the file by name."""
    path = path or Path(str(files("synthetic_text") / "prompts" / "judge.txt"))
    try:
        pieces = _SECTION.split(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}): give a UTF-8 text file") from error
    sections = {name: text.strip() for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    for name, fields in _FIELDS.items():
        missing = [field for field in fields if field not in sections.get(name, "")]
        if missing or not sections.get(name):
            raise ValueError(
                f"{path}: section [{name}] needs text with {' '.join(fields) or 'any words'}; "
                f"missing: {' '.join(missing) or 'all of it'}"
            )
    return sections


def _fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its {names} replaced in one pass: what is filled in is not looked at."""
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), template)


_FIELDS: Mapping[str, Sequence[str]] = {
    "grade": ("{line}", "{attributes}", "{form}"),
    "decide": ("{line}",),
    "again": (),
}
_SECTION = re.compile(r"^\[(\w+)\]$", re.MULTILINE)
_FIELD = re.compile(r"\{(\w+)\}")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)

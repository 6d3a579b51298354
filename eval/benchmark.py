"""The fixed benchmark: what may be compared with what, and one table of our arms beside other models."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from eval.comparison import check_targets
from eval.next_word import WordScores
from eval.statistics import difference_errors, paired_difference, simultaneous_level

PROTOCOL = Path(__file__).parent / "protocol.json"
OURS = "synthetic_federated"
"""The row that all others are compared with."""
OURS_BEFORE = "synthetic_pretrained"
"""Ours before it met any private text, as the n-grams have not."""
TEXTS = ("web", "synthetic")
STEPS = ("pretrained", "federated")
FLOAT = "float"
SECTIONS = ("population", "split", "test", "metric", "vocabulary", "budget", "seeds")
FIGURES = ("top1", "top3", "top1_all", "top3_all")

Count = Annotated[int, pydantic.Field(ge=1)]
Sha256 = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]


class Ngrams(pydantic.BaseModel, frozen=True, extra="forbid"):
    """An n-gram model of the text of an arm.

    Attributes:
        order: words of the longest n-gram.
        cutoffs: of Kneser-Ney, see `kneser_ney.estimate_kneser_ney`; None: stupid back-off.
    """

    order: Count
    cutoffs: tuple[int, ...] | None = None


class Protocol(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A version of the benchmark, read from a file whose hash stands in every result.

    Attributes:
        version: changes with anything else in the file.
        facts: section by section what a run has to be, by name; compared with what it is.
        figures: names of the metric's shares, those of `FIGURES`.
        bootstrap_seed: of all intervals.
        ngrams: models of each arm's text that stand beside.
        latency_repeats: how often each message is asked for.
        sha256: hex digest of the file.
    """

    version: Count
    facts: dict[str, dict[str, int | float | bool | str]]
    figures: tuple[Literal["top1"], Literal["top3"], Literal["top1_all"], Literal["top3_all"]]
    bootstrap_seed: Annotated[int, pydantic.Field(ge=0)]
    ngrams: dict[str, Ngrams]
    latency_repeats: Count
    sha256: str = ""

    @pydantic.field_validator("facts")
    @classmethod
    def _check_sections(cls, facts: dict[str, Any]) -> dict[str, Any]:
        if set(facts) != set(SECTIONS):
            raise ValueError(f"give the sections {', '.join(SECTIONS)}")
        return facts

    @classmethod
    def load(cls, path: Path = PROTOCOL) -> "Protocol":
        """The protocol of a JSON file.

        Raises:
            ValueError: names the file and the field.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
        try:
            protocol = cls.model_validate_json(content)
        except pydantic.ValidationError as error:
            raise ValueError(f"{path}: {describe_fault(error)}") from None
        return protocol.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows of a complete table."""
        arms = [f"{text}_{step}" for text in TEXTS for step in STEPS]
        return (*arms, FLOAT, *(f"{name}_{text}" for name in self.ngrams for text in TEXTS))

    def require(self, section: str, facts: Mapping[str, Any]) -> None:
        """Raises ValueError naming the first field of a section in which a run is not what the protocol says."""
        for name, wanted in self.facts[section].items():
            if facts.get(name) != wanted:
                raise ValueError(
                    f"protocol {self.version}: {section}.{name} is {wanted} there and {facts.get(name)} in this run:"
                    " no figure of it would compare"
                )


def describe_fault(error: pydantic.ValidationError) -> str:
    """The first field that is wrong, and why."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model of the table.

    Attributes:
        name: of its row.
        title: for people.
        kind: arm, float, ngram or bundle.
        scores: counts, of the users that all others were asked too.
        size_bytes: what it takes on disk.
        p50_ms: median time of a suggestion; None if it was not measured.
    """

    name: str
    title: str
    kind: str
    scores: WordScores
    size_bytes: int
    p50_ms: float | None


def build_table(contestants: Sequence[Contestant], seed: int) -> dict[str, Any]:
    """Rows with intervals, and what can be said about ours against each n-gram that takes at least as many bytes.

    Differences are ours less the other's top-3 accuracy, paired by user, all intervals together holding with 95 %.

    Args:
        contestants: with `OURS` and `OURS_BEFORE` among them.
        seed: of the bootstrap.

    Returns:
        `rows`, each with `name`, `title`, `kind`, `FIGURES` as {value, low, high}, `bytes`, `p50_ms` and `difference`
        (None for ours); `claims`, each with `ours`, `rival`, `difference` and `better`; `finding`, a sentence;
        `users`, `targets`, `level` of one difference's interval.

    Raises:
        ValueError: they were not asked the same words.
    """
    by_name = {contestant.name: contestant for contestant in contestants}
    asked = check_targets([contestant.scores for contestant in contestants])
    ours = by_name[OURS]
    pairs = [(ours, other) for other in contestants if other is not ours]
    claimed = [
        (mine, other)
        for mine in (by_name[OURS_BEFORE], ours)
        for other in contestants
        if other.kind == "ngram" and mine.size_bytes <= other.size_bytes
    ]
    everything = {(mine.name, other.name): (mine, other) for mine, other in (*pairs, *claimed)}
    errors = [
        difference_errors(*_hits(mine, other), _totals(mine)) for mine, other in everything.values()
    ]
    level = simultaneous_level(errors, seed)
    differences = {
        names: dataclasses.asdict(
            paired_difference(*_hits(mine, other), _totals(mine), seed, level=level)
        )
        for names, (mine, other) in everything.items()
    }
    rows = []
    for contestant in contestants:
        intervals = contestant.scores.intervals(seed)
        row: dict[str, Any] = {
            "name": contestant.name,
            "title": contestant.title,
            "kind": contestant.kind,
        }
        row |= {figure: dataclasses.asdict(intervals[figure]) for figure in FIGURES}
        row |= {
            "bytes": contestant.size_bytes,
            "p50_ms": contestant.p50_ms,
            "difference": differences.get((OURS, contestant.name)),
        }
        rows.append(row)
    claims = [
        {
            "ours": mine.name,
            "rival": other.name,
            "difference": (difference := differences[mine.name, other.name]),
            "better": difference["low"] > 0,
        }
        for mine, other in claimed
    ]
    return {
        "rows": rows,
        "claims": claims,
        "finding": describe_claims(claims, {name: row.title for name, row in by_name.items()}),
        "users": len(asked),
        "targets": int(asked.targets.sum()),
        "level": level,
    }


def describe_claims(claims: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Whether ours is better in top-3 than each n-gram of at least its bytes, a sentence for ours before and after.

    After federated learning it has learned from devices, which no n-gram has.
    """
    if not claims:
        return "No n-gram model here takes as many bytes as ours: nothing is said about equal size."
    sentences = []
    for mine in dict.fromkeys(claim["ours"] for claim in claims):
        of_mine = [claim for claim in claims if claim["ours"] == mine]
        not_better = [
            f"{titles[claim['rival']]} ({_write_points(claim['difference'])})"
            for claim in of_mine
            if not claim["better"]
        ]
        start = f"{titles[mine]}, at no more bytes than the n-gram, is"
        if not_better:
            sentences.append(f"{start} not better in top-3 than {'; '.join(not_better)}.")
        else:
            sentences.append(f"{start} better in top-3 than each of {len(of_mine)} n-gram models.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _write_points(difference: Mapping[str, float]) -> str:
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points, {low:+.1f} to {high:+.1f}".replace("-", "−")


def _hits(mine: Contestant, other: Contestant) -> tuple[Any, Any]:
    return other.scores.top3_in, mine.scores.top3_in


def _totals(mine: Contestant) -> Any:
    return mine.scores.in_vocab

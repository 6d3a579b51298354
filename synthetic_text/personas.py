"""Who writes to whom, about what and how: cells drawn from the declared tables of `tables/`.

Each table is JSON: personas, relationships, situations, tones, and the shares of dialects, domains
and typists. What people write most would fill a sample drawn by those shares alone, so every
dialect and every domain gets at least FLOOR_SHARE of it: rare situations and minority cohorts are
strata with a quota.
"""

import inspect
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from synthetic_text.prompting import hash_json, read_json

FLOOR_SHARE = 0.015
"""Least share of a dialect or a domain, before shares are scaled to sum to 1."""

_AGE_BANDS = (("teen", 18), ("young", 26), ("adult", 40), ("middle", 60), ("senior", 200))
_SAME_DIALECT_SHARE = 0.7
_ADULTS_ONLY_TONES = frozenset({"flirty"})
# Fractional parts of multiples of these fill [0, 1) evenly, also jointly (Roberts 2018, R2).
_PLASTIC = 1.324717957244746
_STEPS = (1 / _PLASTIC, 1 / _PLASTIC**2)

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Persona:
    """Somebody who writes."""

    name: str
    age: int
    role: str
    """Occupation and place, as a prompt says it."""
    dialect: str
    style: str
    """Typing style, one of those of the few-shot messages: casual, plain, standard, expressive."""
    typist: str
    """heavy or light."""

    @property
    def age_band(self) -> str:
        return next(band for band, end in _AGE_BANDS if self.age < end)

    def __str__(self) -> str:
        return f"{self.name}, {self.age}, {self.role}"


@dataclass(frozen=True)
class Relationship:
    """Somebody who is written to."""

    to: str
    circle: str
    """Part of life, which says what is written about."""
    ages: tuple[str, ...]
    """Age bands of those who have such a relationship."""


@dataclass(frozen=True)
class Situation:
    """What is written about."""

    about: str
    domain: str
    circles: tuple[str, ...]


@dataclass(frozen=True)
class Tables:
    """All that cells are drawn from."""

    personas: tuple[Persona, ...]
    relationships: tuple[Relationship, ...]
    situations: tuple[Situation, ...]
    tones: tuple[str, ...]
    shares: Mapping[str, Mapping[str, float]]
    """By dialect, domain and typist, in any unit."""

    @cached_property
    def sha256(self) -> str:
        return hash_json(asdict(self))


@dataclass(frozen=True)
class Cell:
    """One cell of persona x relationship x situation x tone."""

    persona: Persona
    relationship: Relationship
    situation: Situation
    tone: str

    @property
    def stratum(self) -> str:
        """Domain, age band and dialect."""
        return f"{self.situation.domain}/{self.persona.age_band}/{self.persona.dialect}"

    def describe(self) -> dict[str, str]:
        """As a log keeps it."""
        return {
            "register": self.persona.style,
            "topic": self.situation.about,
            "persona": str(self.persona),
            "dialect": self.persona.dialect,
            "age_band": self.persona.age_band,
            "relationship": self.relationship.to,
            "tone": self.tone,
            "stratum": self.stratum,
        }


def load_tables(directory: Path | None = None) -> Tables:
    """Reads the five tables, by default those of this package.

    Raises:
        ValueError: names file, row and what it needs.
    """
    root = directory or Path(str(files("synthetic_text") / "tables"))
    tables = Tables(
        personas=_read_rows(root / "personas.json", Persona),
        relationships=_read_rows(root / "relationships.json", Relationship),
        situations=_read_rows(root / "situations.json", Situation),
        tones=tuple(read_json(root / "tones.json", list)),
        shares=read_json(root / "shares.json", dict),
    )
    circles = {relationship.circle for relationship in tables.relationships}
    for number, situation in enumerate(tables.situations, start=1):
        if unknown := set(situation.circles) - circles:
            raise ValueError(
                f"{root}/situations.json: row {number}: circles: no relationship is of circle "
                f"{min(unknown)!r}; add one or correct it"
            )
    needed = {
        "dialect": {persona.dialect for persona in tables.personas},
        "domain": {situation.domain for situation in tables.situations},
        "typist": {persona.typist for persona in tables.personas},
    }
    for name, values in needed.items():
        shares = tables.shares.get(name)
        if (
            not isinstance(shares, dict)
            or shares.keys() != values
            or not all(isinstance(share, int | float) and share > 0 for share in shares.values())
        ):
            raise ValueError(
                f"{root}/shares.json: field {name}: needs a share above 0 for each of "
                f"{', '.join(sorted(values))}, and no others"
            )
    return tables


def draw_group(tables: Tables, seed: int, number: int) -> tuple[str, str]:
    """Dialect and style number `number` (>= 0): dialects by their quota, styles by their typists."""
    dialect = _draw_by_quota(tables.shares["dialect"], FLOOR_SHARE, seed, number, _STEPS[0])
    rng = random.Random(f"{seed}/style/{number}")
    return dialect, _draw_persona(tables, rng, dialect).style


def draw_cell(tables: Tables, seed: int, number: int, dialect: str, style: str) -> Cell:
    """Cell number `number` (>= 0) of a writer of that dialect and style.

    Domains by their quota; love, dating and flirting are for adults.
    """
    rng = random.Random(f"{seed}/cell/{number}")
    persona = _draw_persona(tables, rng, dialect, style)
    relationships = [r for r in tables.relationships if persona.age_band in r.ages]
    circles = {relationship.circle for relationship in relationships}
    possible = [s for s in tables.situations if not circles.isdisjoint(s.circles)]
    domains = {situation.domain for situation in possible}
    shares = {d: share for d, share in tables.shares["domain"].items() if d in domains}
    domain = _draw_by_quota(shares, FLOOR_SHARE, seed, number, _STEPS[1])
    situation = rng.choice([s for s in possible if s.domain == domain])
    relationship = rng.choice([r for r in relationships if r.circle in situation.circles])
    teen = persona.age_band == "teen"
    tone = rng.choice([t for t in tables.tones if not (teen and t in _ADULTS_ONLY_TONES)])
    return Cell(persona, relationship, situation, tone)


def draw_pair(
    tables: Tables, seed: int, number: int, dialect: str, style: str, adults: bool
) -> tuple[Persona, Persona]:
    """Two personas who chat, the first of that dialect and style; teens chat with teens.

    Args:
        tables: to draw from.
        seed: of the run.
        number: of the request, >= 0.
        dialect, style: of the first persona, as `draw_group` gives them.
        adults: whether both must be; the style is given up where the dialect has no such adult.
    """
    rng = random.Random(f"{seed}/pair/{number}")
    first = _draw_persona(tables, rng, dialect, style)
    if adults and first.age_band == "teen":
        grown_up = [p for p in tables.personas if p.dialect == dialect and p.age_band != "teen"]
        first = rng.choice(grown_up)
    is_teen = first.age_band == "teen"
    others = [p for p in tables.personas if p != first and (p.age_band == "teen") == is_teen]
    # Most people write to people like them.
    near = [p for p in others if p.dialect == dialect] or others
    return first, rng.choice(near if rng.random() < _SAME_DIALECT_SHARE else others)


def _draw_persona(
    tables: Tables, rng: random.Random, dialect: str, style: str | None = None
) -> Persona:
    personas = [p for p in tables.personas if p.dialect == dialect and style in (None, p.style)]
    return rng.choices(personas, [tables.shares["typist"][p.typist] for p in personas])[0]


def quotas(shares: Mapping[str, float], floor: float) -> dict[str, float]:
    """Shares that sum to 1, after those under `floor` have been lifted to it."""
    total = math.fsum(shares.values())
    lifted = {name: max(share / total, floor) for name, share in shares.items()}
    total = math.fsum(lifted.values())
    return {name: share / total for name, share in lifted.items()}


def _draw_by_quota(
    shares: Mapping[str, float], floor: float, seed: int, number: int, step: float
) -> str:
    """Any stretch of numbers holds each name close to as often as its quota says."""
    names, weights = zip(*sorted(quotas(shares, floor).items()), strict=True)
    point = (random.Random(f"{seed}/quota/{step}").random() + number * step) % 1.0
    for name, weight in zip(names, weights, strict=True):
        point -= weight
        if point < 0:
            return str(name)
    return str(names[-1])


def _read_rows(path: Path, kind: type[_Row]) -> tuple[_Row, ...]:
    rows = []
    for number, row in enumerate(read_json(path, list), start=1):
        try:
            # Lists become tuples, so that rows are hashable.
            rows.append(kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}))
        except (AttributeError, TypeError) as error:
            names = ", ".join(inspect.signature(kind).parameters)
            raise ValueError(f"{path}: row {number}: needs {names}, and nothing else") from error
    return tuple(rows)

"""Data cards: what a corpus is made of, what was left out of it and why, and what it is not.

One form for every corpus, as JSON for programs and as Markdown for people. A card holds figures,
hashes and names; the only text in it are samples of sources that this project generated.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NOT_MEASURED = "not measured"
MAX_SAMPLES = 50


@dataclass(frozen=True)
class Source:
    """Where lines of a corpus come from."""

    name: str
    licence: str
    lines: int
    """In the corpus, after all filters."""
    words: int
    is_generated: bool
    """By this project's own pipeline: only then may samples be shown."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Package and version, address, hash; whatever lets one find it again."""


def build_card(
    *,
    name: str,
    description: str,
    file: str,
    data: bytes,
    sources: Sequence[Source],
    models: Sequence[Mapping[str, Any]],
    prompts: Mapping[str, Any],
    settings: Mapping[str, Any],
    lines_in: int,
    rejected: Mapping[str, int],
    diversity: Mapping[str, float] | None,
    error_statistics: Sequence[Mapping[str, Any]] | None,
    contamination: Mapping[str, Any] | None,
    known_gaps: Sequence[str],
    samples: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The card of a corpus, ready for JSON. What is None was not measured, and the card says so.

    Args:
        name: of the corpus.
        description: a paragraph: what it is, what for, how it was made.
        file: name of the file that holds the corpus.
        data: content of that file, of which the card keeps size and SHA-256.
        sources: whose lines add up to the corpus.
        models: that wrote or judged text, each with `name` and, where known, `sha256`.
        prompts: counts and hashes of the prompts.
        settings: sampling, seeds, thresholds and the like.
        lines_in: lines before the first filter.
        rejected: lines rejected by each filter, in the order they were tried.
        diversity: figures of `diversity.measure_diversity`.
        error_statistics: checks of the typing simulator against published figures, each with `name`,
            `published`, `measured` and `within`.
        contamination: the certificate of `contamination.check_contamination`.
        known_gaps: what the corpus lacks, a sentence each.
        samples: lines by the name of their source.

    Raises:
        ValueError: the counts do not add up, samples are not from a generated source, or a value
            is not JSON.
    """
    out = sum(source.lines for source in sources)
    if min([lines_in, out, *rejected.values()]) < 0 or lines_in - sum(rejected.values()) != out:
        raise ValueError(
            f"card of {name}: {lines_in} lines in less {sum(rejected.values())} rejected are not the "
            f"{out} lines of its sources; count every line once"
        )
    generated = {source.name for source in sources if source.is_generated}
    for source in samples:
        if source not in generated:
            raise ValueError(
                f"card of {name}: samples of '{source}', which this project did not generate; "
                f"give samples of {', '.join(sorted(generated)) or 'no source'} only"
            )
    if sum(map(len, samples.values())) > MAX_SAMPLES:
        raise ValueError(f"card of {name}: more than {MAX_SAMPLES} samples; give fewer")
    card = {
        "name": name,
        "description": description,
        "file": file,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "lines": out,
        "words": sum(source.words for source in sources),
        "sources": [asdict(source) for source in sources],
        "models": list(models),
        "prompts": dict(prompts),
        "settings": dict(settings),
        "filters": _list_steps(lines_in, rejected),
        "diversity": diversity,
        "error_statistics": error_statistics,
        "contamination": contamination,
        "known_gaps": list(known_gaps),
        "samples": {source: list(lines) for source, lines in samples.items()},
    }
    try:
        # Through JSON, so that the card in hand equals the one read back from its file.
        return json.loads(json.dumps(card, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"card of {name}: {error}; give JSON values and finite numbers only"
        ) from error


def describe_card(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    parts = [
        [f"# {card['name']}", "", card["description"]],
        _describe_table(
            "Data",
            ("", ""),
            [
                ("file", f"`{card['file']}`"),
                ("bytes", card["bytes"]),
                ("sha256", card["sha256"]),
                ("lines", card["lines"]),
                ("words", card["words"]),
            ],
        ),
        _describe_table(
            "Sources",
            ("source", "licence", "generated here", "lines", "words", "details"),
            [
                (s["name"], s["licence"], s["is_generated"], s["lines"], s["words"], s["details"])
                for s in card["sources"]
            ],
        ),
        _describe_records("Models", card["models"]),
        _describe_table("Prompts", ("", ""), card["prompts"].items()),
        _describe_table("Settings", ("", ""), card["settings"].items()),
        _describe_records("Filters, in the order they were tried", card["filters"]),
        _describe_measured("Diversity", card["diversity"]),
        _describe_records("Typing errors against published figures", card["error_statistics"]),
        _describe_measured("Contamination", card["contamination"]),
        ["## Known gaps", "", *(f"* {gap}" for gap in card["known_gaps"] or ["none known"])],
    ]
    for source, lines in card["samples"].items():
        # Indented lines are taken literally, whatever is in them.
        parts.append([f"## Samples: {source}", "", *(f"    {' '.join(x.split())}" for x in lines)])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def write_card(card: Mapping[str, Any], directory: Path, name: str) -> None:
    """Writes `name.card.json` and `name.card.md`, each by renaming; the directory is made if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for ending, content in (
        ("json", json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"),
        ("md", describe_card(card)),
    ):
        temporary = directory / f"{name}.card.{ending}.tmp"
        temporary.write_text(content, "utf-8")
        temporary.replace(temporary.with_suffix(""))


def _list_steps(lines_in: int, rejected: Mapping[str, int]) -> list[dict[str, Any]]:
    steps = []
    for reason, count in rejected.items():
        steps.append({"reason": reason, "in": lines_in, "rejected": count, "out": lines_in - count})
        lines_in -= count
    return steps


def _describe_measured(title: str, figures: Mapping[str, Any] | None) -> list[str]:
    """Figures by name, and a table for each list of records among them, innermost records as rows."""
    if figures is None:
        return [f"## {title}", "", NOT_MEASURED]
    tables = {name: value for name, value in figures.items() if _is_records(value)}
    lines = _describe_table(title, ("", ""), [x for x in figures.items() if x[0] not in tables])
    for name, records in tables.items():
        lines += ["", *_describe_records(f"{title}: {name}", records)]
    return lines


def _describe_records(title: str, records: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """A table with a column for each key of the records."""
    if not records:
        return [f"## {title}", "", NOT_MEASURED if records is None else "none"]
    rows = list(_flatten(records))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return _describe_table(title, columns, [[row.get(key) for key in columns] for row in rows])


def _describe_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    cells = [[_describe_value(value) for value in row] for row in rows]
    if not cells:
        return [f"## {title}", "", "none"]
    lines = [header, ["---"] * len(header), *cells]
    return [f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)]


def _describe_value(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else ""
    )
    return " ".join(text.replace("|", "\\|").split())


def _flatten(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Records without lists of records in them: one for each innermost record, with what is around it."""
    for record in records:
        nested = [key for key, value in record.items() if _is_records(value)]
        plain = {key: value for key, value in record.items() if key not in nested}
        yield from ({**plain, **inner} for key in nested for inner in _flatten(record[key]))
        if not nested:
            yield plain


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, Mapping) for x in value)

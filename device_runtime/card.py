"""The model card of a keyboard: what it is, what it learned from and with what privacy, what it is not for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"
# What gives text a meaning in Markdown and HTML; a manifest may come from anybody.
_MARKUP = str.maketrans({c: f"&#{ord(c)};" for c in "&<>|`*_[]\\#~!"})

_INTENDED_USE = (
    "Suggesting, completing and correcting words while a person types, on that person's device.",
    "Not for judging people or what they write, for writing text unasked, or as a source of facts.",
)
_FACTORS = (
    "Suggestions fit those best who write like the people and the text it learned from: English, informal, short"
    " messages, in the training text's dialects, years and topics.",
    "Accuracy differs between people more than between training runs; figures are means over people unless they say"
    " otherwise.",
)
_METRICS = (
    "Next-word accuracy (top-1): share of a message's words that the first suggestion is, the first word of the"
    " message included, punctuation not, case ignored, among words of a fixed vocabulary.",
    "Intervals are 95 %, by bootstrap over people.",
)
_ETHICS = (
    "It can suggest what is wrong, hurtful or untrue; words of its blocklist are never suggested.",
    "The privacy figures bound what the federated part of its training can tell about one device. They say nothing of"
    " the public and generated text.",
    "The bundle's checksums prove that it is intact, not who made it.",
)
_CAVEATS = (
    "Measured on a few hundred people of one population; another population needs its own measurement.",
    "Text that a language model wrote may repeat what that model had read.",
)
_PRIVACY_HEADER = ("privacy, unit one device", "honest: this run", "projected: not run")
_PRIVACY_MEANING = (
    "Differential privacy (zCDP rho; epsilon at delta) of the federated training, of everything released from the"
    " devices together.",
    "The honest figures are of the simulated devices that this model learned from; an epsilon above 10 is no"
    " protection worth the name.",
    "The projected ones are arithmetic: the same rounds and noise per cohort, at a production cohort and population.",
)


@dataclass(frozen=True)
class Table:
    """Rows of JSON values as the manifest has them; the header is empty where a row is a name and its value."""

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Section:
    """One heading of the card, its tables and then its sentences, without markup and not yet escaped."""

    title: str
    tables: tuple[Table, ...] = ()
    sentences: tuple[str, ...] = ()


def list_sections(facts: Mapping[str, Any]) -> list[Section]:
    """The model card under the headings of Mitchell et al. 2019 ("Model Cards for Model Reporting").

    Args:
        facts: of a bundle's manifest, those of `bundle.FACTS`. Of `training`, the keys that an export writes are
            explained, and others are listed as they are.
    """
    training = facts["training"]
    shapes = facts["state_shapes"]
    details = [
        ("kind", "recurrent (CIFG-LSTM) next-word model over word pieces, one step a piece"),
        ("pieces", facts["vocabulary_size"]),
        ("recurrent units", shapes["c"][-1]),
        ("embedding", shapes["h"][-1]),
        ("parameters", training.get("parameters")),
        ("quantisation", facts["quantisation"]),
        ("arm", training.get("arm")),
        ("step", training.get("step")),
        ("seed", training.get("seed")),
    ]
    explained = {"parameters", "arm", "step", "seed", "privacy", "accuracy"}
    read = [(_spell(name), value) for name, value in training.items() if name not in explained]
    licences = [(f"licence of {name}", value) for name, value in facts["licences"].items()]
    privacy, unprotected = _describe_privacy(training.get("privacy"))
    accuracy, unmeasured = _describe_accuracy(training.get("accuracy"))
    return [
        Section("Model details", (Table((), tuple(details)), Table((), tuple(licences)))),
        Section("Intended use", sentences=_INTENDED_USE),
        Section("Factors", sentences=_FACTORS),
        Section("Metrics", sentences=_METRICS),
        Section("Evaluation data", sentences=_describe_evaluation(training.get("accuracy"))),
        Section("Training data", (Table((), tuple(read)), *privacy), unprotected),
        Section("Quantitative analyses", accuracy, unmeasured),
        Section("Ethical considerations", sentences=_ETHICS),
        Section("Caveats and recommendations", sentences=_CAVEATS),
    ]


def describe_model(facts: Mapping[str, Any]) -> str:
    """The card of `list_sections` as Markdown; the facts' text cannot mark anything up."""
    parts = ["# Model card"]
    for section in list_sections(facts):
        blocks = [_write_table(table) for table in section.tables]
        blocks += ["\n".join(f"* {_escape(x)}" for x in section.sentences)]
        parts += [f"## {section.title}", *filter(None, blocks)]
    return "\n\n".join(parts) + "\n"


def _describe_evaluation(accuracy: Any) -> tuple[str, ...]:
    if not isinstance(accuracy, Mapping):
        return (f"None when it was exported: accuracy {NOT_MEASURED}.",)
    return (f"Messages of {_write(accuracy.get('users'))} {_write(accuracy.get('people'))}.",)


def _describe_accuracy(accuracy: Any) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    if not isinstance(accuracy, Mapping):
        return (), (f"{NOT_MEASURED.capitalize()}; the run's report measures it on other people.",)
    rows = tuple((name, accuracy.get(name)) for name in ("top1", "low", "high"))
    return (Table((), rows),), ()


def _describe_privacy(privacy: Any) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """What the training releases of one device: as it was run, and as it would be in production."""
    if not isinstance(privacy, Mapping):
        return (), ("No federated training, so no privacy figures of it.",)
    projected = privacy.get("projected")
    projected = projected if isinstance(projected, Mapping) else {}
    names = (
        "rho",
        "epsilon",
        "delta",
        "mechanism",
        "noise_multiplier",
        "rounds",
        "cohort",
        "population",
    )
    rows = tuple((_spell(name), privacy.get(name), projected.get(name)) for name in names)
    return (Table(_PRIVACY_HEADER, rows),), _PRIVACY_MEANING


def _spell(name: str) -> str:
    return name.replace("_", " ")


def _write_table(table: Table) -> str:
    if not table.rows:
        return "None given."
    header = table.header or ("",) * len(table.rows[0])
    lines = [header, ("---",) * len(header)]
    lines += [tuple(_escape(_write(cell)) for cell in row) for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write(value: Any) -> str:
    """A value in one line."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _escape(text: str) -> str:
    """Text that Markdown and HTML take literally."""
    return text.translate(_MARKUP)

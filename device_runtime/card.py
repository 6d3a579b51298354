"""The model card of a keyboard: what it is, what it learned from and with what privacy, what it is not for."""

import json
from collections.abc import Iterable, Mapping
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


def describe_model(facts: Mapping[str, Any]) -> str:
    """The model card as Markdown, under the headings of Mitchell et al. 2019 ("Model Cards for Model Reporting").

    Args:
        facts: of a bundle's manifest, those of `bundle.FACTS`. Of `training`, the keys that an export writes are
            explained, and others are listed as they are. Their text cannot mark anything up.
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
    read = [(name, value) for name, value in training.items() if name not in explained]
    licences = [(f"licence of {name}", value) for name, value in facts["licences"].items()]
    sections = [
        ("Model details", [*_table(details), "", *_table(licences)]),
        ("Intended use", _bullets(_INTENDED_USE)),
        ("Factors", _bullets(_FACTORS)),
        ("Metrics", _bullets(_METRICS)),
        ("Evaluation data", _describe_evaluation(training.get("accuracy"))),
        ("Training data", [*_table(read), "", *_describe_privacy(training.get("privacy"))]),
        ("Quantitative analyses", _describe_accuracy(training.get("accuracy"))),
        ("Ethical considerations", _bullets(_ETHICS)),
        ("Caveats and recommendations", _bullets(_CAVEATS)),
    ]
    parts = ["# Model card", *("\n".join([f"## {title}", "", *body]) for title, body in sections)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _describe_evaluation(accuracy: Any) -> list[str]:
    if not isinstance(accuracy, Mapping):
        return [f"None when it was exported: accuracy {NOT_MEASURED}."]
    return [f"Messages of {_text(accuracy.get('users'))} {_text(accuracy.get('people'))}."]


def _describe_accuracy(accuracy: Any) -> list[str]:
    if not isinstance(accuracy, Mapping):
        return [f"{NOT_MEASURED.capitalize()}; the run's report measures it on other people."]
    names = ("top1", "low", "high")
    return _table((name, accuracy.get(name)) for name in names)


def _describe_privacy(privacy: Any) -> list[str]:
    """What the training releases of one device: as it was run, and as it would be in production."""
    if not isinstance(privacy, Mapping):
        return ["No federated training, so no privacy figures of it."]
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
    lines = [
        "| privacy, unit one device | honest: this run | projected: not run |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {_text(name.replace('_', ' '))} | {_text(privacy.get(name))} | {_text(projected.get(name))} |"
        for name in names
    ]
    return [
        *lines,
        "",
        "Differential privacy (zCDP rho; epsilon at delta) of the federated training, of everything released from the"
        " devices together. The honest figures are of the simulated devices that this model learned from; an epsilon"
        " above 10 is no protection worth the name. The projected ones are arithmetic: the same rounds and noise per"
        " cohort, at a production cohort and population.",
    ]


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [f"* {sentence}" for sentence in sentences]


def _table(rows: Iterable[tuple[str, Any]]) -> list[str]:
    lines = [f"| {_text(name.replace('_', ' '))} | {_text(value)} |" for name, value in rows]
    return ["| | |", "| --- | --- |", *lines] if lines else ["None given."]


def _text(value: Any) -> str:
    """A value in one line that Markdown and HTML take literally."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return " ".join(text.encode("utf-8", "replace").decode().split()).translate(_MARKUP)

"""A contamination certificate as a table: how much of each evaluation set the training text holds."""

from collections.abc import Mapping
from typing import Any

from eval.report import notation


def describe_certificate(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Overlaps as rows by measure and columns by evaluation set; all else as facts.

    Args:
        certificate: `dataclasses.asdict` of a `Certificate`, and `name`, if it has one.
    """
    sets = certificate.get("sets") or ()
    found = {
        (overlap["measure"], checked["name"]): overlap
        for checked in sets
        for overlap in checked["overlaps"]
    }
    names = [checked["name"] for checked in sets]
    limits = {measure: overlap["limit"] for (measure, _), overlap in found.items()}
    facts = {
        key: value for key, value in certificate.items() if key not in ("name", "passed", "sets")
    }
    of_sets = {
        checked["name"]: {key: checked[key] for key in checked if key not in ("name", "overlaps")}
        for checked in sets
    }
    return {
        "name": certificate.get("name"),
        "passed": certificate.get("passed"),
        "sets": names,
        "rows": [
            (measure, limit, [found.get((measure, name), {}) for name in names])
            for measure, limit in limits.items()
        ],
        "facts": notation.flatten(facts | of_sets),
    }

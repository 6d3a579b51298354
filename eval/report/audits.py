"""What audits found of a run, beside what its ledger says."""

from collections.abc import Mapping
from typing import Any

from eval.report import notation
from eval.report.memorisation import ARM_LABELS, draw_exposures


def describe_audits(audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the template shows: sentences and rows of each set of canaries, charts of what is remembered.

    Args:
        audit: `canaries` and `canaries_without_noise`, what `scripts.audit.write_audits` wrote, and `memorisation`,
            what `scripts.audit.measure_memorisation` gives; any of them, or None.
    """
    audit = audit or {}
    memorisation = audit.get("memorisation")
    return {
        "canaries": [
            {**found, "meaning": _describe_canaries(found), "title": title}
            for key, title in (
                ("canaries", "As the ledger says"),
                ("canaries_without_noise", "Noise taken away behind the ledger’s back"),
            )
            if (found := audit.get(key))
        ],
        "memorisation": memorisation,
        "charts": draw_exposures(memorisation) if memorisation else [],
        "labels": ARM_LABELS,
    }


def _describe_canaries(found: Mapping[str, Any]) -> str:
    audits = found["audits"]
    violated = [row for row in audits if row["violated"]]
    seeds = f"{len(audits)} run{'s' if len(audits) != 1 else ''}"
    largest = max(row["lower_bound"] for row in audits)
    epsilon = min(row["epsilon"] for row in audits)
    said = (
        f"{seeds} with canaries: ε is at least {notation.number(largest)}, the ledger says {notation.number(epsilon)}"
        f" (δ = {notation.scientific(audits[0]['delta'])}, {notation.percent(audits[0]['confidence'], digits=0)}"
        " confidence)."
    )
    if violated:
        return f"{said} The ledger is contradicted in {len(violated)} of {len(audits)}."
    if all(row["largest_bound"] <= row["epsilon"] for row in audits):
        return f"{said} No attack could have contradicted so large an ε with so few canaries."
    return f"{said} No run contradicts the ledger."

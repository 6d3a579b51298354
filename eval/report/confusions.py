"""The section "Confusions": what was meant and what either arm said, as the template shows it."""

from typing import Any

from eval.report.lookup import find, is_finite

OUTCOMES = ("both_right", "ours_right", "baseline_right", "both_wrong")
KINDS = {
    "gained": "Synthetic text right, web text wrong",
    "lost": "Web text right, synthetic text wrong",
    "missed": "Neither right, each in its own way",
}


def describe_confusions(confusions: Any) -> dict[str, dict[str, Any]]:
    """By step: targets, the share of each outcome (None if it was not counted), and rows by kind's title.

    Args:
        confusions: `confusions` of results.json.
    """
    described = {}
    for step in ("pretrained", "federated"):
        found, targets = find(confusions, step), find(confusions, f"{step}.targets")
        if not is_finite(targets) or targets <= 0:
            continue
        shares = {
            outcome: found[outcome] / targets if is_finite(found.get(outcome)) else None
            for outcome in OUTCOMES
        }
        kinds = [(kind, title, found[kind]) for kind, title in KINDS.items() if found.get(kind)]
        described[step] = {"targets": targets, **shares, "kinds": kinds}
    return described

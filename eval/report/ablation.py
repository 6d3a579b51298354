"""What each part of the synthetic text is worth: a study's arms by their names, and its table of ablations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eval.study import ADAPTED, CEILING, MIX, PARTS

ARM_LABELS = {
    "web_news": "news alone",
    "web_all": "all public web text",
    "filtered": "filtered web text",
    "converted": "converted web text",
    "generated": "LLM-written text",
    MIX: "the mix",
    "synthetic_no_typing": "mix, no typing noise",
    "synthetic_with_typing": "mix, with typing noise",
    "synthetic_no_dedup": "mix, duplicates left in",
    "synthetic_with_dedup": "mix, duplicates dropped",
    "synthetic_no_floor": "mix, no human floor",
    "synthetic_no_everyday": "mix, no everyday chats",
    ADAPTED: "mix, privately adapted",
    CEILING: "other users’ real chat",
}
OWN_PARTS = [arm for arm in PARTS if arm.startswith(f"{MIX}_")]


def describe_ablation(study: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the template shows of a study's `ablations`; None if there is no study.

    Args:
        study: `arms`, `lifts` and `ablations` of `eval.study.build_study`, and what tells how it was made.
    """
    if not study:
        return None
    study = restore_limits(study)
    over = index_lifts(study)
    return {
        "set": {"study": study, "lift": lambda arm, baseline: over.get((arm, baseline))},
        "study": study,
        "labels": ARM_LABELS,
        "mix": MIX,
        "own_parts": OWN_PARTS,
    }


def index_lifts(study: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Lifts by (arm, baseline)."""
    return {(lift["arm"], lift["over"]): lift for lift in study["lifts"]}


def restore_limits(tree: Any) -> Any:
    """A copy in which an interval's absent end is infinite, if its figure is there."""
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [restore_limits(item) for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    copy = {key: restore_limits(value) for key, value in tree.items()}
    figure = copy.get("relative", copy.get("value"))
    if figure is not None and {"low", "high"} <= copy.keys():
        copy["low"] = -math.inf if copy["low"] is None else copy["low"]
        copy["high"] = math.inf if copy["high"] is None else copy["high"]
    return copy

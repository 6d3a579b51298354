"""The report's section about kebbie: ours on local text beside what kebbie publishes of shipping keyboards."""

from collections.abc import Mapping
from typing import Any

# kebbie's results of keyboards on emulated phones, 2,436 words of its own text (FleksySDK/kebbie: 0.3/results/ios.json,
# 0.2/results/gboard.json, docs/results/swiftkey.json): next word top-1 and top-3, completion top-3, correction F.
PUBLISHED = {
    "iOS": (0.28, 0.43, 0.80, 0.60),
    "Gboard": (0.075, 0.33, 0.79, 0.82),
    "SwiftKey": (0.12, 0.33, 0.76, 0.68),
}


def list_kebbie_rows(kebbie: Any) -> list[tuple[str, list[str], bool]]:
    """(arm or keyboard, its figures, whether they are kebbie's own); none without `kebbie` of results.json."""
    if not isinstance(kebbie, Mapping):
        return []
    ours = {
        arm: (
            scores["next_word_prediction"]["accuracy"],
            scores["next_word_prediction"]["top3_accuracy"],
            scores["auto_completion"]["top3_accuracy"],
            scores["auto_correction"]["fscore"],
        )
        for arm, scores in kebbie["bundles"].items()
    }
    return [
        (name, [f"{figure:#.2g}" for figure in figures], are_published)  # kebbie's two digits
        for are_published, rows in ((False, ours), (True, PUBLISHED))
        for name, figures in rows.items()
    ]

"""The section "Convergence": accuracy over epsilon, rounds to equal accuracy and costs, as the template shows them."""

from typing import Any

from eval.report.charts import draw_curves
from eval.report.lookup import find, is_drawable, is_finite

ARMS = ("web", "synthetic")
_AXES = {
    "epsilon": ("this run", "ε spent, of this run"),
    "projected_epsilon": ("projected, not run", "ε spent, projected, not run"),
}


def describe_convergence(convergence: Any) -> dict[str, Any] | None:
    """Charts {key, title, chart} over each epsilon that was accounted for, levels and costs; None if there is nothing.

    Args:
        convergence: `convergence` of results.json.
    """
    charts = []
    for key, (title, axis) in _AXES.items():
        curves = {
            arm: [
                point
                for point in find(convergence, f"curve.{arm}") or ()
                if is_drawable(point, "top1") and is_finite(point.get(key))
            ]
            for arm in ARMS
        }
        curves = {arm: curve for arm, curve in curves.items() if len(curve) > 1}
        if curves:
            name = f"First-suggestion accuracy over ε, {title}"
            charts.append((title, draw_curves(f"curves-{key}", name, curves, (key, "ε", axis))))
    found = {
        "charts": charts,
        "levels": find(convergence, "levels"),
        "cost": [
            (arm, step, price)
            for arm in ARMS
            for step in ("pretrained", "federated")
            if (price := find(convergence, f"cost.{arm}.{step}"))
        ],
    }
    return found if any(found.values()) else None

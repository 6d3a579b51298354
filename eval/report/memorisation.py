"""The page of the four-arm figure: what four ways of training remember of planted sentences."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from eval.report import notation
from eval.report.charts import draw_bars
from eval.report.templates import load_template

ARM_LABELS = {
    "central": "central",
    "central_by_user": "central, by user, clipped",
    "fedavg": "FedAvg",
    "dp_ftrl": "DP-FTRL",
}


def render_memorisation(figures: Mapping[str, Any]) -> str:
    """One self-contained HTML page: a chart for each way of planting, a bar for each arm.

    Args:
        figures: what `scripts.audit.measure_memorisation` gives.
    """
    return load_template("memorisation.html.j2").render(
        figures=figures, labels=ARM_LABELS, charts=draw_exposures(figures)
    )


def draw_exposures(figures: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """A title and a chart for each way of planting, with a bar for each arm."""
    charts = [
        draw_bars(
            f"planting-{index}",
            _describe(planting),
            [
                (label, "synthetic" if arm == "dp_ftrl" else "web", row["exposures"][index])
                for arm, label in ARM_LABELS.items()
                for row in [figures["arms"][arm]]
            ],
            figures["largest_exposure"],
            notation.bits,
            notation.bits_range,
        )
        for index, planting in enumerate(figures["plantings"])
    ]
    return list(zip(map(_describe, figures["plantings"]), charts, strict=True))


def _describe(planting: Mapping[str, int]) -> str:
    users, copies = planting["users"], planting["repetitions"]
    return f"{users} device{'s' * (users > 1)}, {copies} cop{'ies' if copies > 1 else 'y'} on each"

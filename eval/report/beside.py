"""The report's table of other models beside the arms: what `keyfed benchmark` measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from eval.report.charts import draw_bars

TEXTS = {"synthetic": "Of synthetic text", "web": "Of web text"}


def draw_beside(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """(title, chart) of top-3 accuracy by the text that models read, on one scale.

    Args:
        rows: of the table, `top3` with its interval in each.
    """
    limit = max(row["top3"]["high"] for row in rows) or 1.0
    charts = []
    for text, title in TEXTS.items():
        bars = [
            (row["title"], _find_classes(row), row["top3"])
            for row in rows
            if ("web" in row["name"].split("_")) == (text == "web")
        ]
        if bars:
            description = f"Among first three, {title.lower()}"
            charts.append((title, draw_bars(f"beside-{text}", description, bars, limit)))
    return charts


def _find_classes(row: Mapping[str, Any]) -> str:
    return row["name"].replace("_", " ") if row.get("kind") == "arm" else "rival"

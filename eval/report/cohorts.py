"""The section "For whom": cohorts before and after federated learning, as the template shows them."""

from typing import Any

from eval.report.charts import draw_shares
from eval.report.lookup import find, is_drawable

TITLES = {"pretrained": "Before federated learning", "federated": "After federated learning"}


def describe_cohorts(cohorts: Any) -> list[dict[str, Any]]:
    """For each step that was compared: its title, rows, chart, those that are hurt, and rates, None if there are none.

    Args:
        cohorts: `cohorts` of results.json.
    """
    described = []
    for step, title in TITLES.items():
        rows = [
            row
            for row in find(cohorts, f"{step}.rows") or ()
            if is_drawable(find(row, "difference"), "value")
        ]
        if not rows:
            continue
        drawn = [
            (
                str(row.get("cohort")),
                "hurt" if row.get("hurts") else "synthetic",
                row["difference"],
                (),
            )
            for row in rows
        ]
        name = f"Synthetic less web text by cohort, {title.lower()}"
        described.append(
            {
                "title": title,
                "rows": rows,
                "hurt": [row for row in rows if row.get("hurts")],
                "chart": draw_shares(f"cohorts-{step}", name, drawn, differences=True),
                "rates": _describe_rates(find(cohorts, f"{step}.rates")),
            }
        )
    return described


def _describe_rates(rates: Any) -> dict[str, Any] | None:
    """The users that have one, percentiles by arm, and the difference in the worst-served tenth."""
    worst = find(rates, "worst_decile")
    if not is_drawable(worst, "value"):
        return None
    by_arm = {"web": rates.get("baseline") or (), "synthetic": rates.get("scores") or ()}
    return {
        "users": rates.get("users"),
        "percentiles": {arm: figures for arm, figures in by_arm.items() if len(figures) == 3},
        "worst": worst,
    }

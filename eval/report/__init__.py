"""The report: one self-contained page made from results.json, and nothing else."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.report import notation
from eval.report.ablation import describe_ablation
from eval.report.audits import describe_audits
from eval.report.beside import draw_beside
from eval.report.charts import draw_bars, draw_curves, draw_lifts
from eval.report.cohorts import describe_cohorts
from eval.report.confusions import describe_confusions
from eval.report.contamination import describe_certificate
from eval.report.convergence import describe_convergence
from eval.report.kebbie import list_kebbie_rows
from eval.report.lookup import find as _find
from eval.report.lookup import is_drawable as _is_drawable
from eval.report.lookup import is_finite as _is_finite
from eval.report.privacy import describe_epsilon
from eval.report.templates import load_template

ARMS = {"web": "web text", "synthetic": "synthetic text"}
STAGES = {"pretrained": "pretrained", "federated": "federated"}
METRICS = {
    "top1": "First suggestion right",
    "top3": "Among first three",
    "top1_all": "First right, all words",
}

# Relative gain of Gboard models pretrained on synthetic text over ones pretrained on public web
# text, before federated learning (Wu et al. 2024, arXiv:2404.04360, abstract).
PUBLISHED_LIFT = (0.190, 0.228)


def write_report(results: Mapping[str, Any], directory: Path) -> Path:
    """Write `report.html` into a directory, whole or not at all, and return its path.

    Sections appear where `results` has their keys; a figure missing inside one is a dash, a key
    that is not known is left out.

    Args:
        results: what results.json holds (DESIGN.md, "Contracts").

    Raises:
        ValueError: the pretrained arms' top-1 or their lift, the point of the page, are missing.
    """
    check_results(results)
    page = load_template("page.html.j2").render(
        results=results,
        arms=ARMS,
        stages=STAGES,
        metrics=METRICS | {"top3_all": "Among three, all words"},
        finding=describe_lift(results["lift"]["pretrained"]),
        privacy_meaning=describe_epsilon(_find(results, "privacy.epsilon")),
        privacy_rows=_privacy_rows(results),
        device_rows=_device_rows(results),
        charts=_draw(results),
        convergence=describe_convergence(_find(results, "convergence")),
        cohorts=describe_cohorts(_find(results, "cohorts")),
        confusions=describe_confusions(_find(results, "confusions")),
        published=PUBLISHED_LIFT,
        kebbie_rows=list_kebbie_rows(results.get("kebbie")),
        ablation=describe_ablation(results.get("ablation")),
        audits=describe_audits(results.get("audit")),
        certificates=[
            describe_certificate({"name": "Text of both arms", **certificate})
            for certificate in [results.get("contamination")]
            if certificate
        ],
    )
    report = directory / "report.html"
    temporary = directory / f".{report.name}.{os.getpid()}"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(report)
    return report


def check_results(results: Any) -> None:
    """Raises ValueError if the pretrained arms' top-1 or their lift, the point of every report, are missing."""
    for path in (*(f"arms.{arm}.pretrained.top1" for arm in ARMS), "lift.pretrained"):
        if not isinstance(_find(results, path), Mapping):
            raise ValueError(f"results: no {path}; evaluate both arms before reporting")


def describe_lift(lift: Mapping[str, float]) -> str:
    """The finding as a sentence; an interval that holds zero is no finding."""
    if lift["low"] > 0:
        return f"Synthetic typing text beats web text by {notation.percent(lift['relative'])}"
    if lift["high"] < 0:
        return f"Synthetic typing text falls {notation.percent(-lift['relative'])} behind web text"
    return "No clear difference between synthetic typing text and web text"


def _privacy_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = (
        ("ε at δ", "epsilon", notation.number),
        ("ε by grid RDP", "epsilon_rdp", notation.number),
        ("ρ (zCDP)", "rho", notation.number),
        ("δ", "delta", notation.scientific),
        ("mechanism", "mechanism", notation.number),
        ("noise multiplier", "noise_multiplier", notation.number),
        ("clip norm", "clip_norm", notation.number),
        ("cohort, devices a round", "cohort", notation.number),
        ("population, devices", "population", notation.number),
        ("rounds", "rounds", notation.number),
        ("min separation, rounds", "min_separation", notation.number),
        ("max participations", "max_participations", notation.number),
    )
    return _present(rows, _find(results, "privacy"), _find(results, "privacy.projected"))


def _device_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Budgets: sizes shipped on phones, and the 20 ms from touch to visible feedback."""
    device = _find(results, "device")
    rows = (
        ("size on disk", "bytes", notation.megabytes),
        ("one model step, median", "p50_ms", notation.milliseconds),
        ("one model step, 99th percentile", "p99_ms", notation.milliseconds),
        ("three suggestions, median", "suggest_p50_ms", notation.milliseconds),
        ("three suggestions, 95th percentile", "suggest_p95_ms", notation.milliseconds),
        ("a committed word, median", "word_p50_ms", notation.milliseconds),
        ("a key, median", "keystroke_p50_ms", notation.milliseconds),
        ("a key, 95th percentile", "keystroke_p95_ms", notation.milliseconds),
        ("cold start", "cold_start_ms", notation.milliseconds),
        ("peak memory", "peak_rss_bytes", notation.megabytes),
    )
    return _present(rows, device, {"bytes": 10e6, "keystroke_p95_ms": 20})


def _present(rows: Any, measured: Any, beside: Any) -> list[tuple[str, str, str]]:
    """(label, measured figure, figure beside it) of the rows that were measured."""
    return [
        (label, write(_find(measured, key)), write(_find(beside, key)))
        for label, key, write in rows
        if _find(measured, key) is not None
    ]


def _draw(results: Mapping[str, Any]) -> dict[str, Any]:
    """Charts of whatever is complete enough to be drawn."""
    bars = {
        metric: [
            (f"{ARMS[arm]}, {STAGES[stage]}", f"{arm} {stage}", interval)
            for arm in ARMS
            for stage in STAGES
            if _is_drawable(interval := _find(results, f"arms.{arm}.{stage}.{metric}"), "value")
        ]
        for metric in METRICS
    }
    limit = max((bar["high"] for rows in bars.values() for *_, bar in rows), default=0) or 1.0
    charts: dict[str, Any] = {
        "bars": [
            (title, draw_bars(f"bars-{metric}", f"{title}, by arm", bars[metric], limit))
            for metric, title in METRICS.items()
            if bars[metric]
        ]
    }
    lifts = [
        (f"{when} federated learning", lift, PUBLISHED_LIFT)
        for stage, when in (("pretrained", "before"), ("federated", "after"))
        if _is_drawable(lift := _find(results, f"lift.{stage}"), "relative", highest=math.inf)
    ]
    if lifts:
        title = "Relative lift of synthetic over web text"
        charts["lifts"] = draw_lifts("lifts", title, lifts)
    rivals = [
        row
        for row in _find(results, "beside.rows") or []
        if _is_drawable(_find(row, "top3"), "value")
    ]
    if rivals:
        charts["beside"] = draw_beside(rivals)
    curves = {
        arm: [
            point
            for point in _find(results, f"curve.{arm}") or []
            if _is_drawable(point, "top1") and _is_finite(point.get("round"))
        ]
        for arm in ARMS
    }
    curves = {arm: curve for arm, curve in curves.items() if len(curve) > 1}
    if curves:
        title = "First-suggestion accuracy over federated rounds"
        charts["curves"] = draw_curves("curves", title, curves)
    return charts

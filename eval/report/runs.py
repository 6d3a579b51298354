"""The page of several runs side by side: figures of each, and paired differences where they were asked the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report import ARMS, METRICS, PUBLISHED_LIFT, STAGES, notation
from eval.report.charts import draw_bars, draw_lifts
from eval.report.lookup import find, is_drawable
from eval.report.templates import load_template

_WHEN = {"pretrained": "before federated learning", "federated": "after federated learning"}
_FIGURES = (
    ("Asked", "users", "evaluation.users", notation.number),
    ("Asked", "target words", "evaluation.targets", notation.number),
    ("Asked", "words in the vocabulary", "evaluation.vocabulary_words", notation.number),
    ("Federated learning", "rounds to web text’s last", "rounds_to_match", notation.number),
    ("Federated learning", "ε of the simulation", "privacy.epsilon", notation.number),
    ("Federated learning", "ε projected, not run", "privacy.projected.epsilon", notation.number),
    ("Federated learning", "δ", "privacy.delta", notation.scientific),
    ("Federated learning", "mechanism", "privacy.mechanism", notation.number),
    ("Federated learning", "rounds", "privacy.rounds", notation.number),
    ("Federated learning", "cohort, devices a round", "privacy.cohort", notation.number),
    ("Device", "size on disk", "device.bytes", notation.megabytes),
    ("Device", "one model step, median", "device.p50_ms", notation.milliseconds),
    ("Device", "a key, 95th percentile", "device.keystroke_p95_ms", notation.milliseconds),
    ("Device", "cold start", "device.cold_start_ms", notation.milliseconds),
    ("Device", "peak memory", "device.peak_rss_bytes", notation.megabytes),
    ("Time", "all stages", "seconds", notation.seconds),
)


def render_runs(comparison: Mapping[str, Any]) -> str:
    """One self-contained HTML page.

    Args:
        comparison: what `scripts.report.compare_runs` gives: `runs`, the facts of each by its name, `differences`,
            `refused` and `settings`.
    """
    runs = comparison["runs"]
    return load_template("runs.html.j2").render(
        runs=runs,
        groups=_group_rows(runs),
        charts=_draw(runs),
        lifts=_draw_lifts(runs),
        differences=[_describe_difference(row) for row in comparison["differences"]],
        refused=comparison["refused"],
        settings=[
            (name, [notation.setting(value) for value in values])
            for name, values in comparison["settings"].items()
        ],
    )


def _group_rows(runs: Mapping[str, Any]) -> dict[str, list[tuple[str, list[tuple[str, str]]]]]:
    """Rows by heading: a label, and of each run a figure with its interval, if it has one."""
    groups: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {}

    def add(group: str, label: str, path: str, write: Any) -> None:
        found = [find(run, path) for run in runs.values()]
        if any(figure is not None for figure in found):
            groups.setdefault(group, []).append((label, [write(figure) for figure in found]))

    names = METRICS | {"keystroke_savings": "Keystrokes saved"}
    for metric, title in names.items():
        for arm, arm_title in ARMS.items():
            for stage, stage_title in STAGES.items():
                path = f"arms.{arm}.{stage}.{metric}"
                add(title, f"{arm_title}, {stage_title}", path, _write_share)
    for stage, when in _WHEN.items():
        add("Relative lift of synthetic over web text", when, f"lift.{stage}", _write_lift)
    for group, label, path, write in _FIGURES:
        add(group, label, path, lambda figure, write=write: (write(figure), ""))
    return groups


def _write_share(share: Any) -> tuple[str, str]:
    return notation.percent(find(share, "value")), notation.percent_range(share)


def _write_lift(lift: Any) -> tuple[str, str]:
    return (
        notation.percent(find(lift, "relative"), signed=True),
        notation.percent_range(lift, signed=True),
    )


def _draw(runs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Top-1 of every run, a chart for each stage of training."""
    charts = {
        stage: [
            (f"{name}, {title}", f"{arm} {stage}", interval)
            for name, run in runs.items()
            for arm, title in ARMS.items()
            if is_drawable(interval := find(run, f"arms.{arm}.{stage}.top1"), "value")
        ]
        for stage in STAGES
    }
    limit = max((bar["high"] for rows in charts.values() for *_, bar in rows), default=0) or 1.0
    return [
        (title, draw_bars(f"top1-{stage}", title, rows, limit))
        for stage, rows in charts.items()
        if rows
        for title in [f"First suggestion right, {_WHEN[stage]}"]
    ]


def _draw_lifts(runs: Mapping[str, Any]) -> Any:
    lifts = [
        (f"{name}, {when.split()[0]}", lift, PUBLISHED_LIFT)
        for name, run in runs.items()
        for stage, when in _WHEN.items()
        if is_drawable(lift := find(run, f"lift.{stage}"), "relative", highest=float("inf"))
    ]
    return draw_lifts("lifts", "Relative lift of synthetic over web text", lifts) if lifts else None


def _describe_difference(row: Mapping[str, Any]) -> dict[str, Any]:
    difference, relative = row["difference"], row["relative"]
    finding, class_ = "no clear difference", "unclear"
    if difference["low"] > 0:
        finding, class_ = "better", "good"
    elif difference["high"] < 0:
        finding, class_ = "worse", "bad"
    return {
        **row,
        "arm": ARMS[row["arm"]],
        "when": _WHEN[row["step"]],
        "points": f"{notation.points(difference['value'], signed=True)}",
        "range": f"{notation.points(difference['low'], signed=True)} to "
        f"{notation.points(difference['high'], signed=True)}",
        "relative": notation.percent(relative["value"], signed=True) if relative else "–",
        "relative_range": notation.percent_range(relative, signed=True) if relative else "",
        "finding": finding,
        "class": class_,
    }


def name_differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Settings that are not the same in all, by dotted name; None where one has none."""
    flat = [dict(notation.flatten(config)) for config in configs]
    names = dict.fromkeys(name for config in flat for name in config)
    values = {name: [config.get(name) for config in flat] for name in names}
    return {name: found for name, found in values.items() if any(x != found[0] for x in found)}

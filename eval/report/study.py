"""The study's page: arms of a study on one or two test sets against their bars, and what they cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report import notation
from eval.report.ablation import ARM_LABELS, OWN_PARTS, index_lifts, restore_limits
from eval.report.charts import draw_lifts, draw_shares
from eval.report.contamination import describe_certificate
from eval.report.privacy import describe_epsilon
from eval.report.templates import load_template
from eval.study import ADAPTED, BASELINES, CEILING, MIX, find_lift


def render_study(
    study: Mapping[str, Any],
    *,
    second: Mapping[str, Any] | None = None,
    names: Sequence[str] = ("Held-out chat users", "Second human test set"),
    privacy: Mapping[str, Any] | None = None,
    certificates: Sequence[Mapping[str, Any]] = (),
    loops: Sequence[Mapping[str, Any]] = (),
    environment: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> str:
    """One self-contained HTML page; a section appears where there is something to show.

    Args:
        study: what `eval.study.build_study` made for the test set that the bars were declared for.
        second: the same for a second test set.
        names: of the two test sets.
        privacy: of the adapted arm: rho, epsilon, delta, and whatever else tells how they came about.
        certificates: of contamination checks, each `dataclasses.asdict` of a `Certificate`, with the
            `name` of the training text added.
        loops: generation loops, with and without the floor of human text, each `LoopRecord.as_json()`.
        environment: packages and machine.
        commands: that make this page.

    Raises:
        ValueError: the study has no arm.
    """
    if not study.get("arms"):
        raise ValueError("study: no arms; run the study before rendering it")
    sets = [
        _describe_set(figures, name, prefix)
        for figures, name, prefix in zip((study, second), names, ("first", "second"), strict=True)
        if figures
    ]
    return load_template("study.html.j2").render(
        sets=sets,
        study=sets[0]["study"],
        finding=describe_study(study),
        labels=ARM_LABELS,
        mix=MIX,
        adapted=ADAPTED,
        ceiling=CEILING,
        own_parts=OWN_PARTS,
        privacy=privacy,
        privacy_meaning=describe_epsilon((privacy or {}).get("epsilon")),
        certificates=[describe_certificate(certificate) for certificate in certificates],
        loops=_tabulate(loops),
        environment=environment,
        commands=commands,
    )


def describe_study(study: Mapping[str, Any]) -> str:
    """The finding as a sentence, over the widest baseline that was run."""
    for over in BASELINES:
        lift = find_lift(study, MIX, over)
        if lift is None or lift["relative"] is None:
            continue
        baseline = {"web_all": "all public web text", "web_news": "news text"}[over]
        if lift["low"] is not None and lift["low"] > 0:
            return f"Synthetic typing text beats {baseline} by {notation.percent(lift['relative'])}"
        if lift["high"] is not None and lift["high"] < 0:
            behind = notation.percent(-lift["relative"])
            return f"Synthetic typing text falls {behind} behind {baseline}"
        return f"No clear difference between synthetic typing text and {baseline}"
    return "Not compared: synthetic and web text were not trained with a seed in common"


def _describe_set(study: Mapping[str, Any], name: str, prefix: str) -> dict[str, Any]:
    """What the template shows of one test set."""
    study = restore_limits(study)
    over = index_lifts(study)
    return {
        "id": prefix,
        "name": name,
        "study": study,
        "lift": lambda arm, baseline: over.get((arm, baseline)),
        "goals": _list_goals(study, over),
        "reads": [arm["words_read"] for arm in study["arms"].values()],
        **_draw(study, over, name, prefix),
    }


def _list_goals(study: Mapping[str, Any], over: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Each declared bar beside what was measured; nothing was measured where `reached` is None."""
    lifts = [
        {
            "what": f"lift over {ARM_LABELS[bar['over']]}",
            "goal": f"{notation.percent(bar['relative'], signed=True)}, "
            f"interval above {notation.percent(bar['low'], signed=True)}",
            "figure": notation.percent(_get(lift, "relative"), signed=True),
            "interval": notation.percent_range(lift, signed=True),
            "by_seed": _list_seeds(lift, signed=True),
            "reached": bar["reached"],
        }
        for bar in study["bars"]["lifts"]
        for lift in [over.get((MIX, bar["over"]))]
    ]
    gaps = [
        {
            "what": f"gap closed, from {ARM_LABELS[bar['over']]} to other users’ real chat",
            "goal": notation.percent(bar["value"]),
            "figure": notation.percent(_get(gap, "value")),
            "interval": f"{notation.percent_range(gap)}\u202f%" if gap else notation.MISSING,
            "by_seed": _list_seeds(gap),
            "reached": bar["reached"],
        }
        for bar in study["bars"]["gap_closed"]
        for gap in [study["gap_closed"].get(bar["over"])]
    ]
    return lifts + gaps


def _list_seeds(figure: Mapping[str, Any] | None, signed: bool = False) -> list[str]:
    return (
        [notation.percent(value, signed) for value in _get(figure, "by_seed").values()]
        if figure
        else []
    )


def _draw(
    study: Mapping[str, Any], over: Mapping[Any, Any], name: str, prefix: str
) -> dict[str, Any]:
    rows = [
        (
            ARM_LABELS[arm],
            "ceiling" if arm == CEILING else "web" if arm in BASELINES else "synthetic",
            figures["top1"],
            list(figures["top1_by_seed"].values()),
        )
        for arm, figures in study["arms"].items()
    ]
    lifts = [
        (f"over {ARM_LABELS[bar['over']]}", lift, (bar["low"], bar["relative"]))
        for bar in study["bars"]["lifts"]
        for lift in [over.get((MIX, bar["over"]))]
        if lift and lift["relative"] is not None
    ]
    title = f"Relative lift of the mix, {name}"
    return {
        "shares": draw_shares(f"{prefix}-arms", f"First suggestion right by arm, {name}", rows),
        "lifts": draw_lifts(f"{prefix}-lifts", title, lifts) if lifts else None,
    }


def _tabulate(loops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Monitors by name as rows, generations of all loops as columns."""
    columns, groups, outcomes = [], [], []
    for loop in loops:
        title = _name_floor(loop["config"]["human_floor"])
        generations = loop["generations"]
        crossed = {crossing["monitor"]: crossing for crossing in loop["crossed"]}
        groups.append((title, len(generations)))
        for record in generations:
            is_last = record is generations[-1]
            columns.append(
                {
                    "generation": record["generation"],
                    "first": record is generations[0],
                    "crossed": crossed if is_last else {},
                    "health": _list_monitors(record),
                    "rest": _list_spending(record),
                }
            )
        where = "; ".join(
            f"{notation.label(name)} at {notation.number(crossing['value'])}, "
            f"limit {notation.number(crossing['limit'])}"
            for name, crossing in crossed.items()
        )
        last = generations[-1]["generation"] if generations else 0
        outcomes.append(
            f"{title.capitalize()}: "
            + (
                f"stopped after generation {last}, {where}."
                if crossed
                else f"ran to generation {last}, no limit crossed."
            )
        )
    return {
        "groups": groups,
        "columns": columns,
        "outcomes": outcomes,
        "limits": {limit["monitor"]: limit["ratio"] for loop in loops for limit in loop["limits"]},
        "names": {
            part: list(dict.fromkeys(name for column in columns for name in column[part]))
            for part in ("health", "rest")
        },
    }


def _name_floor(share: float) -> str:
    return f"human floor {notation.percent(share, digits=0)}" if share else "no human floor"


def _list_monitors(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a generation is worth and how healthy its text is, by the names that limits have."""
    return {
        "top1": (record["score"] or {}).get("top1"),
        **{name: value for name, value in record["diversity"].items() if name != "words"},
        "kept_share": record["kept_share"],
    }


def _list_spending(record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything else that a generation's record counts."""
    shown_apart = ("generation", "diversity", "kept_share", "rejected", "score")
    return {
        **dict(notation.flatten({key: record[key] for key in record if key not in shown_apart})),
        "rejected_messages": sum(record["rejected"].values()),
        "words_measured": record["diversity"]["words"],
        "training_seconds": (record["score"] or {}).get("seconds"),
        "training_words": (record["score"] or {}).get("words"),
    }


def _get(interval: Mapping[str, Any] | None, key: str) -> Any:
    return interval[key] if interval else None

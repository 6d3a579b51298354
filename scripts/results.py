"""The last stage of a run: its figures, measured on the finished stages, as results.json and report.html."""

import dataclasses
import datetime
import functools
import json
import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from device_runtime.keyboard import Keyboard
from device_runtime.latency import measure_latency
from eval.cohorts import compare_cohorts, compare_rates, find_cohorts
from eval.comparison import compare_scores
from eval.convergence import find_reached
from eval.next_word import WordScores
from eval.report import write_report
from federated.population import read_chat_messages, read_message_file
from scripts.benchmark import TABLE, read_benchmark
from scripts.confusions import confused
from scripts.convergence import measure_convergence
from scripts.kebbie_scores import hash_scores, load_scores_of
from scripts.pipeline import ARMS, PIPELINE, STEPS, Run
from scripts.progress import Advance, show_progress
from scripts.rivals import FOLDER
from scripts.run_facts import AUDIT, collect_facts, drop_folders, find_extras, write_command
from scripts.stages import Stage, stage_seconds
from scripts.training import quieten_tensorflow

# Beginnings of messages for the report's examples; our own.
EXAMPLES = (
    "",
    "see you",
    "what are you",
    "i don't",
    "thanks for the",
    "do you want to",
    "how was your",
    "haha i",
)
PACKAGES = (
    "tensorflow-cpu",
    "tensorflow-federated",
    "tensorflow-privacy",
    "sentencepiece",
    "numpy",
    "tflite-runtime",
)


def report_stage(run: Run) -> Stage:
    """results.json and report.html, from every arm before and after federated learning."""
    needs = tuple(
        stage(arm, step) for arm in ARMS for step in STEPS for stage in (run.evaluated, run.tapped)
    )
    needs += tuple(confused(run, step) for step in STEPS)
    beside: dict[str, Any] = find_extras(run) | hash_scores(run.out)
    beside |= {TABLE: read_benchmark(run)}
    settings = {"config": run.config.model_dump(mode="json"), "beside": beside}
    rooms = (
        "eval",
        "device_runtime",
        "scripts/results.py",
        "scripts/benchmark.py",
        "scripts/convergence.py",
        "scripts/run_facts.py",
        "scripts/kebbie_scores.py",
        PIPELINE,
    )
    return Stage("report", settings, rooms, needs, functools.partial(_build_report, run))


def _build_report(run: Run, folder: Path) -> None:
    with show_progress("report", 4) as advance:
        results = _collect_results(run, advance)
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    (folder / "results.json").write_text(text, "utf-8")
    write_report(results, folder)


def _collect_results(run: Run, advance: Advance) -> dict[str, Any]:
    """Everything in results.json (DESIGN, "Contracts"), as strict JSON values."""
    kebbie = _load_kebbie(run)  # before anything is measured: it may be refused
    advance(0, "latency")
    device = _measure_device(run)
    advance(1, "parity")
    parity = _measure_parity(run)
    advance(2, "examples")
    examples = _suggest_examples(run)
    advance(3, "intervals")
    seed = run.config.seed
    scores = {
        (arm, step): run.load_scores(run.evaluated(arm, step)) for arm in ARMS for step in STEPS
    }
    counts = run.read_json("text/counts.json")
    for arm in ARMS:
        counts[arm] |= run.read_json(f"pretrained/{arm}/read.json")
    counts["population"] = run.read_json("population/counts.json")
    asked = scores["web", "pretrained"]
    curves = {arm: run.read_json(f"federated/{arm}/curve.json") for arm in ARMS}
    matched = find_reached(curves["synthetic"], curves["web"][-1]["top1"])
    arms = {
        arm: {
            step: {
                name: dataclasses.asdict(interval)
                for name, interval in scores[arm, step].intervals(seed).items()
            }
            | {"keystroke_savings": dataclasses.asdict(run.load_taps(arm, step).savings(seed))}
            for step in STEPS
        }
        for arm in ARMS
    }
    results = {
        "preset": Path(run.preset).stem,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arms": arms,
        "lift": {
            step: _lift(scores["web", step], scores["synthetic", step], seed) for step in STEPS
        },
        "curve": curves,
        "rounds_to_match": None if matched is None else matched["round"],
        "convergence": measure_convergence(run, curves, arms),
        "cohorts": _compare_cohorts(run, scores),
        "confusions": {
            step: run.read_json(f"{confused(run, step).name}/confusions.json") for step in STEPS
        },
        "privacy": run.privacy("synthetic"),
        "device": device,
        "parity": parity,
        "examples": examples,
        **kebbie,
        "data": counts,
        "evaluation": {
            "users": len(asked),
            "targets": int(asked.targets.sum()),
            "vocabulary_words": run.config.evaluation.vocabulary,
        },
        **collect_facts(run),
        "config": drop_folders(run.config.model_dump(mode="json")),
        "seeds": {"run": seed},
        "environment": describe_environment(),
        "timings_s": {
            str(record.parent.relative_to(run.out)): stage_seconds(record.parent)
            for record in sorted(run.out.glob("*/**/stage.json"))
            # an earlier report's, and an audit's or a benchmark's own stages are not of this run
            if record.relative_to(run.out).parts[0] not in ("report", AUDIT, FOLDER)
        },
        "commands": ["./scripts/setup", write_command(run)],
    }
    if beside := read_benchmark(run):
        results["beside"] = beside
    return _null_infinities(results)


def print_headline(results: Mapping[str, Any]) -> None:
    """What a run found, on standard output: accuracy, lifts, privacy."""
    import rich.console
    import rich.table

    table = rich.table.Table(
        title="next-word accuracy on held-out people's messages, top-1 in vocabulary"
    )
    for column in ("", "web", "synthetic", "relative lift"):
        table.add_column(column, justify="left" if not column else "right")
    for step in ("pretrained", "federated"):
        row = [step]
        for arm in ("web", "synthetic"):
            top1 = results["arms"][arm][step]["top1"]
            row.append(f"{top1['value']:.2%} ({top1['low']:.2%} to {top1['high']:.2%})")
        lift = results["lift"][step]
        high = "no limit" if lift["high"] is None else f"{lift['high']:+.1%}"
        table.add_row(*row, f"{lift['relative']:+.1%} ({lift['low']:+.1%} to {high})")
    rich.console.Console().print(table)
    privacy = results["privacy"]
    projected = privacy["projected"]
    rho = "" if privacy["rho"] is None else f" (rho {privacy['rho']:.3g})"
    print(
        f"privacy: this simulation epsilon {privacy['epsilon']:.3g}{rho}; "
        f"projected to {projected['cohort']:,} of {projected['population']:,} devices a round: "
        f"epsilon {projected['epsilon']:.3g}, delta {privacy['delta']:g}"
    )


def describe_environment() -> dict[str, Any]:
    """Versions, system and cores that figures were measured with."""
    return {
        "keyfed": version("keyfed"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        **{package: version(package) for package in PACKAGES},
    }


def _bundle(run: Run, arm: str) -> Path:
    return run.out / run.exported(arm, "federated").name / "bundle"


def _lift(baseline: WordScores, scores: WordScores, seed: int) -> dict[str, float]:
    interval = compare_scores([baseline], [scores], seed).relative
    if interval is None:
        raise ValueError("the web arm has no hit: a lift over it is undefined; train it for longer")
    return {"relative": interval.value, "low": interval.low, "high": interval.high}


def _compare_cohorts(run: Run, scores: Mapping[tuple[str, str], WordScores]) -> dict[str, Any]:
    """For whom synthetic text is better or worse than web text, before and after federated learning."""
    users = run.split_population()[0]["test"]
    times: dict[str, list[str]] = {user: [] for user in users}
    path = run.config.population.messages
    for message in read_chat_messages() if path is None else read_message_file(path):
        if message.user in times:
            times[message.user].append(message.timestamp)
    cohorts = find_cohorts(list(users.values()), list(times.values()))
    found = {}
    for step in STEPS:
        pair = [scores["web", step]], [scores["synthetic", step]]
        rates = compare_rates(*pair, run.config.seed)
        found[step] = {
            "rows": [
                dataclasses.asdict(row) for row in compare_cohorts(*pair, cohorts, run.config.seed)
            ],
            "rates": None if rates is None else dataclasses.asdict(rates),
        }
    return found


def _measure_device(run: Run) -> dict[str, Any]:
    latency = measure_latency(_bundle(run, "synthetic"))
    return {
        "bytes": latency.bundle_bytes,
        "p50_ms": latency.step.p50_ms,
        "p99_ms": latency.step.p99_ms,
        "suggest_p50_ms": latency.suggest.p50_ms,
        "suggest_p95_ms": latency.suggest.p95_ms,
        "word_p50_ms": latency.word.p50_ms,
        "keystroke_p50_ms": latency.keystroke.p50_ms,
        "keystroke_p95_ms": latency.keystroke.p95_ms,
        "cold_start_ms": latency.cold_start_ms,
        "peak_rss_bytes": latency.peak_rss_bytes,
        "files_bytes": latency.files_bytes,
    }


def _load_kebbie(run: Run) -> dict[str, Any]:
    scores = load_scores_of({arm: _bundle(run, arm) for arm in ARMS}, run.out)
    return {} if scores is None else {"kebbie": scores.model_dump(mode="json")}


def _suggest_examples(run: Run) -> list[dict[str, Any]]:
    keyboards = {arm: Keyboard.open(_bundle(run, arm)) for arm in ARMS}
    examples = []
    for context in EXAMPLES:
        example: dict[str, Any] = {"context": context}
        for arm, keyboard in keyboards.items():
            session = keyboard.session()
            session.commit(context)
            example[arm] = [suggestion.text for suggestion in session.suggest()]
        examples.append(example)
    return examples


def _measure_parity(run: Run) -> dict[str, Any]:
    quieten_tensorflow()
    from eval.parity import measure_parity
    from model.checkpoint import load_weights

    weights = load_weights(run.out / run.federated("synthetic").name / "weights.npz")
    test_users = run.split_population()[0]["test"]
    messages = (text for texts in test_users.values() for text in texts)
    positions = run.config.evaluation.parity_positions
    keyboard = Keyboard.open(_bundle(run, "synthetic"))
    [parity] = measure_parity(weights, [keyboard], messages, positions)
    return dataclasses.asdict(parity)


def _null_infinities(tree: Any) -> Any:
    """The tree with null for what JSON has no number for: a lift's upper end where the baseline may have no hit."""
    if isinstance(tree, dict):
        return {key: _null_infinities(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_null_infinities(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

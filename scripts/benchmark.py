"""`keyfed benchmark`: our arms beside n-grams of the same text, by the committed protocol."""

import datetime
import functools
import hashlib
import importlib.util
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_runtime.keyboard import Keyboard
from device_runtime.latency import describe_board
from device_runtime.typed_text import MESSAGES
from device_runtime.words import split_words
from eval.benchmark import (
    FLOAT,
    OURS,
    STEPS,
    TEXTS,
    Contestant,
    Protocol,
    build_table,
)
from eval.targets import EvaluationVocabulary, find_targets
from scripts.pipeline import Run
from scripts.progress import show_progress
from scripts.rivals import FOLDER, NgramRival, bundle_stage, float_stage, measure_bundle_bytes
from scripts.stages import Stage

if TYPE_CHECKING:
    from eval.next_word import WordPredictor

TABLE = "benchmark.json"
_WHEN = {"pretrained": "before", "federated": "after"}
_ROOT = Path(__file__).parent.parent


def check_settings(run: Run, protocol: Protocol) -> None:
    """Raises ValueError if the run's configuration or population is not the protocol's."""
    config = run.config
    population = config.population
    path = population.messages
    source = run.population_facts().get("package", "a file")
    if path is None:
        package = importlib.util.find_spec("chitchat_dataset")
        assert package is not None and package.submodule_search_locations
        path = Path(package.submodule_search_locations[0], "dataset.json")
    facts: dict[str, dict[str, Any]] = {
        "population": {
            "source": source,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "store": population.store is not None,
        },
        "split": population.model_dump(exclude={"messages", "store"}),
        "budget": {
            "words": config.text.words,
            "steps": config.text.words // config.text.batch_words,
            "private_adaptation": config.adaptation.enabled,
            "rounds": config.federated.rounds,
            "cohort": config.federated.cohort,
            "noise_multiplier": config.federated.noise_multiplier,
        },
        "metric": {"max_targets": config.evaluation.max_targets},
        "seeds": {"run": config.seed},
    }
    for section, found in facts.items():
        protocol.require(section, found)


def check_vocabulary(run: Run, protocol: Protocol) -> None:
    """Raises ValueError if a run whose tokenizer stage is finished counts by another vocabulary."""
    vocabulary = EvaluationVocabulary.load(run.vocabulary)
    protocol.require("vocabulary", {"words": len(vocabulary), "sha256": vocabulary.sha256})


def benchmark_stage(
    run: Run,
    protocol: Protocol,
    without_kenlm: bool = False,
    bundle: tuple[str, Path] | None = None,
) -> Stage:
    """The table as benchmark.json, from a stage for every row.

    Args:
        run: its run, for which `check_settings` and `check_vocabulary` have passed.
        protocol: to measure by.
        without_kenlm: leaves those rows out.
        bundle: name and folder of another keyboard bundle to put beside.
    """
    ngrams = {
        f"{name}_{text}": NgramRival(run, text, spec)
        for name, spec in protocol.ngrams.items()
        for text in TEXTS
        if spec.cutoffs is None or not without_kenlm
    }
    rivals = {name: rival.stage(name) for name, rival in ngrams.items()}
    rivals[FLOAT] = float_stage(run)
    settings: dict[str, Any] = {"protocol": protocol.sha256, "rows": list(rivals)}
    if bundle is not None:
        rivals[bundle[0]] = bundle_stage(run, *bundle)
        settings["bundle"] = bundle[0]
    arms = [run.evaluated(arm, step) for arm in TEXTS for step in STEPS]
    rooms = (
        *(f"eval/{name}.py" for name in ("benchmark", "comparison", "statistics", "next_word")),
        *("device_runtime", "scripts/benchmark.py"),
    )
    build = functools.partial(_build_table, run, protocol, ngrams, rivals, bundle)
    return Stage(f"{FOLDER}/table", settings, rooms, (*arms, *rivals.values()), build)


def read_benchmark(run: Run) -> dict[str, Any] | None:
    """The table in the run's folder, None if there is none or the arms were made anew since.

    Raises:
        ValueError: the file cannot be read.
    """
    path = run.out / TABLE
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text("utf-8"))
        current = table["arms"] == _fingerprints(run)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path}: no table of keyfed benchmark: remove it, or run it again"
        ) from None
    return table if current else None


def describe_code() -> dict[str, Any]:
    """Date, version and, in a checkout, commit of this code; `+` after it where files were changed since."""
    commit = _git("rev-parse", "HEAD")
    if commit and _git("status", "--porcelain", "--", ".", ":!eval/leaderboard.json"):
        commit += "+"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": date, "version": version("keyfed"), "commit": commit or None}


def print_table(table: Mapping[str, Any]) -> None:
    """The table, the finding and what is missing, on standard output."""
    print(
        f"next words of {table['users']:,} held-out people, {table['targets']:,} words; % with 95 % intervals over"
        f" people;\nours less it: top-3 points, intervals that hold all together; protocol"
        f" {table['protocol']['version']} ({table['protocol']['sha256'][:12]});\n"
        "n-grams read an arm's text, and nothing of the devices, which arms after federated learning have learned from"
    )
    width = max(len(row["title"]) for row in table["rows"])
    print(
        f"{'':{width}}  {'top-1':>16}  {'top-3':>16}  {'top-3, all words':>16}  {'ours less it':>20}  {'MB':>5}  p50 ms"
    )
    for row in table["rows"]:
        shares = "  ".join(f"{_share(row[name]):>16}" for name in ("top1", "top3", "top3_all"))
        difference = "" if row["difference"] is None else _points(row["difference"])
        p50 = "" if row["p50_ms"] is None else f"{row['p50_ms']:.3f}"
        print(
            f"{row['title']:{width}}  {shares}  {difference:>20}  {row['bytes'] / 1e6:5.2f}  {p50:>6}"
        )
    print(table["finding"])
    if table["left_out"]:
        print(f"NOT COMPLETE: left out {', '.join(table['left_out'])}")


def _build_table(
    run: Run,
    protocol: Protocol,
    ngrams: Mapping[str, NgramRival],
    rivals: Mapping[str, Stage],
    bundle: tuple[str, Path] | None,
    folder: Path,
) -> None:
    contestants: list[Contestant] = []
    with show_progress("benchmark", len(protocol.rows)) as advance:
        for arm in TEXTS:
            for step in STEPS:
                name = f"{arm}_{step}"
                advance(len(contestants), name)
                path = run.out / run.exported(arm, step).name / "bundle"
                title = f"{arm} arm, {_WHEN[step]} federated learning"
                p50 = measure_p50_ms(Keyboard.open(path), protocol.latency_repeats)
                scores = run.load_scores(run.evaluated(arm, step))
                size = measure_bundle_bytes(path)
                contestants.append(Contestant(name, title, "arm", scores, size, p50))
        for name, stage in rivals.items():
            advance(len(contestants), name)
            place = run.out / stage.name
            size = json.loads((place / "size.json").read_text("utf-8"))["bytes"]
            title, kind, p50_ms = name, "bundle", None
            if name in ngrams:
                title, kind = ngrams[name].title, "ngram"
                p50_ms = measure_p50_ms(ngrams[name].open(place), protocol.latency_repeats)
            elif name == FLOAT:  # which runs nowhere but in training
                title, kind = "synthetic arm, after, in float32", "float"
            else:
                assert bundle is not None
                p50_ms = measure_p50_ms(Keyboard.open(bundle[1]), protocol.latency_repeats)
            contestants.append(Contestant(name, title, kind, run.load_scores(stage), size, p50_ms))
    table = build_table(contestants, protocol.bootstrap_seed)
    protocol.require("test", {key: table[key] for key in ("users", "targets")})
    names = {row["name"] for row in table["rows"]}
    left_out = [name for name in protocol.rows if name not in names]
    record = {
        "protocol": {"version": protocol.version, "sha256": protocol.sha256},
        "complete": not left_out,
        "left_out": left_out,
        "ours": OURS,
        **table,
        "environment": _describe_environment(),
        "arms": _fingerprints(run),
    }
    (folder / TABLE).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", "utf-8")


def measure_p50_ms(model: "WordPredictor", repeats: int) -> float:
    """Median over messages of the processor time that a word takes, from reading the one before to three suggestions.

    Processor time, which is what passes on an idle machine, so that others' work does not count: models are measured
    one after the other.

    The messages are `typed_text`'s, every word asked for, in this process and one thread, after a round untimed.

    Args:
        model: to be asked.
        repeats: how often each message is timed, >= 1.
    """
    times = []
    for repeat in range(repeats + 1):
        for message in MESSAGES:
            words = split_words(message)
            targets = find_targets(words)
            at = [position in targets for position in range(len(words))]
            started = time.process_time()
            model.predict_words(words, at)
            if repeat:
                times.append((time.process_time() - started) / len(targets))
    return 1e3 * sorted(times)[len(times) // 2]


def _fingerprints(run: Run) -> dict[str, str]:
    stages: Sequence[Stage] = [run.evaluated(arm, step) for arm in TEXTS for step in STEPS]
    return {stage.name: stage.fingerprint() for stage in stages}


def _describe_environment() -> dict[str, Any]:
    from scripts.results import describe_environment

    try:
        kenlm = version("kenlm")
    except PackageNotFoundError:
        kenlm = None
    return describe_environment() | {"cpu": describe_board()["cpu"], "kenlm": kenlm}


def _git(*arguments: str) -> str:
    """What git says of this checkout; nothing where it is none."""
    if not (_ROOT / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _share(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _points(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"

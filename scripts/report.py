"""`keyfed report`: a run's page written anew from its results, or several runs side by side."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from eval.next_word import WordScores

_ARMS = ("web", "synthetic")
_STEPS = ("pretrained", "federated")
_SHOWN = ("preset", "created", "arms", "lift", "rounds_to_match", "privacy", "device", "evaluation")
_SEED = 1  # of the bootstrap

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs that `keyfed run` finished.")],
    compare: Annotated[
        bool,
        typer.Option("--compare", help="One page of all; differences are over the first."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Page of --compare.")] = Path("comparison.html"),
    as_json: AsJson = False,
) -> None:
    """Write each run's report.html anew from its results.json; with --compare, one page of all runs side by side."""
    if compare and len(runs) < 2:
        raise ValueError("--compare: one run alone: give two runs or more")
    if as_json and not compare:
        raise ValueError("--json: a run's figures are in its results.json: give it with --compare")
    records = [read_run(folder) for folder in runs]
    if not compare:
        from eval.report import write_report

        for folder, record in zip(runs, records, strict=True):
            print(write_report(record.results, folder))
        return
    from eval.report.runs import render_runs

    comparison = compare_runs(records)
    _write(out, render_runs(comparison))
    print(json.dumps(_null_infinities(comparison), allow_nan=False) if as_json else out)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a comparison reads of a run's folder.

    Attributes:
        name: of the folder.
        results: what results.json holds.
        folder: to read its scores from.
    """

    name: str
    results: dict[str, Any]
    folder: Path

    def load_scores(self, arm: str, step: str) -> "WordScores":
        """Counts of the test users.

        Raises:
            ValueError: there are none, or not those of the results.
        """
        import zipfile

        import numpy as np

        from eval.next_word import WordScores
        from eval.report.lookup import find

        path = self.folder / "evaluated" / f"{arm}-{step}" / "scores.npz"
        try:
            with np.load(path) as arrays:
                scores = WordScores(**arrays)
        except FileNotFoundError:
            raise ValueError(f"{self.name} has no scores of {arm} {step}") from None
        except (OSError, ValueError, TypeError, zipfile.BadZipFile):
            raise ValueError(f"the scores of {self.name} cannot be read") from None
        share = scores.top1_in.sum() / max(1, scores.in_vocab.sum())
        reported = find(self.results, f"arms.{arm}.{step}.top1.value")
        if not isinstance(reported, float) or not math.isclose(share, reported, abs_tol=1e-9):
            raise ValueError(f"the scores of {self.name} are not those of its results.json")
        return scores

    def asked(self) -> dict[str, str]:
        """SHA-256 of the vocabulary and of the test messages; without one of them if the folder lacks its file."""
        from eval.report.lookup import find

        asked = {}
        with contextlib.suppress(OSError, ValueError):
            certificate = (self.folder / "contamination" / "certificate.json").read_text("utf-8")
            for checked in find(json.loads(certificate), "sets") or ():
                if find(checked, "name") == "test":
                    asked["test messages"] = str(find(checked, "sha256"))
        with contextlib.suppress(OSError):
            vocabulary = (self.folder / "tokenizer" / "vocabulary.txt").read_bytes()
            asked["vocabulary"] = hashlib.sha256(vocabulary).hexdigest()
        return asked


def read_run(folder: Path) -> FinishedRun:
    """A finished run.

    Raises:
        ValueError: its results.json is missing, or is not one.
    """
    from eval.report import check_results

    path = folder / "results.json"
    try:
        results = json.loads(path.read_text("utf-8"))
        check_results(results)
    except OSError as error:
        raise ValueError(
            f"{path}: {error.strerror}: give the folder of a run that keyfed run finished"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}: run keyfed run --out {folder} again") from None
    return FinishedRun(folder.resolve().name, results, folder)


def compare_runs(records: Sequence[FinishedRun]) -> dict[str, Any]:
    """Figures of each run by its name, differences over the first, and why some are missing.

    Returns:
        `runs`: by name, what results.json holds of `_SHOWN`, and `seconds` of all stages; `differences`: of top-1,
        each {run, over, arm, step, difference, relative, users_needed}, at a level at which all hold together with
        95 %; `refused`: {run, over, reason}; `settings`: what differs, values in the order of the runs.
    """
    from eval.report.runs import name_differing

    records = _distinguish(records)
    first, *others = records
    pairs, refused = [], []
    for other in others:
        try:
            pairs += _pair(first, other)
        except ValueError as error:
            refused.append({"run": other.name, "over": first.name, "reason": str(error)})
    settings = [
        {
            name: record.results.get(name)
            for name in ("preset", "config", "environment")
            if record.results.get(name) is not None
        }
        for record in records
    ]
    return {
        "runs": {record.name: _list_facts(record.results) for record in records},
        "differences": _compare_pairs(pairs),
        "refused": refused,
        "settings": name_differing(settings),
    }


def _distinguish(records: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The same with names that differ."""
    named: dict[str, FinishedRun] = {}
    for record in records:
        name, number = record.name, 1
        while name in named:
            number += 1
            name = f"{record.name} ({number})"
        named[name] = dataclasses.replace(record, name=name)
    return list(named.values())


def _pair(
    first: FinishedRun, other: FinishedRun
) -> "list[tuple[dict[str, str], WordScores, WordScores]]":
    """Scores of both for each arm and step.

    Raises:
        ValueError: they were not asked the same, or one has no scores.
    """
    asked, asked_too = first.asked(), other.asked()
    for what in ("test messages", "vocabulary"):
        for run, of_run in ((first, asked), (other, asked_too)):
            if what not in of_run:
                raise ValueError(f"{run.name} has no hash of its {what}")
        if asked[what] != asked_too[what]:
            raise ValueError(f"they differ in {what}")
    pairs = []
    for arm in _ARMS:
        for step in _STEPS:
            a, b = first.load_scores(arm, step), other.load_scores(arm, step)
            if not a.has_targets_of(b):
                raise ValueError("they were not asked the same words of the same users")
            names = {"run": other.name, "over": first.name, "arm": arm, "step": step}
            pairs.append((names, a, b))
    return pairs


def _compare_pairs(
    pairs: "Sequence[tuple[dict[str, str], WordScores, WordScores]]",
) -> list[dict[str, Any]]:
    from eval.comparison import compare_scores
    from eval.statistics import difference_errors, simultaneous_level

    if not pairs:
        return []
    errors = [difference_errors(a.top1_in, b.top1_in, a.in_vocab) for _, a, b in pairs]
    level = simultaneous_level(errors, _SEED)
    return [
        names | dataclasses.asdict(compare_scores([a], [b], _SEED, level=level))
        for names, a, b in pairs
    ]


def _list_facts(results: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: results[name] for name in _SHOWN if name in results}
    timings = results.get("timings_s")
    if isinstance(timings, Mapping):
        facts["seconds"] = sum(x for x in timings.values() if isinstance(x, (int, float)))
    return facts


def _null_infinities(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _null_infinities(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_null_infinities(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _write(path: Path, page: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror}): give another --out"
        ) from None

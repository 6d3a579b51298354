"""The confusions of a run, a stage of their own: what test users meant, and what both arms' keyboards said first."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.pipeline import ARMS, SCORING, Run
from scripts.progress import show_progress
from scripts.stages import Stage

if TYPE_CHECKING:
    from device_runtime.keyboard import Keyboard

TARGETS_A_USER = 100


def confused(run: Run, step: str) -> Stage:
    """Confusions of both arms before or after federated learning, without any that fewer than five people share."""
    settings = run.settings("population") | run.population_facts()
    rooms = (
        "device_runtime",
        "eval/cohorts.py",
        "eval/confusions.py",
        "eval/processes.py",
        "eval/targets.py",
        "federated/population.py",
        "scripts/confusions.py",
        *SCORING,
    )
    needs = (run.contamination, *(run.exported(arm, step) for arm in ARMS))
    return Stage(
        f"confused/{step}", settings, rooms, needs, functools.partial(_build_confused, run, step)
    )


def _build_confused(run: Run, step: str, folder: Path) -> None:
    from eval.confusions import confuse_user, find_confusions
    from eval.processes import score_each
    from eval.targets import EvaluationVocabulary

    vocabulary = EvaluationVocabulary.load(run.vocabulary)
    bundles = [run.out / run.exported(arm, step).name / "bundle" for arm in ARMS]
    users = list(run.split_population()[0]["test"].values())
    with show_progress(f"confusions {step}", len(users)) as advance:
        counts = score_each(
            functools.partial(_open_keyboards, *bundles),
            functools.partial(confuse_user, vocabulary=vocabulary, max_targets=TARGETS_A_USER),
            users,
            run.processes,
            advance,
        )
        confusions = dataclasses.asdict(find_confusions(counts, vocabulary))
    (folder / "confusions.json").write_text(json.dumps(confusions, indent=1), "utf-8")


def _open_keyboards(web: Path, synthetic: Path) -> "tuple[Keyboard, Keyboard]":
    from device_runtime.keyboard import Keyboard

    return Keyboard.open(web), Keyboard.open(synthetic)

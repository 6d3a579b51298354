"""`keyfed plan`: plans of every mechanism side by side, and the measured accuracy that they are told."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.progress import show_progress
from scripts.training import open_devices, quieten_tensorflow

if TYPE_CHECKING:
    from federated.planning import Fleet, Target
    from scripts.pipeline import Run

MEASURED = Path(__file__).parents[1] / "federated" / "measured_accuracy.json"
"""Written by `keyfed bench noise`; the file says how."""

RATIOS = (1e-6, 1e-3, 3e-3, 1e-2, 3e-2)
"""Noise multiplier / cohort: next to none, about production's 7 / 6,500, and beyond."""


def plan(
    population: Annotated[int, typer.Option(help="Devices of the fleet.")],
    delta: Annotated[float, typer.Option(help="Of (epsilon, delta).")],
    epsilon: Annotated[float | None, typer.Option(help="To meet; or give --noise-multiplier.")] = (
        None
    ),
    noise_multiplier: Annotated[
        float | None, typer.Option(help="z in clip norms, to see its epsilon; needs --cohort.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Server steps.")] = 2_000,
    cohort: Annotated[
        int | None, typer.Option(help="Devices a round; default: the smallest that will do.")
    ] = None,
    min_separation: Annotated[
        int | None, typer.Option(help="b; default: the largest that the fleet allows.")
    ] = None,
    max_participations: Annotated[
        int | None, typer.Option(help="k; default: as many as fit in.")
    ] = None,
    noise_to_cohort: Annotated[
        float | None,
        typer.Option(
            help="Largest ratio, as of a tree; default: 7 / 6,500 of a launch if no cohort is given."
        ),
    ] = None,
    daily_availability: Annotated[
        float, typer.Option(help="Share of the devices that can take part on a day, once each.")
    ] = 1.0,
    local_seconds: Annotated[
        float, typer.Option(help="A device's part of a round; 0: it limits nothing.")
    ] = 0.0,
    days: Annotated[float | None, typer.Option(help="Most days for all rounds.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """What a fleet needs for a privacy target: noise, cohort, separation, days, accuracy to expect."""
    from federated.planning import Fleet, Target

    fleet = Fleet(population, daily_availability, local_seconds)
    target = Target(
        delta,
        rounds,
        epsilon,
        noise_multiplier,
        cohort,
        min_separation,
        max_participations,
        noise_to_cohort,
        days,
    )
    made = make_plans(target, fleet)
    print(json.dumps(made)) if as_json else print_plans(made)


def make_plans(target: "Target", fleet: "Fleet", measured: Path = MEASURED) -> dict[str, Any]:
    """Every mechanism's plan, or why it has none.

    Returns:
        `plans`, a list of the fields of `federated.planning.Plan`; `refused`, reasons by mechanism; `measured`, command
        and settings of the runs that accuracy comes from, and accuracy without federated learning.

    Raises:
        ValueError: none can; names the constraint that binds each.
    """
    from federated.planning import InfeasibleError, MeasuredPoint
    from federated.planning import plan as plan_mechanism
    from federated.strategies import MECHANISMS

    origin = json.loads(measured.read_text("utf-8"))
    points = [MeasuredPoint(**point) for point in origin.pop("points")]
    plans, refused = [], {}
    for mechanism in MECHANISMS:
        try:
            plans.append(dataclasses.asdict(plan_mechanism(mechanism, target, fleet, points)))
        except InfeasibleError as error:
            refused[mechanism] = str(error)
    if not plans:
        reasons = "; ".join(f"{mechanism}: {reason}" for mechanism, reason in refused.items())
        raise ValueError(f"no mechanism meets the target. {reasons}")
    return {"plans": plans, "refused": refused, "measured": origin}


def print_plans(made: dict[str, Any]) -> None:
    """A table for people, with what the figures do not say below it."""
    print(
        f"{'mechanism':10}{'noise':>7}{'cohort':>9}{'b':>7}{'k':>4}{'days':>8}{'noise/cohort':>14}{'as a tree':>11}"
        f"{'rho':>9}{'epsilon':>9}{'top-1':>7}"
    )
    for row in made["plans"]:
        guarantee, accuracy = row["guarantee"], row["accuracy"]
        top1 = f"{accuracy['top1']:.1%}" if accuracy else "–"
        print(
            f"{guarantee['mechanism']:10}{guarantee['noise_multiplier']:7.3g}{row['cohort']:9,}"
            f"{guarantee['min_separation']:7,}{guarantee['max_participations']:4}{row['days']:8.3g}"
            f"{row['noise_to_cohort']:14.2e}{row['tree_noise_to_cohort']:11.2e}{guarantee['rho']:9.3g}"
            f"{guarantee['epsilon']:9.3g}{top1:>7}"
        )
    for mechanism, reason in made["refused"].items():
        print(f"{mechanism}: {reason}")
    for row in made["plans"]:
        mechanism = row["guarantee"]["mechanism"]
        print(f"{mechanism}: days bound by {row['days_bound_by']}; top-1 {row['accuracy_note']}")
    measured = made["measured"]
    settings = measured["settings"]
    print(
        f"top-1 was measured in simulated runs of {settings['rounds']} rounds of {settings['cohort']} devices, and is"
        f" {measured['before']['top1']:.1%} without federated learning ({measured['command']})"
    )
    print("as a tree: noise / cohort of a tree that leaves as much noise in the model")


class PointLog:
    """Points measured so far, a line each, so that a killed measurement goes on; of other settings it forgets them.

    Attributes:
        points: those of the settings, in the order of the file.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        self.points = [line["point"] for line in whole if line["settings"] == settings]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(map(self._line, self.points)), "utf-8")

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The point that has all of `key`, if it was measured."""
        return next((point for point in self.points if key.items() <= point.items()), None)

    def append(self, point: dict[str, Any]) -> None:
        """Writes one more."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(self._line(point))
        self.points.append(point)

    def _line(self, point: dict[str, Any]) -> str:
        return json.dumps({"settings": self._settings, "point": point}) + "\n"


def measure_points(run: "Run", arm: str, folder: Path) -> dict[str, Any]:
    """Federated runs from an arm's pre-trained weights, scored on validation users through TFLite files.

    They differ in mechanism and noise alone, and have one seed; the users who judge are not the ones who are tested.

    Args:
        run: its stage pretrained/ARM is finished.
        arm: whose weights the runs start from.
        folder: for bundles.

    Returns:
        `command` and `settings` of the runs; `before`, top-1 without federated learning; `points`, a list of
        {mechanism, noise_to_cohort, top1, low, high}.
    """
    quieten_tensorflow()
    from device_runtime.keyboard import Keyboard
    from eval.next_word import score_users
    from eval.targets import EvaluationVocabulary
    from federated.engines import create_engine
    from federated.local_training import LocalTraining
    from federated.strategies import MECHANISMS
    from federated.training import FederatedTraining
    from model.checkpoint import load_weights
    from scripts.scoring import write_bundle_files

    config = run.config.federated
    split, _ = run.split_population()
    store = open_devices(run, split["train"].values())
    judges = list(split["validation"].values())
    vocabulary = EvaluationVocabulary.load(run.vocabulary)
    start = load_weights(run.out / run.pretrained(arm).name / "weights.npz")

    def score(weights) -> dict[str, float]:
        write_bundle_files(run, folder / "bundle", weights, {"arm": arm})
        open_keyboard = functools.partial(Keyboard.open, folder / "bundle")
        scores = score_users(
            open_keyboard, judges, vocabulary, run.config.evaluation.max_targets or None
        )
        top1 = scores.intervals(run.config.seed)["top1"]
        return {"top1": top1.value, "low": top1.low, "high": top1.high}

    settings = {name: getattr(config, name) for name in ("rounds", "cohort", "clip_norm")}
    settings |= {"devices": len(store), "judges": len(judges), "arm": arm, "seed": run.config.seed}
    done = PointLog(folder / "points.jsonl", settings)
    engine = create_engine(
        config.engine, LocalTraining(config.local_learning_rate, config.clip_norm)
    )
    try:
        with show_progress("points", len(MECHANISMS) * len(RATIOS)) as advance:
            for mechanism in MECHANISMS:
                for ratio in RATIOS:
                    key = {"mechanism": mechanism, "noise_to_cohort": ratio}
                    if done.find(key) is None:
                        changed = {
                            "mechanism": mechanism,
                            "noise_multiplier": ratio * config.cohort,
                        }
                        training = FederatedTraining(
                            start, store, engine, config.model_copy(update=changed), run.config.seed
                        )
                        for _ in range(config.rounds):
                            training.run_round()
                        done.append(key | score(training.weights))
                    advance(len(done.points), json.dumps(done.find(key)))
        before = score(start)
    finally:
        engine.close()
    command = f"keyfed bench noise --preset {Path(run.preset).stem} --arm {arm}"
    return {"command": command, "settings": settings, "before": before, "points": done.points}

"""`keyfed audit`: canaries in federated runs against their ledgers, and what four ways of training remember."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.progress import show_progress
from scripts.run_facts import AUDIT
from scripts.stages import recorded_settings
from scripts.training import build_store, open_devices, quieten_tensorflow

if TYPE_CHECKING:
    from scripts.pipeline import Run

SIGNIFICANCE = 0.05
REFERENCES = 2_000  # exposures end at 11 bits
SENTENCES = 8  # for each way of planting, or as many as there are devices for
PLANTINGS = ((1, 1), (1, 16), (16, 1), (16, 4))
"""(users, repetitions on each): what the number of copies does, and what the number of devices does."""

_NO_NOISE = 1e-6  # the least that a mechanism takes
_LOSS_MESSAGES = 2_000


def choose_folder(run: "Run", arm: str) -> Path:
    """Where the stages of an audit lie: the run's folder, or one below it if the run is of another configuration."""
    from scripts.pipeline import list_needed

    for stage in list_needed(run.pretrained(arm)):
        settings = json.loads(json.dumps(stage.settings))
        if recorded_settings(run.out / stage.name) not in (None, settings):
            return run.out / AUDIT / Path(run.preset).stem
    return run.out


def audit_runs(
    run: "Run", arm: str, canaries: int, seeds: int, remove_noise: bool
) -> list[dict[str, Any]]:
    """One federated run with canaries for each seed, from an arm's pre-trained weights.

    Args:
        run: its stage pretrained/ARM is finished.
        arm: whose weights the runs start from.
        canaries: added to the population; half of them are out.
        seeds: runs, the first with the configuration's seed.
        remove_noise: runs without noise whose ledgers say that they have it, to see that the audit notices.

    Returns:
        For each run the fields of `federated.canaries.CanaryAudit`, `seed` and `violated`.
    """
    quieten_tensorflow()
    from federated.canaries import Canaries, audit_canaries
    from federated.engines import create_engine
    from federated.ledger import Ledger
    from federated.local_training import LocalTraining
    from federated.training import FederatedTraining
    from model.checkpoint import load_weights

    honest = run.config.federated
    config = honest.model_copy(update={"noise_multiplier": _NO_NOISE}) if remove_noise else honest
    store = open_devices(run, run.split_population()[0]["train"].values())
    start = load_weights(run.out / run.pretrained(arm).name / "weights.npz")
    shapes = [w.shape for w in start]
    audits: list[dict[str, Any]] = []
    engine = create_engine(
        config.engine, LocalTraining(config.local_learning_rate, config.clip_norm)
    )
    try:
        with show_progress("audit", seeds * config.rounds) as advance:
            for seed in range(run.config.seed, run.config.seed + seeds):
                added = Canaries(canaries, shapes, config.clip_norm, seed)
                training = FederatedTraining(start, store, engine, config, seed, added)
                if remove_noise:
                    claimed = dataclasses.replace(
                        training.ledger.promise, noise_multiplier=honest.noise_multiplier
                    )
                    training.ledger = Ledger(claimed)
                for _ in range(config.rounds):
                    training.run_round()
                    advance(len(audits) * config.rounds + training.round, f"seed {seed}")
                change = [w - first for w, first in zip(training.weights, start, strict=True)]
                audit = audit_canaries(
                    training.ledger, added, len(store), change, config.delta, SIGNIFICANCE, seed
                )
                facts = {"seed": seed, "violated": audit.is_violated}
                audits.append(facts | dataclasses.asdict(audit))
    finally:
        engine.close()
    return audits


def measure_memorisation(run: "Run", arm: str) -> dict[str, Any]:
    """Exposure of planted sentences after each of the four ways of training, from an arm's pre-trained weights.

    Args:
        run: its stage pretrained/ARM is finished.
        arm: whose weights all four start from.

    Returns:
        `plantings`; `references` and `largest_exposure`, bits; `loss_before`; `settings`; and `arms`, by name `loss` on
        validation users, `epsilon` or None, and `exposures`: for each planting {value, low, high}, the median and
        quartiles, and `all`, every sentence's.
    """
    quieten_tensorflow()
    from eval.targets import EvaluationVocabulary
    from federated.exposure import (
        Planting,
        generate_sentences,
        measure_exposures,
        plant_sentences,
    )
    from federated.memorisation import ARMS, train_arms
    from model.checkpoint import load_weights
    from model.scoring import score_messages

    run.require_messages("keyfed audit memorisation plants sentences")
    config, seed, tokenizer = run.config.federated, run.config.seed, run.load_tokenizer()
    split, _ = run.split_population()
    words = EvaluationVocabulary.load(run.vocabulary).words[:1_000]
    plantings = [Planting(*numbers) for numbers in PLANTINGS]
    room = len(split["train"]) // sum(users for users, _ in PLANTINGS)
    sentences = max(1, min(SENTENCES, room))
    planted, references = generate_sentences(words, plantings, sentences, REFERENCES, seed)
    store = build_store(run, plant_sentences(list(split["train"].values()), planted, seed))
    judges = [text for messages in split["validation"].values() for text in messages]
    judges = judges[:: -(-len(judges) // _LOSS_MESSAGES)]
    start = load_weights(run.out / run.pretrained(arm).name / "weights.npz")

    def mean_loss(weights) -> float:
        return -float(score_messages(weights, tokenizer, judges).mean())

    arms = {}
    with show_progress("memorisation", len(ARMS)) as advance:
        for name, weights, ledger in train_arms(start, store, config, seed):
            exposures = measure_exposures(weights, tokenizer, planted, references)
            arms[name] = {
                "loss": mean_loss(weights),
                "epsilon": None if ledger is None else ledger.guarantee(config.delta).epsilon,
                "exposures": [_summarise(exposures[planting]) for planting in plantings],
            }
            advance(len(arms), name)
    return {
        "plantings": [dataclasses.asdict(planting) for planting in plantings],
        "references": REFERENCES,
        "largest_exposure": float(np.log2(REFERENCES)),
        "loss_before": mean_loss(start),
        "settings": {
            "preset": Path(run.preset).stem,
            "devices": len(store),
            "sentences a planting": sentences,
            **config.model_dump(
                include={"rounds", "cohort", "clip_norm", "noise_multiplier", "delta"}
            ),
        },
        "arms": arms,
    }


def write_audits(
    audits: list[dict[str, Any]], run: "Run", arm: str, noise: bool, out: Path
) -> None:
    """Writes what `audit_runs` found for the report: canaries.json, or canaries_without_noise.json."""
    federated = run.config.federated
    figures = {
        "preset": Path(run.preset).stem,
        "arm": arm,
        **federated.model_dump(include={"rounds", "cohort", "noise_multiplier"}),
        "audits": audits,
    }
    name = "canaries.json" if noise else "canaries_without_noise.json"
    _write(out / AUDIT / name, json.dumps(figures, indent=1))


def write_memorisation(figures: dict[str, Any], out: Path) -> Path:
    """Writes memorisation.json and memorisation.html below a run's folder, and returns the page's path."""
    from eval.report.memorisation import render_memorisation

    _write(out / AUDIT / "memorisation.json", json.dumps(figures, indent=1))
    page = out / AUDIT / "memorisation.html"
    _write(page, render_memorisation(figures))
    return page


def _write(path: Path, content: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(content, "utf-8")
    temporary.rename(path)


def _summarise(exposures: np.ndarray) -> dict[str, Any]:
    low, value, high = map(float, np.quantile(exposures, (0.25, 0.5, 0.75)))
    return {"value": value, "low": low, "high": high, "all": [float(x) for x in exposures]}


def print_audits(figures: dict[str, Any], page: Path | None) -> None:
    """The figures for people; estimates are called what they are."""
    for audit in figures["audits"]:
        print(
            f"seed {audit['seed']}: ledger epsilon {audit['epsilon']:.3g} at delta {audit['delta']:g}; at least"
            f" {audit['lower_bound']:.3g} ({audit['confidence']:.0%} confidence; a perfect attack would show"
            f" {audit['largest_bound']:.3g} with {audit['canaries_in']} canaries in, {audit['canaries_out']} out);"
            f" estimates, no bounds: {audit['estimate_every']:.3g} from every round, {audit['estimate_final']:.3g} from"
            " the final model"
        )
    for audit in figures["audits"]:
        if audit["largest_bound"] <= audit["epsilon"]:
            print(
                f"seed {audit['seed']}: no attack could contradict so large an epsilon with so few canaries"
            )
    if page is not None:
        memorisation = figures["memorisation"]
        for arm, row in memorisation["arms"].items():
            medians = ", ".join(
                f"{exposure['value']:.1f} ({planting['users']} x {planting['repetitions']})"
                for planting, exposure in zip(
                    memorisation["plantings"], row["exposures"], strict=True
                )
            )
            print(
                f"{arm:16} loss {row['loss']:.3f}, median exposure in bits (devices x copies): {medians}"
            )
        print(f"figure: {page}")

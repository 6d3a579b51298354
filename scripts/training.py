"""What the training stages do: tokenizer, pre-training of an arm, federated learning.

Heavy libraries are imported where they are used.
"""

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.progress import show_progress

if TYPE_CHECKING:
    import numpy as np

    from federated.store import DeviceStore
    from federated.training import FederatedTraining
    from scripts.pipeline import Run
    from scripts.pool_files import TrainingPools

REAL_CHAT = "real_chat"
"""The arm that reads the simulated devices' own messages: a ceiling, trained in a study only."""
TOKENIZER_POOLS = ("web", "web_converted", "llm", "llm_everyday")  # the others are parts of these


def build_tokenizer(run: "Run", folder: Path) -> None:
    """Trains the tokenizer and fixes the evaluation vocabulary, both on public text."""
    from eval.targets import EvaluationVocabulary
    from model.tokenizer import train_tokenizer
    from scripts.pool_files import read_pool

    pools = [run.out / "text" / f"{name}.jsonl.gz" for name in TOKENIZER_POOLS]
    with show_progress("tokenizer", 3) as advance:
        texts = [" ".join(message.words) for path in pools for message in read_pool(path)]
        advance(1, "pieces")
        model = train_tokenizer(texts, run.config.tokenizer)
        (folder / "tokenizer.model").write_bytes(model)
        advance(2, "vocabulary")
        vocabulary = EvaluationVocabulary.build(texts, run.config.evaluation.vocabulary)
        vocabulary.save(folder / "vocabulary.txt")


def build_pretrained(run: "Run", arm: str, folder: Path) -> None:
    """Trains an arm on its recipe's rows; goes on from its checkpoint."""
    quieten_tensorflow()
    from model.checkpoint import save_weights
    from model.network import NetworkShape
    from model.pretraining import pretrain
    from synthetic_text.mixture import batch_rows, stream_batches

    config, text = run.config.pretraining, run.config.text
    training = _training_pools(run, arm)
    pools = training.pools
    floor = run.recipe(arm).human_floor if arm != REAL_CHAT else 1.0
    counts = batch_rows(pools, training.shares, text.batch_words, floor)
    steps = text.words // text.batch_words
    shape = NetworkShape(
        run.load_tokenizer().size, run.config.network.embedding, run.config.network.units
    )
    with show_progress(f"pre-train {arm}", steps) as advance:
        weights = pretrain(
            lambda start: stream_batches(pools, counts, run.config.seed, start, text.temperature),
            shape,
            steps,
            config,
            run.config.seed,
            folder / "checkpoint.npz",
            lambda step, loss: advance(step, f"loss {loss:.2f}"),
        )
    save_weights(folder / "weights.npz", weights)
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    words = sum(counts[name] * pool.words / len(pool.rows) for name, pool in pools.items())
    read = {
        "steps": steps,
        "rows_a_batch": sum(counts.values()),
        "words_read": round(steps * words),
        "distinct_words": training.distinct_words,
    }
    read |= {f"rows_a_batch_{name}": count for name, count in counts.items()}
    (folder / "read.json").write_text(
        json.dumps(read | {"parameters": shape.parameters()}), "utf-8"
    )


def _training_pools(run: "Run", arm: str) -> "TrainingPools":
    from scripts.pool_files import TrainingPools, chat_pool, load_training_pools

    row_tokens = run.config.pretraining.row_tokens
    if arm == REAL_CHAT:
        users = run.split_population()[0]["train"].values()
        pool = chat_pool(users, run.load_tokenizer(), row_tokens)
        return TrainingPools({arm: pool}, {arm: 1.0}, pool.words)
    recipe, choose = run.recipe(arm), None
    if recipe.adapted:
        from scripts.adaptation import choose_messages

        choose = functools.partial(
            choose_messages,
            folder=run.out / run.adaptation.name,
            config=run.config.adaptation,
            seed=run.config.seed,
        )
    return load_training_pools(
        run.out / "text",
        recipe,
        run.load_tokenizer(),
        row_tokens,
        run.config.text.temperature,
        choose,
    )


def build_federated(run: "Run", arm: str, folder: Path) -> None:
    """Trains an arm on the devices; goes on from its checkpoint."""
    quieten_tensorflow()
    from federated.engines import create_engine
    from federated.ledger import Ledger
    from federated.local_training import LocalTraining
    from federated.round_log import RoundLog
    from federated.training import FederatedTraining, train_federated
    from model.checkpoint import load_weights, save_weights

    config = run.config.federated
    split, _ = run.split_population()
    store = open_devices(run, split["train"].values())
    judges = list(split["validation"].values())[: run.config.evaluation.curve_users]
    del split
    weights = load_weights(run.out / "pretrained" / arm / "weights.npz")
    clip_norm = config.clip_norm if config.adaptive_clipping is None else None
    local_training = LocalTraining(
        config.local_learning_rate,
        clip_norm,
        config.proximal,
        config.full_weight_pieces,
        config.device_noise(sum(w.size for w in weights)),
    )
    engine = create_engine(
        config.engine,
        local_training,
        config.workers,
        config.shard_timeout_s,
        config.engine_address,
    )
    log = RoundLog(folder)
    try:
        training = FederatedTraining(weights, store, engine, config, run.config.seed)
        if arm != REAL_CHAT and run.recipe(arm).adapted:
            ledger = (run.out / run.adaptation.name / "ledger.json").read_text("utf-8")
            training.ledger.earlier = (Ledger.from_json(ledger),)
        with show_progress(f"federate {arm}", config.rounds) as advance:
            if not (folder / "checkpoint.npz").exists():
                _add_to_curve(run, folder, arm, 0, weights, judges)
            started = time.monotonic()

            def after_round(training: "FederatedTraining") -> None:
                nonlocal started
                seconds, accuracy = time.monotonic() - started, None
                if training.round % config.evaluate_every == 0 or training.round == config.rounds:
                    accuracy = _add_to_curve(
                        run, folder, arm, training.round, training.weights, judges
                    )
                latest = training.history[-1]
                rho = None  # none with Poisson sampling, whose epsilon takes seconds to compute
                if config.sampling == "fixed":
                    rho = training.ledger.total(config.delta).rho
                measured = {"accuracy": accuracy, "rho": rho, "seconds": seconds}
                log.append({"round": training.round} | latest | measured)
                advance(
                    training.round,
                    f"loss {latest['loss']:.2f}, clipped {latest['clipped']:.0%}",
                )
                started = time.monotonic()

            train_federated(training, config.rounds, folder / "checkpoint.npz", after_round)
    finally:
        log.close()
        engine.close()
    save_weights(folder / "weights.npz", training.weights)
    (folder / "ledger.json").write_text(training.ledger.to_json(), "utf-8")
    for left in (
        "checkpoint.npz",
        "checkpoint.ledger",
    ):  # in this order: the first needs the second
        (folder / left).unlink(missing_ok=True)


def open_devices(run: "Run", users: Iterable[Sequence[str]]) -> "DeviceStore":
    """The devices that train: the configuration's store, if it has one, else the training users' messages packed.

    Raises:
        ValueError: the store is not there, not for this run's tokenizer and rows, or has people that the run tests on.
    """
    from federated.store import DeviceStore, Split, StoreFacts

    population, path = run.config.population, run.out / "tokenizer" / "tokenizer.model"
    folder = population.store
    if folder is None:
        return build_store(run, users)
    remedy = f"make one with keyfed fleet build or synthesize, --tokenizer {path}"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, and population.store is there: {remedy}")
    facts = StoreFacts.read(folder)
    if facts.tokenizer != hashlib.sha256(path.read_bytes()).hexdigest():
        made = "no tokenizer" if facts.tokenizer is None else "another tokenizer"
        raise ValueError(f"{folder}: was made with {made}, its pieces mean nothing here: {remedy}")
    if facts.row_tokens != run.config.federated.row_tokens:
        raise ValueError(
            f"{folder}: has rows of {facts.row_tokens} pieces, and federated.row_tokens is"
            f" {run.config.federated.row_tokens}: change it, or {remedy}"
        )
    split = Split(population.rotation, population.train_share, population.validation_share)
    if facts.split not in (None, split):
        raise ValueError(
            f"{folder}: is the training side of {facts.split}, and population is {split}: some would be trained and"
            f" tested on: use the same, or {remedy}"
        )
    return DeviceStore.open(folder, facts.vocabulary)


def build_store(run: "Run", devices: Iterable[Sequence[str]]) -> "DeviceStore":
    """Packed rows of devices given by their messages."""
    from federated.store import DeviceStore
    from model.rows import encode_text, pack_rows

    tokenizer, length = run.load_tokenizer(), run.config.federated.row_tokens
    return DeviceStore.build(
        [
            pack_rows((encode_text(tokenizer, text) for text in messages), length)
            for messages in devices
        ]
    )


def _add_to_curve(
    run: "Run",
    folder: Path,
    arm: str,
    done: int,
    weights: Sequence["np.ndarray"],
    judges: Sequence[Sequence[str]],
) -> float:
    """Validation users' accuracy after `done` rounds, measured through a TFLite file and added to curve.json."""
    from device_runtime.keyboard import Keyboard
    from eval.next_word import score_users
    from eval.targets import EvaluationVocabulary
    from scripts.scoring import write_bundle_files  # scoring builds on this file

    path, bundle = folder / "curve.json", folder / "curve_bundle"
    write_bundle_files(run, bundle, weights, {"arm": arm, "rounds": done})
    vocabulary = EvaluationVocabulary.load(run.out / "tokenizer" / "vocabulary.txt")
    limit = run.config.evaluation.curve_max_targets
    scores = score_users(functools.partial(Keyboard.open, bundle), judges, vocabulary, limit)
    top1 = scores.intervals(run.config.seed)["top1"]
    curve = json.loads(path.read_text("utf-8")) if path.exists() else []
    curve = [point for point in curve if point["round"] < done]
    curve.append({"round": done, "top1": top1.value, "low": top1.low, "high": top1.high})
    path.write_text(json.dumps(curve), "utf-8")
    return top1.value


def quieten_tensorflow() -> None:
    """Imports TensorFlow without its chatter of starting and converting; errors still show."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, at the import
    import tensorflow  # noqa: F401

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)

"""The stage that asks devices for their DP histogram, and the choice of messages that follows from its file alone."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_runtime.features import DpHistogram, FeatureSpace
from federated.accounting import noise_multiplier_for
from scripts.config import AdaptationConfig
from synthetic_text.adaptation import fit_topics, resample, weigh_by_histogram
from synthetic_text.llm_chats import load_llm_chats


def ask_devices(
    devices: Mapping[str, Sequence[str]],
    config: AdaptationConfig,
    delta: float,
    engine_name: str,
    engine_address: str | None,
    seed: int,
    folder: Path,
) -> None:
    """Writes the public feature space, the devices' noised histogram, its ledger and what it cost (privacy.json).

    Args:
        devices: messages by device.
        config: size of the space and privacy of the release.
        delta: of (epsilon, delta).
        engine_name: of the federated engine that sums.
        engine_address: of the Ray cluster it joins, if any.
        seed: of topics and noise.
        folder: to write to.
    """
    from federated.engines import create_engine
    from federated.histogram import release_histogram
    from federated.local_training import LocalTraining

    chats: dict[tuple[str, int], list[str]] = {}
    for message in load_llm_chats():
        chats.setdefault((message.family, message.chat), []).append(message.text)
    documents = [" ".join(texts) for texts in chats.values()]
    topics = fit_topics(documents, config.word_buckets, config.topics, seed)
    space = FeatureSpace(config.word_buckets, config.pair_buckets, topics)
    noise = noise_multiplier_for(config.epsilon, delta, 1)
    engine = create_engine(
        engine_name, LocalTraining(learning_rate=1.0, clip_norm=1.0), address=engine_address
    )
    try:
        histogram, ledger = release_histogram(
            list(devices.values()), space, engine, 1, config.clip_norm, noise, seed
        )
    finally:
        engine.close()
    space.save(folder / "space.npz")
    histogram.save(folder / "histogram.npz")
    (folder / "ledger.json").write_text(ledger.to_json(), "utf-8")
    guarantee = ledger.guarantee(delta)
    privacy: dict[str, Any] = dataclasses.asdict(guarantee) | {
        "devices": histogram.devices,
        "clip_norm": config.clip_norm,
        "noise_stddev": histogram.noise_stddev,
    }
    (folder / "privacy.json").write_text(json.dumps(privacy, indent=1), "utf-8")


def choose_messages(
    texts: Sequence[str], folder: Path, config: AdaptationConfig, seed: int
) -> np.ndarray:
    """Places of the messages to keep, int64: config.keep of them, drawn by their importance to the devices.

    Args:
        texts: of a pool.
        folder: where `ask_devices` wrote.
        config: share to keep.
        seed: of the draws.
    """
    space = FeatureSpace.load(folder / "space.npz")
    histogram = DpHistogram.load(folder / "histogram.npz")
    weights = weigh_by_histogram(texts, space, histogram)
    return resample(weights, round(config.keep * len(texts)), np.random.default_rng([seed, 3]))

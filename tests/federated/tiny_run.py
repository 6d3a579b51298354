"""A tiny federated run with noise, in this process or as one of its own (`python -m tests.federated.tiny_run`)."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from federated.config import FederatedConfig
from federated.engines import Engine, create_engine
from federated.isolation import isolate_network
from federated.local_training import LocalTraining

ROUNDS = 10
CONFIG = FederatedConfig(
    rounds=ROUNDS,
    cohort=24,
    min_separation=2,
    shards=6,
    batch_rows=2,
    row_tokens=4,
    max_batches=3,
    local_learning_rate=0.5,
    clip_norm=0.4,
    noise_multiplier=0.5,
)
TRAINING = LocalTraining(CONFIG.local_learning_rate, CONFIG.clip_norm)
MESSAGES = [count % 13 for count in range(60)]


def run_tiny(
    engine: Engine, checkpoint: Path, after_round: Callable[[int], None] = lambda _: None
) -> dict[str, np.ndarray]:
    """Everything in the last checkpoint of the run, which goes on from `checkpoint` where there is one."""
    from federated.training import FederatedTraining, train_federated
    from tests.federated.tiny_devices import build_store, random_weights

    training = FederatedTraining(random_weights(1), build_store(MESSAGES), engine, CONFIG, seed=5)
    train_federated(training, ROUNDS, checkpoint, lambda run: after_round(run.round))
    with np.load(checkpoint) as arrays:
        return dict(arrays)


def main() -> None:
    """Says each round on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("workers", type=int)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    isolate_network()
    engine = create_engine(arguments.engine, TRAINING, arguments.workers)
    try:
        run_tiny(engine, arguments.checkpoint, lambda done: print("round", done, flush=True))
    finally:
        engine.close()


if __name__ == "__main__":
    main()

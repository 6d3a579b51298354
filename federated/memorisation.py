"""What four ways of training on the same devices remember of sentences planted there (after Thakkar et al. 2020).

`central`: all rows pooled and shuffled, SGD. `central_by_user`: one user's rows at a time, the update clipped.
`fedavg`: means over cohorts, neither clipped nor noised. `dp_ftrl`: the run itself. All four visit the same devices
equally often and take the same local steps, so that they differ in nothing else.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from federated.cohort import CohortSelector
from federated.config import FederatedConfig
from federated.engines.local import LocalEngine
from federated.ledger import Ledger
from federated.local_training import LocalTraining
from federated.server import LearningRate, Weights, create_server_optimizer
from federated.store import DeviceStore
from federated.training import FederatedTraining

ARMS = ("central", "central_by_user", "fedavg", "dp_ftrl")
_UNCLIPPED = 1e9


def train_arms(
    weights: Sequence[np.ndarray], store: DeviceStore, config: FederatedConfig, seed: int
) -> Iterator[tuple[str, Weights, Ledger | None]]:
    """Name, final weights and, of `dp_ftrl`, ledger of each of ARMS, one after the other.

    Args:
        weights: where all four start.
        store: the devices.
        config: of the run; its engine and shards are not used.
        seed: of cohorts, shuffling and noise.
    """
    selector = CohortSelector(len(store), config.cohort, config.min_separation, seed)
    cohorts = [selector.select(round_index).tolist() for round_index in range(config.rounds)]
    visits = [device for cohort in cohorts for device in cohort]
    free = LocalEngine(LocalTraining(config.local_learning_rate, _UNCLIPPED))
    clipped = LocalEngine(LocalTraining(config.local_learning_rate, config.clip_norm))
    batch = config.batch_rows, config.max_batches

    rows = np.concatenate(
        [
            store.rows[store.offsets[device] : store.offsets[device + 1]][: batch[0] * batch[1]]
            for device in visits
        ]
    )
    pooled = DeviceStore.build([np.random.default_rng([seed, 4]).permutation(rows)])
    updates, _ = free.run_round(weights, [pooled.shard([0], batch[0], len(rows))])
    yield "central", _add(weights, updates), None

    current = list(weights)
    for device in visits:
        updates, _ = clipped.run_round(current, [store.shard([device], *batch)])
        current = _add(current, updates)
    yield "central_by_user", current, None

    current = [np.array(w) for w in weights]
    optimizer = create_server_optimizer(
        config.server_optimizer, weights, config.server_momentum, config.server_epsilon
    )
    rate = LearningRate(
        config.server_learning_rate, config.rounds, config.cooldown_rounds, config.cooldown_share
    )
    for round_index, cohort in enumerate(cohorts):
        updates, _ = free.run_round(current, [store.shard(cohort, *batch)])
        optimizer.step(current, [u / config.cohort for u in updates], rate.at(round_index))
    yield "fedavg", current, None

    noise = config.device_noise(sum(w.size for w in weights))
    engine = LocalEngine(LocalTraining(config.local_learning_rate, config.clip_norm, noise=noise))
    training = FederatedTraining(weights, store, engine, config, seed)
    for _ in range(config.rounds):
        training.run_round()
    yield "dp_ftrl", training.weights, training.ledger


def _add(weights: Sequence[np.ndarray], updates: Sequence[np.ndarray]) -> Weights:
    return [weight + update for weight, update in zip(weights, updates, strict=True)]

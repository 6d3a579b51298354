"""The round loop: select, train, add noise, step, record, checkpoint."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from federated.canaries import Canaries
from federated.cohort import CohortSelector
from federated.config import FederatedConfig
from federated.engines import Engine, Shard
from federated.ledger import Ledger, Promise
from federated.local_training import METRICS
from federated.mechanisms import AdaptiveClipping, create_mechanism
from federated.population import DeviceStore
from federated.sensitivity import most_participations
from federated.server import LearningRate, Weights, create_server_optimizer
from model.checkpoint import number_arrays, numbered_arrays, save_arrays


class FederatedTraining:
    """A federated run that can stop after any round and go on bit for bit.

    Attributes:
        round: rounds done.
        weights: the server's weights.
        ledger: who took part when, and what that costs.
        history: one dict of METRICS a round, as means over devices (loss over pieces), and the clip norm.

    Args:
        canaries: for an audit, more devices after the store's; their coins and observations are not in the checkpoint.
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        store: DeviceStore,
        engine: Engine,
        config: FederatedConfig,
        seed: int,
        canaries: Canaries | None = None,
    ) -> None:
        if canaries is not None and config.adaptive_clipping is not None:
            raise ValueError("canaries need a fixed clip norm: leave adaptive_clipping out")
        self._store, self._engine, self._config = store, engine, config
        self._canaries = canaries
        self.round = 0
        self.weights: Weights = [np.array(w) for w in weights]
        self._optimizer = create_server_optimizer(
            config.server_optimizer, weights, config.server_momentum, config.server_epsilon
        )
        self._learning_rate = LearningRate(
            config.server_learning_rate,
            config.rounds,
            config.cooldown_rounds,
            config.cooldown_share,
        )
        population = len(store) + (0 if canaries is None else len(canaries))
        self._selector = CohortSelector(population, config.cohort, config.min_separation, seed)
        rounds, min_separation = config.rounds, config.min_separation
        strategy = config.mechanism_choice().build(
            rounds, min_separation, most_participations(rounds, min_separation, rounds)
        )
        clipping = config.adaptive_clipping
        self._mechanism = create_mechanism(
            strategy,
            [w.shape for w in weights],
            config.clip_norm,
            config.noise_multiplier,
            # TensorFlow Privacy counts seeds up, one a tensor: runs with neighbouring seeds must start far apart.
            int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint32)[0]),
            None
            if clipping is None
            else AdaptiveClipping(**clipping.model_dump(), cohort=config.cohort),
        )
        self.ledger = Ledger(
            Promise(strategy, config.noise_multiplier, config.clip_norm, config.min_separation)
        )
        self.history: list[dict[str, float]] = []

    def run_round(self) -> dict[str, float]:
        """One round: the mean of the cohort's clipped updates, noised, as a step of the server.

        The divisor is the cohort size of the config, not the number that reported, so it tells nothing about anyone.
        """
        config = self._config
        cohort = self._selector.select(self.round)
        clip_norm = self._mechanism.clip_norm
        reported = cohort[cohort < len(self._store)]
        sent = [*self.weights, *self._mechanism.broadcast()]
        sums, metrics = self._engine.run_round(sent, self._shards(reported))
        if self._canaries is not None:
            chosen = cohort[len(reported) :] - len(self._store)
            reported = np.append(reported, chosen[self._canaries.is_in[chosen]] + len(self._store))
            sums = [s + c for s, c in zip(sums, self._canaries.sum_updates(chosen), strict=True)]
        self.ledger.record(self.round, selected=cohort, reported=reported)
        noised = self._mechanism.add_noise(sums)
        if self._canaries is not None:
            self._canaries.observe(noised)
        mean = [update / config.cohort for update in noised]
        self._optimizer.step(self.weights, mean, self._learning_rate.at(self.round))
        self.round += 1
        self.history.append(_mean_metrics(metrics) | {"clip_norm": clip_norm})
        return self.history[-1]

    def _shards(self, cohort: np.ndarray) -> list[Shard]:
        """The cohort dealt to shards, largest devices first and back and forth, so that shards take equally long."""
        sizes = np.diff(self._store.offsets)[cohort]
        order = cohort[np.lexsort((cohort, -sizes))]
        shards = min(self._config.shards, len(order))
        places = np.arange(len(order)) % (2 * shards)
        places = np.minimum(places, 2 * shards - 1 - places)
        rows, batches = self._config.batch_rows, self._config.max_batches
        return [self._store.shard(order[places == shard], rows, batches) for shard in range(shards)]

    def save(self, path: Path) -> None:
        """Writes everything a later `restore` needs, atomically."""
        facts = {"round": self.round, "history": self.history, "ledger": self.ledger.to_json()}
        selector = {f"selector.{name}": value for name, value in self._selector.state().items()}
        save_arrays(
            path,
            number_arrays("weight", self.weights)
            | number_arrays("optimizer", self._optimizer.state())
            | number_arrays("noise", self._mechanism.state())
            | selector
            | {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)},
        )

    def restore(self, path: Path) -> None:
        """Goes on from a file of `save`, written by a run with the same arguments.

        Raises:
            ValueError: the file was written under another promise.
        """
        with np.load(path) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            ledger = Ledger.from_json(facts["ledger"])
            if ledger.promise != self.ledger.promise:
                raise ValueError(
                    f"{path}: was written under {ledger.promise}, not {self.ledger.promise}: remove it"
                )
            self.weights = numbered_arrays(arrays, "weight")
            self._optimizer.restore(numbered_arrays(arrays, "optimizer"))
            self._mechanism.restore(numbered_arrays(arrays, "noise"))
            prefix = "selector."
            self._selector.restore(
                {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}
            )
        self.round, self.history, self.ledger = facts["round"], facts["history"], ledger


def train_federated(
    training: FederatedTraining,
    rounds: int,
    checkpoint: Path,
    after_round: Callable[[FederatedTraining], None],
) -> None:
    """Runs to `rounds`, going on from `checkpoint` if it exists and writing it after each round.

    Args:
        training: a fresh run.
        rounds: total number of rounds.
        checkpoint: file to write; its absence means a new run.
        after_round: sees the run after each round, before its checkpoint.
    """
    if checkpoint.exists():
        training.restore(checkpoint)
    while training.round < rounds:
        training.run_round()
        after_round(training)
        training.save(checkpoint)


def _mean_metrics(sums: np.ndarray) -> dict[str, float]:
    named = dict(zip(METRICS, map(float, sums), strict=True))
    devices, pieces = named["devices"], named["pieces"]
    per = {name: pieces if name == "loss" else devices for name in METRICS[2:]}
    return {"devices": devices, "pieces": pieces} | {
        n: named[n] / max(1.0, divisor) for n, divisor in per.items()
    }

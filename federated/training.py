"""The round loop: select, train, add noise, step, record, checkpoint."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from federated.canaries import Canaries
from federated.config import FederatedConfig
from federated.engines import Engine
from federated.ledger import Ledger, Promise
from federated.ledger_file import LedgerFile
from federated.local_training import METRICS
from federated.mechanisms import AdaptiveClipping, Mechanism, create_mechanism
from federated.participation import Participation
from federated.round_log import measure_signal_to_noise
from federated.sensitivity import most_participations
from federated.server import LearningRate, Weights, create_server_optimizer
from federated.shards import cut_cohort
from federated.store import DeviceStore
from federated.strategies import DeviceNoise, Skellam, Strategy, is_alike
from model.checkpoint import number_arrays, numbered_arrays, save_arrays


class FederatedTraining:
    """A federated run that can stop after any round and go on bit for bit.

    Attributes:
        round: rounds done.
        weights: the server's weights.
        ledger: who took part when, and what that costs.
        history: one dict a round: METRICS as means over devices (loss over pieces), clip norm, signal to noise, and
            the figures of Participants.

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
        strategy = config.strategy(sum(w.size for w in weights))
        self._secure = strategy if isinstance(strategy, Skellam) else None
        if canaries is not None and self._secure is not None:
            raise ValueError("canaries send no messages: take another mechanism than skellam")
        promised = self._secure and DeviceNoise(self._secure, config.noise_multiplier)
        if engine.noise != promised:
            raise ValueError(
                f"the engine's devices add {engine.noise}, and the run promises {promised}: create the engine with"
                " LocalTraining(noise=config.device_noise(...))"
            )
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
        canary_rows = np.ones(0 if canaries is None else len(canaries), np.int64)
        self._participation = Participation(
            np.concatenate([np.diff(store.offsets), canary_rows]),
            config,
            seed,
            sum(w.nbytes for w in self.weights),
            None if self._secure is None else self._secure.message_bytes,
        )
        self._seed = seed
        self._mechanism = self._create_mechanism(strategy)
        self.ledger = Ledger(
            Promise(
                strategy,
                config.noise_multiplier,
                config.clip_norm,
                config.min_separation,
                config.max_participations,
            )
        )
        self._ledger_file: LedgerFile | None = None
        self.history: list[dict[str, float]] = []

    def _run_facts(self) -> tuple[int, int, int]:
        """Rounds, min separation and most participations: what coefficients are made for."""
        config = self._config
        limit = config.max_participations or config.rounds
        most = most_participations(config.rounds, config.min_separation, limit)
        return config.rounds, config.min_separation, most

    def _create_mechanism(self, strategy: Strategy) -> Mechanism:
        config, clipping = self._config, self._config.adaptive_clipping
        return create_mechanism(
            strategy,
            [w.shape for w in self.weights],
            config.clip_norm,
            config.noise_multiplier,
            # TensorFlow Privacy counts seeds up, one a tensor: runs with neighbouring seeds must start far apart.
            int(np.random.SeedSequence([self._seed, 1]).generate_state(1, np.uint32)[0]),
            None
            if clipping is None
            else AdaptiveClipping(**clipping.model_dump(), cohort=config.cohort),
        )

    def run_round(self) -> dict[str, float]:
        """One round: the mean of the cohort's clipped updates, noised, as a step of the server.

        The divisor is the cohort size of the config, not the number that reported, so it tells nothing about anyone.
        """
        config = self._config
        devices = self._participation.gather(self.round)
        clip_norm = self._mechanism.clip_norm
        reported = devices.reported[devices.reported < len(self._store)]
        sent = [*self.weights, *self._mechanism.broadcast()]
        sums, metrics = self._train(sent, reported)
        if self._canaries is not None:
            chosen = devices.reported[len(reported) :] - len(self._store)
            reported = np.append(reported, chosen[self._canaries.is_in[chosen]] + len(self._store))
            sums = [s + c for s, c in zip(sums, self._canaries.sum_updates(chosen), strict=True)]
        self.ledger.record(self.round, devices.selected, reported)
        noised = self._mechanism.add_noise(sums)
        if self._canaries is not None:
            self._canaries.observe(noised)
        mean = [update / config.cohort for update in noised]
        self._optimizer.step(self.weights, mean, self._learning_rate.at(self.round))
        self.round += 1
        figures = _mean_metrics(metrics) | {"clip_norm": clip_norm}
        if self._secure is None:  # else nobody has seen the sum without its noise
            figures["signal_to_noise"] = measure_signal_to_noise(sums[: len(noised)], noised)
        self.history.append(figures | devices.figures)
        return self.history[-1]

    def _train(
        self, sent: Sequence[np.ndarray], cohort: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The engine's sums; zeros where nobody reported, for the round is held and noised all the same."""
        config = self._config
        if not len(cohort):
            return [np.zeros_like(w) for w in sent], np.zeros(len(METRICS), np.float32)
        shards = cut_cohort(
            self._store,
            cohort,
            config.shards,
            config.batch_rows,
            config.max_batches,
            self._secure is not None,
        )
        return self._engine.run_round(sent, shards)

    def save(self, path: Path) -> None:
        """Writes everything a later `restore` needs, atomically; the ledger into `path` with the suffix .ledger.

        Who took part is only ever appended there, so that a save costs a cohort's time and not all cohorts' so far.
        """
        ledger_path = path.with_suffix(".ledger")
        if self._ledger_file is None or self._ledger_file.path != ledger_path:
            self._ledger_file = LedgerFile(ledger_path)
        facts = {
            "history": self.history,
            "choice": self._config.mechanism_facts(),
            "run": self._run_facts(),
            "devices": self._participation.devices,
            "abandoned": self._participation.abandoned,
            "ledger": self._ledger_file.append(self.ledger),
        }
        save_arrays(
            path,
            number_arrays("weight", self.weights)
            | number_arrays("optimizer", self._optimizer.state())
            | number_arrays("noise", self._mechanism.state())
            | {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)},
        )

    def restore(self, path: Path) -> None:
        """Goes on from a file of `save`, written by a run with the same arguments.

        Coefficients of its strategy are the file's: another machine's optimiser may differ in their last digits, and
        the noise so far was drawn with these. So they are what is accounted for; `Promise` refuses what is not covered.

        Raises:
            ValueError: the file was written under another promise or for other devices, or its ledger is not there.
        """
        with np.load(path) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            ledger_file = LedgerFile(path.with_suffix(".ledger"))
            ledger = ledger_file.read(facts["ledger"])
            self._check_promise(path, ledger.promise, facts)
            if facts["devices"] != self._participation.devices:
                raise ValueError(
                    f"{path}: was written for {facts['devices']} devices, not {self._participation.devices}: remove it"
                )
            self.weights = numbered_arrays(arrays, "weight")
            self._optimizer.restore(numbered_arrays(arrays, "optimizer"))
            self._mechanism = self._create_mechanism(ledger.promise.strategy)
            self._mechanism.restore(numbered_arrays(arrays, "noise"))
        cohorts = map(ledger.rounds.selected, range(len(ledger.rounds)))
        self._participation.restore(cohorts, facts["abandoned"])
        self.round, self.history = len(ledger.rounds), facts["history"]
        self.ledger, self._ledger_file = ledger, ledger_file

    def _check_promise(self, path: Path, promise: Promise, facts: dict[str, Any]) -> None:
        """Raises ValueError unless this run would have made the promise, but for its strategy's coefficients."""
        own, choice, run = self.ledger.promise, self._config.mechanism_facts(), self._run_facts()
        if (
            not is_alike(promise.strategy, own.strategy)
            or dataclasses.replace(promise, strategy=own.strategy) != own
            or (facts["choice"], facts["run"]) != (choice, list(run))
        ):
            rounds = facts["run"][0]
            raise ValueError(
                f"{path}: was written under {promise} for {rounds} rounds, not {own} for {run[0]}: remove it"
            )


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
        checkpoint: file to write, with its ledger beside it; its absence means a new run.
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

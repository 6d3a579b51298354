"""Canary devices: on the devices' path, worth what the noise allows, and quiet where the noise is honest."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from federated.accounting import account, epsilon_from_rho
from federated.canaries import Canaries, audit_canaries, flatten
from federated.config import FederatedConfig
from federated.ledger import Ledger
from federated.mechanisms import create_mechanism
from federated.strategies import Tree
from federated.training import FederatedTraining
from model.network import NetworkShape
from tests.federated.tiny_devices import build_store

SHAPES = NetworkShape(vocabulary=64, embedding=8, units=8).weight_shapes()
DEVICES = 12
CONFIG = FederatedConfig(
    engine="local",
    rounds=4,
    cohort=50,
    min_separation=4,
    batch_rows=2,
    row_tokens=4,
    max_batches=1,
    local_learning_rate=0.5,
    clip_norm=0.4,
    noise_multiplier=4.0,
    server_learning_rate=0.1,
)


@pytest.fixture(scope="module")
def store():
    return build_store([3] * DEVICES)


def start(
    store, engine, seed: int, count: int = 300, **settings
) -> tuple[FederatedTraining, Canaries]:
    config = CONFIG.model_copy(update=settings)
    random = np.random.default_rng(5)
    weights = [random.normal(0, 0.3, shape).astype(np.float32) for shape in SHAPES]
    canaries = Canaries(count, SHAPES, config.clip_norm, seed)
    return FederatedTraining(weights, store, engine, config, seed, canaries), canaries


def finish(training: FederatedTraining, canaries: Canaries, rounds: int, **arguments):
    before = [w.copy() for w in training.weights]
    for _ in range(rounds):
        training.run_round()
    change = [after - first for after, first in zip(training.weights, before, strict=True)]
    arguments = {"delta": 1e-5, "significance": 0.05, "seed": 1} | arguments
    return audit_canaries(training.ledger, canaries, DEVICES, change, **arguments)


def test_canaries_are_clipped_directions_of_their_own() -> None:
    canaries = Canaries(40, SHAPES, 0.4, seed=3)
    directions = np.stack([canaries.direction(c) for c in range(40)]).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    products = directions @ directions.T - np.eye(40)
    assert np.abs(products).max() < 5 / math.sqrt(canaries.dimensions)
    update = canaries.sum_updates([int(np.flatnonzero(canaries.is_in)[0])])
    assert [part.shape for part in update] == SHAPES
    assert np.linalg.norm(flatten(update)) == pytest.approx(0.4, abs=1e-6)
    expected = 0.4 * directions[canaries.is_in].sum(axis=0)
    np.testing.assert_allclose(flatten(canaries.sum_updates(range(40))), expected, atol=1e-6)
    assert not flatten(canaries.sum_updates(np.flatnonzero(~canaries.is_in))).any()
    assert 8 < canaries.is_in.sum() < 32


def test_a_round_adds_canaries_to_the_devices_before_the_noise(store, local_engine) -> None:
    """Next to no noise: the first released sum is that of the cohort's devices and canaries."""
    training, canaries = start(store, local_engine, 7, noise_multiplier=1e-6)
    weights = [w.copy() for w in training.weights]
    training.run_round()
    selected = np.array(training.ledger.rounds[0].selected)
    devices, chosen = selected[selected < DEVICES], selected[selected >= DEVICES] - DEVICES
    assert len(devices) and len(chosen)
    sums, _ = local_engine.run_round(weights, [store.shard(devices, 2, 1)])
    expected = flatten(sums) + flatten(canaries.sum_updates(chosen))
    np.testing.assert_allclose(canaries.released[0], expected, atol=2e-5)


def test_the_ledger_holds_canaries_to_the_devices_promise(store, local_engine) -> None:
    """Those that are in report; those that are out were selected and add nothing."""
    training, canaries = start(store, local_engine, 7, rounds=8)
    for _ in range(8):
        training.run_round()
    last: dict[int, int] = {}
    for index, record in enumerate(training.ledger.rounds):
        assert len(record.selected) == CONFIG.cohort
        for device in record.selected:
            assert index - last.get(device, -CONFIG.min_separation) >= CONFIG.min_separation
            last[device] = index
            reports = device < DEVICES or canaries.is_in[device - DEVICES]
            assert (device in record.reported) == reports
    assert max(last) >= DEVICES
    again = Ledger.from_json(training.ledger.to_json())
    assert again.guarantee(1e-5) == training.ledger.guarantee(1e-5)


def test_scores_are_worth_what_the_noise_allows(store, local_engine) -> None:
    """One round at z = 2: those that are out score N(0, 1), those that are in 1 / z more, in units of d^-1/2.

    The estimate is then epsilon of mu = 1/2, but for the devices' own updates and the sampling of 600 canaries.
    """
    training, canaries = start(
        store, local_engine, 3, count=1200, cohort=1212, min_separation=1, noise_multiplier=2.0
    )
    training.run_round()
    released = canaries.released[0].astype(np.float64)
    scores = np.array([released @ canaries.direction(c) for c in range(1200)])
    scores *= math.sqrt(canaries.dimensions) / np.linalg.norm(released)
    assert stats.kstest(scores[~canaries.is_in], "norm").pvalue > 0.01
    # 600 updates of random directions are noise of their own: variance z^2 + 600 / d in clip norms
    expected = (4 + canaries.is_in.sum() / canaries.dimensions) ** -0.5
    assert scores[canaries.is_in].mean() == pytest.approx(expected, abs=0.12)


def test_every_round_together_is_worth_what_the_mechanism_releases(store, local_engine) -> None:
    """Mean scores against s' S^-1 s, S the covariance over rounds of the mechanism's noise; never above the ledger."""
    training, canaries = start(store, local_engine, 4, count=1000, cohort=250, noise_multiplier=1.5)
    audit = finish(training, canaries, 4)
    mechanism = create_mechanism(Tree(), [(40_000,)], 1.0, 1.5, seed=99)
    noise = np.stack([mechanism.add_noise([np.zeros(40_000, np.float32)])[0] for _ in range(4)])
    # a round's other canaries that are in are independent noise: about 120 updates of unit norm over d values
    covariance = noise @ noise.T / 40_000 + np.eye(4) * 120 / canaries.dimensions
    expected = np.sqrt(np.diag(np.linalg.inv(covariance))).mean()
    rho = expected**2 / 2
    assert audit.estimate_every == pytest.approx(epsilon_from_rho(rho, 1e-5), rel=0.25)
    assert epsilon_from_rho(rho, 1e-5) < audit.epsilon


@pytest.mark.parametrize("seed", [1, 2])
def test_an_honest_run_is_not_contradicted(store, local_engine, seed) -> None:
    audit = finish(*start(store, local_engine, seed), CONFIG.rounds)
    assert audit.epsilon == account(Tree(), 4.0, 4, 4, 1, 1e-5).epsilon
    assert audit.lower_bound <= audit.epsilon and not audit.is_violated
    assert audit.largest_bound > audit.epsilon  # it could have been
    assert audit.canaries_in + audit.canaries_out > 150


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_removed_behind_the_ledgers_back_is_found(store, local_engine, seed) -> None:
    """The run adds no noise and its ledger says it does."""
    training, canaries = start(store, local_engine, seed, noise_multiplier=1e-6)
    promise = dataclasses.replace(training.ledger.promise, noise_multiplier=4.0)
    training.ledger = Ledger(promise)
    audit = finish(training, canaries, CONFIG.rounds)
    assert audit.is_violated and audit.lower_bound > audit.epsilon
    assert all(bound > audit.epsilon for bound in audit.bounds.values())


def test_too_few_canaries_are_refused(store, local_engine) -> None:
    training, canaries = start(store, local_engine, 1, count=2, cohort=3)
    with pytest.raises(ValueError, match="at least two of each"):
        finish(training, canaries, 1)
    with pytest.raises(ValueError, match="count is 0"):
        Canaries(0, SHAPES, 0.4, 1)

"""The four arms against plain loops that do the same by another route."""

import numpy as np
import pytest
import tensorflow as tf

from federated.memorisation import ARMS, train_arms
from federated.training import FederatedTraining
from model.network import mean_loss
from tests.federated.test_training import CONFIG, MESSAGES
from tests.federated.tiny_devices import build_store, random_weights

SEED = 11


@pytest.fixture(scope="module")
def store():
    return build_store(MESSAGES)


@pytest.fixture(scope="module")
def arms(store):
    return {
        name: (w, ledger) for name, w, ledger in train_arms(random_weights(1), store, CONFIG, SEED)
    }


@pytest.fixture(scope="module")
def visits(arms) -> list[int]:
    """Devices in the order in which the private run, and so every arm, asks them."""
    return [device for record in arms["dp_ftrl"][1].rounds for device in record.selected]


def walk(weights, batches):
    """SGD by the book."""
    local = [tf.Variable(w) for w in weights]
    for batch in batches:
        with tf.GradientTape() as tape:
            loss = mean_loss(local, batch)
        for variable, gradient in zip(local, tape.gradient(loss, local), strict=True):
            variable.assign_sub(CONFIG.local_learning_rate * tf.convert_to_tensor(gradient))
    return [variable.numpy() for variable in local]


def device_batches(store, device):
    return store.device_batches(device, CONFIG.batch_rows, CONFIG.max_batches)


def assert_close(actual, expected, atol=2e-5) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_all_four_are_there(arms) -> None:
    assert tuple(arms) == ARMS
    assert [ledger is not None for _, ledger in arms.values()] == [False, False, False, True]


def test_central_walks_over_all_visited_rows_in_one_shuffle(store, arms, visits) -> None:
    rows = np.concatenate(
        [device_batches(store, device).reshape(-1, 2, CONFIG.row_tokens) for device in visits]
    )
    rows = rows[rows.any(axis=(1, 2))]  # without what pads a device's last batch
    shuffled = np.random.default_rng([SEED, 4]).permutation(rows)
    starts = range(0, len(shuffled), CONFIG.batch_rows)
    expected = walk(random_weights(1), [shuffled[s : s + CONFIG.batch_rows] for s in starts])
    assert_close(arms["central"][0], expected)


def test_central_by_user_walks_device_by_device_and_clips(store, arms, visits) -> None:
    current, clipped = random_weights(1), 0
    for device in visits:
        moved = walk(current, device_batches(store, device))
        update = [m - c for m, c in zip(moved, current, strict=True)]
        norm = np.sqrt(sum(float(np.sum(u.astype(np.float64) ** 2)) for u in update))
        clipped += norm > CONFIG.clip_norm
        scale = min(1.0, CONFIG.clip_norm / norm) if norm else 1.0
        current = [c + scale * u for c, u in zip(current, update, strict=True)]
    assert 0 < clipped < len(visits)
    assert_close(arms["central_by_user"][0], current)


def test_fedavg_is_the_run_itself_with_neither_clip_nor_noise(store, arms, local_engine) -> None:
    from federated.engines.local import LocalEngine
    from federated.local_training import LocalTraining

    engine = LocalEngine(LocalTraining(CONFIG.local_learning_rate, 1e3))
    config = CONFIG.model_copy(update={"clip_norm": 1e3, "noise_multiplier": 1e-9})
    run = FederatedTraining(random_weights(1), store, engine, config, SEED)
    for _ in range(config.rounds):
        run.run_round()
    assert_close(arms["fedavg"][0], run.weights)


def test_dp_ftrl_is_the_run_itself(store, arms, local_engine) -> None:
    run = FederatedTraining(random_weights(1), store, local_engine, CONFIG, SEED)
    for _ in range(CONFIG.rounds):
        run.run_round()
    assert_close(arms["dp_ftrl"][0], run.weights)
    assert arms["dp_ftrl"][1].rounds == run.ledger.rounds

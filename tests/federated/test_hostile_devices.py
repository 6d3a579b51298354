"""Whatever a device holds, it moves the sum by at most the clip norm, and the round goes on."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tokenizer import BOS, PAD
from federated.config import FederatedConfig
from federated.engines.local import LocalEngine
from federated.local_training import METRICS, LocalTraining
from federated.store import DeviceStore
from federated.training import FederatedTraining
from tests.federated.tiny_devices import ROW_TOKENS, SHAPE, build_store, random_weights

CLIP = 0.4
ROWS = 2  # of a batch
Shard = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def engines() -> dict[float, LocalEngine]:
    """By learning rate: an honest one, and those with which an update is huge, beyond float32's squares, or NaN."""
    return {rate: LocalEngine(LocalTraining(rate, CLIP)) for rate in (0.5, 1e15, 1e30)}


def run(engine: LocalEngine, shard: Shard, weights=None) -> tuple[list[np.ndarray], dict]:
    sums, metrics = engine.run_round(random_weights(1) if weights is None else weights, [shard])
    return sums, dict(zip(METRICS, map(float, metrics), strict=True))


def norm_of(arrays: Sequence[np.ndarray]) -> float:
    return float(np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays)))


def honest_shard() -> Shard:
    return build_store([3, 1, 6]).shard([0, 1, 2], ROWS, 3)


def row(inputs: Sequence[int], targets: Sequence[int]) -> list[list[int]]:
    return [[*part, *[PAD] * (ROW_TOKENS - len(part))] for part in (inputs, targets)]


# What a hostile device may hold, three batches each
HOSTILE = {
    "empty": [],
    "one token": [row([BOS], [5])],
    "a token and no target": [row([5], [])],
    "targets and no message": [row([], [5, 6])],
    "no message begins": [row([4, 5, 6, 7], [5, 6, 7, 8])] * 6,
    "one token again and again": [row([7] * ROW_TOKENS, [7] * ROW_TOKENS)] * 6,
    "messages begin everywhere": [row([BOS] * ROW_TOKENS, [23] * ROW_TOKENS)] * 6,
    "control pieces as targets": [row([3, 2, 1, 0], [1, 3, 2, 1])] * 6,
}


def hostile_store(rows: list) -> DeviceStore:
    block = np.array(rows, np.int32).reshape(-1, 2, ROW_TOKENS)
    return DeviceStore.build([block, np.zeros((6, 2, ROW_TOKENS), np.int32)])


def beside_honest(rows: list) -> Shard:
    """The honest devices' shard with the hostile one in front."""
    batches, steps = honest_shard()
    own, own_steps = hostile_store(rows).shard([0], ROWS, 3)
    padded = np.zeros((1, *batches.shape[1:]), np.int32)
    padded[:, : own.shape[1]] = own
    return np.concatenate([padded, batches]), np.concatenate([own_steps, steps])


@pytest.mark.parametrize("rate", [0.5, 1e15, 1e30])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_device_moves_the_sum_by_the_clip_norm_at_most(engines, name, rate) -> None:
    """At the highest rates its update is as if it was scaled: clipped where that is possible, else zeroed."""
    without, before = run(engines[rate], honest_shard())
    with_it, after = run(engines[rate], beside_honest(HOSTILE[name]))
    moved = norm_of([a - b for a, b in zip(with_it, without, strict=True)])
    assert moved <= CLIP * (1 + 1e-4)
    assert after["devices"] == before["devices"] + 1 == 4
    assert all(np.isfinite(s).all() for s in with_it) and np.isfinite(list(after.values())).all()
    nothing_to_learn = name in ("empty", "a token and no target")
    assert (after["pieces"] == before["pieces"]) is nothing_to_learn or after["zeroed"] > 0
    counted = {n: after[n] - before[n] for n in ("clipped", "zeroed")}
    if nothing_to_learn:
        assert moved == 0 and counted == {"clipped": 0, "zeroed": 0}
    elif rate == 1e30:
        assert moved == 0 and counted == {"clipped": 0, "zeroed": 1}
    elif rate == 1e15:  # one batch can be clipped, three are NaN
        assert sum(counted.values()) == 1
    else:
        assert counted["zeroed"] == 0 and moved > 0


@given(st.integers(0, 2**32), st.sampled_from([0.5, 1e15]), st.sampled_from([1.0, 30.0, 1e6]))
@settings(deadline=None, max_examples=25)
def test_garbage_is_bounded_whatever_the_weights(engines, seed, rate, scale) -> None:
    """Pieces at random, and weights blown up by what earlier rounds did."""
    random = np.random.default_rng(seed)
    shape = (4, 3, ROWS, 2, ROW_TOKENS)
    batches = random.integers(0, SHAPE.vocabulary, shape).astype(np.int32)
    steps = random.integers(0, 4, 4).astype(np.int32)
    weights = [w * np.float32(scale) for w in random_weights(seed % 1000)]
    whole, metrics = run(engines[rate], (batches, steps), weights)
    assert norm_of(whole) <= 4 * CLIP * (1 + 1e-4)
    assert metrics["clipped"] + metrics["zeroed"] <= metrics["devices"] == 4
    assert metrics["update_norm"] >= metrics["clipped"] * CLIP
    parts = [run(engines[rate], (batches[d : d + 1], steps[d : d + 1]), weights) for d in range(4)]
    for part, _ in parts:
        assert norm_of(part) <= CLIP * (1 + 1e-4)
    for total, *alone in zip(whole, *(part for part, _ in parts), strict=True):
        np.testing.assert_allclose(total, np.sum(alone, axis=0), atol=1e-5)
    for name in ("zeroed", "clipped"):
        assert metrics[name] == sum(part_metrics[name] for _, part_metrics in parts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_broken_weights_break_no_round(engines, value) -> None:
    """A server whose weights are beyond use gets zeros and a count, and no exception."""
    weights = random_weights(1)
    weights[1][3, 3] = value
    sums, metrics = run(engines[0.5], honest_shard(), weights)
    assert all(np.isfinite(s).all() for s in sums) and norm_of(sums) <= 3 * CLIP * (1 + 1e-4)
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["zeroed"] == (0 if np.isfinite(value) else 3)


@pytest.mark.parametrize("piece", [-1, SHAPE.vocabulary, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("side", [0, 1])
def test_pieces_outside_the_vocabulary_are_zeroed_and_counted(engines, piece, side) -> None:
    without, before = run(engines[0.5], honest_shard())
    batches, steps = beside_honest([row([BOS, 5], [5, 6])])
    batches[0, 0, 0, side, 1] = piece
    with_it, after = run(engines[0.5], (batches, steps))
    assert after["zeroed"] == 1 and after["devices"] == before["devices"] + 1
    assert all(np.array_equal(a, b) for a, b in zip(with_it, without, strict=True))


def test_a_run_among_hostile_devices_keeps_its_weights(engines) -> None:
    """Two of three devices hold something of the above, and every update that can be is huge."""
    blocks = [np.array(rows, np.int32).reshape(-1, 2, ROW_TOKENS) for rows in HOSTILE.values()]
    honest = build_store([3, 1, 6, 2])
    blocks += [honest.device_batches(device, 1, 9)[:, 0] for device in range(4)]
    config = FederatedConfig(
        engine="local",
        rounds=4,
        cohort=6,
        min_separation=2,
        batch_rows=ROWS,
        row_tokens=ROW_TOKENS,
        max_batches=3,
        local_learning_rate=1e15,
        clip_norm=CLIP,
        noise_multiplier=1e-3,
        server_momentum=0.0,
    )
    store = DeviceStore.build(blocks)
    training = FederatedTraining(random_weights(1), store, engines[1e15], config, 5)
    for _ in range(config.rounds):
        before = [w.copy() for w in training.weights]
        figures = training.run_round()
        moved = norm_of([a - b for a, b in zip(training.weights, before, strict=True)])
        noise = config.noise_multiplier * CLIP * SHAPE.parameters() ** 0.5
        assert moved <= CLIP + 2 * noise  # the mean of six clipped updates, and noise
        assert figures["zeroed"] + figures["clipped"] > 0 and figures["devices"] == 6
    assert len(training.ledger.rounds) == 4
    assert all(np.isfinite(w).all() for w in training.weights)

"""No device, however broken, adds more than the clip norm to the sum."""

import numpy as np
import pytest
import tensorflow as tf

from federated.local_training import METRICS, LocalTraining, train_shard
from tests.federated.tiny_devices import build_store, random_weights

CLIP = 0.2


@pytest.fixture(scope="module")
def shard() -> tuple[np.ndarray, np.ndarray]:
    """Three devices of some batches."""
    return build_store([6, 3, 9]).shard([0, 1, 2], 2, 4)


def train(weights, batches, steps, learning_rate: float = 0.5, clip_norm: float | None = CLIP):
    """Sums and named metrics, run eagerly; the engines' tests run the graph."""
    sums, metrics = train_shard(
        [tf.constant(w) for w in weights],
        tf.constant(batches),
        tf.constant(steps),
        LocalTraining(learning_rate, clip_norm),
    )
    return [s.numpy() for s in sums], dict(zip(METRICS, metrics.numpy().tolist(), strict=True))


def norm_of(update) -> float:
    return float(np.sqrt(sum((u.astype(np.float64) ** 2).sum() for u in update)))


def test_an_update_beyond_the_clip_norm_is_scaled_to_it(shard) -> None:
    batches, steps = shard
    for device in range(3):
        one = batches[device : device + 1], steps[device : device + 1]
        free, metrics = train(random_weights(1), *one, clip_norm=1e6)
        assert metrics["clipped"] == 0
        assert metrics["update_norm"] == pytest.approx(norm_of(free), rel=1e-5)
        assert norm_of(free) > CLIP
        clipped, metrics = train(random_weights(1), *one)
        assert metrics["clipped"] == 1
        assert norm_of(clipped) == pytest.approx(CLIP, rel=1e-5)
        for whole, part in zip(free, clipped, strict=True):
            np.testing.assert_allclose(part, whole * CLIP / norm_of(free), atol=1e-6)


def test_an_update_within_the_clip_norm_is_untouched(shard) -> None:
    batches, steps = shard
    free, _ = train(random_weights(1), batches[:1], steps[:1], clip_norm=1e6)
    same, metrics = train(random_weights(1), batches[:1], steps[:1], clip_norm=norm_of(free) * 1.01)
    assert metrics["clipped"] == 0
    assert all(np.array_equal(a, b) for a, b in zip(free, same, strict=True))


def test_a_clip_norm_of_the_round_does_what_a_fixed_one_does_and_counts(shard) -> None:
    """1/2 for each device within it, -1/2 for the others and for one whose update is no number."""
    batches, steps = shard
    weights = random_weights(1)
    norms = [
        train(weights, batches[d : d + 1], steps[d : d + 1], clip_norm=1e6)[1]["update_norm"]
        for d in range(3)
    ]
    for clip_norm, centred in ((min(norms) / 2, -1.5), (sorted(norms)[1] * 1.01, 0.5)):
        fixed, metrics = train(weights, batches, steps, clip_norm=clip_norm)
        sent = [*weights, np.array(clip_norm, np.float32)]
        *sums, count = train(sent, batches, steps, clip_norm=None)[0]
        assert all(np.array_equal(a, b) for a, b in zip(fixed, sums, strict=True))
        assert count == centred == 1.5 - metrics["clipped"]
    broken = [np.full_like(w, np.nan) for w in weights] + [np.array(1.0, np.float32)]
    *sums, count = train(broken, batches, steps, clip_norm=None)[0]
    assert count == -1.5 and not any(s.any() for s in sums)


@pytest.mark.parametrize("learning_rate", [1e6, 1e30, 1e38])
def test_a_huge_update_is_bounded(shard, learning_rate) -> None:
    """Whether its norm still fits float32 (clipped) or not (zeroed)."""
    batches, steps = shard
    sums, metrics = train(random_weights(1), batches, np.minimum(steps, 1), learning_rate)
    assert all(np.isfinite(s).all() for s in sums)
    assert norm_of(sums) <= 3 * CLIP * (1 + 1e-5)
    assert metrics["clipped"] + metrics["zeroed"] == metrics["devices"] == 3
    assert metrics["zeroed"] == (0 if learning_rate < 1e15 else 3)
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_broken_device_does_not_spoil_the_others(shard) -> None:
    """At this rate one batch gives a huge update that can still be clipped, and four give NaN."""
    batches, steps = shard
    assert steps[2] == 4
    counts = np.array([1, 1, 4], np.int32)
    sums, metrics = train(random_weights(1), batches, counts, 1e15)
    assert metrics["devices"] == 3 and metrics["zeroed"] == 1 and metrics["clipped"] == 2
    others, _ = train(random_weights(1), batches[:2], counts[:2], 1e15)
    assert norm_of(others) > 0
    assert all(np.array_equal(a, b) for a, b in zip(sums, others, strict=True))


def test_an_empty_device_contributes_zero(shard) -> None:
    batches, _ = shard
    nothing = np.zeros_like(batches)
    for steps in ([0, 0, 0], [4, 1, 2]):  # no batches, and batches of empty rows
        sums, metrics = train(random_weights(1), nothing, np.array(steps, np.int32))
        assert not any(s.any() for s in sums)
        assert metrics == dict.fromkeys(METRICS, 0.0) | {"devices": 3.0}


def test_an_empty_device_leaves_the_sum_as_it_is(shard) -> None:
    batches, steps = shard
    alone, _ = train(random_weights(1), batches, steps)
    beside, metrics = train(
        random_weights(1),
        np.concatenate([batches[:1] * 0, batches]),
        np.concatenate([[0], steps]).astype(np.int32),
    )
    assert metrics["devices"] == 4
    assert all(np.array_equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_batches_beyond_a_devices_number_are_not_read(shard) -> None:
    batches, steps = shard
    changed = batches.copy()
    for device, count in enumerate(steps):
        changed[device, count:] = 5
    assert not np.array_equal(changed, batches)
    before, after = (train(random_weights(1), b, steps)[0] for b in (batches, changed))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_out_of_range_are_refused(value) -> None:
    with pytest.raises(ValueError, match=r"local training: learning_rate is .*, give a positive"):
        LocalTraining(value, 1.0)
    with pytest.raises(
        ValueError, match=r"local training: clip_norm is .*, give a positive number"
    ):
        LocalTraining(1.0, value)

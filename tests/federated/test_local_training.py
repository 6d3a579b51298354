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


def train(
    weights, batches, steps, learning_rate: float = 0.5, clip_norm: float | None = CLIP, **settings
):
    """Sums and named metrics, run eagerly; the engines' tests run the graph."""
    sums, metrics = train_shard(
        [tf.constant(w) for w in weights],
        tf.constant(batches),
        tf.constant(steps),
        LocalTraining(learning_rate, clip_norm, **settings),
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
        assert metrics == dict.fromkeys(METRICS, 0.0) | {"devices": 3.0, "weight": 3.0}


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


def test_empty_rows_count_for_nothing_wherever_they_are(shard) -> None:
    """Those at the end of a batch are cut off, which makes its size vary; run as a graph, as engines do."""
    batches, _ = shard
    rows = batches[2]
    assert rows.shape[:2] == (4, 2) and rows.any(axis=(2, 3)).all()
    empty = np.zeros_like(rows[:, :1])
    run = tf.function(
        lambda weights, batches, steps: train_shard(
            weights, batches, steps, LocalTraining(0.5, CLIP)
        )
    )

    def sum_of(batches: np.ndarray) -> list[np.ndarray]:
        sums, _ = run(random_weights(1), batches[np.newaxis], np.array([4], np.int32))
        return [s.numpy() for s in sums]

    expected = sum_of(rows)
    for parts in ([rows, empty, empty], [empty, rows], [rows[:, :1], empty, rows[:, 1:], empty]):
        for some, whole in zip(sum_of(np.concatenate(parts, axis=1)), expected, strict=True):
            np.testing.assert_allclose(some, whole, atol=1e-7)


def test_batches_beyond_a_devices_number_are_not_read(shard) -> None:
    batches, steps = shard
    changed = batches.copy()
    for device, count in enumerate(steps):
        changed[device, count:] = 5
    assert not np.array_equal(changed, batches)
    before, after = (train(random_weights(1), b, steps)[0] for b in (batches, changed))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_proximal_term_pulls_back_to_the_servers_weights(shard) -> None:
    """After one step the term's gradient is mu * (w1 - w0), and nothing else differs in the second step."""
    batches, _ = shard
    pull = {"learning_rate": 0.5, "clip_norm": 1e6}

    def update_after(steps: int, proximal: float) -> list[np.ndarray]:
        return train(random_weights(1), batches[2:], np.array([steps]), **pull, proximal=proximal)[
            0
        ]

    first, plain, pulled = (update_after(*case) for case in ((1, 0.7), (2, 0.0), (2, 0.7)))
    for one, two, back in zip(first, plain, pulled, strict=True):
        np.testing.assert_allclose(back, two - 0.5 * 0.7 * one, atol=1e-6)
        assert np.abs(back - two).max() > 1e-3


def test_devices_weigh_by_their_pieces_up_to_one(shard) -> None:
    batches, steps = shard
    pieces = [int((b[:, :, 1] > 0).sum()) for b in batches]
    full = sorted(pieces)[1]
    weights = [min(1.0, count / full) for count in pieces]
    assert sorted(weights)[0] < 0.8 and sorted(weights)[1:] == [1.0, 1.0]
    alone = [train(random_weights(1), batches[d : d + 1], steps[d : d + 1])[0] for d in range(3)]
    assert all(norm_of(update) == pytest.approx(CLIP, rel=1e-5) for update in alone)
    sums, metrics = train(random_weights(1), batches, steps, full_weight_pieces=full)
    assert metrics["weight"] == pytest.approx(sum(weights))
    for total, *parts in zip(sums, *alone, strict=True):
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        np.testing.assert_allclose(total, expected, atol=1e-6)


def test_an_empty_device_weighs_nothing_by_pieces(shard) -> None:
    nothing = np.zeros_like(shard[0])
    sums, metrics = train(random_weights(1), nothing, shard[1], full_weight_pieces=9)
    assert not any(s.any() for s in sums)
    assert metrics == dict.fromkeys(METRICS, 0.0) | {"devices": 3.0}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_out_of_range_are_refused(value) -> None:
    with pytest.raises(ValueError, match=r"local training: learning_rate is .*, give a positive"):
        LocalTraining(value, 1.0)
    with pytest.raises(
        ValueError, match=r"local training: clip_norm is .*, give a positive number"
    ):
        LocalTraining(1.0, value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"proximal": -0.1}, "proximal is -0.1, give zero or a positive number"),
        ({"proximal": float("nan")}, "proximal is nan, give zero or a positive number"),
        ({"full_weight_pieces": 0}, "full_weight_pieces is 0, give at least 1 or none"),
    ],
)
def test_optional_settings_out_of_range_are_refused(setting, message) -> None:
    with pytest.raises(ValueError, match=f"local training: {message}"):
        LocalTraining(0.5, 1.0, **setting)

"""Pre-training learns, follows its schedule and survives a restart bit for bit."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from device_runtime.tokenizer import BOS
from model import pretraining
from model.config import PretrainingConfig
from model.network import NetworkShape, initial_weights, mean_loss
from model.pretraining import learning_rate_at, pretrain

SHAPE = NetworkShape(vocabulary=24, embedding=12, units=16)
CONFIG = PretrainingConfig(row_tokens=6, learning_rate=0.02, warmup_steps=10)


class Killed(Exception):
    """Stands for the end of the process."""


def deterministic_batches(first: int) -> Iterator[np.ndarray]:
    """Messages in which every piece decides the next, and all 20 first pieces are as likely."""
    after = np.random.default_rng(0).permutation(20)
    while True:
        random = np.random.default_rng([1, first])
        sequence = [random.integers(20, size=8)]
        for _ in range(5):
            sequence.append(after[sequence[-1]])
        targets = np.stack(sequence, axis=1) + 4
        inputs = np.concatenate([np.full((8, 1), BOS), targets[:, :-1]], axis=1)
        yield np.stack([inputs, targets], axis=1).astype(np.int32)
        first += 1


def ignore_step(_step: int, _loss: float) -> None:
    pass


def test_schedule_equals_its_closed_form() -> None:
    config = PretrainingConfig(learning_rate=0.4, warmup_steps=4)
    rates = [learning_rate_at(step, 12, config) for step in range(12)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    decay = [0.4 * math.cos(math.pi * k / 16) ** 2 for k in range(8)]  # half-angle formula
    assert rates[4:] == pytest.approx(decay)
    assert learning_rate_at(12, 12, config) == pytest.approx(0, abs=1e-12)


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    config = PretrainingConfig(learning_rate=0.4, warmup_steps=0)
    assert learning_rate_at(0, 5, config) == 0.4


def test_a_deterministic_language_is_learned(tmp_path) -> None:
    """Unigram entropy is log 20 = 3.0 nats; the language's own is log 20 / 6 = 0.5 a piece."""
    seen: list[tuple[int, float]] = []
    weights = pretrain(
        deterministic_batches,
        SHAPE,
        150,
        CONFIG,
        seed=1,
        checkpoint=tmp_path / "checkpoint.npz",
        after_step=lambda step, loss: seen.append((step, loss)),
    )
    assert [step for step, _ in seen] == list(range(1, 151))
    first = next(deterministic_batches(0))
    assert seen[0][1] == pytest.approx(float(mean_loss(initial_weights(SHAPE, 1), first)), rel=1e-5)
    unseen = next(deterministic_batches(10_000))
    loss = float(mean_loss(weights, unseen))
    assert math.log(20) / 6 - 0.1 < loss < 0.8


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pretraining, "_CHECKPOINT_EVERY_STEPS", 5)
    whole = pretrain(
        deterministic_batches, SHAPE, 13, CONFIG, 3, tmp_path / "whole.npz", ignore_step
    )
    begun: list[int] = []

    def noted_batches(first: int) -> Iterator[np.ndarray]:
        begun.append(first)
        return deterministic_batches(first)

    def die_after_eight(step: int, _loss: float) -> None:
        if step == 8:
            raise Killed

    checkpoint = tmp_path / "killed.npz"
    with pytest.raises(Killed):
        pretrain(noted_batches, SHAPE, 13, CONFIG, 3, checkpoint, die_after_eight)
    resumed = pretrain(noted_batches, SHAPE, 13, CONFIG, 3, checkpoint, ignore_step)
    assert begun == [0, 5]
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_diverging_run_stops_and_says_why(tmp_path) -> None:
    config = PretrainingConfig.model_construct(
        row_tokens=6, learning_rate=1e38, warmup_steps=0, max_gradient_norm=1.0
    )
    with pytest.raises(ValueError, match=r"loss is .* at step 1: lower `learning_rate`"):
        pretrain(deterministic_batches, SHAPE, 5, config, 0, tmp_path / "c.npz", ignore_step)

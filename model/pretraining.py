"""Pre-trains the network on batches of public rows."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.checkpoint import number_arrays, numbered_arrays, save_arrays
from model.config import PretrainingConfig
from model.network import NetworkShape, initial_weights, mean_loss

_CHECKPOINT_EVERY_STEPS = 100


def learning_rate_at(step: int, steps: int, config: PretrainingConfig) -> float:
    """Step size of a 0-based step: linear warm-up, then cosine decay to zero (Loshchilov & Hutter 2017)."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def pretrain(
    batches_from: Callable[[int], Iterator[np.ndarray]],
    shape: NetworkShape,
    steps: int,
    config: PretrainingConfig,
    seed: int,
    checkpoint: Path,
    after_step: Callable[[int, float], None],
) -> list[np.ndarray]:
    """Weights after `steps` Adam steps; goes on from `checkpoint` if it exists.

    Args:
        batches_from: the endless stream of batches int32 [B, 2, config.row_tokens] from a 0-based step on.
        shape: of the network.
        steps: optimizer steps.
        config: schedule.
        seed: of the first weights.
        checkpoint: file written every 100 steps.
        after_step: sees steps done and that step's mean loss in nats per piece.
    """
    weights = [tf.Variable(w) for w in initial_weights(shape, seed)]
    optimizer = tf.keras.optimizers.Adam(learning_rate=0.0)
    optimizer.build(weights)
    state = [*weights, *optimizer.variables]
    done = 0
    if checkpoint.exists():
        with np.load(checkpoint) as arrays:
            done = int(arrays["done"])
            for variable, value in zip(state, numbered_arrays(arrays, "state"), strict=True):
                variable.assign(value)
    rows_spec = tf.TensorSpec([None, 2, config.row_tokens], tf.int32)

    @tf.function(input_signature=[rows_spec, tf.TensorSpec([], tf.float32)])
    def train_step(rows, learning_rate):
        with tf.GradientTape() as tape:
            loss = mean_loss(weights, rows)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]
        gradients, _ = tf.clip_by_global_norm(gradients, config.max_gradient_norm)
        optimizer.learning_rate = learning_rate
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return loss

    for step, rows in zip(range(done, steps), batches_from(done), strict=False):
        loss = float(train_step(rows, learning_rate_at(step, steps, config)))
        if not math.isfinite(loss):
            raise ValueError(f"pre-training: loss is {loss} at step {step}: lower `learning_rate`")
        after_step(step + 1, loss)
        if (step + 1) % _CHECKPOINT_EVERY_STEPS == 0:
            saved: Sequence[np.ndarray] = [variable.numpy() for variable in state]
            save_arrays(checkpoint, number_arrays("state", saved) | {"done": np.array(step + 1)})
    return [w.numpy() for w in weights]

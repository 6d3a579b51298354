"""CIFG-LSTM next-word network as pure functions over a flat list of weights.

The cell is the coupled input-forget-gate LSTM with a recurrent projection and tied input and output embeddings of
Hard et al. 2018, "Federated learning for mobile keyboard prediction" (1.4 M parameters at 10,000 x 96, 670 units):

    f, o, g = split([x_t, h_{t-1}] K + b);  c_t = s(f) c_{t-1} + (1 - s(f)) tanh(g)
    h_t = (s(o) tanh(c_t)) R;               logits_t = h_t E^T + d
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from device_runtime.tokenizer import BOS, PAD

Weights = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class NetworkShape:
    """Sizes of the network; `embedding` is also the width of the recurrent projection, since embeddings are tied."""

    vocabulary: int
    embedding: int
    units: int

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the flat list: embedding, kernel, bias, projection, output bias."""
        return [
            (self.vocabulary, self.embedding),
            (2 * self.embedding, 3 * self.units),
            (3 * self.units,),
            (self.units, self.embedding),
            (self.vocabulary,),
        ]

    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(int(np.prod(shape)) for shape in self.weight_shapes())


def initial_weights(shape: NetworkShape, seed: int) -> Weights:
    """Random float32 weights; the forget gate starts at bias 1 (Jozefowicz et al. 2015)."""
    rng = np.random.default_rng(seed)
    weights = [np.zeros(s, np.float32) for s in shape.weight_shapes()]
    for index in (0, 1, 3):
        fan_in = shape.embedding if index == 0 else weights[index].shape[0]
        weights[index] = rng.normal(0, fan_in**-0.5, weights[index].shape).astype(np.float32)
    weights[2][: shape.units] = 1.0
    return weights


def cell(gates: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """One step before its projection: gate inputs [B, 3H] and cell state [B, H] -> output, cell state [B, H]."""
    forget, output, candidate = tf.split(gates, 3, axis=-1)
    forget = tf.sigmoid(forget)
    c = forget * c + (1.0 - forget) * tf.tanh(candidate)
    return tf.sigmoid(output) * tf.tanh(c), c


def run_rows(weights: Sequence[tf.Tensor], tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Hidden states [T, B, P] after each token of rows [B, T], and the cell's outputs [T, B, H] they project.

    Rows hold several messages each, so the state is cleared wherever a BOS begins one. T is static: the loop is
    unrolled.
    """
    embedding, kernel, bias, projection, _ = weights
    width = embedding.shape[1]
    inputs = tf.gather(embedding, tf.transpose(tokens))
    gates = tf.unstack(tf.tensordot(inputs, kernel[:width], 1) + bias)
    keep = tf.unstack(
        tf.cast(tf.not_equal(tf.transpose(tokens), BOS), tf.float32)[:, :, tf.newaxis]
    )
    h = tf.zeros([tf.shape(tokens)[0], width])
    c = tf.zeros([tf.shape(tokens)[0], projection.shape[0]])
    states, outputs = [], []
    for x, kept in zip(gates, keep, strict=True):
        output, c = cell(x + tf.matmul(h * kept, kernel[width:]), c * kept)
        h = tf.matmul(output, projection)
        states.append(h)
        outputs.append(output)
    return tf.stack(states), tf.stack(outputs)


def loss_sums(weights: Sequence[tf.Tensor], rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Summed cross-entropy in nats and number of predicted pieces over packed rows int32 [B, 2, T] of model.rows."""
    hidden = tf.reshape(run_rows(weights, rows[:, 0])[0], [-1, weights[0].shape[1]])
    targets = tf.reshape(tf.transpose(rows[:, 1]), [-1])
    logits = tf.matmul(hidden, weights[0], transpose_b=True) + weights[4]
    predicted = tf.cast(tf.not_equal(targets, PAD), tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    return tf.reduce_sum(losses * predicted), tf.reduce_sum(predicted)


def mean_loss(weights: Sequence[tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy per predicted piece; zero for rows that predict nothing."""
    total, count = loss_sums(weights, rows)
    return tf.math.divide_no_nan(total, count)


def step(weights: Sequence[tf.Tensor], token: tf.Tensor, h: tf.Tensor, c: tf.Tensor):
    """One token as the device runs it: token int32 [1], h [1, P], c [1, H] -> logits [1, V], h, c."""
    embedding, kernel, bias, projection, output_bias = weights
    gates = tf.matmul(tf.concat([tf.gather(embedding, token), h], axis=1), kernel) + bias
    output, c = cell(gates, c)
    h = tf.matmul(output, projection)
    return tf.matmul(h, embedding, transpose_b=True) + output_bias, h, c

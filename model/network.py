"""CIFG-LSTM next-word network as pure functions over a flat list of weights.

The cell is the coupled input-forget-gate LSTM with a recurrent projection and tied input and output embeddings of
Hard et al. 2018, "Federated learning for mobile keyboard prediction" (1.4 M parameters at 10,000 x 96, 670 units):

    f, o, g = split([x_t, h_{t-1}] K + b);  c_t = s(f) c_{t-1} + (1 - s(f)) tanh(g)
    h_t = (s(o) tanh(c_t)) R;               logits_t = h_t E^T + d
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

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
    forget, output, candidate = _squash(gates)
    c = forget * c + (1.0 - forget) * candidate
    return output * tf.tanh(c), c


def _squash(gates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gate inputs [B, 3H] -> s(f), s(o), tanh(g) [B, H]."""
    forget, output, candidate = tf.split(gates, 3, axis=-1)
    return tf.sigmoid(forget), tf.sigmoid(output), tf.tanh(candidate)


class _Trace(NamedTuple):
    """A run over rows, step by step: lists of T tensors [B, ...], and the embedded tokens [T * B, P]."""

    inputs: tf.Tensor
    kept: list[tf.Tensor]
    cells: list[tf.Tensor]
    gates: list[tf.Tensor]
    outputs: list[tf.Tensor]
    states: list[tf.Tensor]


def _trace_rows(weights: Sequence[tf.Tensor], tokens: tf.Tensor) -> _Trace:
    embedding, kernel, bias, projection, _ = weights
    width, units = embedding.shape[1], projection.shape[0]
    tokens = tf.transpose(tokens)
    inputs = tf.gather(embedding, tf.reshape(tokens, [-1]))
    from_inputs = tf.nn.bias_add(tf.matmul(inputs, kernel[:width]), bias)
    kept = tf.unstack(tf.cast(tf.not_equal(tokens, BOS), tf.float32)[:, :, tf.newaxis])
    trace = _Trace(inputs, kept, [], [], [], [])
    recurrent = kernel[width:]
    h = tf.zeros([tf.shape(tokens)[1], width])
    c = tf.zeros([tf.shape(tokens)[1], units])
    for x, keep in zip(_split_steps(from_inputs, tokens.shape[0]), kept, strict=True):
        gates = x + tf.matmul(h * keep, recurrent)
        output, c = cell(gates, c * keep)
        h = tf.matmul(output, projection)
        trace.cells.append(c)
        trace.gates.append(gates)
        trace.outputs.append(output)
        trace.states.append(h)
    return trace


def _split_steps(flat: tf.Tensor, steps: int) -> list[tf.Tensor]:
    """[T * B, n] -> T tensors [B, n]."""
    return tf.unstack(tf.reshape(flat, [steps, -1, flat.shape[-1]]))


def run_rows(weights: Sequence[tf.Tensor], tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Hidden states [T, B, P] after each token of rows [B, T], and the cell's outputs [T, B, H] they project.

    Rows hold several messages each, so the state is cleared wherever a BOS begins one. T is static: the loop is
    unrolled.
    """
    trace = _trace_rows(weights, tokens)
    return tf.stack(trace.states), tf.stack(trace.outputs)


def loss_sums(weights: Sequence[tf.Tensor], rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Summed cross-entropy in nats and number of predicted pieces over packed rows int32 [B, 2, T] of model.rows.

    A piece less probable than float32's smallest number counts as that. The gradient is written by hand: TensorFlow's
    own takes 1.6 times as long.
    """
    return _loss_sums(*map(tf.convert_to_tensor, weights), rows)


@tf.custom_gradient
def _loss_sums(embedding, kernel, bias, projection, output_bias, rows):
    trace = _trace_rows([embedding, kernel, bias, projection, output_bias], rows[:, 0])
    hidden = tf.concat(trace.states, axis=0)
    targets = tf.reshape(tf.transpose(rows[:, 1]), [-1])
    predicted = tf.cast(tf.not_equal(targets, PAD), tf.float32)
    # one pass of oneDNN's softmax; TensorFlow's kernel of the fused cross-entropy takes nine times as long
    probabilities = tf.nn.softmax(
        tf.nn.bias_add(tf.matmul(hidden, embedding, transpose_b=True), output_bias)
    )
    places = tf.stack([tf.range(tf.shape(targets)[0]), targets], axis=1)
    losses = -tf.math.log(tf.gather_nd(probabilities, places) + np.finfo(np.float32).tiny)

    def gradient(upstream, _):
        """Gradients of upstream * loss. That of the logits is weight * (probabilities - one-hot of the target); the
        [T * B, V] it fills is not written: its two terms go through the products apart."""
        weight = upstream * predicted
        weighted = weight[:, tf.newaxis] * hidden
        d_hidden = weight[:, tf.newaxis] * (
            tf.matmul(probabilities, embedding) - tf.gather(embedding, targets)
        )
        d_output_bias = tf.tensor_scatter_nd_sub(
            tf.linalg.matvec(probabilities, weight, transpose_a=True),
            targets[:, tf.newaxis],
            weight,
        )
        d_embedding = tf.matmul(probabilities, weighted, transpose_a=True)
        d_inputs, *d_cell = _backpropagate(trace, kernel, projection, d_hidden)
        read = tf.reshape(tf.transpose(rows[:, 0]), [-1])
        d_embedding = tf.tensor_scatter_nd_add(
            d_embedding,
            tf.concat([targets, read], axis=0)[:, tf.newaxis],
            tf.concat([-weighted, d_inputs], axis=0),
        )
        return d_embedding, *d_cell, d_output_bias, None

    return (tf.reduce_sum(losses * predicted), tf.reduce_sum(predicted)), gradient


def _backpropagate(
    trace: _Trace, kernel: tf.Tensor, projection: tf.Tensor, d_hidden: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of the embedded tokens, kernel, bias and projection, given those of the hidden states [T * B, P].

    Step by step goes only what depends on the next step; all else is done for all steps at once.
    """
    steps, width = len(trace.states), projection.shape[1]
    # the same ops as in `cell`, which a graph computes once
    squashed = zip(*map(_squash, trace.gates), strict=True)
    forget, output, candidate = (tf.concat(gate, axis=0) for gate in squashed)
    kept, outputs = tf.concat(trace.kept, axis=0), tf.concat(trace.outputs, axis=0)
    squashed_cells = tf.tanh(tf.concat(trace.cells, axis=0))
    cells_before, states_before = _delay(trace.cells) * kept, _delay(trace.states) * kept
    # Factors between gradients: of the gates from those of the cell (forget, candidate) and the output (output), of the
    # cell from those of its output and of the next cell.
    to_forget = (cells_before - candidate) * forget * (1 - forget)
    to_output = outputs * (1 - output)
    to_candidate = (1 - forget) * (1 - candidate * candidate)
    to_cell = output * (1 - squashed_cells * squashed_cells)
    to_cell_before = forget * kept
    flat = (d_hidden, to_cell, to_forget, to_output, to_candidate, to_cell_before)
    by_step = zip(*(_split_steps(factor, steps) for factor in flat), trace.kept, strict=True)
    # sliced after the transposition, else it is folded into the products, which take twice as long then
    recurrent = tf.transpose(kernel)[:, width:]
    unprojected = tf.transpose(projection)
    d_h, d_c = tf.zeros_like(trace.states[0]), tf.zeros_like(trace.cells[0])
    d_states, d_gates = [], []
    for d_own, to_cell, to_forget, to_output, to_candidate, before, keep in reversed([*by_step]):
        d_h = d_own + d_h
        d_output = tf.matmul(d_h, unprojected)
        d_c = d_output * to_cell + d_c
        d_gate = tf.concat([d_c * to_forget, d_output * to_output, d_c * to_candidate], axis=1)
        d_states.append(d_h)
        d_gates.append(d_gate)
        d_h = tf.matmul(d_gate, recurrent) * keep
        d_c = d_c * before
    d_gates, d_states = tf.concat(d_gates[::-1], axis=0), tf.concat(d_states[::-1], axis=0)
    d_kernel = tf.matmul(
        tf.concat([trace.inputs, states_before], axis=1), d_gates, transpose_a=True
    )
    return (
        tf.matmul(d_gates, kernel[:width], transpose_b=True),
        d_kernel,
        tf.reduce_sum(d_gates, axis=0),
        tf.matmul(outputs, d_states, transpose_a=True),
    )


def _delay(values: list[tf.Tensor]) -> tf.Tensor:
    """What each step's predecessor had, [T * B, n]; zeros before the first."""
    return tf.concat([tf.zeros_like(values[0]), *values[:-1]], axis=0)


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

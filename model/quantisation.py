"""Rounds the network to int8 so that the words it suggests stay the same.

TFLite's dynamic-range quantisation gives each matrix one scale and rounds to nearest; of 2,000 lists of three words,
5 % then differ from the float model's. Four things bring that to under 1 %, for a tenth more bytes:
 - each row of the embedding and each row and column of the kernel, each column of the projection has its own scale;
 - rounding errors of one input are made good by the inputs after it, weighted by how they vary together on public
   text (GPTQ: Frantar et al. 2023, "Accurate post-training quantization for generative pre-trained transformers");
 - the most frequent quarter of the pieces, where nearly all suggestions come from, also keeps what rounding lost;
 - every matrix is fed its input and what int8 activations would lose of it (`model.export`).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from model.network import run_rows

_LEVELS = 127
_DAMPING = 0.01  # of the mean variance, as in the GPTQ paper, section 3.3
_FINE_SHARE = 0.25  # measured on a quick run: 99.0 % of lists the same without it, 99.3 % with it


@dataclasses.dataclass(frozen=True, eq=False)
class QuantisedWeights:
    """Matrices with values k / 127 for whole k in [-127, 127], and the float vectors that scale them.

    Attributes:
        embedding, embedding_scale: [V, P], [V]; row by row.
        fine, fine_scale: [F + 1, P], [F + 1]; what the first F rows of the embedding lost, and a row of zeros.
        kernel, kernel_scale: [2P, 3H], [3H]; column by column.
        input_scale: [2P]; multiplies the kernel's input.
        bias: [3H].
        projection, projection_scale: [H, P], [P]; column by column.
        output_bias: [V].
    """

    embedding: np.ndarray
    embedding_scale: np.ndarray
    fine: np.ndarray
    fine_scale: np.ndarray
    kernel: np.ndarray
    kernel_scale: np.ndarray
    input_scale: np.ndarray
    bias: np.ndarray
    projection: np.ndarray
    projection_scale: np.ndarray
    output_bias: np.ndarray


def quantise_weights(weights: Sequence[np.ndarray], calibration: np.ndarray) -> QuantisedWeights:
    """Quantised weights of the network's flat list.

    Args:
        weights: embedding (frequent pieces first), kernel, bias, projection, output bias.
        calibration: rows int32 [R, 2, T] of public text.
    """
    embedding, kernel, bias, projection, output_bias = weights
    tokens = calibration[:, 0]
    states, outputs = (np.asarray(t) for t in run_rows(weights, tokens))
    # What the recurrent half of the kernel reads is the state before the token. (At a BOS that is zero; the few such
    # places do not matter to a covariance.)
    before = np.concatenate([np.zeros_like(states[:1]), states[:-1]])
    x, states, outputs, before = (
        a.reshape(-1, a.shape[-1]) for a in (embedding[tokens.T], states, outputs, before)
    )
    # The embedding is read both ways: by row as input, and whole as output matrix.
    as_input, as_output = x.T @ x, states.T @ states
    balance = np.trace(as_output) / max(float(np.trace(as_input)), 1e-30)
    rows, row_scale = _round_rows(embedding, as_output + balance * as_input)
    lost = embedding - rows * row_scale[:, np.newaxis]
    frequent = int(_FINE_SHARE * len(embedding))
    fine = np.concatenate([lost[:frequent], np.zeros_like(lost[:1])])
    fine_rows, fine_scale = _round_rows(fine, np.eye(fine.shape[1]))
    input_scale = np.maximum(np.abs(kernel).max(axis=1), 1e-12)
    reads = np.concatenate([x, before], axis=1) * input_scale
    columns, column_scale = _round_rows((kernel / input_scale[:, np.newaxis]).T, reads.T @ reads)
    projected, projected_scale = _round_rows(projection.T, outputs.T @ outputs)
    return QuantisedWeights(
        embedding=rows,
        embedding_scale=row_scale,
        fine=fine_rows,
        fine_scale=fine_scale,
        kernel=columns.T,
        kernel_scale=column_scale,
        input_scale=input_scale.astype(np.float32),
        bias=bias,
        projection=projected.T,
        projection_scale=projected_scale,
        output_bias=output_bias,
    )


def _round_rows(matrix: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, M] on the grid and their scales [N], for least error on inputs of this [M, M] covariance."""
    scale = np.abs(matrix).max(axis=1)
    order = np.argsort(-np.diag(covariance), kind="stable")  # what varies most goes first
    covariance = covariance[order][:, order].astype(np.float64)
    rest = matrix[:, order] / np.where(scale > 0, scale, 1)[:, np.newaxis].astype(np.float64)
    identity = np.eye(len(covariance))
    damped = covariance + (_DAMPING * np.mean(np.diag(covariance)) + 1e-12) * identity
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    rounded = np.zeros_like(rest)
    for column in range(rest.shape[1]):
        exact = rest[:, column]
        rounded[:, column] = np.clip(np.rint(exact * _LEVELS), -_LEVELS, _LEVELS) / _LEVELS
        error = (exact - rounded[:, column]) / factor[column, column]
        rest[:, column:] -= np.outer(error, factor[column, column:])
    return rounded[:, np.argsort(order)].astype(np.float32), scale.astype(np.float32)

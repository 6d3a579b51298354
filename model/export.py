"""Exports the network as a TFLite file that takes one token a call, its state passed in and out."""

import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from model.network import cell
from model.quantisation import TwoPartMatrix, split_weights


def export_tflite(weights: Sequence[np.ndarray]) -> bytes:
    """TFLite file with signature `step(token, h, c) -> logits, h, c`, weights as dynamic-range int8.

    token is int32 [1], h float32 [1, P], c float32 [1, H], logits float32 [1, V].
    """
    width, units = weights[0].shape[1], weights[3].shape[0]
    module = tf.Module()
    module.matrices = [
        {name: tf.Variable(value, trainable=False) for name, value in vars(matrix).items()}
        for matrix in split_weights(weights)
    ]
    bias, output_bias = weights[2], weights[4]

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.int32, name="token"),
            tf.TensorSpec([1, width], tf.float32, name="h"),
            tf.TensorSpec([1, units], tf.float32, name="c"),
        ]
    )
    def run_step(token, h, c):
        embedding, kernel, projection = (TwoPartMatrix(**matrix) for matrix in module.matrices)
        x = _look_up(embedding, token)
        output, c = cell(_multiply(tf.concat([x, h], axis=1), kernel) + bias, c)
        h = _multiply(output, projection)
        return {"logits": _multiply(h, embedding) + output_bias, "h": h, "c": c}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"step": run_step})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["step"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def _look_up(matrix: TwoPartMatrix, row: tf.Tensor) -> tf.Tensor:
    """One row [1, M] of the matrix; row is int32 [1]."""
    fine_rows = matrix.fine.shape[0]
    fine_row = tf.minimum(row, fine_rows - 1)
    # Slices, not gathers: the converter would round a gathered vector to int8 as well.
    coarse = tf.gather(matrix.coarse, row) * tf.slice(matrix.coarse_scale, row, [1])
    fine = tf.gather(matrix.fine, fine_row) * tf.slice(matrix.fine_scale, fine_row, [1])
    return coarse + fine * tf.cast(row < fine_rows, tf.float32)


def _multiply(x: tf.Tensor, matrix: TwoPartMatrix) -> tf.Tensor:
    """x [1, M] times the transposed matrix [N, M], precise although TFLite's kernel rounds its input to int8.

    The kernel rounds each row of its input to 256 levels between its least and its largest value, zero among them. The
    same is done here first, and what is lost goes in as a second row, whose own rounding is 255 times finer.
    """
    low = tf.minimum(tf.reduce_min(x, keepdims=True), 0.0)
    high = tf.maximum(tf.reduce_max(x, keepdims=True), 0.0)
    scale = tf.maximum((high - low) / 255.0, 1e-12)
    zero = tf.round(-128.0 - low / scale)
    kept = (tf.clip_by_value(tf.round(zero + x / scale), -128.0, 127.0) - zero) * scale
    rows = tf.concat([x, x - kept], axis=0)
    coarse = tf.reduce_sum(tf.matmul(rows, matrix.coarse, transpose_b=True), axis=0, keepdims=True)
    fine = tf.matmul(x, matrix.fine, transpose_b=True) * matrix.fine_scale
    missing = matrix.coarse.shape[0] - matrix.fine.shape[0]
    return coarse * matrix.coarse_scale + tf.pad(fine, [[0, 0], [0, missing]])

"""Exports the network as a TFLite file that takes one token a call, its state passed in and out."""

import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from model.network import cell
from model.quantisation import QuantisedWeights, quantise_weights


def export_tflite(weights: Sequence[np.ndarray], calibration: np.ndarray) -> bytes:
    """TFLite file with signature `step(token, h, c) -> logits, h, c`, weights as dynamic-range int8.

    token is int32 [1], h float32 [1, P], c float32 [1, H], logits float32 [1, V].

    Args:
        weights: the network's flat list.
        calibration: rows int32 [R, 2, T] of public text, for `model.quantisation`.
    """
    quantised = quantise_weights(weights, calibration)
    width, units = weights[0].shape[1], weights[3].shape[0]
    module = tf.Module()
    module.weights = {
        name: tf.Variable(value, trainable=False) for name, value in vars(quantised).items()
    }

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.int32, name="token"),
            tf.TensorSpec([1, width], tf.float32, name="h"),
            tf.TensorSpec([1, units], tf.float32, name="c"),
        ]
    )
    def run_step(token, h, c):
        logits, h, c = _step(QuantisedWeights(**module.weights), token, h, c)
        return {"logits": logits, "h": h, "c": c}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"step": run_step})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["step"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def _step(weights: QuantisedWeights, token: tf.Tensor, h: tf.Tensor, c: tf.Tensor):
    """`model.network.step` on scaled int8 matrices."""
    fine_rows = weights.fine.shape[0] - 1
    fine_token = tf.minimum(token, fine_rows)
    x = _look_up(weights.embedding, weights.embedding_scale, token)
    x += _look_up(weights.fine, weights.fine_scale, fine_token)
    gates = _multiply(tf.concat([x, h], axis=1) * weights.input_scale, weights.kernel)
    output, c = cell(gates * weights.kernel_scale + weights.bias, c)
    h = _multiply(output, weights.projection) * weights.projection_scale
    logits = _multiply(h, weights.embedding, transpose_b=True) * weights.embedding_scale
    fine = _multiply(h, weights.fine, transpose_b=True) * weights.fine_scale
    rest = weights.embedding.shape[0] - fine_rows
    logits += tf.pad(fine[:, :fine_rows], [[0, 0], [0, rest]])
    return logits + weights.output_bias, h, c


def _look_up(matrix: tf.Tensor, scale: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
    return tf.gather(matrix, token) * tf.gather(scale, token)[:, tf.newaxis]


def _multiply(x: tf.Tensor, matrix: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """x [1, M] times a matrix, precise although the kernel rounds its input to int8.

    The kernel rounds each row of its input to 256 levels between its least and its largest value, zero among them. The
    same is done here first, and what is lost goes in as a second row, whose own rounding is 255 times finer.
    """
    low, high = (
        tf.minimum(tf.reduce_min(x, keepdims=True), 0.0),
        tf.maximum(tf.reduce_max(x, keepdims=True), 0.0),
    )
    scale = tf.maximum((high - low) / 255.0, 1e-12)
    zero = tf.round(-128.0 - low / scale)
    kept = (tf.clip_by_value(tf.round(zero + x / scale), -128.0, 127.0) - zero) * scale
    both = tf.matmul(tf.concat([x, x - kept], axis=0), matrix, transpose_b=transpose_b)
    return tf.reduce_sum(both, axis=0, keepdims=True)

"""Exports the network as a TFLite file that takes one token a call, its state passed in and out."""

import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from model.compact_weights import CompactMatrix, compact
from model.network import cell, step
from model.quantisation import FREQUENT_PIECES, Quantisation, check_quantisation, round_rows


def export_tflite(
    weights: Sequence[np.ndarray],
    quantisation: Quantisation = "mixed",
    seen: Sequence[Sequence[int]] = (),
) -> bytes:
    """TFLite file with signature `step(token, h, c) -> logits, h, c`.

    token is int32 [1], h float32 [1, P], c float32 [1, H], logits float32 [1, V], in every kind.

    Args:
        weights: the network's flat list.
        quantisation: how they are stored, see `model.quantisation`.
        seen: pieces of public messages, BOS first, that show `int8` the ranges of its values; for the others unused.

    Raises:
        ValueError: there is no such kind, or `int8` has seen nothing.
    """
    if check_quantisation(quantisation) == "mixed":
        return _export_mixed(weights)
    module = tf.Module()
    module.weights = [tf.Variable(w, trainable=False) for w in weights]

    def choose(converter: tf.lite.TFLiteConverter) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantisation == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantisation == "int8":
            if not any(seen):
                raise ValueError("quantisation int8: give pieces of public text to see ranges on")
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: _replay(weights, seen)

    return _convert(module, weights, lambda token, h, c: step(module.weights, token, h, c), choose)


def _export_mixed(weights: Sequence[np.ndarray]) -> bytes:
    embedding, kernel, bias, projection, output_bias = weights
    # Not all of them, so that the graph is the same for every vocabulary.
    frequent = min(FREQUENT_PIECES, len(embedding) - 1)
    module = tf.Module()
    matrices = [embedding[:frequent], embedding[frequent:], kernel.T.copy(), projection.T.copy()]
    module.matrices = [tf.Variable(matrix, trainable=False) for matrix in matrices]

    def run_step(token, h, c):
        often, rare, gates, projected = module.matrices
        is_frequent = tf.cast(token < frequent, tf.float32)
        x = is_frequent * tf.gather(often, tf.minimum(token, frequent - 1))
        x += (1.0 - is_frequent) * tf.gather(rare, tf.maximum(token - frequent, 0))
        x = tf.matmul(tf.concat([x, h], axis=1), gates, transpose_b=True) + bias
        output, c = cell(x, c)
        h = tf.matmul(output, projected, transpose_b=True)
        logits = [
            tf.matmul(h, part, transpose_b=True) + part_bias
            for part, part_bias in ((often, output_bias[:frequent]), (rare, output_bias[frequent:]))
        ]
        return tf.concat(logits, axis=1), h, c

    model = _convert(module, weights, run_step, lambda _converter: None)
    stored = [CompactMatrix(matrix, matrix.astype(np.float16)) for matrix in matrices]
    stored[1] = CompactMatrix(matrices[1], *round_rows(matrices[1]))
    return compact(model, stored)


def _convert(
    module: tf.Module,
    weights: Sequence[np.ndarray],
    run: Callable,
    choose: Callable[[tf.lite.TFLiteConverter], None],
) -> bytes:
    """TFLite file of `run(token, h, c) -> logits, h, c`, which uses the module's variables."""
    width, units = weights[0].shape[1], weights[3].shape[0]

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.int32, name="token"),
            tf.TensorSpec([1, width], tf.float32, name="h"),
            tf.TensorSpec([1, units], tf.float32, name="c"),
        ]
    )
    def run_step(token, h, c):
        logits, h, c = run(token, h, c)
        return {"logits": logits, "h": h, "c": c}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"step": run_step})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["step"])
        choose(converter)
        return converter.convert()


def _replay(
    weights: Sequence[np.ndarray], seen: Sequence[Sequence[int]]
) -> Iterator[dict[str, np.ndarray]]:
    """The inputs of every step along the messages."""
    for pieces in seen:
        h = np.zeros((1, weights[0].shape[1]), np.float32)
        c = np.zeros((1, weights[3].shape[0]), np.float32)
        for piece in pieces:
            token = np.array([piece], np.int32)
            yield {"token": token, "h": h, "c": c}
            _, h, c = (tensor.numpy() for tensor in step(weights, token, h, c))

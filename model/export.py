"""Exports the network as a TFLite file that takes one token a call, its state passed in and out."""

import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from model.network import step


def export_tflite(weights: Sequence[np.ndarray]) -> bytes:
    """TFLite file with signature `step(token, h, c) -> logits, h, c`, weights as dynamic-range int8.

    token is int32 [1], h float32 [1, P], c float32 [1, H], logits float32 [1, V].
    """
    width, units = weights[0].shape[1], weights[3].shape[0]
    module = tf.Module()
    module.weights = [tf.Variable(w, trainable=False) for w in weights]

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.int32, name="token"),
            tf.TensorSpec([1, width], tf.float32, name="h"),
            tf.TensorSpec([1, units], tf.float32, name="c"),
        ]
    )
    def run_step(token, h, c):
        logits, h, c = step(module.weights, token, h, c)
        return {"logits": logits, "h": h, "c": c}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"step": run_step})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["step"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()

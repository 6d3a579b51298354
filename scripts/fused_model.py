"""What `keyfed bench device --against-fused` races: a sequence model that reads its context anew for each word."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from device_runtime.decoder import Interpreter
from device_runtime.keyboard import Keyboard
from device_runtime.latency import Stopwatch
from device_runtime.tokenizer import BOS
from device_runtime.typed_text import MESSAGES

CONTEXT_TOKENS = 20
_SUGGESTIONS = 3


def export_fused(vocabulary: int, width: int, units: int) -> bytes:
    """A Keras LSTM with tied embeddings and a projection, random weights, as TFLite with dynamic-range int8.

    Signature `read(tokens int32 [1, CONTEXT_TOKENS]) -> logits float32 [1, V]`. The converter makes all the steps one
    fused operation, UNIDIRECTIONAL_SEQUENCE_LSTM.

    Args:
        vocabulary: V.
        width: of embedding and projection.
        units: of the LSTM.
    """
    module = tf.Module()
    module.embedding = tf.Variable(tf.random.normal([vocabulary, width], stddev=0.1, seed=1))
    module.lstm = tf.keras.layers.LSTM(units)
    module.projection = tf.keras.layers.Dense(width)

    @tf.function(input_signature=[tf.TensorSpec([1, CONTEXT_TOKENS], tf.int32, name="tokens")])
    def read(tokens):
        h = module.projection(module.lstm(tf.gather(module.embedding, tokens)))
        return {"logits": tf.matmul(h, module.embedding, transpose_b=True)}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"read": read})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["read"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def race_fused(bundle: Path, words: int) -> dict[str, float]:
    """Ours and the fused model in turns, one thread each, at every word of the typed text.

    Ours: `commit` of the word and `suggest()`: the steps, and the search for whole words. The other's: reading the last
    CONTEXT_TOKENS tokens, log-softmax and the three likeliest pieces, which would still have to be made words.

    Args:
        bundle: whose sizes the fused model gets.
        words: to time, >= 1.

    Returns:
        `ours_p50_ms`, `fused_p50_ms` and `fused_ratio`, the second by the first.
    """
    keyboard = Keyboard.open(bundle)
    shapes = keyboard.decoder.state_shapes
    model = export_fused(keyboard.decoder.vocabulary_size, shapes["h"][1], shapes["c"][1])
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    read = interpreter.get_signature_runner("read")

    def suggest_anew(tokens: list[int]) -> np.ndarray:
        last = [BOS] * CONTEXT_TOKENS + tokens
        logits = read(tokens=np.array([last[-CONTEXT_TOKENS:]], np.int32))["logits"][0]
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        return np.argpartition(logits, -_SUGGESTIONS)[-_SUGGESTIONS:]

    ours, fused = Stopwatch(), Stopwatch()
    session = keyboard.session()

    warm_up = len(MESSAGES[0].split())
    while len(ours.ms) < warm_up + words:
        for message in MESSAGES:
            session.reset()
            tokens: list[int] = []
            for word in message.split():
                tokens += keyboard.tokenizer.encode_words([word])
                with ours:
                    session.commit(word)
                    session.suggest()
                with fused:
                    suggest_anew(tokens)
    ours_ms, fused_ms = (
        statistics.median(watch.ms[warm_up : warm_up + words]) for watch in (ours, fused)
    )
    return {
        "ours_p50_ms": ours_ms,
        "fused_p50_ms": fused_ms,
        "fused_ratio": fused_ms / ours_ms,
    }

"""How likely messages are under the network: what re-weighting a pool by a trained model needs."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from device_runtime.tokenizer import PAD, Tokenizer
from model.network import run_rows
from model.rows import encode_text

_LENGTHS = (16, 64)  # pieces of a row; one graph each, since run_rows unrolls them
_BATCH_PIECES = 2_048  # logits [2,048, 10,000] are 80 MB


def score_messages(
    weights: Sequence[np.ndarray], tokenizer: Tokenizer, messages: Sequence[str]
) -> np.ndarray:
    """Mean natural log-probability of each message's pieces and its end, float64 [messages].

    The mean, not the sum, so that short messages are no likelier than long ones. Of a message of more than 64 pieces
    the first 64 count.

    Args:
        weights: the network's flat list.
        tokenizer: the one they were trained with.
        messages: texts as they stand.
    """
    constants = [tf.constant(w) for w in weights]

    @tf.function
    def sum_log_probs(rows):
        hidden = run_rows(constants, rows[:, 0])[0]
        logits = tf.tensordot(hidden, constants[0], [[2], [1]]) + constants[4]
        targets = tf.transpose(rows[:, 1])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return -tf.reduce_sum(losses * tf.cast(tf.not_equal(targets, PAD), tf.float32), axis=0)

    encoded = [encode_text(tokenizer, text)[:, : _LENGTHS[-1]] for text in messages]
    sizes = np.array([message.shape[1] for message in encoded], int)
    scores = np.zeros(len(messages))
    shorter = 0
    for length in _LENGTHS:
        places = np.flatnonzero((sizes > shorter) & (sizes <= length))
        shorter = length
        batch = _BATCH_PIECES // length
        for start in range(0, len(places), batch):
            chosen = places[start : start + batch]
            rows = np.full((batch, 2, length), PAD, np.int32)  # one shape, so one graph
            for row, place in zip(rows, chosen, strict=False):
                row[:, : sizes[place]] = encoded[place]
            scores[chosen] = sum_log_probs(rows).numpy()[: len(chosen)]
    return scores / sizes

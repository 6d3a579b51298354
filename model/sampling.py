"""The network as a writer: messages sampled from it piece by piece, many at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from device_runtime.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from device_runtime.words import is_word
from model.network import step

MAX_PIECES = 60
"""A message is cut here if it has not ended; 89 % of real ones have at most 20 words."""
_BATCH = 256


def sample_messages(
    weights: Sequence[np.ndarray],
    tokenizer: Tokenizer,
    words: int,
    rng: np.random.Generator,
    temperature: float = 1.0,
) -> list[str]:
    """Messages that hold at least `words` words in all, each written from an empty context to its end.

    Every piece is drawn from the softmax of its logits over `temperature`, without padding, BOS and the unknown piece.
    At temperature 1 messages come with the probabilities that the network gives them: none is preferred for being short
    or finished early.

    Args:
        weights: the network's flat list.
        tokenizer: with as many pieces as the network.
        words: to reach, > 0; the last message may go beyond.
        rng: of all draws.
        temperature: > 0; below 1 the frequent becomes more frequent.

    Raises:
        ValueError: an argument is out of range or the two do not fit, or the network writes no words.
    """
    if words < 1 or temperature <= 0:
        raise ValueError(f"words {words}, temperature {temperature}: give positive numbers")
    if weights[0].shape[0] != tokenizer.size:
        raise ValueError(
            f"network of {weights[0].shape[0]} pieces, tokenizer of {tokenizer.size}: take them of the same run"
        )
    sample_batch = _compile_sampling(weights)
    messages: list[str] = []
    total = 0
    while True:
        batch = [tokenizer.text(pieces) for pieces in sample_batch(rng, temperature)]
        sizes = [sum(map(is_word, text.split())) for text in batch]
        if not any(sizes):
            raise ValueError(f"{_BATCH} sampled messages hold no word: train the network first")
        for text, size in zip(batch, sizes, strict=True):
            if text:
                messages.append(text)
            total += size
            if total >= words:
                return messages


def _compile_sampling(
    weights: Sequence[np.ndarray],
) -> Callable[[np.random.Generator, float], list[list[int]]]:
    """A function that samples the pieces of _BATCH messages."""
    width, units = weights[0].shape[1], weights[3].shape[0]
    constants = [tf.constant(array) for array in weights]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, width]),
            tf.TensorSpec([None, units]),
        ]
    )
    def run_step(tokens, h, c):
        return step(constants, tokens, h, c)

    def sample_batch(rng: np.random.Generator, temperature: float) -> list[list[int]]:
        pieces: list[list[int]] = [[] for _ in range(_BATCH)]
        writing = np.arange(_BATCH)
        tokens = np.full(_BATCH, BOS, np.int32)
        h, c = np.zeros((_BATCH, width), np.float32), np.zeros((_BATCH, units), np.float32)
        for _ in range(MAX_PIECES):
            logits, h, c = (tensor.numpy() for tensor in run_step(tokens, h, c))
            tokens = draw_pieces(logits, rng.random(len(tokens)), temperature)
            goes_on = tokens != EOS
            writing, tokens, h, c = writing[goes_on], tokens[goes_on], h[goes_on], c[goes_on]
            for message, token in zip(writing.tolist(), tokens.tolist(), strict=True):
                pieces[message].append(token)
            if not len(writing):
                break
        return pieces

    return sample_batch


def draw_pieces(logits: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
    """One piece int32 [B] for each row of logits [B, V], by inversion of its distribution at uniform [B] in [0, 1)."""
    scaled = logits.astype(np.float64) / temperature
    scaled[:, [PAD, BOS, UNK]] = -np.inf
    cumulative = np.cumsum(np.exp(scaled - scaled.max(axis=1, keepdims=True)), axis=1)
    return (cumulative <= uniform[:, np.newaxis] * cumulative[:, -1:]).sum(axis=1).astype(np.int32)

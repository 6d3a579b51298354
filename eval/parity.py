"""Does the quantised TFLite file say what the float model says?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from device_runtime.decoder import DecoderState, WordSearch
from device_runtime.keyboard import Keyboard, Suggestion
from device_runtime.tokenizer import BOS, Tokenizer
from device_runtime.words import split_words
from eval.next_word import SUGGESTIONS
from eval.targets import find_targets
from model.network import step


@dataclass(frozen=True)
class Parity:
    """Agreement of two models over the same positions, and how often each names the word that was written next.

    Attributes:
        positions: places in messages where both were asked for the next word.
        top1_agreement, top3_agreement: share with the same first word, and the same three words in any order.
        top1, top3: share of the TFLite file's lists whose first word, or one of three, was written next.
        float_top1, float_top3: the same of the float model.
    """

    positions: int
    top1_agreement: float
    top3_agreement: float
    top1: float
    top3: float
    float_top1: float
    float_top3: float


class FloatDecoder:
    """The float network behind the interface of `device_runtime.decoder.Decoder`."""

    def __init__(self, weights: Sequence[np.ndarray]) -> None:
        self.vocabulary_size = weights[0].shape[0]
        self._sizes = weights[0].shape[1], weights[3].shape[0]
        tensors = [tf.constant(w) for w in weights]

        @tf.function
        def run(token, h, c):
            logits, h, c = step(tensors, token, h, c)
            return tf.nn.log_softmax(logits)[0], h, c

        self._run = run

    def start(self, token: int) -> DecoderState:
        """State after `token` from the zero state."""
        h, c = (np.zeros((1, size), np.float32) for size in self._sizes)
        return self.step(token, DecoderState(h, c, np.empty(0, np.float32)))

    def step(self, token: int, state: DecoderState) -> DecoderState:
        """State after one more token."""
        log_probs, h, c = self._run(np.array([token], np.int32), state.h, state.c)
        return DecoderState(h.numpy(), c.numpy(), log_probs.numpy())


class FloatModel:
    """The float network with a tokenizer, measured as a `next_word.WordPredictor`."""

    def __init__(self, weights: Sequence[np.ndarray], tokenizer: Tokenizer) -> None:
        self._decoder, self._tokenizer = FloatDecoder(weights), tokenizer
        self._search = WordSearch(self._decoder, tokenizer)

    def predict_words(
        self, words: list[str], at: list[bool], count: int = SUGGESTIONS
    ) -> list[list[Suggestion]]:
        """As `Keyboard.predict_words`."""
        state = self._decoder.start(BOS)
        predictions: list[list[Suggestion]] = []
        for tokens, asked in zip(self._tokenizer.encode_each_word(words), at, strict=True):
            found = self._search.next_words(state, count) if asked else []
            predictions.append([Suggestion(word, log_prob) for word, log_prob in found])
            for token in tokens:
                state = self._decoder.step(token, state)
        return predictions


def measure_parity(
    weights: Sequence[np.ndarray],
    keyboards: Sequence[Keyboard],
    messages: Iterable[str],
    positions: int,
) -> list[Parity]:
    """Compares each keyboard with the float model at the first `positions` targets of `messages` (or all, if fewer).

    Raises:
        ValueError: the messages hold no target.
    """
    exact_model = FloatModel(weights, keyboards[0].tokenizer)
    # Of each keyboard, and of the float model last: same first, same three, first right, one of three right.
    counts = np.zeros((len(keyboards) + 1, 4), np.int64)
    compared = 0
    for message in messages:
        words = split_words(message)
        at = find_targets(words)[: positions - compared]
        words = words[: at[-1] + 1] if at else []
        wanted = [place in at for place in range(len(words))]
        predicted = [keyboard.predict_words(words, wanted) for keyboard in keyboards]
        predicted.append(exact_model.predict_words(words, wanted))
        for place in at:
            lists = [[suggestion.text for suggestion in of[place]] for of in predicted]
            exact = lists[-1]
            for count, suggested in zip(counts, lists, strict=True):
                count += (
                    suggested[:1] == exact[:1],
                    set(suggested) == set(exact),
                    words[place] in suggested[:1],
                    words[place] in suggested,
                )
        compared += len(at)
        if compared == positions:
            break
    if not compared:
        raise ValueError("parity: the messages hold no word to predict")
    *shares, exact_shares = (counts / compared).tolist()
    return [Parity(compared, *share, *exact_shares[2:]) for share in shares]

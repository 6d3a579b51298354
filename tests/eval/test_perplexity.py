"""Bits per word by a slow, separate computation, with real tokenizers and a model of fixed formulas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from device_runtime.decoder import DecoderState
from device_runtime.tokenizer import Tokenizer
from device_runtime.words import is_word, split_words
from eval.perplexity import WordBits, measure_bits
from tests.device_runtime.tiny_model import train_tokenizer
from tests.eval.test_next_word import ADVERSARIAL


class FormulaModel:
    """A model whose next piece depends on all tokens before, through one number."""

    def __init__(self, size):
        self.vocabulary_size = size

    def start(self, token):
        return self._state(np.float32([[token]]))

    def step(self, token, state):
        return self._state(np.float32([[(3 * state.h[0, 0] + token) % 97]]))

    def _state(self, h):
        logits = np.sin(h[0, 0] + np.arange(self.vocabulary_size))
        return DecoderState(h, h, logits - math.log(np.exp(logits).sum()))


class FormulaKeyboard:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.decoder = FormulaModel(tokenizer.size)


KEYBOARDS = [
    FormulaKeyboard(Tokenizer(train_tokenizer("unigram", 90, suffix=True))),
    FormulaKeyboard(Tokenizer(train_tokenizer("word", 60, suffix=False))),
]


def _bits_by_definition(keyboard, message):
    """-log2 P(word's pieces | everything before), each word from the message's beginning again."""
    words, costs = split_words(message), []
    pieces = keyboard.tokenizer
    for position, word in enumerate(words):
        if not is_word(word):
            continue
        state = keyboard.decoder.start(1)
        for token in pieces.encode_words(words[:position]):
            state = keyboard.decoder.step(token, state)
        probability, left = 1.0, word
        for token in pieces.encode_words([word]):
            probability *= math.exp(state.log_probs[token])
            state = keyboard.decoder.step(token, state)
            left = left.replace(pieces.surfaces[token], "", 1)
        costs.append(-math.log2(probability / 2.0 ** len(left) / 0x110000 ** len(left)))
    return costs


@settings(deadline=None, max_examples=30)
@given(ADVERSARIAL)
def test_bits_are_those_of_the_definition_on_any_message(message):
    for keyboard in KEYBOARDS:
        [bits], [targets] = (
            getattr(measure_bits(keyboard, [[message]]), n) for n in ("bits", "targets")
        )
        costs = _bits_by_definition(keyboard, message)
        assert bits == pytest.approx(sum(costs), rel=1e-5) and targets == len(costs)


def test_known_and_unknown_words_together_are_no_more_than_certain():
    """Kraft's inequality: words of one piece, and the cost's shares of all words of 1 to 3 unknown characters."""
    [keyboard] = KEYBOARDS[1:]
    state = keyboard.decoder.start(1)
    known = [t for t in range(keyboard.tokenizer.size) if keyboard.tokenizer.surfaces[t]]
    total = np.exp(state.log_probs[known]).sum()
    [bits] = (measure_bits(keyboard, [["Щ"]]).bits,)
    total += sum(2.0 ** -(bits[0] + 20.0875 * (n - 1) + n - 1) * 0x110000**n for n in (1, 2, 3))
    assert 0.5 < total <= 1


def test_perplexity_is_two_to_the_mean_bits_and_merges():
    users = [["i saw the dog", "at 10:30 !"], ["", "😂"], ["nobody Щ"]]
    whole = measure_bits(KEYBOARDS[0], users)
    halves = measure_bits(KEYBOARDS[0], users[:1]) + measure_bits(KEYBOARDS[0], users[1:])
    assert whole.bits.tolist() == halves.bits.tolist() and whole.targets.tolist() == [6, 0, 2]
    costs = [c for user in users for m in user for c in _bits_by_definition(KEYBOARDS[0], m)]
    perplexity = whole.perplexity(seed=1)
    assert perplexity.value == pytest.approx(2 ** (sum(costs) / 8), rel=1e-5)
    assert 1 <= perplexity.low <= perplexity.value <= perplexity.high
    first = measure_bits(KEYBOARDS[0], users, max_targets=3)
    assert first.bits.tolist() == pytest.approx([sum(costs[:3]), 0, sum(costs[6:])], rel=1e-5)
    with pytest.raises(ValueError, match="all totals are zero"):
        WordBits(np.zeros(1), np.zeros(1, int)).perplexity(seed=1)

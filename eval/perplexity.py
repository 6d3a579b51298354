"""Perplexity per word of a keyboard, comparable between tokenizers: a word costs bits, whatever it is made of.

A word's cost is that of the pieces it is written with, its end among them. The sum over all the ways to
write it in pieces would be a little less and cannot be had; so this is an upper bound (Cao and Rimell
2021, EMNLP, "You should evaluate your language model on marginal likelihood over tokenisations").

The unknown piece stands for many words, so its probability is shared among them: each character it stands
for costs as much as one of all 1,114,112 code points, and a bit for whether another follows. Without that,
a model would do better the fewer characters it knows.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.decoder import DecoderState
from device_runtime.keyboard import Keyboard
from device_runtime.tokenizer import BOS, UNK
from device_runtime.words import split_words
from eval.statistics import Interval, ratio_interval
from eval.targets import take_targets

UNKNOWN_CHARACTER_BITS = math.log2(0x110000) + 1


@dataclass(frozen=True, eq=False)
class WordBits:
    """Cost of target words [users]; `a + b` is the users of a, then those of b.

    Attributes:
        bits: that all target words of a user cost.
        targets: their number.
    """

    bits: NDArray[np.float64]
    targets: NDArray[np.int64]

    def __add__(self, other: "WordBits") -> "WordBits":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return WordBits(*(np.concatenate(pair) for pair in pairs))

    def perplexity(self, seed: int) -> Interval:
        """2 ** (bits per word) with its 95 % interval over users; as likely as one word in so many.

        Raises:
            ValueError: there is no target at all.
        """
        bits = ratio_interval(self.bits, self.targets, seed)
        return Interval(*(2.0**end for end in (bits.value, max(bits.low, 0.0), bits.high)))


def measure_bits(
    keyboard: Keyboard,
    users: Sequence[Sequence[str]],
    max_targets: int | None = None,
) -> WordBits:
    """Costs of the target words that `next_word.score_users` asks for, each user's up to `max_targets`."""
    rows = [_measure_user(keyboard, messages, max_targets) for messages in users]
    return WordBits(np.array([bits for bits, _ in rows]), np.array([n for _, n in rows], np.int64))


def _measure_user(
    keyboard: Keyboard, messages: Sequence[str], max_targets: int | None
) -> tuple[float, int]:
    start = keyboard.decoder.start(BOS)
    bits, targets = 0.0, 0
    for words, targeted in take_targets(map(split_words, messages), max_targets):
        state = start
        read = words[: targeted[-1] + 1]  # nothing after the last target
        encoded = keyboard.tokenizer.encode_each_word(read)
        for position, (word, tokens) in enumerate(zip(read, encoded, strict=True)):
            cost, state = _read_word(keyboard, tokens, state)
            if position in targeted:
                bits += cost + UNKNOWN_CHARACTER_BITS * _count_unknown(keyboard, word, tokens)
        targets += len(targeted)
    return bits, targets


def _read_word(
    keyboard: Keyboard, tokens: Sequence[int], state: DecoderState
) -> tuple[float, DecoderState]:
    """Bits of the pieces one after the other, and the state after them."""
    bits = 0.0
    for token in tokens:
        bits -= float(state.log_probs[token]) / math.log(2)
        state = keyboard.decoder.step(token, state)
    return bits, state


def _count_unknown(keyboard: Keyboard, word: str, tokens: Sequence[int]) -> int:
    """Characters of the word that unknown pieces stand for."""
    if UNK not in tokens:
        return 0
    return len(word) - sum(len(keyboard.tokenizer.surfaces[token]) for token in tokens)

"""Sampled messages come as often as the network says they should."""

import itertools
import math

import numpy as np
import pytest

from device_runtime.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from model.network import NetworkShape, initial_weights
from model.sampling import MAX_PIECES, draw_pieces, sample_messages
from tests.device_runtime.tiny_model import train_tokenizer
from tests.model import numpy_network


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer("word", 60, suffix=False))


def make_weights(tokenizer: Tokenizer, allowed: list[int]) -> list[np.ndarray]:
    """A random network that only says `allowed` pieces."""
    weights = initial_weights(NetworkShape(tokenizer.size, 8, 12), seed=3)
    weights[0] *= 3
    weights[4][:] = -100
    weights[4][allowed] = 0
    return weights


def softmax(logits: np.ndarray) -> np.ndarray:
    exact = np.exp(logits - logits.max())
    return exact / exact.sum()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_short_messages_come_with_the_probability_of_the_equations(
    tokenizer: Tokenizer, temperature: float
) -> None:
    """Every message of up to three of three words, its probability multiplied out by the network in numpy."""
    words = [10, 20, 30]
    weights = make_weights(tokenizer, [EOS, *words, PAD, BOS, UNK])

    def probability(message: tuple[int, ...]) -> float:
        h, c = np.zeros(8), np.zeros(12)
        result, token = 1.0, BOS
        for following in (*message, EOS):
            logits, h, c = numpy_network.run_step(weights, token, h, c)
            logits[[PAD, BOS, UNK]] = -np.inf
            result *= softmax(logits / temperature)[following]
            token = following
        return result

    sampled = sample_messages(
        weights, tokenizer, 20_000, np.random.default_rng(5), temperature=temperature
    )
    possible = [m for n in (1, 2, 3) for m in itertools.product(words, repeat=n)]
    written = 1 - probability(())  # an empty message is none
    assert sum(map(probability, possible)) > 0.2 * written
    for message in possible:
        expected = probability(message) / written
        share = sampled.count(tokenizer.text(message)) / len(sampled)
        deviation = math.sqrt(expected * (1 - expected) / len(sampled))
        assert abs(share - expected) < 4.5 * deviation + 1e-9, message


def test_words_are_reached_and_the_seed_decides(tokenizer: Tokenizer) -> None:
    weights = make_weights(tokenizer, [EOS, 10, 20, 30])
    first, same, other = (
        sample_messages(weights, tokenizer, 500, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == same != other
    sizes = [len(message.split()) for message in first]
    assert sum(sizes[:-1]) < 500 <= sum(sizes)


def test_a_message_without_end_is_cut(tokenizer: Tokenizer) -> None:
    sampled = sample_messages(
        make_weights(tokenizer, [10]), tokenizer, 1_000, np.random.default_rng(0)
    )
    assert sampled[0] == " ".join([tokenizer.surfaces[10]] * MAX_PIECES)


def test_drawing_inverts_the_distribution() -> None:
    """Pieces 4 to 7 alone may be drawn, at 1/8, 1/2, 1/8 and 1/4: the end has no share here."""
    probabilities = np.array([0.2, 0.2, 0.0, 0.2, 0.05, 0.2, 0.05, 0.1])
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)
    places = np.array([0, 0.124, 0.126, 0.624, 0.626, 0.749, 0.751, 0.999])
    drawn = draw_pieces(np.tile(logits, (8, 1)), places, 1.0)
    assert drawn.tolist() == [4, 4, 5, 5, 6, 6, 7, 7]


def test_what_does_not_fit_is_refused(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    weights = make_weights(tokenizer, [10])
    for words, temperature in ((0, 1.0), (5, 0.0)):
        with pytest.raises(ValueError, match="give positive numbers"):
            sample_messages(weights, tokenizer, words, rng, temperature)
    with pytest.raises(ValueError, match="network of 61 pieces"):
        sample_messages(initial_weights(NetworkShape(61, 8, 12), 0), tokenizer, 5, rng)
    with pytest.raises(ValueError, match="hold no word"):
        sample_messages(make_weights(tokenizer, [EOS]), tokenizer, 5, rng)

"""Secret-Sharer exposure: how much likelier a model finds sentences planted on devices than others like them.

Carlini et al. 2019 (arXiv:1802.08232): a sentence's exposure is log2 of the number of reference sentences less log2 of
its rank among them by log-perplexity. 1 bit is chance's median, all of them is memorised. Sentences and exposures are
made by TensorFlow Privacy's own code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tensorflow_privacy.privacy.privacy_tests.secret_sharer.exposures import (
    compute_exposure_interpolation,
)
from tensorflow_privacy.privacy.privacy_tests.secret_sharer.generate_secrets import (
    SecretConfig,
    TextSecretProperties,
    generate_text_secrets_and_references,
)

from device_runtime.tokenizer import Tokenizer
from model.rows import encode_text
from model.scoring import score_messages

_PATTERN = " ".join(["{}"] * 5)  # five random words, as Thakkar et al. 2020 (arXiv:2006.07490)


@dataclass(frozen=True)
class Planting:
    """How sentences are planted: each on `users` devices of its own, `repetitions` times on each."""

    users: int
    repetitions: int

    def __post_init__(self) -> None:
        for name in ("users", "repetitions"):
            if getattr(self, name) < 1:
                raise ValueError(f"planting: {name} is {getattr(self, name)}, must be at least 1")


Sentences = Mapping[Planting, Sequence[str]]


def generate_sentences(
    words: Sequence[str], plantings: Sequence[Planting], each: int, references: int, seed: int
) -> tuple[dict[Planting, list[str]], list[str]]:
    """`each` random sentences for every planting and `references` that are planted nowhere, all different.

    Args:
        words: public words to draw from, all different.
        plantings: all different.
        each: >= 1.
        references: >= 2; exposure ends at log2 of their number.
        seed: of the draws.

    Raises:
        ValueError: the words are too few for so many different sentences.
    """
    needed = len(plantings) * each + references
    if len(words) ** 5 < 2 * needed:
        raise ValueError(f"{len(words)} words are too few for {needed} sentences: give more")
    # Drawn as numbers of one width: the library cuts every sentence to the length of the first (0.1.0).
    codes = [f"{place:08}" for place in range(len(words))]
    config = SecretConfig(
        num_repetitions=list(plantings),  # only used as keys
        num_secrets_for_repetitions=[each] * len(plantings),
        num_references=references,
        properties=TextSecretProperties(codes, _PATTERN),
    )
    (made,) = generate_text_secrets_and_references([config], seed)

    def decode(sentences: Sequence[str]) -> list[str]:
        return [" ".join(words[int(code)] for code in text.split()) for text in sentences]

    planted = {planting: decode(made.secrets[planting]) for planting in plantings}
    return planted, decode(made.references)


def plant_sentences(
    devices: Sequence[Sequence[str]], planted: Sentences, seed: int
) -> list[list[str]]:
    """Messages of each device, planted ones before its own; no device gets two sentences.

    Raises:
        ValueError: there are fewer devices than places to plant.
    """
    needed = sum(planting.users * len(texts) for planting, texts in planted.items())
    if needed > len(devices):
        raise ValueError(
            f"{needed} devices are needed to plant on, and there are {len(devices)}: plant fewer sentences or users"
        )
    order = iter(np.random.default_rng(seed).permutation(len(devices)))
    messages = [list(own) for own in devices]
    for planting, texts in planted.items():
        for text in texts:
            for _ in range(planting.users):
                device = next(order)
                messages[device] = [text] * planting.repetitions + messages[device]
    return messages


def log_perplexities(
    weights: Sequence[np.ndarray], tokenizer: Tokenizer, sentences: Sequence[str]
) -> np.ndarray:
    """-log2 of each sentence's probability under the network, its end included; float64 [sentences]."""
    pieces = np.array([encode_text(tokenizer, text).shape[1] for text in sentences])
    return -score_messages(weights, tokenizer, sentences) * pieces / np.log(2)


def measure_exposures(
    weights: Sequence[np.ndarray],
    tokenizer: Tokenizer,
    planted: Sentences,
    references: Sequence[str],
) -> dict[Planting, np.ndarray]:
    """Exposure in bits of every planted sentence, ascending, by rank among the references."""
    texts = [*references, *(text for texts in planted.values() for text in texts)]
    surprise, place = log_perplexities(weights, tokenizer, texts), len(references)
    by_planting = {}
    for planting, sentences in planted.items():
        by_planting[planting] = surprise[place : place + len(sentences)]
        place += len(sentences)
    exposures = compute_exposure_interpolation(by_planting, surprise[: len(references)])
    return {planting: np.sort(values) for planting, values in exposures.items()}

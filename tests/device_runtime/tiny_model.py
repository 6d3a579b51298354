"""What a bundle is made of, tiny: SentencePiece models of our sentences, random TFLite weights."""

import io
import itertools
from collections import Counter

import numpy as np
import sentencepiece

from device_runtime.tokenizer import is_one_word
from device_runtime.words import split_words

_SUBJECTS = ["i", "you", "we", "they", "my sister", "tom", "nobody", "everyone", "somebody"]
_VERBS = [
    "saw",
    "loved",
    "wanted",
    "don't want",
    "forgot",
    "found",
    "called about",
    "missed",
    "cooked",
]
_OBJECTS = ["the dog", "tomorrow's dinner", "that film", "a taxi", "my keys", "some coffee", "it"]
_ENDS = ["yesterday !", "again ...", "at 10:30", "lol 😂😂", "on monday ?", "tomorrow .", "tho"]


def sentences() -> list[str]:
    """Some hundred sentences of our own, as `split_words` gives them, with single blanks."""
    random = np.random.default_rng(1)
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _ENDS)
    return [
        " ".join(split_words(" ".join(random.choice(part) for part in parts))) for _ in range(400)
    ]


def count_words() -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """The words of our sentences, and the pairs of words that stand side by side."""
    tokens = [["", *sentence.split()] for sentence in sentences()]
    words = Counter(word for message in tokens for word in message if is_one_word(word))
    pairs = Counter(pair for message in tokens for pair in itertools.pairwise(message))
    return words, Counter({pair: n for pair, n in pairs.items() if pair[1] in words})


def train_tokenizer(kind: str, size: int, suffix: bool) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        treat_whitespace_as_suffix=suffix,
        normalization_rule_name="identity",
        character_coverage=1.0,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return model.getvalue()


def export_random_model(pieces: int, units: int, cells: int) -> bytes:
    """The real network, exported, with random weights; the biases make some pieces likely."""
    from model.export import export_tflite
    from model.network import NetworkShape, initial_weights

    *weights, bias = initial_weights(NetworkShape(pieces, units, cells), seed=2)
    random = np.random.default_rng(2)
    return export_tflite([*weights, random.normal(0, 2, bias.shape).astype(np.float32)])

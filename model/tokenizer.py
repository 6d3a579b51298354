"""Trains the SentencePiece tokenizer, from public text only."""

import io
from collections.abc import Iterable

import sentencepiece

from device_runtime.tokenizer import BOS, EOS, PAD, UNK
from device_runtime.words import split_words
from model.config import TokenizerConfig

_CHARACTER_COVERAGE = 0.9998  # of the training text; the rest, stray scripts, is the unknown piece


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> bytes:
    """SentencePiece model whose pieces mark where words end, as `device_runtime.tokenizer` reads it.

    Raises:
        ValueError: the text has too few different words for `config.size` pieces.
    """
    model = io.BytesIO()
    suffix = (
        config.kind != "word"
    )  # the word model ignores it when it encodes, so it is marked in front
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(" ".join(words) for text in texts if (words := split_words(text))),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.size,
            treat_whitespace_as_suffix=suffix,
            normalization_rule_name="identity",
            character_coverage=_CHARACTER_COVERAGE,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            minloglevel=2,
            num_threads=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"tokenizer: {config.size} {config.kind} pieces are too many for this text: {error}"
        ) from error
    return model.getvalue()

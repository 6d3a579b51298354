"""A trained tokenizer is one that `device_runtime.tokenizer` reads, and knows its text."""

import numpy as np
import pytest

from device_runtime.tokenizer import UNK, Tokenizer
from device_runtime.words import split_words
from model.config import TokenizerConfig
from model.tokenizer import train_tokenizer
from tests.device_runtime.tiny_model import sentences


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Sentences of 900 made-up words, some much more frequent than others."""
    random = np.random.default_rng(3)
    syllables = ["ba", "do", "ki", "lu", "me", "no", "ra", "si", "tu", "ve", "x", "'z"]
    words = [
        "".join(random.choice(syllables, random.integers(1, 5))).strip("'") for _ in range(900)
    ]
    ranks = (len(words) * random.random(6000) ** 3).astype(int)
    chosen = [words[rank] for rank in ranks]
    return [" ".join(chosen[i : i + 8]).capitalize() + "!" for i in range(0, 6000, 8)]


@pytest.mark.parametrize("kind", ["unigram", "word"])
def test_pieces_spell_the_words_they_were_trained_on(texts, kind) -> None:
    tokenizer = Tokenizer(train_tokenizer(texts, TokenizerConfig(kind=kind, size=200)))
    assert tokenizer.size == 200
    known = 0
    for text in texts[:100]:
        words = split_words(text)
        for word, tokens in zip(words, tokenizer.encode_each_word(words), strict=True):
            assert [bool(tokenizer.ends_word[t]) for t in tokens] == [False] * (len(tokens) - 1) + [
                True
            ]
            if UNK not in tokens:
                assert tokenizer.text(tokens) == word
                known += 1
            else:
                assert kind == "word" and tokens == [UNK]
            if kind == "word":
                assert len(tokens) == 1
    assert known > 500


def test_frequent_words_are_one_piece(texts) -> None:
    """Every word of the sentences is frequent, so 200 unigram pieces hold the most frequent whole."""
    words = [word for text in texts for word in split_words(text)]
    top = sorted(set(words), key=words.count, reverse=True)[:10]
    tokenizer = Tokenizer(train_tokenizer(texts, TokenizerConfig(size=200)))
    assert all(len(tokens) == 1 for tokens in tokenizer.encode_each_word(top))


def test_a_stray_script_is_unknown(texts) -> None:
    tokenizer = Tokenizer(train_tokenizer([*texts, "дом"], TokenizerConfig(size=200)))
    assert UNK in tokenizer.encode_words(["дом"])


def test_training_twice_gives_the_same_file(texts) -> None:
    config = TokenizerConfig(size=200)
    assert train_tokenizer(texts, config) == train_tokenizer(iter(texts), config)


@pytest.mark.parametrize("kind", ["unigram", "word"])
def test_too_little_text_is_refused(kind) -> None:
    with pytest.raises(ValueError, match=f"tokenizer: 2000 {kind} pieces are too many"):
        train_tokenizer(sentences(), TokenizerConfig(kind=kind, size=2000))


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_no_text_is_refused(texts) -> None:
    with pytest.raises(ValueError, match="tokenizer: 200 unigram pieces are too many"):
        train_tokenizer(texts, TokenizerConfig(size=200))

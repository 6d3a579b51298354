import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tokenizer import Tokenizer, is_one_word
from device_runtime.words import split_words
from tests.device_runtime.tiny_model import sentences, train_tokenizer

# Any Unicode, lone surrogates included, and text the tokenizer was trained on.
MESSAGES = (st.text(st.characters(exclude_categories=())) | st.sampled_from(sentences())).map(
    split_words
)


@pytest.fixture(scope="session", params=["unigram", "word"])
def any_tokenizer(
    request: pytest.FixtureRequest, tokenizer: Tokenizer, word_tokenizer: Tokenizer
) -> Tokenizer:
    return tokenizer if request.param == "unigram" else word_tokenizer


@settings(max_examples=300, deadline=None)
@given(words=MESSAGES, more=MESSAGES)
def test_stream_is_the_words_one_after_the_other(
    any_tokenizer: Tokenizer, words: list[str], more: list[str]
) -> None:
    encode = any_tokenizer.encode_words
    assert encode(words + more) == encode(words) + encode(more)
    for word in words:
        ends = any_tokenizer.ends_word[encode([word])]
        assert ends[-1] and ends.sum() == 1


def test_suffix_model_encodes_a_sentence_like_its_words(
    tokenizer: Tokenizer, tokenizer_model: bytes
) -> None:
    import sentencepiece

    whole = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model)
    for sentence in sentences():
        assert tokenizer.encode_words(sentence.split()) == whole.encode(sentence)


def test_text_undoes_encoding(any_tokenizer: Tokenizer) -> None:
    for sentence in ["i missed you", "tom found it tomorrow ."]:
        tokens = [1, *any_tokenizer.encode_words(sentence.split()), 2]
        assert any_tokenizer.text(tokens) == sentence
    assert any_tokenizer.text(any_tokenizer.encode_words(["i", "北京"])) == "i \ufffd"


def test_pieces_towards_is_every_piece_a_word_with_the_prefix_may_start_with(
    tokenizer: Tokenizer,
) -> None:
    for prefix in ["", "t", "to", "tom", "don'", "tomorrow's", "zz"]:
        expected = [
            i
            for i, surface in enumerate(tokenizer.surfaces)
            if tokenizer.can_suggest[i]
            and (
                surface.startswith(prefix)
                or (not tokenizer.ends_word[i] and surface and prefix.startswith(surface))
            )
        ]
        assert tokenizer.pieces_towards(prefix).tolist() == expected


def test_control_and_unknown_pieces_are_never_suggested(any_tokenizer: Tokenizer) -> None:
    assert np.flatnonzero(~any_tokenizer.can_suggest).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("word", ["don't", "10:30", "2nd", "lol"])
def test_one_word(word: str) -> None:
    assert is_one_word(word)


@pytest.mark.parametrize("text", ["", "...", "😂", "'t", "a b", "you?", "don'"])
def test_not_one_word(text: str) -> None:
    assert not is_one_word(text)


def test_models_that_do_not_mark_word_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="treat_whitespace_as_suffix"):
        Tokenizer(train_tokenizer("unigram", 90, suffix=False))
    with pytest.raises(ValueError, match="treat_whitespace_as_suffix"):
        Tokenizer(train_tokenizer("word", 40, suffix=True))
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        Tokenizer(b"\xff\x00 nothing")

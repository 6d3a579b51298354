"""Rows hold what messages say, aligned, each piece once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tokenizer import BOS, EOS, PAD, Tokenizer
from device_runtime.words import split_words
from model.rows import encode_message, encode_text, pack_rows
from tests.device_runtime.tiny_model import train_tokenizer

LENGTH = 7


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer("unigram", 90, suffix=True))


def test_a_clean_message_predicts_every_piece(tokenizer) -> None:
    words = split_words("Tom forgot tomorrow's dinner!")
    pieces = tokenizer.encode_words(words)
    assert len(pieces) > len(words)
    expected = [[BOS, *pieces], [*pieces, EOS]]
    assert encode_message(tokenizer, words).tolist() == expected
    assert encode_message(tokenizer, words, words).tolist() == expected
    assert encode_text(tokenizer, "Tom forgot tomorrow's dinner!").tolist() == expected
    assert encode_text(tokenizer, " ").tolist() == [[BOS], [EOS]]


@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_typed_words_are_read_and_meant_words_predicted(tokenizer, data) -> None:
    """Word by word from the definition: all of a clean word, the first piece of a mistyped one."""
    word = st.sampled_from(["tom", "forgot", "tomorrow's", "dinner", "the", "dog", "zzgh", "a a"])
    words = data.draw(st.lists(word, max_size=6))
    typed = data.draw(st.lists(word, min_size=len(words), max_size=len(words)))
    message = encode_message(tokenizer, words, typed)
    assert message.dtype == np.int32
    assert message[0].tolist() == [BOS, *tokenizer.encode_words(typed)]
    assert message[1, -1] == EOS
    place = 0
    for meant, read in zip(words, typed, strict=True):
        pieces, length = tokenizer.encode_words([meant]), len(tokenizer.encode_words([read]))
        expected = pieces if meant == read else [pieces[0]] + [PAD] * (length - 1)
        assert message[1, place : place + length].tolist() == expected
        place += length


def test_words_typed_and_meant_are_paired(tokenizer) -> None:
    with pytest.raises(ValueError):
        encode_message(tokenizer, ["the", "dog"], ["the"])


def number_messages(lengths: list[int]) -> list[np.ndarray]:
    """Messages whose targets name each column of them all; inputs repeat the number after BOS."""
    messages, first = [], 10
    for length in lengths:
        targets = np.arange(first, first + length, dtype=np.int32)
        inputs = np.concatenate([[BOS], targets[:-1]]).astype(np.int32)
        messages.append(np.stack([inputs, targets]))
        first += length
    return messages


@given(st.lists(st.integers(1, 3 * LENGTH), max_size=40))
@settings(deadline=None)
def test_packing_keeps_every_message_whole_and_once(lengths) -> None:
    messages = number_messages(lengths)
    rows = pack_rows(iter(messages), LENGTH)
    assert rows.dtype == np.int32 and rows.shape[1:] == (2, LENGTH)
    used = rows[:, 1] != PAD
    assert used.sum() == sum(lengths)
    assert np.all(used[:, :-1] >= used[:, 1:])
    assert not rows[:, 0][~used].any()
    assert len(rows) <= sum(-(-length // LENGTH) for length in lengths)
    place = {int(rows[r, 1, t]): (r, t) for r, t in np.argwhere(used)}
    for message in messages:
        for start in range(0, message.shape[1], LENGTH):
            part = message[:, start : start + LENGTH]
            row, column = place[int(part[1, 0])]
            assert start == 0 or column == 0
            assert np.array_equal(rows[row, :, column : column + part.shape[1]], part)


@given(st.lists(st.integers(1, 3 * LENGTH), max_size=40))
@settings(deadline=None)
def test_only_a_long_message_starts_a_row_without_bos(lengths) -> None:
    rows = pack_rows(number_messages(lengths), LENGTH)
    continued = sum((length - 1) // LENGTH for length in lengths)
    assert int((rows[:, 0, 0] != BOS).sum()) == continued


def test_each_message_goes_where_it_fits_best() -> None:
    """A row of 5 leaves 2, a row of 4 leaves 3: the message of 2 belongs to the first, 3 to the second."""
    rows = pack_rows(number_messages([5, 4, 2, 3]), LENGTH)
    assert rows.shape[0] == 2 and np.all(rows[:, 1] != PAD)

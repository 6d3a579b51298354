"""Which pieces stay, that the tokenization of frequent words stays with them, and exact weights."""

import io
import itertools
import struct

import numpy as np
import pytest
import sentencepiece
import wordfreq
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.gguf_slicing import choose_pieces, list_merged_pieces, widen_to_8_bits

NORMAL, CONTROL = 1, 3


@pytest.fixture(scope="module")
def model():
    words = wordfreq.top_n_list("en", 3000)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(words),
        model_writer=trained,
        model_type="bpe",
        vocab_size=800,
        character_coverage=1.0,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())


def test_the_pieces_of_sentencepieces_own_tokenization_are_among_those_met(model):
    score = {
        model.IdToPiece(i): model.GetScore(i)
        for i in range(len(model))
        if not model.IsControl(i) and not model.IsUnknown(i)
    }
    for word in wordfreq.top_n_list("en", 4000)[::7]:
        met = list_merged_pieces(f"▁{word}", score)
        assert set(model.EncodeAsPieces(word)) <= met
        assert {*f"▁{word}"} <= met <= {*score, *word, "▁"}


@given(
    st.text("abc", min_size=1, max_size=9),
    st.dictionaries(
        st.text("abc", min_size=2, max_size=4), st.integers(-20, 0).map(float), max_size=30
    ),
    st.sets(st.text("abc", min_size=2, max_size=4)),
)
def test_any_vocabulary_with_the_pieces_met_gives_the_same_tokenization(word, score, others):
    met = list_merged_pieces(word, score)
    fewer = {piece: value for piece, value in score.items() if piece in met | others}
    assert tokenize(word, fewer) == tokenize(word, score)
    assert set(tokenize(word, score)) <= met


def tokenize(word, score):
    """Merges the leftmost of the best pairs until none is left, one pass a merge."""
    symbols = list(word)
    while True:
        best, place = -np.inf, None
        for i, pair in enumerate(map("".join, itertools.pairwise(symbols))):
            if score.get(pair, -np.inf) > best:
                best, place = score[pair], i
        if place is None:
            return symbols
        symbols = [*symbols[:place], symbols[place] + symbols[place + 1], *symbols[place + 2 :]]


def test_frequent_words_symbols_and_controls_stay_and_the_rest_goes():
    rest = ["▁дом", "<unused7>", "ξ", "</div>", "▁Donaudampfschiff", "::::"[:3] + "{"]
    stay = ["<bos>", "a", "▁", "😀", "▁t", "th", "▁th", "▁the", "The", "!!", "\n\n"]
    pieces = [*stay, *rest]
    types = [CONTROL] + [NORMAL] * (len(pieces) - 1)
    scores = [-float(i) for i in range(len(pieces))]
    kept = [pieces[i] for i in choose_pieces(pieces, types, scores)]
    assert not set(kept) & set(rest)
    # How "the" merges depends on the scores: through "▁t" here, so "th" is for words without blank.
    assert {"<bos>", "a", "▁", "😀", "▁t", "!!", "\n\n"} <= set(kept)
    assert kept == [piece for piece in pieces if piece in kept]


def test_five_bit_weights_are_the_same_in_eight_bits():
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (3, 22 * 4), np.uint8)
    rows.reshape(3, 4, 22)[..., :2] = rng.normal(size=(3, 4, 1)).astype("<f2").view(np.uint8)
    wide = widen_to_8_bits(rows)
    assert wide.shape == (3, 34 * 4)
    for row, wide_row in zip(rows, wide, strict=True):
        for block in range(4):
            old = bytes(row[22 * block : 22 * (block + 1)])
            new = bytes(wide_row[34 * block : 34 * (block + 1)])
            assert struct.unpack("<e32b", new) == unpack_q5_0(old)


def unpack_q5_0(block):
    """Scale and 32 weights, as llama.cpp's dequantize_row_q5_0 reads them."""
    scale, fifth = struct.unpack("<eI", block[:6])
    low = [byte & 15 for byte in block[6:]] + [byte >> 4 for byte in block[6:]]
    return (scale, *((nibble | (fifth >> i & 1) << 4) - 16 for i, nibble in enumerate(low)))

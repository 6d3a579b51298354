from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.words import normalize
from synthetic_text.duplicates import SHORT_WORDS, drop_duplicates

MESSAGES = st.lists(st.text(alphabet="aA b'’", max_size=12))


def test_keeps_the_first_writing_of_equal_texts():
    kept, dropped = drop_duplicates(["See you", "don’t", "see  you ", "Don't", "bye"])
    assert kept == ["See you", "don’t", "bye"]
    assert dropped == 2


def test_only_short_messages_may_repeat():
    long = "i will be there at nine"
    kept, dropped = drop_duplicates(["ok", long, "OK", "ok", long, "ok"], max_repeats=3)
    assert kept == ["ok", long, "OK", "ok"]
    assert dropped == 2
    assert len(long.split()) > SHORT_WORDS


@given(MESSAGES, st.integers(1, 3))
def test_counts_and_order_agree_with_a_plain_count(texts, max_repeats):
    kept, dropped = drop_duplicates(texts, max_repeats)
    assert len(kept) + dropped == len(texts)
    remaining = iter(texts)
    assert all(any(text is other for other in remaining) for text in kept)
    every, stands = Counter(map(normalize, texts)), Counter(map(normalize, kept))
    for key, count in every.items():
        assert stands[key] == min(count, max_repeats if len(key.split()) <= SHORT_WORDS else 1)


def test_refuses_to_keep_nothing():
    with pytest.raises(ValueError, match="max_repeats: 0"):
        drop_duplicates(["ok"], max_repeats=0)

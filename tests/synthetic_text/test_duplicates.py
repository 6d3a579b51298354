from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.words import normalize
from synthetic_text.corpora import load_public_source
from synthetic_text.duplicates import (
    SHORT_WORDS,
    choose_bands,
    drop_duplicates,
    find_near_duplicates,
    hash_shingles,
    match_near_duplicates,
    measure_deduplication,
    shingles,
)

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


def grams_of(text):
    """Shingles again, by another route: runs of four characters between blanks."""
    line = f" {normalize(text)} "
    return {"".join(run) for run in zip(line, line[1:], line[2:], line[3:], strict=False)}


def jaccard(a, b):
    return len(grams_of(a) & grams_of(b)) / len(grams_of(a) | grams_of(b))


def match_by_force(texts, threshold):
    """The earliest kept text that each one nearly repeats, from all pairs."""
    grams = [grams_of(text) for text in texts]
    kept, matches = [], []
    for i, text in enumerate(texts):
        near = (j for j in kept if len(grams[i] & grams[j]) >= threshold * len(grams[i] | grams[j]))
        is_long = len(normalize(text).split()) > SHORT_WORDS
        matches.append(next(near, -1) if is_long else -1)
        if is_long and matches[-1] < 0:
            kept.append(i)
    return matches


@pytest.fixture(scope="module")
def sentences():
    return load_public_source("speeches").sentences


def edit(line, rng, slips):
    for _ in range(slips):
        at = int(rng.integers(len(line)))
        line = line[:at] + "qzx"[int(rng.integers(3))] + line[at + int(rng.integers(2)) :]
    return line


def test_planted_near_duplicates_are_found_and_no_others(sentences):
    """All pairs decide what is near: at least 98 % is found, and nothing else."""
    rng = np.random.default_rng(0)
    lines = [line for line in sentences if 5 <= len(line.split()) <= 30][:150]
    texts = lines + [edit(line, rng, slips) for slips in (1, 2, 3) for line in lines]
    texts = [texts[i] for i in rng.permutation(len(texts))]
    expected = np.array(match_by_force(texts, 0.85))
    found = match_near_duplicates(texts)
    assert (expected >= 0).sum() > 150
    assert (found[expected >= 0] >= 0).mean() >= 0.98
    for i in np.flatnonzero(found >= 0):
        assert found[i] < i
        assert found[found[i]] == -1
        assert jaccard(texts[i], texts[found[i]]) >= 0.85
    assert np.array_equal(find_near_duplicates(texts), found >= 0)


@pytest.mark.parametrize("threshold", [0.7, 0.85, 1.0])
def test_similarity_at_the_threshold_is_found_as_often_as_the_formula_says(sentences, threshold):
    """Only pairs within 0.03 above the threshold, each alone with its copy: the hardest ones."""
    rng = np.random.default_rng(1)
    lines = [line for line in sentences if len(line.split()) >= 8][:4000]
    pairs = [
        (line, edit(line, rng, int(rng.integers(0 if threshold == 1 else 1, 9)))) for line in lines
    ]
    pairs = [pair for pair in pairs if threshold <= jaccard(*pair) < threshold + 0.03]
    assert len(pairs) > 100
    texts = [line for line, _ in pairs] + [copy for _, copy in pairs]
    assert find_near_duplicates(texts, threshold)[len(pairs) :].mean() >= 0.98


@given(st.integers(1, 99).map(lambda percent: percent / 100))
def test_bands_hold_their_promise_with_the_longest_rows(threshold):
    if threshold < 0.04:
        with pytest.raises(ValueError, match="threshold"):
            choose_bands(threshold)
        return
    bands, rows = choose_bands(threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.99
    assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.99


def test_bands_of_the_usual_threshold():
    assert choose_bands(0.85) == (16, 8)


SENTENCES = st.lists(
    st.lists(
        st.sampled_from(["we", "Will", "meet", "at", "nine", "tomorrow", "don’t"]), max_size=9
    ).map(" ".join),
    max_size=10,
)


@given(SENTENCES, st.integers(0, 3))
def test_exact_repeats_are_always_found_and_matches_are_always_near(texts, seed):
    found = match_near_duplicates(texts, seed=seed)
    for i, text in enumerate(texts):
        line = normalize(text)
        is_long = len(line.split()) > SHORT_WORDS
        if is_long and line in map(normalize, texts[:i]):
            assert found[i] >= 0
        if found[i] >= 0:
            assert is_long
            assert found[i] < i
            assert found[found[i]] == -1
            assert jaccard(text, texts[found[i]]) >= 0.85


def test_short_messages_may_repeat_and_long_ones_may_not():
    texts = ["ok", "ok", "on my way", "On my way", "i am on my way home", "I am on my way  home"]
    assert match_near_duplicates(texts).tolist() == [-1, -1, -1, -1, -1, 4]


def test_boilerplate_is_reduced_to_a_few_lines():
    """Lines near one another are compared with the few that are kept, not with all."""
    texts = [
        f"your parcel number {i} will reach you tomorrow between nine and noon" for i in range(3000)
    ]
    found = match_near_duplicates(texts)
    assert (found < 0).sum() < 100
    assert all(jaccard(texts[i], texts[found[i]]) >= 0.85 for i in np.flatnonzero(found >= 0)[::50])


@given(st.lists(st.text(alphabet="ab é😂", max_size=9).map(normalize), max_size=5))
def test_hashes_are_as_many_as_shingles_and_tell_them_apart(lines):
    hashes, offsets = hash_shingles(lines)
    assert len(offsets) == len(lines) + 1
    assert offsets[-1] == len(hashes)
    hash_of = {}
    for i, line in enumerate(lines):
        own = hashes[int(offsets[i]) : int(offsets[i + 1])].tolist()
        assert len(set(own)) == len(shingles(line))
        padded = f" {line} ".ljust(4)
        for k, value in enumerate(own):
            assert hash_of.setdefault(padded[k : k + 4], value) == value
    assert len(set(hash_of.values())) == len(hash_of)


def test_measured_figures_are_those_of_the_issue(sentences):
    figures = measure_deduplication(sentences)
    assert figures["planted"] > 100
    assert figures["recall"] >= 0.98
    assert figures["false_share"] == 0
    assert figures["lines"] == len(sentences) * 105 // 100
    assert figures["peak_rss_bytes"] > 1e7


def test_nothing_to_measure_and_bad_thresholds_are_refused():
    with pytest.raises(ValueError, match="plant"):
        measure_deduplication(["ok"] * 100)
    for threshold in (0.0, 1.2):
        with pytest.raises(ValueError, match="threshold"):
            find_near_duplicates(["a"], threshold)
    assert find_near_duplicates([]).shape == (0,)

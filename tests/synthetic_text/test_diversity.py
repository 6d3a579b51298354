"""Figures of diversity against hand counts, closed forms and brute force."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import wordfreq
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_text.diversity import load_tail, measure_diversity

NO_TAIL: frozenset[str] = frozenset()


def test_figures_of_a_text_counted_by_hand() -> None:
    messages = [["see", "you", "see", "you", "!"], ["see", "you", "later"], ["😂"], ["ok"]]
    figures = measure_diversity(
        messages, human_share=0.25, sample_words=8, tail=frozenset({"later", "soon", "ok", "!"})
    )
    assert (figures.words, figures.vocabulary) == (8, 4)
    assert figures.distinct_1 == 4 / 8
    assert figures.distinct_2 == 3 / 5  # see you x3, you see, you later
    assert figures.distinct_3 == 3 / 3  # see you see, you see you, see you later
    # 3/8, 3/8, 1/8, 1/8: 0.75 log2(8/3) + 0.25 log2 8
    assert figures.word_entropy == pytest.approx(0.75 * math.log2(8 / 3) + 0.75)
    assert figures.tail_coverage == 2 / 4
    assert figures.human_share == 0.25


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "."]), max_size=6), max_size=20),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_figures_of_a_whole_text_equal_brute_force_in_any_order(messages, random) -> None:
    spoken = [[word for word in message if word != "."] for message in messages]
    words = sum(map(len, spoken))
    if not words:
        return
    figures = measure_diversity(messages, 1.0, words, tail=frozenset("cxy"))
    for n in (1, 2, 3):
        grams = [tuple(m[i : i + n]) for m in spoken for i in range(len(m) - n + 1)]
        share = len(set(grams)) / len(grams) if grams else 0.0
        assert getattr(figures, f"distinct_{n}") == pytest.approx(share)
    counts = Counter(word for message in spoken for word in message)
    entropy = sum(n / words * math.log2(words / n) for n in counts.values())
    assert figures.word_entropy == pytest.approx(entropy)
    assert figures.vocabulary == len(counts)
    assert figures.tail_coverage == pytest.approx(("c" in counts) / 3)
    shuffled = random.sample(messages, len(messages))
    other = measure_diversity(shuffled, 1.0, words, tail=frozenset("cxy"))
    for field in dataclasses.fields(figures):  # only what is compressed has an order
        if field.name != "self_similarity":
            assert getattr(other, field.name) == pytest.approx(getattr(figures, field.name))


def test_self_similarity_of_random_text_is_its_entropy_and_repetition_multiplies_it() -> None:
    """Uniform words of uniform letters have nothing in common but their alphabet: 8 bits over Shannon's bound."""
    rng = np.random.default_rng(0)
    alphabet = list("abcdefghijklmnop")
    messages = [["".join(rng.choice(alphabet, 40))] for _ in range(3_000)]
    bits = 40 * 4 / 41  # per character; the break after each word is certain
    bound = 8 / bits
    once = measure_diversity(messages, 0, 3_000, NO_TAIL).self_similarity
    assert 0.8 * bound < once < bound
    twice = measure_diversity([*messages, *messages], 0, 6_000, NO_TAIL).self_similarity
    assert 1.6 * once < twice < 2.1 * once


def test_a_corpus_ten_times_as_large_gives_the_same_figures() -> None:
    """Without the fixed sample its distinct-1 would be a fraction: 5,000 forms in ten times the words."""
    rng = np.random.default_rng(1)
    ranks = np.arange(1, 5_001)
    forms = [f"w{rank}" for rank in ranks]
    zipf = 1 / ranks / (1 / ranks).sum()
    large = rng.choice(forms, (20_000, 10), p=zipf).tolist()
    small = large[:2_000]
    tail = frozenset(forms[1_000:])
    first, second = (measure_diversity(text, 0, 10_000, tail) for text in (small, large))
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert other == pytest.approx(one, rel=0.05), field.name
    # The expected number of forms in n draws is sum of 1 - (1 - p)^n.
    assert second.vocabulary == pytest.approx((1 - (1 - zipf) ** 10_000).sum(), rel=0.03)
    assert second.tail_coverage == pytest.approx(
        (1 - (1 - zipf[1_000:]) ** 10_000).mean(), rel=0.04
    )


def test_the_sample_follows_from_the_seed_and_has_exactly_its_words() -> None:
    messages = [[f"w{i}", f"v{i % 7}", "x"] for i in range(200)]
    first, same, other = (measure_diversity(messages, 0, 100, NO_TAIL, s) for s in (1, 1, 2))
    assert first == same != other
    assert first.words == other.words == 100


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="2 words are fewer than sample_words 3"):
        measure_diversity([["one", ".", "two"]], 0, 3)
    for sample_words, human_share in ((0, 0.5), (1, 1.5), (1, -0.1)):
        with pytest.raises(ValueError, match=r"sample_words .* human_share"):
            measure_diversity([["one"]], human_share, sample_words)


def test_the_tail_is_rare_words_of_everyday_english() -> None:
    tail = load_tail()
    assert 7_900 < len(tail) <= 8_000
    assert {"banker", "sleepy", "receipt"} & tail
    zipf = [wordfreq.zipf_frequency(word, "en") for word in tail]  # log10 of uses in 10**9 words
    assert min(zipf) > 3.7 and max(zipf) < 5.2
    assert not tail & {"the", "you", "tomorrow", "antidisestablishmentarianism"}

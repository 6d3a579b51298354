import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.counts import FORMS, MOST, WORD_BYTES, Counts

OFTEN, PAIR_OFTEN = 3, 2


class Lists:
    """The same by lists, the last seen last."""

    def __init__(self, words: int, pairs: int) -> None:
        self.most = (words, pairs)
        self.words: list[tuple[str, list[tuple[str, int]]]] = []
        self.pairs: list[tuple[str, str, int]] = []

    def see(self, word: str, form: str, times: int) -> None:
        forms = next((forms for known, forms in self.words if known == word), None)
        if forms is None:
            if len(self.words) == self.most[0]:
                rare = [w for w, f in self.words if sum(n for _, n in f) < OFTEN]
                few = 4 * len(rare) < self.most[0]
                self.remove(self.words[0][0] if few else rare[0])
            forms = []
        times += sum(n for known, n in forms if known == form)
        others = [pair for pair in forms if pair[0] != form]
        if len(others) == FORMS:
            others.remove(min(others, key=lambda pair: pair[1]))
        self.words = [pair for pair in self.words if pair[0] != word]
        self.words.append((word, [*others, (form, min(times, MOST))]))

    def see_pair(self, before: str, after: str, times: int) -> None:
        if not {before, after} <= {word for word, _ in self.words}:
            return
        times += sum(n for *pair, n in self.pairs if pair == [before, after])
        kept = [pair for pair in self.pairs if pair[:2] != (before, after)]
        if len(kept) == len(self.pairs) == self.most[1]:
            rare = [pair for pair in kept if pair[2] < PAIR_OFTEN]
            kept.remove(rare[0] if 4 * len(rare) >= self.most[1] else kept[0])
        self.pairs = [*kept, (before, after, min(times, MOST))]

    def remove(self, word: str) -> None:
        self.words = [pair for pair in self.words if pair[0] != word]
        self.pairs = [pair for pair in self.pairs if word not in pair[:2]]


WORD = st.sampled_from("abcdefgh")
TIMES = st.sampled_from([1, 1, 1, 2, 3, MOST])
ACT = st.one_of(
    st.tuples(st.just("see"), WORD, st.sampled_from("wxyz") | st.none(), TIMES),
    st.tuples(st.just("see_pair"), WORD, WORD, TIMES),
    st.tuples(st.just("remove"), WORD, st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(words=st.integers(1, 9), pairs=st.integers(1, 9), acts=st.lists(ACT, max_size=80))
def test_counts_and_who_makes_room(
    words: int, pairs: int, acts: list[tuple[str, str, str | None, int | None]]
) -> None:
    counts, lists = Counts(words, pairs, OFTEN, PAIR_OFTEN), Lists(words, pairs)
    for act, word, other, times in acts:
        arguments = [word]
        if act != "remove":
            arguments += [other or word, times]  # type: ignore[list-item]
        for one in (counts, lists):
            getattr(one, act)(*arguments)
        assert list(counts.pairs()) == lists.pairs
        assert list(counts.written()) == [pair for _, forms in lists.words for pair in forms]
    totals = {word: sum(n for _, n in forms) for word, forms in lists.words}
    for word in "abcdefgh":
        assert counts.count(word) == totals.get(word, 0)
        assert counts.forms(word) == dict(dict(lists.words).get(word, []))
        followers = {b: n for a, b, n in lists.pairs if a == word and n >= PAIR_OFTEN}
        assert counts.followers(word, PAIR_OFTEN) == followers
    often = {word: n for word, n in totals.items() if n >= OFTEN}
    assert counts.words(OFTEN) == list(often) and counts.total(OFTEN) == sum(often.values())


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(WORD, max_size=9),
    pairs=st.lists(st.tuples(WORD, WORD, TIMES), max_size=40),
    more=st.lists(st.tuples(WORD, WORD, TIMES), max_size=9),
)
def test_loading_pairs_counts_them_as_seeing_them_does(
    words: list[str], pairs: list[tuple[str, str, int]], more: list[tuple[str, str, int]]
) -> None:
    at_once, one_by_one = (Counts(9, 64, OFTEN, PAIR_OFTEN) for _ in range(2))
    for counts in (at_once, one_by_one):
        for word in words:
            counts.see(word, word)
    at_once.load_pairs(pairs)
    for pair in pairs:
        one_by_one.see_pair(*pair)
    for counts in (at_once, one_by_one):
        for pair in more:
            counts.see_pair(*pair)
    assert list(at_once.pairs()) == list(one_by_one.pairs())


def test_of_too_many_pairs_the_last_ones_are_loaded() -> None:
    counts = Counts(9, 4, OFTEN, PAIR_OFTEN)
    for word in "abcdefgh":
        counts.see(word, word)
    counts.load_pairs([("a", after, 5) for after in "bcdefgh"])
    assert [after for _, after, _ in counts.pairs()] == list("efgh")


def test_a_used_word_outlives_any_number_of_others_and_new_ones_can_become_used() -> None:
    counts = Counts(40, 40, OFTEN, PAIR_OFTEN)
    used = [f"used{n}" for n in range(40)]
    for word in used[:30]:
        counts.see(word, word, OFTEN)
    for number in range(1000):
        counts.see(f"once{number}", f"once{number}")
    assert counts.words(OFTEN) == used[:30]
    assert [word for word, _ in counts.written()][-10:] == [f"once{n}" for n in range(990, 1000)]
    for word in used[30:]:
        for _ in range(OFTEN):
            counts.see(word, word)
            counts.see(f"and{word}{counts.count(word)}", "and")
    assert counts.words(OFTEN)[-10:] == used[30:]


@pytest.mark.parametrize("word", ["a" * (WORD_BYTES + 1), "ß" * (WORD_BYTES // 2 + 1)])
def test_what_is_too_long_is_not_counted(word: str) -> None:
    counts = Counts(9, 9, OFTEN, PAIR_OFTEN)
    counts.see(word, word)
    counts.see("a", word)
    counts.see(word[:-1], word[:-1])
    assert list(counts.written()) == [(word[:-1], 1)]


def test_memory_ends_growing_when_all_room_is_taken() -> None:
    random = np.random.default_rng(4)
    numbers = random.integers(0, 300, 5000).tolist()
    counts, held, before = Counts(100, 100, OFTEN, PAIR_OFTEN), list[int](), "word"
    tracemalloc.start()
    try:
        for at, number in enumerate(numbers):
            word = f"word{number:03}"  # a text of its own each time, as from a message
            counts.see(word, word.title() if number % 7 == 0 else word)
            counts.see_pair(before, word)
            before = word
            if at % 500 == 499:
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(counts.words(1)) == 100 and len(list(counts.pairs())) == 100
    assert max(held[2:]) - held[1] < 4_000  # 4,500 words seen would be 250,000 bytes of text

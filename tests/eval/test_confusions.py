"""Confusions counted again by hand, and never a word or a row that fewer than five people stand behind."""

import hashlib
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.words import is_word, split_words
from eval.confusions import MOST_ROWS, Confusion, confuse_user, find_confusions
from eval.next_word import score_users
from eval.targets import EvaluationVocabulary

WORDS = ("i", "you", "the", "so", "late", "home", "now", "we")
VOCABULARY = EvaluationVocabulary(WORDS[:6])


class Guesser:
    """Says a word of WORDS that depends on all the words before; nothing at all now and then."""

    def __init__(self, name):
        self.name = name

    def say(self, before):
        digest = hashlib.sha256(" ".join((self.name, *before)).encode()).digest()
        return None if digest[0] < 20 else WORDS[digest[1] % len(WORDS)].capitalize()

    def predict_words(self, words, at, count=3):
        said = [self.say(words[:place]) for place in range(len(words))]
        return [
            [SimpleNamespace(text=word)] if asked and word else []
            for word, asked in zip(said, at, strict=True)
        ]


def _write(rng):
    words = rng.choice([*WORDS, "😂", ",", "zebra"], rng.integers(0, 6))
    return " ".join(words)


def test_counts_are_those_of_a_plain_loop_and_of_the_metric():
    rng = np.random.default_rng(3)
    users = [[_write(rng) for _ in range(rng.integers(1, 20))] for _ in range(40)]
    baseline, ours = Guesser("baseline"), Guesser("ours")
    counts = [confuse_user((baseline, ours), messages, VOCABULARY) for messages in users]
    found = find_confusions(counts, VOCABULARY)

    times, people = Counter(), defaultdict(set)
    for user, messages in enumerate(users):
        for message in messages:
            words = split_words(message)
            for place, word in enumerate(words):
                if is_word(word) and word in WORDS[:6]:
                    said = [
                        (guesser.say(words[:place]) or "").lower() for guesser in (baseline, ours)
                    ]
                    times[word, *said] += 1
                    people[word, *said].add(user)
    assert sum(counts, Counter()) == times
    assert found.users == 40 and found.targets == times.total() > 300
    outcomes = Counter()
    for (meant, a, b), count in times.items():
        outcomes[a == meant, b == meant] += count
    assert (found.both_right, found.both_wrong) == (outcomes[True, True], outcomes[False, False])
    for guesser, right, alone in (
        (baseline, found.both_right + found.baseline_right, found.baseline_right),
        (ours, found.both_right + found.ours_right, found.ours_right),
    ):
        scores = score_users(lambda guesser=guesser: guesser, users, VOCABULARY)
        assert right == scores.top1_in.sum() and 0 < alone < right
        assert found.targets == scores.in_vocab.sum()
    rows = [*found.gained, *found.lost, *found.missed]
    assert found.gained and found.lost and found.missed
    for row in rows:
        words = (row.meant, row.baseline, row.ours)
        assert (row.users, row.times) == (len(people[words]), times[words])
    for kind in (found.gained, found.lost, found.missed):
        assert [row.users for row in kind] == sorted((row.users for row in kind), reverse=True)
    assert all(row.ours == row.meant != row.baseline for row in found.gained)
    assert all(row.baseline == row.meant != row.ours for row in found.lost)
    assert all(len({row.meant, row.baseline, row.ours}) == 3 for row in found.missed)


def test_targets_are_capped_for_each_person():
    guessers = Guesser("baseline"), Guesser("ours")
    [whole, capped] = (
        confuse_user(guessers, ["i so you", "the home late so"], VOCABULARY, most)
        for most in (None, 4)
    )
    first = confuse_user(guessers, ["i so you", "the"], VOCABULARY)
    assert whole.total() == 7 and capped == first and capped.total() == 4


_WORD = st.sampled_from([*WORDS, ""])
_PEOPLE = st.lists(
    st.dictionaries(
        st.tuples(st.sampled_from(WORDS[:6]), _WORD, _WORD), st.integers(1, 9), max_size=8
    ).map(Counter),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(_PEOPLE)
def test_all_that_is_shown_was_meant_by_five_and_all_that_five_share_is_shown(people):
    found = find_confusions(people, VOCABULARY)
    kinds = found.gained, found.lost, found.missed
    shown = {(row.meant, row.baseline, row.ours): row for rows in kinds for row in rows}
    allowed = set()
    for words in {words for counts in people for words in counts}:
        sharing = sum(words in counts for counts in people)
        writers = [
            sum(any(key[0] == word for key in counts) for counts in people) for word in words
        ]
        if sharing >= 5 and min(writers) >= 5 and all(word in WORDS[:6] for word in words):
            allowed.add(words)
    differ = {words for words in allowed if words[1] != words[2]}
    assert set(shown) <= differ
    if all(len(rows) < MOST_ROWS for rows in kinds):
        assert set(shown) == differ
    assert max(map(len, kinds)) <= MOST_ROWS


def _people(number, *words):
    return [Counter({words: 1}) for _ in range(number)]


def test_a_word_of_four_people_never_shows_however_often_it_was_said():
    four = [
        *_people(4, "home", "the", "late"),  # a row of four
        *_people(50, "you", "home", "i"),  # a word of four, said to fifty by the baseline
        *_people(50, "the", "you", "home"),  # and by ours
        *_people(50, "late", "now", "the"),  # a word outside the public vocabulary
        *_people(50, "i", "", "the"),  # and no word
        *_people(60, "now", "i", "you"),  # meant outside of it, were it ever counted
    ]
    for counts in four:
        if ("home", "the", "late") in counts:
            counts["home", "the", "late"] = 1_000
    found = find_confusions(four, VOCABULARY)
    assert found.gained == found.lost == found.missed == ()
    assert found.targets == found.both_wrong == 4_000 + 260
    fifth = Counter({("home", "the", "late"): 1})
    rows = find_confusions([*four, fifth], VOCABULARY).missed
    assert rows == (
        Confusion("the", "you", "home", 50, 50),
        Confusion("you", "home", "i", 50, 50),
        Confusion("home", "the", "late", 5, 4_001),
    )

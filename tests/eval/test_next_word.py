"""Counts recomputed by a slow, separate implementation straight from the definition."""

import os
import unicodedata
from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.next_word import WordScores, score_user, score_users, top1_lift
from eval.targets import EvaluationVocabulary

COUNTS = ["targets", "in_vocab", "top1_in", "top3_in", "top1_all", "top3_all"]
VOCABULARY = EvaluationVocabulary(("i", "you", "see", "don't", "10:30", "привет", "tomorrow"))
USERS = [
    ["See you tomorrow 😂😂", "see you", "", "I DON’T, you don't!", "nobody knows"],
    ["...", "❤️", "   "],
    ["at 10:30?", "привет", "you see I see", "see   YOU"],
    ["zebra"],
]


@dataclass(frozen=True)
class _Suggestion:
    text: str


class BigramKeyboard:
    """Suggests in display casing what a table holds for the word before."""

    TABLE: ClassVar = {
        None: ["I", "See", "At", "never asked for"],
        "see": ["You", "me"],
        "you": ["TOMORROW", "See", "Don’t", "far"],
        "i": ["see", "don't"],
        "nobody": ["knows"],
        ",": ["but", "you"],
        "at": ["10:30"],
    }

    def predict_words(self, words, at, count=3):
        before = [None, *words[:-1]]
        return [
            [_Suggestion(text) for text in self.TABLE.get(word, [])[:count]] if asked else []
            for word, asked in zip(before, at, strict=True)
        ]


def _fold(text):
    return text.lower().replace("’", "'")


def _tokens_by_hand(message):
    """Tokens of the messages here, character by character."""
    tokens = []
    for chunk in _fold(message).replace("\ufe0f", "").split():
        token, kind = "", None
        for at, char in enumerate(chunk):
            inner = 0 < at < len(chunk) - 1 and chunk[at - 1].isalnum() and chunk[at + 1].isalnum()
            is_part = char.isalnum() or (char in "':" and inner)
            here = "word" if is_part else char
            if here != kind and token:
                tokens.append(token)
                token = ""
            token, kind = token + char, here
        tokens.append(token)
    return tokens


def _count_by_definition(keyboard, messages, vocabulary):
    """One question at a time, all of it relisted for each."""
    asked = []
    for message in messages:
        tokens = _tokens_by_hand(message)
        for position, token in enumerate(tokens):
            if any(unicodedata.category(char)[0] in "LN" for char in token):
                prefix = [*tokens[:position], "?"]
                suggested = keyboard.predict_words(prefix, [False] * position + [True])[-1]
                asked.append((token, [_fold(suggestion.text) for suggestion in suggested]))
    known = [(word, suggested) for word, suggested in asked if word in vocabulary.words]
    return [len(asked), len(known)] + [
        sum(word in suggested[:k] for word, suggested in among)
        for among in (known, asked)
        for k in (1, 3)
    ]


def _table(scores):
    return np.stack([getattr(scores, name) for name in COUNTS], axis=1).tolist()


def test_counts_follow_the_definition():
    scores = score_users(BigramKeyboard, USERS, VOCABULARY)
    assert [field.name for field in fields(WordScores)] == COUNTS
    assert _table(scores) == [
        _count_by_definition(BigramKeyboard(), user, VOCABULARY) for user in USERS
    ]
    assert _table(scores)[0] == [11, 9, 4, 9, 5, 10]  # by hand
    assert _table(scores)[1] == [0] * 6


@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["See", "you", "I", "don’t", "nobody", "knows", ",", "😂", "10:30", "at"]
            )
        ),
        max_size=6,
    )
)
def test_counts_follow_the_definition_on_any_message(lists):
    messages = [" ".join(words) for words in lists]
    [row] = _table(score_user(BigramKeyboard(), messages, VOCABULARY))
    assert row == _count_by_definition(BigramKeyboard(), messages, VOCABULARY)
    targets, in_vocab, top1_in, top3_in, top1_all, top3_all = row
    assert top1_in <= top3_in <= in_vocab <= targets
    assert top1_in <= top1_all <= top3_all <= targets and top3_in <= top3_all


def test_max_targets_takes_the_first_ones():
    whole, words = BigramKeyboard(), ["see you tomorrow", "", "I see you"]
    assert _table(score_user(whole, words, VOCABULARY, 4)) == _table(
        score_user(whole, ["see you tomorrow", "I"], VOCABULARY)
    )
    assert _table(score_user(whole, words, VOCABULARY, 6)) == _table(
        score_user(whole, words, VOCABULARY)
    )
    with pytest.raises(ValueError, match="max_targets is 0"):
        score_user(whole, words, VOCABULARY, 0)


def test_several_processes_give_what_one_gives_and_merging_gives_what_all_give():
    reports = []
    alone = score_users(BigramKeyboard, USERS, VOCABULARY, 5)
    together = score_users(
        BigramKeyboard, USERS, VOCABULARY, 5, processes=2, on_user=reports.append
    )
    assert _table(alone) == _table(together) and len(alone) == 4
    assert reports == [1, 2, 3, 4]
    halves = [score_users(BigramKeyboard, half, VOCABULARY, 5) for half in (USERS[:1], USERS[1:])]
    assert _table(halves[0] + halves[1]) == _table(alone)
    with pytest.raises(ValueError, match="no users"):
        score_users(BigramKeyboard, [], VOCABULARY)


def test_a_dead_process_is_an_error_and_no_hang():
    with pytest.raises(RuntimeError, match="scoring process"):
        score_users(partial(os._exit, 3), USERS, VOCABULARY, processes=2)


def test_a_keyboard_that_answers_too_little_is_refused():
    class Forgetful(BigramKeyboard):
        def predict_words(self, words, at, count=3):
            return super().predict_words(words, at, count)[1:]

    with pytest.raises(ValueError, match="shorter"):
        score_user(Forgetful(), ["see you"], VOCABULARY)


def test_intervals_are_the_shares_of_the_metric():
    scores = score_users(BigramKeyboard, USERS, VOCABULARY)
    total = dict(zip(COUNTS, np.sum(_table(scores), axis=0), strict=True))
    shares = {name: interval.value for name, interval in scores.intervals(seed=1).items()}
    assert shares == pytest.approx(
        {
            "top1": total["top1_in"] / total["in_vocab"],
            "top3": total["top3_in"] / total["in_vocab"],
            "top1_all": total["top1_all"] / total["targets"],
            "top3_all": total["top3_all"] / total["targets"],
            "oov_rate": 1 - total["in_vocab"] / total["targets"],
        }
    )


def test_lift_is_of_the_same_targets_only():
    class Mute(BigramKeyboard):
        TABLE: ClassVar = {None: ["see"]}

    scores, baseline = (score_users(kind, USERS, VOCABULARY) for kind in (BigramKeyboard, Mute))
    lift = top1_lift(baseline, scores, seed=1)
    assert lift.value == pytest.approx(scores.top1_in.sum() / baseline.top1_in.sum() - 1)
    assert top1_lift(scores, scores, seed=1).high == 0
    with pytest.raises(ValueError, match="differ in users, targets or vocabulary"):
        top1_lift(baseline, score_users(BigramKeyboard, USERS[::-1], VOCABULARY), seed=1)
    smaller = score_users(BigramKeyboard, USERS, EvaluationVocabulary(("see",)))
    with pytest.raises(ValueError, match="differ in users, targets or vocabulary"):
        top1_lift(baseline, smaller, seed=1)

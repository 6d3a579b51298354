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

from eval.next_word import WordScores, score_user, score_users
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
    """Lower case, composed, straight apostrophes, no joiners; what shows nothing is a blank."""
    kept = [c for c in text.lower() if c not in "\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\u00ad"]
    composed = unicodedata.normalize("NFC", "".join(kept))
    straight = ["'" if c in "’‘ʼ＇`" else c for c in composed]
    hidden = [c.isspace() or unicodedata.category(c)[0] in "C" for c in straight]
    return "".join(" " if hide else c for c, hide in zip(straight, hidden, strict=True))


def _tokens_by_hand(message):
    """Tokens, character by character: numbers, words with inner apostrophes, runs of one symbol."""
    text, tokens, at = _fold(message), [], 0

    def is_part(i):
        return i < len(text) and (text[i].isalnum() or unicodedata.category(text[i])[0] == "M")

    def end_of(i, belongs):
        while i < len(text) and belongs(i):
            i += 1
        return i

    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        digits = end_of(at, lambda i: text[i].isdecimal())
        groups = digits
        while groups > at and groups < len(text) and text[groups] in ".,:":
            further = end_of(groups + 1, lambda i: text[i].isdecimal())
            if further == groups + 1:
                break
            groups = further
        if groups > digits > at:
            end = groups
        elif is_part(at):
            end = end_of(at, is_part)
            while end < len(text) and text[end] == "'" and is_part(end + 1):
                end = end_of(end + 1, is_part)
        else:
            end = end_of(at, lambda i, symbol=text[at]: text[i] == symbol)
        tokens.append(text[at:end])
        at = end
    return tokens


def _begins_sentence(tokens):
    """Whether, walking back from the end of `tokens`, an end of a sentence comes before any word."""
    for token in reversed(tokens):
        if token[-1] in ".!?…":
            return True
        if any(char.isalnum() for char in token):
            return False
    return True


def _count_by_definition(keyboard, messages, vocabulary):
    """One question at a time, all of it relisted for each."""
    asked = []
    for message in messages:
        tokens = _tokens_by_hand(message)
        for position, token in enumerate(tokens):
            if any(char.isalnum() for char in token):
                prefix = [*tokens[:position], "?"]
                suggested = keyboard.predict_words(prefix, [False] * position + [True])[-1]
                starts = _begins_sentence(tokens[:position])
                folded = [_fold(suggestion.text) for suggestion in suggested]
                asked.append((token, folded, starts))

    def count(questions, *ks):
        return [sum(word in suggested[:k] for word, suggested, _ in questions) for k in ks]

    def of_ranks(first, last):
        return [question for question in asked if question[0] in vocabulary.words[first:last]]

    known = of_ranks(0, None)
    classes = [
        of_ranks(0, 100),
        of_ranks(100, 1_000),
        of_ranks(1_000, None),
        [question for question in asked if question not in known],
        [question for question in asked if question[2]],
        [question for question in asked if not question[2]],
    ]
    by_class = [[len(questions), *count(questions, 1, 3)] for questions in classes]
    return [len(asked), len(known), *count(known, 1, 3), *count(asked, 1, 3)], by_class


def _table(scores):
    return np.stack([getattr(scores, name) for name in COUNTS], axis=1).tolist()


def _all_counts(scores):
    return list(zip(_table(scores), scores.by_class.tolist(), strict=True))


def test_counts_follow_the_definition():
    scores = score_users(BigramKeyboard, USERS, VOCABULARY)
    assert [field.name for field in fields(WordScores)] == [*COUNTS, "by_class"]
    assert _all_counts(scores) == [
        _count_by_definition(BigramKeyboard(), user, VOCABULARY) for user in USERS
    ]
    assert _table(scores)[0] == [11, 9, 4, 9, 5, 10]  # by hand
    assert _table(scores)[1] == [0] * 6


_PARTS = [
    *(
        "See",
        "you",
        "I",
        "don’t",
        "nobody",
        "knows",
        ",",
        ".",
        "...",
        "?!",
        "😂",
        "10:30",
        "at",
        " ",
    ),
    *(
        "3.50",
        "1,",
        "'",
        "’",
        "''",
        "_",
        "ТЫ",
        "привет",
        "你好",
        "السلام",
        "नमस्ते",
        "e\u0301",
        "İ",
        "ß",
    ),
    *("👩‍👩‍👧", "❤️", "👍🏽", "²", "Ⅻ", "\u200b", "\n", "\t", "٣٫٥", "x", "Σ"),
]
ADVERSARIAL = st.lists(st.sampled_from(_PARTS), max_size=12).map("".join) | st.text(max_size=12)


@settings(deadline=None)
@given(st.lists(ADVERSARIAL | ADVERSARIAL.map(lambda text: f"see {text} you"), max_size=4))
def test_counts_follow_the_definition_on_any_message(messages):
    small = EvaluationVocabulary(("i", "you", *(f"w{i}" for i in range(1_100)), "see", "привет"))
    scores = score_user(BigramKeyboard(), messages, small)
    [(row, classes)] = _all_counts(scores)
    assert (row, classes) == _count_by_definition(BigramKeyboard(), messages, small)
    targets, in_vocab, top1_in, top3_in, top1_all, top3_all = row
    assert top1_in <= top3_in <= in_vocab <= targets
    assert top1_in <= top1_all <= top3_all <= targets and top3_in <= top3_all
    asked = np.array(classes)[:, 0]
    assert asked[:4].sum() == asked[4:].sum() == targets and asked[:3].sum() == in_vocab


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
    assert _all_counts(halves[0] + halves[1]) == _all_counts(alone)
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

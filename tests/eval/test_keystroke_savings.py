"""Taps counted again by a typist who walks along the characters; then keyboards whose savings are known."""

import zlib
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.words import normalize
from eval.keystrokes import TapCounts, count_taps
from eval.processes import join_scores, score_each

WORDS = ["a", "ab", "abba", "b1", "don't", "жук", "no", "not", "10:30"]
PARTS = [*WORDS, "No", "DON’T", " ", "  ", ",", "...", "'", "😂😂", "❤️", "\n"]


@dataclass(frozen=True)
class Suggestion:
    text: str


class Oracle:
    """Three words, or marks, that depend on all that was committed and on the prefix, in display casing."""

    def __init__(self) -> None:
        self.before: list[str] = []

    def session(self) -> "Oracle":
        return Oracle()

    def commit(self, text: str) -> None:
        self.before.append(text)

    def suggest(self, prefix: str = "", count: int = 3) -> list[Suggestion]:
        return [Suggestion(text.title()) for text in choose(self.before, prefix)[:count]]


def choose(before: list[str], prefix: str) -> list[str]:
    said = " ".join([*before, prefix]).encode()
    wanted = [*WORDS, ",", "😂"]
    return sorted(wanted, key=lambda word: zlib.crc32(said + word.encode()))[:4]


class Knowing:
    """Suggests the words of one message in turn, or nothing."""

    def __init__(self, words: list[str], at: int = 0) -> None:
        self.words, self.left = words, list(words)
        self.at = at

    def session(self) -> "Knowing":
        return Knowing(self.words, self.at)

    def commit(self, text: str) -> None:
        self.left = self.left[1:]

    def suggest(self, prefix: str = "", count: int = 3) -> list[Suggestion]:
        return [Suggestion(self.left[0])] if self.left and len(prefix) >= self.at else []


def type_by_hand(message: str) -> tuple[int, int]:
    """Characters and taps: a caret goes along the text, and what is behind it is looked at anew each time."""
    text = " ".join(message.lower().replace("’", "'").replace("\ufe0f", "").split())

    def is_inside(i: int) -> bool:
        if text[i].isalnum():
            return True
        around = text[i - 1 : i] + text[i + 1 : i + 2] if i else ""
        if len(around) != 2 or not around.isalnum():
            return False
        return text[i] == "'" or (text[i] == ":" and around.isdigit())

    before: list[str] = []
    caret = taps = 0
    while caret < len(text):
        end = caret + 1
        if text[caret] == " ":
            taps, caret = taps + 1, end
            continue
        if not is_inside(caret):
            while end < len(text) and text[end] == text[caret] and not is_inside(end):
                end += 1
            before.append(text[caret:end])
            taps, caret = taps + end - caret, end
            continue
        while end < len(text) and is_inside(end):
            end += 1
        word = text[caret:end]
        for typed in range(len(word) + 1):
            if typed == len(word):
                taps, caret = taps + typed, end  # its blank is typed as any other
            elif word in choose(before, word[:typed])[:3]:
                taps, caret = taps + typed + 1, end + (text[end : end + 1] == " ")
                break
        before.append(word)
    return len(text), taps


@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=8).map(" ".join), max_size=4))
def test_taps_follow_the_definition(messages: list[str]) -> None:
    counts = count_taps(Oracle(), messages)
    by_hand = [type_by_hand(message) for message in messages]
    assert counts.characters.tolist() == [sum(characters for characters, _ in by_hand)]
    assert counts.taps.tolist() == [sum(taps for _, taps in by_hand)]


@given(st.lists(st.text(max_size=20), max_size=4), st.integers(1, 6))
def test_no_text_takes_more_taps_than_characters(messages: list[str], most: int) -> None:
    counts, some = count_taps(Oracle(), messages), count_taps(Oracle(), messages, most)
    assert 0 <= some.taps[0] <= some.characters[0] <= counts.characters[0]
    assert some.taps[0] <= counts.taps[0] <= counts.characters[0]
    assert counts.characters[0] == sum(len(normalize(message)) for message in messages)


def test_savings_of_known_keyboards() -> None:
    message = ["we", "meet", "tomorrow", "at", "noon"]
    text = " ".join(message)
    at_once = count_taps(Knowing(message), [text])
    assert (at_once.characters[0], at_once.taps[0]) == (len(text), 5)
    after_two = count_taps(Knowing(message, at=2), [text])
    assert after_two.taps[0] == 3 + 3 + 3 + 3 + 3  # "we" and "at" are typed, blanks and all
    mute = count_taps(Knowing([]), [text, "", "😂"])
    assert mute.characters[0] == mute.taps[0] == len(text) + 1
    assert mute.savings(seed=1).value == 0
    marked = count_taps(Knowing(["well", ",", "yes", "!"]), ["Well, yes!"])
    assert (marked.characters[0], marked.taps[0]) == (10, 1 + 2 + 1 + 1)


def test_typing_stops_before_the_word_after_the_last() -> None:
    keyboard = Knowing([])
    for most, characters in (
        (1, len("see ")),
        (2, len("see you, ")),
        (3, 11),
        (4, 11 + 2),
        (9, 13),
    ):
        counts = count_taps(keyboard, ["See you, ok", "no"], most)
        assert counts.characters[0] == characters
    with pytest.raises(ValueError, match="max_words"):
        count_taps(keyboard, [], 0)


def test_users_are_joined_in_order() -> None:
    users = [TapCounts(np.array([n]), np.array([m])) for n, m in ((40, 10), (60, 50), (0, 0))]
    both, one_by_one = join_scores(users), reduce(add, users)
    for counts in (both, one_by_one):
        assert counts.characters.tolist() == [40, 60, 0]
        assert counts.taps.tolist() == [10, 50, 0]
        assert len(counts) == 3
    interval = both.savings(seed=1)
    assert interval.value == pytest.approx(1 - 60 / 100)
    assert interval == join_scores(users[:2]).savings(
        seed=1
    )  # who wrote nothing counts for nothing
    assert 0 <= interval.low < 1 - 50 / 60 and 1 - 10 / 40 < interval.high <= 1


def test_people_are_scored_in_order_and_told_of() -> None:
    people, told = [["ab"], [""], ["no, not"]], list[int]()
    rows = list(score_each(Oracle, count_taps, people, on_user=told.append))
    assert [row.characters[0] for row in rows] == [2, 0, 7]
    assert told == [1, 2, 3]
    with pytest.raises(ValueError, match="processes"):
        list(score_each(Oracle, count_taps, people, processes=0))

"""Counts worked out by hand for a keyboard that answers from tables; then the simulator's fingers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from device_runtime.layouts import load_layout
from eval.targets import EvaluationVocabulary
from eval.typed_words import TypedWord, TypedWordScores, score_typed_words
from scripts.fingers import draw_fingers

VOCABULARY = EvaluationVocabulary(("see", "you", "tomorrow", "at", "don't"))


@dataclass(frozen=True)
class Suggestion:
    text: str


class TableSession:
    """Answers from tables, and remembers what it was told, as a test may."""

    PUT_IN: ClassVar = {
        ("sre", True): "See",
        ("tomorriw", True): "Tomorrow",
        ("tomorriw", False): "tomorrow",
        ("you", False): "your",
    }

    def __init__(self) -> None:
        self.committed: list[str] = []

    def commit(self, text: str) -> None:
        self.committed.append(text)

    def suggest(self, prefix="", count=3):
        assert len(prefix) == 2 and count == 3
        table = {"se": ["Set", "SEE"], "to": ["today", "to", "too", "tomorrow"], "do": ["Don’t"]}
        return [Suggestion(text) for text in table.get(prefix, [])[:count]]

    def autocorrect(self, typed, touches_mm=None):
        return self.PUT_IN.get((typed, touches_mm is not None), typed)


class TableKeyboard:
    def __init__(self) -> None:
        self.sessions: list[TableSession] = []

    def session(self) -> TableSession:
        self.sessions.append(TableSession())
        return self.sessions[-1]


def fingers(word: str) -> TypedWord | None:
    """Two words are missed once, one twice; numbers cannot be typed."""
    if word.isdigit():
        return None
    typed, misses = {"see": ("sre", 1), "tomorrow": ("tomorriw", 1), "who": ("eho", 2)}.get(
        word, (word, 0)
    )
    return TypedWord(typed, [(0.0, 0.0)] * len(typed), misses)


def test_counts_of_a_user() -> None:
    keyboard = TableKeyboard()
    messages = ["See you tomorrow!", "...", "who? 10 don't", "at see"]
    scores = score_typed_words(keyboard, messages, fingers, VOCABULARY)
    assert {name: column.tolist() for name, column in vars(scores).items()} == {
        "missed": [3],  # see, tomorrow, see
        "corrected": [3],
        "corrected_by_letters": [1],  # tomorrow
        "right": [3],  # you, don't, at
        "changed": [0],
        "changed_by_letters": [1],  # you
        "begun": [5],  # see, you, tomorrow, don't, see
        "completed": [3],  # tomorrow is the fourth
    }
    committed = [session.committed for session in keyboard.sessions]
    told = ["see you tomorrow !", "...", "who ? 10 don't", "at see"]
    assert committed == [message.split() for message in told]
    few = score_typed_words(TableKeyboard(), messages, fingers, VOCABULARY, max_words=2)
    assert (few.missed[0], few.right[0], few.begun[0]) == (1, 1, 2)
    with pytest.raises(ValueError, match="max_words"):
        score_typed_words(keyboard, messages, fingers, VOCABULARY, max_words=0)


def test_shares_over_users() -> None:
    one = TypedWordScores(*(np.array([n]) for n in (4, 3, 2, 10, 1, 2, 5, 4)))
    two = TypedWordScores(*(np.array([n]) for n in (6, 6, 0, 30, 0, 0, 0, 0)))
    both = one + two
    assert len(both) == 2
    values = {name: interval.value for name, interval in both.intervals(seed=1).items()}
    assert values == {
        "correction": 9 / 10,
        "correction_by_letters": 2 / 10,
        "false_correction": 1 / 40,
        "false_correction_by_letters": 2 / 40,
        "completion": 4 / 5,
    }
    assert "completion" not in two.intervals(seed=1)


def test_fingers_miss_as_the_simulator_says() -> None:
    layout = load_layout("qwerty")
    words = ["tomorrow", "don't", "a", "quiz"] * 100
    misses = letters = 0
    for user in range(40):
        type_word = draw_fingers(layout, 1, user)
        for word in words:
            typed = type_word(word)
            assert typed is not None and len(typed.letters) == len(typed.touches_mm) == len(word)
            wrong = 0
            for meant, letter, touch in zip(word, typed.letters, typed.touches_mm, strict=True):
                if meant == "'":
                    assert letter == "'" and touch is None
                    continue
                away = np.linalg.norm(layout.centres_mm - touch, axis=1)
                assert layout.keys[away.argmin()] == letter
                wrong += letter != meant
                letters += 1
            assert wrong == typed.misses
            misses += wrong
    assert 0.07 < misses / letters < 0.11  # 8 to 9 % for the median user
    again = [draw_fingers(layout, 1, 3)("tomorrow") for _ in range(2)]
    assert again[0] == again[1]
    for word in ("10:30", "жук", "😂"):
        assert draw_fingers(layout, 1, 0)(word) is None

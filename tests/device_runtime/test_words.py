import pytest

from device_runtime.display import follow_case
from device_runtime.tokenizer import begins_word
from device_runtime.words import is_emoji, is_mark, is_word, split_words


@pytest.mark.parametrize("emoji", ["😂", "😂😂", "❤️", "👍🏽", "☺", "🇩🇪"])
def test_emoji(emoji: str) -> None:
    assert all(is_emoji(token) and not is_mark(token) for token in split_words(emoji))


@pytest.mark.parametrize("other", ["", "a", "1", "°", "©", "^", "#", "→", "€", "😂a", "."])
def test_other_signs_are_no_emoji(other: str) -> None:
    assert not is_emoji(other)


@pytest.mark.parametrize("token", [".", "...", "!!", "?", ",", "…", "-", "@", "lol", "😂", "10:30"])
def test_marks_end_or_part_a_sentence(token: str) -> None:
    assert is_mark(token) == (token[0] in ".,!?…")
    assert not (is_mark(token) and is_word(token))


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("th", True),
        ("don'", True),
        ("10:", True),
        ("3.", True),
        ("'", False),
        (",", False),
        ("a b", False),
    ],
)
def test_beginnings_of_words(text: str, begins: bool) -> None:
    assert begins_word(text) == begins


@pytest.mark.parametrize(
    ("word", "typed", "shown"),
    [
        ("the", "Teh", "The"), ("the", "TEH", "THE"), ("the", "teh", "the"), ("the", "T", "The"),
        ("Tom", "tm", "Tom"), ("straße", "STRA", "straße"), ("i'm", "I'", "I'm"), ("the", "", "the"),
    ],
)  # fmt: skip
def test_capitals_follow_what_was_typed(word: str, typed: str, shown: str) -> None:
    assert follow_case(word, typed) == shown

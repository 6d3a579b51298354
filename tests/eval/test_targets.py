"""The fixed vocabulary and the targets of a message."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.words import is_word, split_words
from eval.targets import EvaluationVocabulary, find_targets


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", []),
        ("😂😂 ... ?!", []),
        ("Don’t go, OK?", ["don't", "go", "ok"]),
        ("C U @ 10:30 2nite", ["c", "u", "10:30", "2nite"]),
        ("привет мир ❤️", ["привет", "мир"]),
    ],
)
def test_every_word_is_a_target_and_nothing_else(message, expected):
    words = split_words(message)
    assert [words[position] for position in find_targets(words)] == expected


def test_build_ranks_by_count_and_breaks_ties_by_alphabet():
    texts = ["b a! A 😂", "c b, d ...", "Z"]
    assert EvaluationVocabulary.build(texts, 4).words == ("a", "b", "c", "d")
    assert EvaluationVocabulary.build(iter(texts), 100).words == ("a", "b", "c", "d", "z")
    with pytest.raises(ValueError, match="size is 0"):
        EvaluationVocabulary.build(texts, 0)


@given(st.lists(st.text("abcABC' .1!😂", max_size=20)), st.integers(1, 5))
def test_build_keeps_the_most_frequent(texts, size):
    counts = Counter(word for text in texts for word in split_words(text) if is_word(word))
    vocabulary = EvaluationVocabulary.build(texts, size)
    assert len(vocabulary) == min(size, len(counts))
    rest = [counts[word] for word in counts if word not in vocabulary]
    assert min([counts[word] for word in vocabulary.words], default=0) >= max(rest, default=0)


def test_saved_file_is_one_word_a_line_and_loads_as_it_was(tmp_path):
    vocabulary = EvaluationVocabulary(("the", "don't", "été", "10:30"))
    path = tmp_path / "words.txt"
    vocabulary.save(path)
    assert path.read_text(encoding="utf-8") == "the\ndon't\nété\n10:30\n"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == vocabulary.sha256
    assert EvaluationVocabulary.load(path) == vocabulary
    assert list(tmp_path.iterdir()) == [path]
    assert "été" in vocabulary and "a" not in vocabulary


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ":1: not one lower-case word"),
        (b"the\n\nof\n", ":2: not one lower-case word"),
        (b"the\nOf\n", ":2: not one lower-case word"),
        (b"two words\n", ":1: not one lower-case word"),
        (b"the\r\nof\r\n", ":1: not one lower-case word"),
        (b"the\n...\n", ":2: not one lower-case word"),
        (b"the\nof\nthe\n", ":3: same word as line 1; remove one"),
        (b"the\n\xff\n", "not UTF-8 at byte 4"),
    ],
)
def test_files_that_are_no_vocabulary_are_refused(tmp_path, content, problem):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"words\.txt") as error:
        EvaluationVocabulary.load(path)
    assert problem in str(error.value)

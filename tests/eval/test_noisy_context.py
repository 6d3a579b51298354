"""Each prediction is made from the words before as they were left, and from nothing else."""

import zlib
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.layouts import load_layout
from device_runtime.words import split_words
from eval.next_word import score_user
from eval.noisy_context import NoisyContext
from eval.targets import EvaluationVocabulary
from scripts.fingers import draw_writer


@dataclass(frozen=True)
class Suggestion:
    text: str


class Echo:
    """Suggests a digest of all words before."""

    def predict_words(self, words, at, count=3):
        return [
            [Suggestion(str(zlib.crc32(" ".join(words[:i]).encode())))] if asked else []
            for i, asked in enumerate(at)
        ]


class LastWord:
    """Suggests the word before, whatever it is."""

    def predict_words(self, words, at, count=3):
        return [[Suggestion(words[i - 1])] if asked and i else [] for i, asked in enumerate(at)]


FORMS = {"so": "so so", "the": "teh", "can't": "cant", "no": "n o!", "a": "\u200b"}


@given(st.lists(st.tuples(st.sampled_from([*FORMS, "you", "?"]), st.booleans()), max_size=8))
def test_predictions_see_what_was_left_before(message) -> None:
    words, at = [word for word, _ in message], [asked for _, asked in message]
    forms = [FORMS.get(word, word) for word in words]
    found = NoisyContext(Echo(), lambda meant: [FORMS.get(word, word) for word in meant])
    predicted = found.predict_words(words, at, 3)
    assert len(predicted) == len(words)
    for i, asked in enumerate(at):
        left = " ".join(form.replace("\u200b", "a") for form in forms[:i])
        expected = [str(zlib.crc32(" ".join(split_words(left)).encode()))] if asked else []
        assert [suggestion.text for suggestion in predicted[i]] == expected


def test_the_target_is_the_word_that_was_meant() -> None:
    vocabulary = EvaluationVocabulary(("the", "teh"))
    clean = score_user(LastWord(), ["the the the"], vocabulary)
    noisy = NoisyContext(LastWord(), lambda words: [FORMS.get(word, word) for word in words])
    wrong = score_user(noisy, ["the the the"], vocabulary)
    assert (clean.targets[0], clean.top1_in[0]) == (3, 2)
    assert (wrong.targets[0], wrong.top1_in[0]) == (3, 0)


def test_users_leave_errors_as_the_simulator_says() -> None:
    layout = load_layout("qwerty")
    words = ["tomorrow", "жук", "maybe", "10:30", "😂"] * 200
    shares = []
    for user in range(60):
        left = draw_writer(layout, 1, user)(words)
        assert draw_writer(layout, 1, user)(words) == left
        assert left[1::5] == words[1::5]  # no key has its letters
        assert left[4::5] == words[4::5]
        wrong = [form != word for form, word in zip(left, words, strict=True)]
        shares.append(sum(wrong) / (200 * len("tomorrow maybe 10:30 ")))
    assert 0.002 < np.median(shares) < 0.012  # wrong characters of the median user: 0.64 in 100

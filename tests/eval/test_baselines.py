"""Suggestions against the recursive definition, asked of every word of the vocabulary."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.words import split_words
from eval.baselines import NgramModel
from eval.next_word import score_user
from eval.targets import EvaluationVocabulary

VOCABULARY = EvaluationVocabulary(("you", "see", "i", "me", "tomorrow", "never"))
TEXTS = [
    "See you tomorrow!",
    "i see you",
    "i see me, you see",
    "zebra sees you",
    "you you you 😂 see",
]
MESSAGES = st.lists(
    st.sampled_from(["i", "see", "you", "me", "zebra", ",", "😂", "never", "tomorrow"]), max_size=5
)


def _score(texts, word, context):
    """S(word | context) by the recursion, counting in the texts anew."""

    def known(text):
        tokens = ["<s>", *split_words(text)]
        outside = [t[0].isalnum() and t not in VOCABULARY.words for t in tokens[1:]]
        return ["<s>", *("<unk>" if o else t for t, o in zip(tokens[1:], outside, strict=True))]

    followed = times = 0
    for text in texts:
        tokens = known(text)
        for at in range(1, len(tokens)):
            is_word = tokens[at][0].isalnum() or tokens[at] == "<unk>"
            if is_word and tokens[max(0, at - len(context)) : at] == context:
                times += 1
                followed += tokens[at] == word
    if followed:
        return followed / times
    return 0.4 * _score(texts, word, context[1:]) if context else 0.0


@settings(deadline=None, max_examples=40)
@given(st.lists(MESSAGES.map(" ".join), max_size=5), MESSAGES, st.integers(1, 4))
def test_suggestions_are_the_best_by_definition(more, words, order):
    texts = TEXTS + more
    model = NgramModel(texts, VOCABULARY, order)
    [*_, found] = model.predict_words([*words, "?"], [False] * len(words) + [True], 4)
    tokens = ["<s>", *("<unk>" if word == "zebra" else word for word in words)]
    context = tokens[len(tokens) - min(order - 1, len(tokens)) :]
    scores = {word: _score(texts, word, context) for word in VOCABULARY.words}
    ranked = sorted((w for w in scores if scores[w] > 0), key=lambda w: (-scores[w], w))[:4]
    assert [s.text for s in found] == ranked
    assert [s.score for s in found] == pytest.approx([scores[w] for w in ranked])


def test_it_is_measured_like_a_keyboard_and_longer_contexts_cost_bytes():
    models = [NgramModel(TEXTS, VOCABULARY, order) for order in (1, 2, 3)]
    users = [score_user(model, ["i see you", "see you tomorrow"], VOCABULARY) for model in models]
    # By hand: "you" twice; i, see, you and you; i, see, you and tomorrow ("i see" has a tie, for "me").
    assert [int(user.top1_in[0]) for user in users] == [2, 4, 4]
    assert models[0].predict_words(["i"], [False]) == [[]]
    words = sum(len(word) + 1 for word in VOCABULARY.words)
    assert models[0].size_bytes == words + 5 * 3  # "never" was not read
    sizes = [model.size_bytes for model in models]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    with pytest.raises(ValueError, match="order is 0"):
        NgramModel(TEXTS, VOCABULARY, 0)

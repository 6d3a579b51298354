from collections import Counter
from math import exp, isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.register import (
    SENTENCE_WORDS,
    START,
    UNKNOWN,
    RegisterModel,
    likelihood_ratio,
    select_by_register,
)

# Written for these tests: how friends write, and how papers do.
CHAT = """
are you coming to the party tonight
yeah i think so what time are you going
i don't know yet maybe around nine
ok let me know when you get home
i'm so tired i just want to go to bed
do you want to come over and watch a movie
that sounds good to me see you there
i miss you so much when are you back
what are you doing this weekend
nothing really i have to work on saturday
oh no i hope you feel better soon
thank you i think i just need some sleep
did you get my message i was so worried
sorry my phone was dead i'm home now
you know i love you right
i can't wait to see you
""".strip().splitlines()
NEWS = """
The government announced new measures to support exports on Tuesday.
Officials of the ministry said the talks between the two countries will resume in March.
The company reported that revenues of its European division declined by a third.
Shares of the bank fell after regulators opened an inquiry into its accounts.
The committee will vote on the proposal after a hearing in the parliament.
Police said the suspect was arrested near the border with two other men.
The court rejected an appeal by the former president of the republic.
The central bank raised its forecast for growth in the second quarter.
Researchers of the university published the results of the study in a journal.
The minister declined to comment on reports of a resignation.
An earthquake of moderate strength struck the region on Sunday, authorities said.
The new law requires companies to publish the salaries of their directors.
""".strip().splitlines()


@pytest.fixture(scope="module")
def models():
    register = RegisterModel.fit(CHAT)
    return register, RegisterModel.fit(NEWS, register.vocabulary)


@given(
    st.lists(st.text(alphabet="ab c", min_size=1), min_size=1).filter(
        lambda t: any(map(str.strip, t))
    )
)
def test_probabilities_of_every_context_sum_to_one(texts):
    model = RegisterModel.fit(texts)
    for previous in (*model.vocabulary, START, UNKNOWN, "never seen"):
        total = sum(exp(model.log_prob(previous, word)) for word in (*model.vocabulary, UNKNOWN))
        assert isclose(total, 1.0, abs_tol=1e-9)


def test_probabilities_of_a_general_model_over_a_borrowed_vocabulary_sum_to_one(models):
    for model in models:
        for previous in (*model.vocabulary, START, UNKNOWN):
            words = (*model.vocabulary, UNKNOWN)
            assert isclose(sum(exp(model.log_prob(previous, word)) for word in words), 1.0)


def test_follows_the_formula_counted_by_hand():
    # Tokens "a b", "a b", "a c": c is seen once, so it is unknown. Bigrams: <s>a 3, ab 2, a<unk> 1.
    model = RegisterModel.fit(["a b", "a b", "a c"])
    discount = 1 / (1 + 2 * 1)
    word = {"a": 3, "b": 2, UNKNOWN: 1}
    unigram = {w: (n - discount) / 6 + discount * 3 / 6 / 3 for w, n in word.items()}
    expected = (2 - discount) / 3 + discount * 2 / 3 * unigram["b"]
    assert model.log_prob("a", "b") == pytest.approx(log(expected))
    assert model.log_prob("b", "a") == pytest.approx(log(unigram["a"]))  # b is never followed
    assert model.log_prob("zebra", "a") == pytest.approx(log(unigram["a"]))


def test_mean_log_prob_is_the_chain_of_single_words(models):
    words = ["do", "you", "want", "to", "see", "the", "zebra", "tonight"]
    for model in models:
        chain = [model.log_prob(v, w) for v, w in zip([START, *words], words, strict=False)]
        assert model.mean_log_prob("Do you want to... see the ZEBRA tonight?!") == pytest.approx(
            sum(chain) / len(words)
        )
        assert model.mean_log_prob("?!") == 0.0


def test_the_ratio_tells_chat_from_news(models):
    assert likelihood_ratio("do you know when you get home", *models) > 0.5
    assert likelihood_ratio("The ministry of the region declined to comment.", *models) < 0


def test_models_over_different_vocabularies_are_refused(models):
    with pytest.raises(ValueError, match=r"vocabulary=register\.vocabulary"):
        likelihood_ratio("hello", models[0], RegisterModel.fit(NEWS))
    with pytest.raises(ValueError, match="no words"):
        RegisterModel.fit(["?!", ""])


def test_selection_picks_the_spoken_sentences_out_of_news(models):
    spoken = [
        "I don't know what you want me to do.",
        "Do you think I have to go home now?",
        "I was so worried when you didn't come to work.",
        "You know I just want to see you.",
    ]
    written = [
        "The ministry declined to publish the results of the inquiry.",
        "Authorities of the region rejected the proposal on Sunday.",
        "The accounts of the company were opened by the court, officials reported.",
        "Revenues declined.",
    ]
    pool = [sentence for pair in zip(written, spoken, strict=True) for sentence in pair]
    assert set(select_by_register(pool, *models, words=33)) == set(spoken)


def test_selection_stops_at_the_budget_and_keeps_the_order_of_equals(models):
    pool = [f"see you at {name}" for name in ("Aachen", "Bergen", "Calais")]  # all unknown: a tie
    assert select_by_register(pool, *models, words=8) == pool[:2]
    assert select_by_register(pool, *models, words=5) == pool[:2]
    assert select_by_register(pool, *models, words=100) == pool
    assert select_by_register([], *models, words=100) == []


def test_selection_leaves_out_the_very_short_and_the_very_long(models):
    shortest, longest = SENTENCE_WORDS
    pool = [" ".join(["you"] * n) for n in (shortest - 1, shortest, longest, longest + 1)]
    assert set(select_by_register(pool, *models, words=1000)) == {pool[1], pool[2]}


def test_one_lucky_word_does_not_outrank_a_whole_chatty_sentence(models):
    # The mean ratio prefers the fragment; the sentence has far more evidence.
    fragment, sentence = "Do you see", "do you want to come over and see my phone when you get home"
    assert likelihood_ratio(fragment, *models) > likelihood_ratio(sentence, *models)
    pool = [fragment, sentence, *NEWS]
    assert select_by_register(pool, *models, words=1) == [sentence]


def test_text_is_only_counted_not_kept(models):
    kept = Counter(type(value) for value in vars(models[0]).values())
    assert set(kept) == {frozenset, dict}

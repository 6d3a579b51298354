import random
import string

import numpy as np
import pytest
import wordfreq
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.filters import (
    HEURISTIC_FILTERS,
    CrossFittedModel,
    LineFilter,
    apply_filters,
    copy_filter,
    fluency_filter,
    has_personal_data,
    language_filter,
    normalize_message,
    personal_data_filter,
    register_filter,
    runs,
    toxicity_filter,
)
from synthetic_text.llm_chats import load_llm_chats
from synthetic_text.register import DOUBT_WORDS, RegisterModel, likelihood_ratio

BAD_LINES = {
    "empty": ["", "...", " - ", "' '"],
    "too long": ["see " + " ".join(string.ascii_lowercase) * 3, "a" + "bcdefghij" * 60],
    "markup": [
        "<b>hi</b>",
        "**ok**",
        "A: hello",
        "- milk",
        "1. go home",
        "see {name}",
        "as an ai i",
    ],
    "assistant residue": [
        "Sure, here is a short one",
        "Sure! Here's a reply:",
        "Here are 5 casual text messages:",
        "Here's the conversation.",
        "How can I assist you today?",
        "I cannot fulfill this request",
        "I'm an AI so i don't eat",
        "Sure, I'd be happy to help with that",
        "I hope this helps!",
        "I apologize for the confusion",
    ],
    "repetition": ["go go go go go home", "i am so i am so i am so tired", "nooooooooooooo"],
    "not Latin": ["привет как дела", "ok 你好"],
    "personal data": ["mail bob@example.org", "call 555 123 4567", "i'm @bob", "see www.foo"],
}
GOOD_LINES = """
omw
ok
😂😂
??
i'm gonna be late, start without me
sure, see you there
here is where we met last time
here's the thing, i like you
sure i'd be happy to come
how can i help?
of course!! are you here
can't provide for a dog rn lol
yes yes yes yes
he lives in room 1204, come at 10:30 on 12/05
it cost 1,200,000 dollars?!
that's so so good
""".strip().splitlines()

# Written for this test after the limits had been tuned, on other lines.
FOREIGN_LINES = {
    "de": """
        bin in zehn minuten da
        hast du den schlüssel mitgenommen
        was gibts heute zu essen
        ich ruf dich nachher an
        können wir das verschieben
        boah bin ich müde
        sag mal kommst du auch zur party
        vergiss nicht die tickets
        mir ist so langweilig
        freu mich schon auf dich""",
    "fr": """
        je rentre dans dix minutes
        t'as pris les billets
        on mange quoi ce soir
        je te rappelle plus tard
        tu viens à la fête samedi
        j'suis trop fatigué
        c'est pas grave t'inquiète
        tu me manques trop
        bon anniversaire ma belle
        laisse tomber on verra demain""",
    "es": """
        llego en diez minutos
        qué quieres cenar hoy
        luego te llamo
        vienes a la fiesta el sábado
        estoy muy cansada
        no te preocupes por eso
        feliz cumpleaños guapa
        te echo de menos
        avísame cuando llegues a casa
        jajaja qué gracioso eres""",
    "it": """
        arrivo tra dieci minuti
        cosa mangiamo stasera
        ti chiamo più tardi
        vieni alla festa sabato
        sono stanchissima
        non ti preoccupare
        buon compleanno bella
        mi manchi tantissimo
        fammi sapere quando arrivi
        che palle devo studiare""",
    "nl": """
        ben er over tien minuten
        wat eten we vanavond
        ik bel je straks
        kom je zaterdag naar het feestje
        ik ben zo moe
        maak je geen zorgen
        gefeliciteerd met je verjaardag
        ik mis je heel erg
        laat me weten als je thuis bent
        heb jij de kaartjes al""",
}
COARSE_LINES = """
    shit my phone is dying
    this damn printer again
    wtf happened to your hair
    my exam was crap
    hell no
    fuck i overslept
    that sucks, sorry
    i'm so fucking hungry
    i hate this weather
    holy shit that's expensive
    pissed that they cancelled
    you're crazy haha
    what a stupid rule
    i feel so sick
    no shit lol
    gay bar tonight?
    my black friend got the job
    we killed it at the gig
    my breast cancer check is on monday
    she died last year, i still miss her""".strip().splitlines()
ABUSIVE_LINES = """
    shut your mouth you filthy whore
    you're a retard
    fuck off you cunt
    fat ugly bitch
    she's a cheap slut
    wanna see my dick
    worthless little cunt
    kill yourself loser
    go to hell bitch
    you pathetic piece of trash, everyone hates you
    suck it bitch
    i want your pussy
    you're such an asshole
    you disgusting whore
    get lost you dumb bitch""".strip().splitlines()


def strip(lines):
    return [line.strip() for line in lines]


class Contains(LineFilter):
    """Rejects lines with a letter."""

    def __init__(self, letter):
        super().__init__(f"has {letter}", lambda text: letter in text)


@pytest.mark.parametrize("reason", BAD_LINES)
def test_each_heuristic_rejects_its_lines(reason):
    result = apply_filters(BAD_LINES[reason], HEURISTIC_FILTERS)
    assert result.rejected == [(i, reason) for i in range(len(BAD_LINES[reason]))] or (
        # "as an ai" has long been markup.
        reason == "assistant residue"
        and {r for _, r in result.rejected} <= {reason, "markup"}
        and not result.kept
    )
    assert result.counts[reason] == len(BAD_LINES[reason])


def test_heuristics_and_libraries_keep_what_people_type():
    filters = [
        *HEURISTIC_FILTERS,
        personal_data_filter(),
        language_filter(),
        toxicity_filter(),
    ]
    result = apply_filters(GOOD_LINES, filters)
    assert result.rejected == []
    assert result.counts == dict.fromkeys([f.reason for f in filters], 0)


@given(st.lists(st.text("abcd", max_size=4)), st.lists(st.sampled_from("abcd"), max_size=4))
def test_filters_are_tried_in_order_and_the_first_reason_wins(texts, letters):
    result = apply_filters(texts, [Contains(letter) for letter in letters])
    reasons = [next((f"has {c}" for c in letters if c in text), None) for text in texts]
    assert result.kept == [i for i, reason in enumerate(reasons) if reason is None]
    assert result.rejected == [(i, r) for i, r in enumerate(reasons) if r is not None]
    assert result.counts == {f"has {c}": reasons.count(f"has {c}") for c in letters}


@given(st.lists(st.text()))
def test_kept_lines_stay_kept_and_every_line_is_accounted_for(texts):
    result = apply_filters(texts, HEURISTIC_FILTERS)
    assert sorted([*result.kept, *(i for i, _ in result.rejected)]) == list(range(len(texts)))
    assert sum(result.counts.values()) == len(result.rejected)
    again = apply_filters([texts[i] for i in result.kept], HEURISTIC_FILTERS)
    assert again.kept == list(range(len(result.kept))) and again.rejected == []


@given(st.lists(st.text(), max_size=6), st.permutations(range(6)))
def test_a_line_is_judged_alone(texts, order):
    filters = [*HEURISTIC_FILTERS, personal_data_filter(), copy_filter(["see you there then ok"])]
    reasons = dict(apply_filters(texts, filters).rejected)
    order = [i for i in order if i < len(texts)]
    shuffled = dict(apply_filters([texts[i] for i in order], filters).rejected)
    assert {order[i]: reason for i, reason in shuffled.items()} == reasons


def test_a_filter_that_answers_anything_but_a_bool_a_line_is_refused():
    class Broken:
        reason = "broken"

        def __init__(self, answer):
            self.answer = answer

        def __call__(self, texts):
            return self.answer

    for answer in (np.zeros(3, bool), np.zeros(2, int), np.zeros((2, 1), bool), False):
        with pytest.raises(ValueError, match=r"filter 'broken': answers .*bool\[2\] expected"):
            apply_filters(["a", "b"], [Broken(answer)])


def test_copies_of_few_shot_messages_are_found_whole_and_in_part():
    shown = ["Did you feed the cat this morning, or not?", "on my way", "ok that works for me"]
    copies = [
        "did you feed the cat this morning or not",
        "well, did you FEED the cat this... i forgot",
        "you feed the cat this morning?",
        "Ok, that works for me!",
    ]
    others = ["on my way", "did you feed the dog this morning", "ok that works for me too", "cat"]
    result = apply_filters([*copies, *others], [copy_filter(shown)])
    assert result.kept == list(range(len(copies), len(copies) + len(others)))
    assert {reason for _, reason in result.rejected} == {"copy of a few-shot dialogue"}


@given(st.lists(st.sampled_from("abc"), max_size=8), st.integers(1, 4))
def test_runs_are_all_stretches_of_a_length(words, length):
    expected = [tuple(words[i:j]) for i in range(9) for j in range(9) if j - i == length]
    assert list(runs(words, length)) == [run for run in expected if len(run) == length]


@given(st.text())
def test_normalizing_twice_is_normalizing_once(text):
    once = normalize_message(text)
    assert normalize_message(once) == once


def add_check_digit(digits):
    """Luhn as in the standard's table: every second digit from the right is doubled, its digits added."""
    doubled = [sum(map(int, str(2 * int(d)))) for d in digits[::-2]]
    plain = [int(d) for d in digits[-2::-2]]
    return digits + str(-(sum(doubled) + sum(plain)) % 10)


@pytest.mark.parametrize(
    "text",
    [
        "text +44 20 7946 0018",
        "my number is (415) 555-2671 call me",
        "new number 07911–123–456",
        "０７９１１ １２３４５６",
        "415/555/2671 is the office",
        "ring 415\u200b5552671",
        "bob.smith@gmail.com",
        "bob dot smith at gmail dot com",
        "bob [at] gmail [dot] com",
        "https://example.org/x",
        "add me @bobby99",
        "my insta is bobby_s",
        "snap: coolguy92",
        "GB29 NWBK 6016 1331 9268 19",
        "NL91ABNA0417164300",
        "send it to de89 3704 0044 0532 0130 00 please",
    ],
)
def test_personal_data_is_found_in_its_usual_spellings(text):
    assert has_personal_data(text)


@given(st.text("0123456789", min_size=14, max_size=14), st.sampled_from(["", " ", "/", ", ", "·"]))
def test_card_numbers_are_found_however_they_are_grouped(digits, separator):
    number = add_check_digit("4" + digits)
    groups = [number[i : i + 4] for i in range(0, len(number), 4)]
    assert has_personal_data(f"it's {separator.join(groups)} ok")


@pytest.mark.parametrize(
    "text",
    [
        "GB28, NWBK/601, 613",
        "see you at 7 on 12/05/2018",
        "1,200,000 of them",
        "snap at 7.30",
        "i twitter a lot",
        "look at the dot over there",
        "10:30 to 11:45",
        "4111/1111/1111",
    ],
)
def test_numbers_and_words_of_nobody_are_kept(text):
    assert not has_personal_data(text)


def test_account_numbers_are_found_by_their_check_digits():
    account = "ABCDEFGHIJK1"
    number = int("".join(str(int(c, 36)) for c in account + "GB00"))
    check = 98 - number % 97  # ISO 13616
    assert has_personal_data(f"it's GB{check:02} ABCD EFGH IJK1 thanks")
    assert not has_personal_data(f"it's GB{(check + 1) % 97:02} ABCD EFGH IJK1")


@pytest.mark.parametrize("letter", "İıſK")
def test_letters_that_only_fold_to_ascii_are_no_account_number(letter):
    assert not has_personal_data(f"{letter}b29nwbkabcdefghijk")
    assert not has_personal_data(f"gb29 nwbk {letter}bcdefghijk")


def test_other_languages_are_rejected_and_english_is_not():
    is_foreign = language_filter()
    for lines in FOREIGN_LINES.values():
        rejected = is_foreign(strip(lines.strip().splitlines()))
        assert rejected.sum() >= 9, "of ten"
    chats = [message.text for message in load_llm_chats()][:4000]
    assert is_foreign(chats).mean() < 0.003
    assert not is_foreign(
        [*strip(COARSE_LINES), "no i didnt", "hola", "mozzarella", "", "😭😭"]
    ).any()


def test_abuse_is_rejected_and_coarse_talk_is_not():
    is_toxic = toxicity_filter()
    assert is_toxic(strip(ABUSIVE_LINES)).sum() >= 12, "of fifteen"
    assert is_toxic(strip(COARSE_LINES)).sum() <= 1, "of twenty"
    stricter = toxicity_filter(0.5)(strip(ABUSIVE_LINES + COARSE_LINES))
    assert (stricter >= is_toxic(strip(ABUSIVE_LINES + COARSE_LINES))).all()
    for limit in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            toxicity_filter(limit)


CHAT = [
    "are you home",
    "see you soon",
    "are you ok",
    "see you at home",
    "so tired",
    "are you tired",
]
NEWS = [
    "the bank said on friday",
    "shares of the bank fell",
    "the minister of trade said",
    "on friday",
]


def test_register_filter_rejects_below_a_ratio_in_doubt_of_short_lines():
    vocabulary = frozenset(" ".join(CHAT + NEWS).split())
    register, general = RegisterModel.fit(CHAT, vocabulary), RegisterModel.fit(NEWS, vocabulary)
    texts = [*CHAT, *NEWS, "", "the", "see you", "the bank of you"]
    for least in (-0.5, 0.0, 0.3):
        expected = []
        for text in texts:
            words = len(text.split())
            total = words * likelihood_ratio(text, register, general)
            expected.append(total / (words + DOUBT_WORDS) < least)
        rejected = register_filter(register, general, least)(texts)
        assert rejected.tolist() == expected
    assert not register_filter(register, general)(CHAT).any()
    assert register_filter(register, general)(NEWS).all()


def test_fluency_filter_rejects_the_declared_share_of_its_reference():
    rng = np.random.default_rng(0)
    scores = {f"line {'word ' * (i % 7)}{i}": s for i, s in enumerate(rng.normal(-5, 1, 400))}

    def score(texts):
        return np.array([scores[text] for text in texts])

    for quantile in (0.0, 0.05, 0.5):
        rejected = fluency_filter(score, list(scores), quantile)(list(scores))
        assert rejected.sum() == pytest.approx(400 * quantile, abs=1)
    assert fluency_filter(score, list(scores))([]).shape == (0,)
    for reference, quantile in (([], 0.1), (["line 0"], 1.0), (["line 0"], -0.1)):
        with pytest.raises(ValueError, match="give lines and a quantile"):
            fluency_filter(score, reference, quantile)


@pytest.fixture(scope="module")
def chats():
    return [message.text for message in load_llm_chats()][:6000]


@pytest.fixture(scope="module")
def model(chats):
    return CrossFittedModel(chats)


def test_no_line_is_scored_by_a_model_that_saw_it(chats):
    """Taking all copies of a line out of the training text does not change its score."""
    line = chats[0]
    rest = [text for text in chats[:600] if normalize_message(text) != normalize_message(line)]
    with_it, without = CrossFittedModel(rest + [line.upper()] * 50), CrossFittedModel(rest)
    assert with_it([line, line.upper()]).tolist() == without([line, line.upper()]).tolist()
    others = [text for text in rest if len(text.split()) > 3]
    assert (with_it(others) != without(others)).any()


def test_gibberish_and_shuffled_words_are_less_fluent(model, chats):
    rng = random.Random(0)
    lines = [text for text in chats if len(text.split()) >= 5]
    shuffled = [" ".join(rng.sample(text.split(), len(text.split()))) for text in lines]
    assert (model(lines) > model(shuffled)).mean() > 0.9
    gibberish = [
        " ".join("".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(6))
        for _ in range(100)
    ]
    is_not_fluent = fluency_filter(model, chats, 0.02)
    assert is_not_fluent(chats).mean() == pytest.approx(0.02, abs=0.001)
    assert is_not_fluent(gibberish).mean() > 0.9
    long_shuffled = [text for text in shuffled if len(text.split()) >= 10]
    assert is_not_fluent(long_shuffled).mean() > 0.2


def test_the_probabilities_of_all_words_add_up_to_about_one():
    """Over the vocabulary and the unknown forms of the training text: a class's share is spread once."""
    texts = [f"see you {word} {word}" for word in wordfreq.top_n_list("en", 300)]
    texts += [f"rare {word}" for word in wordfreq.top_n_list("en", 900)[500:]]
    model = CrossFittedModel(texts)
    words = sorted({word for text in texts for word in normalize_message(text).split()})
    total = np.exp(model(words)).sum()  # a mixture of two models, about half of the words each
    assert 0.8 < total < 1.2


@pytest.mark.parametrize(("texts", "folds"), [(["a b"], 2), (["a b", "c"], 1), ([], 2)])
def test_too_little_to_leave_out_is_refused(texts, folds):
    with pytest.raises(ValueError, match=r"folds is 1|no words to fit"):
        CrossFittedModel(texts, folds)

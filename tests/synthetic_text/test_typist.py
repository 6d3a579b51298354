import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_text.slips import SLIP_MIX, Thumb
from synthetic_text.typist import (
    KEYBOARDS,
    MAX_ERROR_RATE,
    Typist,
    load_layout,
    misspellings,
)

LAYOUTS = sorted(path.stem for path in KEYBOARDS.glob("*.json"))
CHAT = (  # noqa: SIM905 - a sentence reads better than a list
    "i don't know what you want me to do about it but thanks for the message and see you"
    " tomorrow because my friend is definitely coming to the restaurant with his brother"
).split()


def typist(layout="qwerty", error_rate=0.02, sigma_mm=1.773, offset_mm=(0.0, 0.0)):
    return Typist(Thumb(load_layout(layout), sigma_mm, offset_mm), True, error_rate, 0.04, 250.0)


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize(
    ("word", "script"), [("привет", "CYRILLIC"), ("日本", "CJK"), ("سلام", "ARABIC")]
)
def test_a_script_without_keys_is_refused_without_telling_the_text(word, script):
    user = typist()
    with pytest.raises(ValueError, match=f"'qwerty' has no key for a {script} letter") as refusal:
        user.type_words(["hello", word], np.random.default_rng(0))
    assert word not in str(refusal.value)
    assert not user.thumb.layout.can_type(word)
    assert user.thumb.layout.can_type("Zoë's 2nd café... ok? 😂")


def test_users_spread_as_measured_on_chat_text():
    rng = np.random.default_rng(2)
    users = [Typist.sample(load_layout("qwerty"), rng) for _ in range(20_000)]
    rates = np.array([user.error_rate for user in users])
    np.testing.assert_allclose(
        np.percentile(rates, [10, 50, 90]), [0.0014, 0.0064, 0.023], rtol=0.08
    )
    assert rates.max() <= MAX_ERROR_RATE
    sigmas = np.array([user.thumb.sigma_mm for user in users])
    assert sigmas.min() > 1.5
    assert np.corrcoef(np.log(rates), sigmas)[0, 1] > 0.9
    assert np.mean([user.thumb.offset_mm for user in users], axis=0) == pytest.approx(
        [0.3, 0.4], abs=0.02
    )


@pytest.mark.parametrize("error_rate", [0.0064, 0.023])
def test_the_share_of_wrong_characters_is_the_users_rate(error_rate):
    words = CHAT * 1500
    typed = typist(error_rate=error_rate).type_words(words, np.random.default_rng(3))
    edits = sum(edit_distance(a, b) for a, b in zip(words, typed, strict=True) if a != b)
    measured = edits / (sum(map(len, words)) + len(words))
    assert measured == pytest.approx(error_rate, rel=0.08)


def test_errors_come_in_the_measured_mix():
    words = ["plankton"] * 200_000  # no codespell entry is needed: what is no misspelling is a slip
    typed = typist(error_rate=0.01).type_words(words, np.random.default_rng(4))
    wrong = [form for form in typed if form != "plankton" and " " not in form]
    kinds = {
        "case": [form for form in wrong if form.lower() == "plankton"],
        "transposition": [
            form for form in wrong if form != "Plankton" and sorted(form) == sorted("plankton")
        ],
        "omission": [form for form in wrong if len(form) == 7],
        "insertion": [form for form in wrong if len(form) == 9],
    }
    kinds["substitution"] = [
        form
        for form in wrong
        if len(form) == 8 and form not in kinds["case"] + kinds["transposition"]
    ]
    mix = SLIP_MIX | {"substitution": SLIP_MIX["adjacent"] + SLIP_MIX["distant"]}
    slips = sum(SLIP_MIX.values()) - SLIP_MIX["blank"]  # words stay apart
    for kind in kinds:
        # Two errors in one word (one word in 26 hit) are counted as the first kind they resemble.
        assert len(kinds[kind]) / len(wrong) == pytest.approx(mix[kind] / slips, rel=0.12), kind

    layout = load_layout("qwerty")
    swaps = [
        (intended, made)
        for form in kinds["substitution"]
        for intended, made in zip("plankton", form, strict=True)
        if intended != made
    ]
    near = sum(layout.adjacent[layout.key_index(a), layout.key_index(b)] for a, b in swaps)
    assert near / len(swaps) == pytest.approx(SLIP_MIX["adjacent"] / mix["substitution"], rel=0.08)


def test_substitutions_follow_the_layout():
    near = {}
    for name in ("qwerty", "azerty"):
        words = ["aaaaaaaa"] * 20_000
        typed = typist(name, sigma_mm=1.6).type_words(words, np.random.default_rng(5))
        made = [c for form in typed if len(form) == 8 for c in form.lower() if c != "a"]
        near[name] = max(set(made), key=made.count)
    assert near == {"qwerty": "s", "azerty": "z"}


def test_misspellings_are_weighted_by_how_often_they_are_met():
    forms, cumulative = misspellings()["definitely"]
    weights = dict(zip(forms, np.diff([0.0, *cumulative]), strict=True))
    assert max(weights, key=weights.get) == "definately"
    typed = typist(error_rate=0.1).type_words(["Definitely"] * 3000, np.random.default_rng(6))
    assert typed.count("Definately") > 10
    assert not any(
        wrong in ("goin", "im", "dont") for forms, _ in misspellings().values() for wrong in forms
    )


def test_typing_is_decided_by_the_generator_alone():
    user = typist()
    first = user.type_words(CHAT * 50, np.random.default_rng(8))
    assert typist().type_words(CHAT * 50, np.random.default_rng(8)) == first
    assert user.type_words(CHAT * 50, np.random.default_rng(9)) != first
    a, b = (Typist.sample(user.thumb.layout, np.random.default_rng(1)) for _ in range(2))
    assert (a.error_rate, a.interval_ms, a.thumb.offset_mm) == (
        b.error_rate,
        b.interval_ms,
        b.thumb.offset_mm,
    )


LETTERS = st.text(alphabet="abcXYZéßü'’1.😂 ", min_size=1, max_size=8)


@settings(deadline=None)
@given(st.lists(LETTERS, max_size=30), st.sampled_from(LAYOUTS), st.integers(0, 2**32))
def test_every_word_gets_one_form_and_none_vanishes(words, name, seed):
    typed = typist(name, error_rate=0.15).type_words(words, np.random.default_rng(seed))
    assert len(typed) == len(words)
    assert all(typed)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=6), max_size=10), st.integers(0, 2**32))
def test_any_unicode_is_typed_or_refused(words, seed):
    user = typist(error_rate=0.15)
    if all(map(user.thumb.layout.can_type, words)):
        assert len(user.type_words(words, np.random.default_rng(seed))) == len(words)
    else:
        with pytest.raises(ValueError, match="has no key"):
            user.type_words(words, np.random.default_rng(seed))


def test_words_without_keys_stay():
    words = ["...", "10:30", "😂😂", "?!"] * 500
    assert typist(error_rate=0.15).type_words(words, np.random.default_rng(0)) == words

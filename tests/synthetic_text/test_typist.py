import json
from math import erf, hypot, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_text.typist import (
    ADJACENT_SHARE,
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
    return Typist(load_layout(layout), error_rate, sigma_mm, offset_mm)


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_hold_the_latin_alphabet_at_their_places(name):
    layout = load_layout(name)
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(layout.keys)
    assert {layout.keys[layout.key_index(c)] for c in "éÀñç"} <= set("eanc")
    table = json.loads((KEYBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    assert table["name"] == name
    assert "".join(row["keys"] for row in table["rows"]) == layout.keys


def test_layouts_differ_where_people_expect_it():
    neighbours = {
        name: {
            c
            for c in layout.keys
            if layout.are_adjacent(layout.key_index("a"), layout.key_index(c))
        }
        for name in LAYOUTS
        for layout in [load_layout(name)]
    }
    assert neighbours["qwerty"] == set("qwsz")
    assert neighbours["azerty"] == set("zqs")
    assert "y" not in neighbours["qwerty"]
    assert load_layout("qwertz").key_index("ü") != load_layout("qwertz").key_index("u")


def test_unknown_layouts_are_refused_by_name():
    with pytest.raises(ValueError, match="'colemak' is unknown; known are azerty, qwerty, qwertz"):
        load_layout("colemak")
    with pytest.raises(ValueError, match="unknown"):
        load_layout("../keyboards/qwerty")


@pytest.mark.parametrize(
    ("word", "script"), [("привет", "CYRILLIC"), ("日本", "CJK"), ("سلام", "ARABIC")]
)
def test_a_script_without_keys_is_refused_without_telling_the_text(word, script):
    user = typist()
    with pytest.raises(ValueError, match=f"'qwerty' has no key for a {script} letter") as refusal:
        user.type_words(["hello", word], np.random.default_rng(0))
    assert word not in str(refusal.value)
    assert not user.layout.can_type(word)
    assert user.layout.can_type("Zoë's 2nd café... ok? 😂")


@given(st.lists(st.tuples(st.floats(-20, 90), st.floats(-20, 40)), min_size=1, max_size=20))
def test_nearest_key_is_found_by_brute_force(points):
    layout = load_layout("qwerty")
    for point, found in zip(points, layout.nearest_key(np.array(points)), strict=True):
        distances = [hypot(point[0] - x, point[1] - y) for x, y in layout.centres_mm]
        assert distances[found] == pytest.approx(min(distances))


@pytest.mark.parametrize("name", LAYOUTS)
def test_touch_probabilities_match_sampled_touches(name):
    user = typist(name, sigma_mm=2.0, offset_mm=(0.8, -0.4))
    rng = np.random.default_rng(1)
    touches = 20_000
    for key in range(0, len(user.layout.keys), 5):
        aim = user.layout.centres_mm[key] + user.offset_mm
        hits = user.layout.nearest_key(rng.normal(aim, user.sigma_mm, (touches, 2)))
        sampled = np.bincount(hits, minlength=len(user.layout.keys)) / touches
        np.testing.assert_allclose(
            user.touch_probabilities[key], sampled, atol=4 * sqrt(0.25 / touches)
        )
    np.testing.assert_allclose(user.touch_probabilities.sum(axis=1), 1.0)


def test_the_median_thumb_misses_as_often_as_published():
    # A lateral miss rate of 8 % needs sigma = 0.286 key widths (DESIGN.md, Typing facts).
    user = typist(sigma_mm=hypot(1.5, 0.945))
    assert user.sigma_mm / user.layout.key_size_mm[0] == pytest.approx(0.286, abs=0.001)
    assert 1 - erf(0.5 / 0.286 / sqrt(2)) == pytest.approx(0.08, abs=0.001)
    key = user.layout.key_index("g")
    beside = [user.layout.key_index(c) for c in "asdfhjkl"]
    assert user.touch_probabilities[key][beside].sum() == pytest.approx(0.08, abs=0.006)


def test_users_spread_as_measured_on_chat_text():
    rng = np.random.default_rng(2)
    users = [Typist.sample(load_layout("qwerty"), rng) for _ in range(20_000)]
    rates = np.array([user.error_rate for user in users])
    np.testing.assert_allclose(
        np.percentile(rates, [10, 50, 90]), [0.0014, 0.0064, 0.023], rtol=0.08
    )
    assert rates.max() <= MAX_ERROR_RATE
    sigmas = np.array([user.sigma_mm for user in users])
    assert sigmas.min() > 1.5
    assert np.corrcoef(np.log(rates), sigmas)[0, 1] > 0.9
    assert np.mean([user.offset_mm for user in users], axis=0) == pytest.approx(
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
    words = ["plankton"] * 60_000  # no codespell entry is needed: what is no misspelling is a slip
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
    for kind, share in {
        "substitution": 45,
        "omission": 27,
        "insertion": 7,
        "transposition": 7,
        "case": 11,
    }.items():
        # Two errors in one word (one word in 26 hit) are counted as the first kind they resemble.
        assert len(kinds[kind]) / len(wrong) == pytest.approx(share / 97, rel=0.12), kind

    layout = load_layout("qwerty")
    swaps = [
        (intended, made)
        for form in kinds["substitution"]
        for intended, made in zip("plankton", form, strict=True)
        if intended != made
    ]
    near = sum(layout.are_adjacent(layout.key_index(a), layout.key_index(b)) for a, b in swaps)
    assert near / len(swaps) == pytest.approx(ADJACENT_SHARE, rel=0.08)


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
    assert Typist.sample(user.layout, np.random.default_rng(1)) == Typist.sample(
        user.layout, np.random.default_rng(1)
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
    if all(map(user.layout.can_type, words)):
        assert len(user.type_words(words, np.random.default_rng(seed))) == len(words)
    else:
        with pytest.raises(ValueError, match="has no key"):
            user.type_words(words, np.random.default_rng(seed))


def test_words_without_keys_stay():
    words = ["...", "10:30", "😂😂", "?!"] * 500
    assert typist(error_rate=0.15).type_words(words, np.random.default_rng(0)) == words

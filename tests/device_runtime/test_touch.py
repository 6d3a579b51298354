"""Likelihoods recomputed alignment by alignment, from the normal density."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import touch
from device_runtime.layouts import Layout, load_layout
from device_runtime.touch import OFFSET_MM, SIGMA_MM, Touches, WordTouches

WORDS = ["i", "it", "is", "to", "tot", "too", "toto", "tomato", "i'm", "im", "don't", "dont"]
WORDS += ["café", "was", "saw", "swa", "a", "as", "ass", "qu'il", "2nd", "o'clock"]
LETTERS = st.text("aiostwm'éx2", min_size=1, max_size=6)
PLACES = st.tuples(st.floats(-5, 60), st.floats(-5, 30))


@pytest.fixture(scope="module", params=["qwerty", "azerty"])
def listed(request: pytest.FixtureRequest) -> WordTouches:
    return WordTouches(WORDS, load_layout(request.param))


@cache
def falls_to(layout: Layout) -> np.ndarray:
    return layout.touch_probabilities(SIGMA_MM, OFFSET_MM)


def key_shares(layout: Layout, character: str, place: tuple[float, float] | None) -> list[float]:
    """How likely the typed character is for each key aimed at; they sum to one."""
    if place is None:
        aimed = falls_to(layout)[:, layout.key_index(character)].tolist()
    else:
        aims = layout.centres_mm + OFFSET_MM
        exponents = [
            -((place[0] - x) ** 2 + (place[1] - y) ** 2) / (2 * SIGMA_MM**2)
            for x, y in aims.tolist()
        ]
        aimed = [math.exp(exponent - max(exponents)) for exponent in exponents]
    return [0.991 * share / sum(aimed) + 0.009 / len(aimed) for share in aimed]


def likelihood(layout: Layout, typed: str, word: str, places: Touches | None, whole: bool) -> float:
    """P(typed | word), or given that the word only begins so, of the best way to get there."""

    def meant(i: int, symbol: str) -> float:
        key = layout.key_index(symbol)
        if layout.key_index(typed[i]) < 0:
            return float(symbol == typed[i])
        place = places[i] if places else None
        return 0.0 if key < 0 else key_shares(layout, typed[i], place)[key]

    def extra(i: int, symbol: str) -> float:
        key = layout.key_index(symbol)
        if key < 0 or layout.key_index(typed[i]) < 0:
            return 0.0
        shares = key_shares(layout, typed[i], places[i] if places else None)
        near = np.flatnonzero(layout.adjacent[key]).tolist()
        return 0.0028 * (shares[key] / 2 + sum(shares[other] for other in near) / len(near) / 2)

    def product(pairs: list[tuple[int, str]]) -> float:
        return math.prod(meant(i, symbol) for i, symbol in pairs)

    def fits(used: int) -> bool:
        return used == len(word) if whole else used <= len(word)

    n, found = len(typed), [0.0]
    if fits(n):
        found.append(product(list(enumerate(word[:n]))))
        for i in range(n - 1):
            swapped = [*word[:i], word[i + 1], word[i], *word[i + 2 : n]]
            found.append(0.0028 * product(list(enumerate(swapped))))
    if fits(n + 1):
        for left_out in range(n + 1 if whole else n):
            share = 0.25 if word[left_out] == "'" else 0.011
            rest = word[:left_out] + word[left_out + 1 :]
            found.append(share * product(list(enumerate(rest[:n]))))
    if fits(n - 1):
        for added in range(1, n):
            pairs = [(i, word[i if i < added else i - 1]) for i in range(n) if i != added]
            found.append(extra(added, word[added - 1]) * product(pairs))
    return max(found)


@pytest.mark.parametrize("whole", [True, False])
@settings(deadline=None, max_examples=60)
@given(typed=LETTERS, places=st.lists(st.none() | PLACES, min_size=6, max_size=6) | st.none())
def test_likelihoods_are_those_of_the_best_alignment(
    listed: WordTouches, whole: bool, typed: str, places: Touches | None
) -> None:
    places = places and places[: len(typed)]
    layout = listed._layout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(touch, "_HOPELESS", math.inf)
        method = listed.whole if whole else listed.beginning
        ids, log_likelihoods = method(typed, places)
    found = dict(zip([listed.words[i] for i in ids.tolist()], log_likelihoods, strict=True))
    for word in WORDS:
        expected = likelihood(layout, typed, word, places, whole)
        if expected > 0:
            assert found[word] == pytest.approx(math.log(expected), abs=1e-3)
        else:
            assert found.get(word, -math.inf) < -1000
    if typed in found:
        assert found[typed] >= listed.as_typed(typed, places) - 1e-3


@pytest.mark.parametrize("whole", [True, False])
def test_hopeless_words_are_left_out_and_the_others_stay_the_same(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    words = sorted({"".join(random.choice(list("etaoinsr"), n)) for n in [3, 4, 5, 6] * 300})
    listed = WordTouches(words, load_layout("qwerty"))
    method: Callable = listed.whole if whole else listed.beginning
    for typed in words[::97]:
        some, likelihoods = method(typed)
        with monkeypatch.context() as patch:
            patch.setattr(touch, "_HOPELESS", math.inf)
            every, expected = method(typed)
        assert len(some) < len(every)
        at = np.searchsorted(every, some)
        assert (every[at] == some).all() and (expected[at] == likelihoods).all()
        left_out = np.delete(expected, at)
        assert left_out.max() < expected.max() - 7  # one distant key, or two edits


def test_the_word_spelt_as_typed_is_as_likely_as_itself(listed: WordTouches) -> None:
    random = np.random.default_rng(2)
    for word in WORDS:
        places = [tuple(point) for point in random.uniform(0, 30, (len(word), 2)).tolist()]
        for where in (None, places):
            expected = math.log(
                math.prod(
                    key_shares(listed._layout, c, where[i] if where else None)[
                        listed._layout.key_index(c)
                    ]
                    for i, c in enumerate(word)
                    if listed._layout.key_index(c) >= 0
                )
                if any(map(str.isalpha, word))
                else 1
            )
            assert listed.as_typed(word, where) == pytest.approx(expected, abs=1e-6)


def test_a_touch_between_two_keys_speaks_for_both() -> None:
    layout = load_layout("qwerty")
    listed = WordTouches(["on", "in", "an"], layout)
    i, o = (layout.centres_mm[layout.key_index(c)] + OFFSET_MM for c in "io")
    n = tuple((layout.centres_mm[layout.key_index("n")] + OFFSET_MM).tolist())
    between = tuple(((i + o) / 2).tolist())
    _, (an, on_i, on_o) = listed.whole("on", [between, n])
    assert on_i == pytest.approx(on_o, abs=1e-5) and an < on_o - 5
    _, (_, far_i, sure_o) = listed.whole("on", [tuple(o.tolist()), n])
    assert sure_o > far_i + 5
    _, letters = listed.whole("on")
    _, unknown = listed.whole("on", [(math.nan, 0.0), None])
    assert (letters == unknown).all()


def test_a_touch_anywhere_is_no_error() -> None:
    listed = WordTouches(WORDS, load_layout("qwerty"))
    for place in ((1e9, -1e9), (math.inf, 0.0), (1e300, 1e300)):
        for method in (listed.whole, listed.beginning):
            _, found = method("to", [place, None])
            assert np.isfinite(found).all()


def test_no_words() -> None:
    listed = WordTouches([], load_layout("qwerty"))
    for method in (listed.whole, listed.beginning):
        for typed in ("a", "typed"):
            ids, found = method(typed)
            assert len(ids) == len(found) == 0

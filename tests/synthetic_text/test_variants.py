"""Variants come at the rate they are given, and nothing else changes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_text.llm_chats import load_llm_chats
from synthetic_text.variants import calibrate_variants, list_variant_rates

PAIR = {("you", "u"): 0.25}


def share(texts: list[str], plain: str, variant: str) -> float:
    words = [word.lower() for text in texts for word in re.findall(r"[\w']+", text)]
    return words.count(variant) / (words.count(variant) + words.count(plain))


@pytest.mark.parametrize("before", [0.0, 0.1, 0.6, 1.0])
def test_a_variant_comes_at_its_rate_whatever_it_was(before: float) -> None:
    texts = [("see u" if i < before * 20_000 else "see you") + f" {i}" for i in range(20_000)]
    after = calibrate_variants(texts, PAIR, seed=1)
    assert share(after, "you", "u") == pytest.approx(0.25, abs=0.015)  # 4 standard deviations
    assert [re.sub(r"\bu\b", "you", text) for text in after] == [
        re.sub(r"\bu\b", "you", text) for text in texts
    ]


@given(st.lists(st.text("uyo m'I", max_size=20)), st.floats(0, 1), st.integers(0, 9))
@settings(deadline=None)
def test_nothing_but_the_pair_changes_and_a_text_keeps_one_habit(texts, rate, seed) -> None:
    def spell(text: str, form: str) -> str:
        return re.sub(r"(?<![\w'])(?:you|u)(?![\w'])", form, text, flags=re.I)

    for old, new in zip(texts, calibrate_variants(texts, {("you", "u"): rate}, seed), strict=True):
        assert spell(old, "you") == spell(new, "you")
        before, after = (re.findall(r"(?<![\w'])(?:you|u)(?![\w'])", t, re.I) for t in (old, new))
        if old != new and len({form.lower() for form in before}) == 1:
            assert len({form.lower() for form in after}) == 1


def test_casing_follows_the_form_that_was_there() -> None:
    assert calibrate_variants(["Im ok, im here"], {("i'm", "im"): 0}, 1) == ["I'm ok, i'm here"]
    assert calibrate_variants(["I’m ok"], {("i'm", "im"): 1}, 1) == ["Im ok"]


def test_words_that_only_hold_a_variant_stay() -> None:
    texts = ["u2 and hmu, u're u_u", "don'tcha im-port"]
    assert calibrate_variants(texts[:1], {("you", "u"): 0}, 1) == texts[:1]


def test_the_committed_chats_come_out_at_the_published_rates() -> None:
    texts = [message.text for message in load_llm_chats()]
    after = calibrate_variants(texts, list_variant_rates(), seed=1)
    for (plain, variant), published in (
        (("i'm", "im"), 2764 / 13863),
        (("don't", "dont"), 2499 / 10072),
        (("that's", "thats"), 3552 / 11316),
    ):
        assert share(after, plain, variant) == pytest.approx(published, rel=0.15)
    assert share(texts, "you", "u") > 0.05 and share(after, "you", "u") < 0.01


def test_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5 is outside 0 to 1"):
        calibrate_variants([], {("you", "u"): 1.5}, 1)

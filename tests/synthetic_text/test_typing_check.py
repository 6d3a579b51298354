from dataclasses import replace

import numpy as np
import pytest

from synthetic_text import conversion, keystrokes, slips, typing_check, typist
from synthetic_text.typing_check import Check, check_typing, write_neutral_messages


@pytest.fixture(scope="module")
def checks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typing_check, "_USERS", 1200)
        return check_typing(seed=3)


@pytest.fixture
def few_users(monkeypatch):
    monkeypatch.setattr(typing_check, "_USERS", 200)
    monkeypatch.setattr(typing_check, "_CONVERTED_MESSAGES", 200)


def measure():
    return {check.name: check for check in check_typing(seed=4)}


def test_every_published_fact_is_met(checks):
    assert [check for check in checks if not check.within] == []
    assert len({check.name for check in checks}) == len(checks) == 21


def test_within_is_ten_per_cent_of_the_published_figure():
    assert Check("", 0.5, 0.549).within
    assert Check("", 0.5, 0.451).within
    assert not Check("", 0.5, 0.551).within
    assert not Check("", 0.5, 0.449).within


@pytest.mark.parametrize(
    ("module", "parameter", "value", "failing"),
    [
        (typist, "MEDIAN_KEY_ERROR_RATE", 0.05, "first-typed key errors, p50 of users"),
        (typist, "KEY_LOG_SPREAD_BELOW", 1.2, "first-typed key errors, p10 of users"),
        (typist, "MEDIAN_INTERVAL_MS", 350.0, "words a minute, mean of users"),
        (typist, "INTERVAL_LOG_SPREAD", 0.2, "words a minute, SD over users"),
        (keystrokes, "AUTOCORRECTED", 0.5, "words autocorrected"),
        (keystrokes, "NOTICED_AFTER_WORD", 0.6, "characters left wrong"),
        (keystrokes, "REWRITTEN", 0.05, "backspaces per key"),
        (slips, "SLIP_MIX", {"adjacent": 40.0}, "adjacent keys among substitutions"),
        (slips, "SLIP_MIX", {"case": 25.0}, "case slips among errors"),
        (slips, "SLIP_MIX", {"blank": 8.0}, "blanks among omissions"),
        (slips, "SLIP_MIX", {"insertion": 8.0}, "insertions among errors"),
    ],
)
def test_a_wrong_parameter_is_found_out(few_users, monkeypatch, module, parameter, value, failing):
    if isinstance(value, dict):
        value = getattr(module, parameter) | value
    monkeypatch.setattr(module, parameter, value)
    assert not measure()[failing].within


def test_wrong_conversion_rates_are_found_out(monkeypatch):
    monkeypatch.setattr(typing_check, "_CONVERTED_MESSAGES", 2000)
    register = replace(
        conversion.PHONE,
        lower_case_start=0.5,
        no_end_punctuation=0.3,
        apostrophe_drops=conversion.PHONE.apostrophe_drops | {"i'm": {"im": 0.5}},
    )
    monkeypatch.setattr(conversion, "PHONE", register)
    checks = {check.name: check for check in typing_check._check_conversion(seed=4)}
    for name in (
        "messages with a small start",
        "messages without end punctuation",
        "im among I'm",
    ):
        assert not checks[name].within


def test_neutral_messages_hold_words_as_often_as_english_does():
    from wordfreq import word_frequency

    messages = write_neutral_messages(20_000, np.random.default_rng(5))
    words = [word for text in messages for word in text.rstrip(".").lower().split()]
    for word in ("the", "you", "because"):
        assert words.count(word) / len(words) == pytest.approx(word_frequency(word, "en"), rel=0.35)
    assert all(text[0].isupper() and text.endswith(".") for text in messages)

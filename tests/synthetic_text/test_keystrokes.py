import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.layouts import KEYBOARDS, load_layout
from synthetic_text import keystrokes
from synthetic_text.autocorrect import load_autocorrect
from synthetic_text.keystrokes import BACKSPACE, type_corpus, type_messages
from synthetic_text.slips import Thumb
from synthetic_text.typist import Typist

LAYOUTS = sorted(path.stem for path in KEYBOARDS.glob("*.json"))
CHAT = [
    "Definitely see you tomorrow, ok?",
    "i don't know what you want me to do about it",
    "  my friend is  coming with his brother ",
    "",
    "😂😂 café at 10:30!",
]


def typist(layout="qwerty", key_error_rate=0.04, two_thumbs=True, interval_ms=250.0):
    thumb = Thumb(load_layout(layout), 1.8, (0.3, 0.4))
    return Typist(thumb, two_thumbs, 0.01, key_error_rate, interval_ms)


def replay(log, count):
    """What stands in each message after every keystroke and replacement, one character at a time."""
    texts = [""] * count
    replacements = list(log.replacements)

    def replace(keystroke):
        while replacements and replacements[0].keystroke == keystroke:
            change = replacements.pop(0)
            message = log.messages[keystroke - 1]
            assert len(texts[message]) >= change.removed
            texts[message] = texts[message][: -change.removed] + change.inserted

    for i, (message, key) in enumerate(zip(log.messages.tolist(), log.keys.tolist(), strict=True)):
        replace(i)
        if key == BACKSPACE:
            assert texts[message]
            texts[message] = texts[message][:-1]
        else:
            texts[message] += key
    replace(len(log.keys))
    assert not replacements
    return texts


TEXTS = st.text(alphabet="abctheXY é'’1.,😂 ", max_size=30)


@settings(deadline=None)
@given(st.lists(TEXTS | st.sampled_from(CHAT), max_size=12), st.integers(0, 2**32))
def test_the_log_replayed_is_the_text_that_was_sent(messages, seed):
    typing = type_messages(
        typist(key_error_rate=0.12), messages, np.random.default_rng(seed), log=True
    )
    assert typing.intended == messages
    assert replay(typing.log, len(messages)) == typing.typed


@pytest.mark.parametrize("name", LAYOUTS)
def test_long_logs_replay_too(name):
    messages = CHAT * 200
    typing = type_messages(typist(name, 0.08), messages, np.random.default_rng(1), log=True)
    assert replay(typing.log, len(messages)) == typing.typed
    assert len(typing.log.replacements) > 100
    assert (typing.log.keys == BACKSPACE).sum() > 500


def test_without_corrections_what_is_first_typed_is_sent(monkeypatch):
    for habit in ("NOTICED_IN_WORD", "AUTOCORRECTED", "NOTICED_AFTER_WORD", "REWRITTEN"):
        monkeypatch.setattr(keystrokes, habit, 0.0)
    typing = type_messages(typist(), CHAT * 50, np.random.default_rng(2), log=True)
    assert typing.typed == typing.first_typed != typing.intended
    assert BACKSPACE not in typing.log.keys


def test_who_notices_every_wrong_word_sends_what_was_meant(monkeypatch):
    monkeypatch.setattr(keystrokes, "NOTICED_AFTER_WORD", 1.0)
    monkeypatch.setattr("synthetic_text.typist.MISSPELLING_SHARE", 0.0)  # those are meant
    typing = type_messages(typist(key_error_rate=0.1), CHAT * 50, np.random.default_rng(3))
    assert typing.typed == typing.intended != typing.first_typed


def test_the_log_changes_no_text():
    texts = [
        type_messages(typist(), CHAT * 20, np.random.default_rng(4), log=log)
        for log in (False, True)
    ]
    assert texts[0].log is None
    assert (texts[0].typed, texts[0].first_typed) == (texts[1].typed, texts[1].first_typed)


def test_times_start_at_zero_rise_and_have_the_users_mean():
    messages = ["what about the other one then"] * 400
    log = type_messages(typist(), messages, np.random.default_rng(5), log=True).log
    first = np.flatnonzero(np.diff(log.messages, prepend=-1))
    assert len(first) == len(messages)
    assert (log.times_ms[first] == 0).all()
    gaps = np.diff(log.times_ms)[np.diff(log.messages) == 0]
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(250, rel=0.2)
    slow = type_messages(
        typist(interval_ms=500.0), messages, np.random.default_rng(5), log=True
    ).log
    np.testing.assert_allclose(slow.times_ms, 2 * log.times_ms, atol=1)
    one_finger = type_messages(
        typist(two_thumbs=False), messages, np.random.default_rng(5), log=True
    ).log
    assert one_finger.times_ms.sum() > log.times_ms.sum()


def test_touches_lie_where_the_thumb_aims():
    user = typist()
    layout = user.thumb.layout
    log = type_messages(user, CHAT * 400, np.random.default_rng(6), log=True).log
    letters = ~np.isnan(log.touches_mm[:, 0])
    keys = np.array([layout.key_index(key) for key in log.keys])
    assert (letters == (keys >= 0)).all()
    offsets = log.touches_mm[letters] - layout.centres_mm[keys[letters]]
    np.testing.assert_allclose(offsets.mean(axis=0), user.thumb.offset_mm, atol=0.1)
    # The decoder lets few of the touches that fall on another key through.
    missed = (layout.nearest_key(log.touches_mm[letters]) != keys[letters]).mean()
    expected = 1 - user.thumb.touch_probabilities[keys[letters], keys[letters]].mean()
    assert expected - 0.02 < missed < expected
    assert missed > 0.05


def test_a_corpus_is_typed_by_one_user_after_the_other():
    layout = load_layout("qwerty")
    typings = list(type_corpus(CHAT * 10, layout, seed=7, messages_a_typist=20))
    assert [text for typing in typings for text in typing.intended] == CHAT * 10
    rng = np.random.default_rng((7, 1))
    second = type_messages(Typist.sample(layout, rng), (CHAT * 10)[20:40], rng)
    assert typings[1].typed == second.typed


def test_a_script_without_keys_is_refused():
    with pytest.raises(ValueError, match="'qwerty' has no key for a GREEK letter"):
        type_messages(typist(), ["ok", "ναι"], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("teh", "the"),
        ("Teh,", "The,"),
        ("HWLLO!", "HELLO!"),
        ("tomorow", "tomorrow"),
        ("definately", "definitely"),
        ("lol", "lol"),
        ("dont", "dont"),
        ("10:30", "10:30"),
        ("xqzxqz", "xqzxqz"),
    ],
)
def test_autocorrect_replaces_what_is_no_word(form, shown):
    assert load_autocorrect(load_layout("qwerty")).correct(form) == shown


def test_autocorrect_asks_the_layout_which_letters_are_close():
    # d stands beside s on QWERTY and beside t's neighbour h on Dvorak.
    near = {
        name: load_autocorrect(load_layout(name)).correct("rhat") for name in ("qwerty", "dvorak")
    }
    assert near["qwerty"] == "that"
    assert near["dvorak"] in ("that", "chat")


@given(st.text(alphabet="thequickz", min_size=2, max_size=6))
def test_autocorrect_finds_the_likeliest_word_by_brute_force(form):
    autocorrect = load_autocorrect(load_layout("qwerty"))
    found = autocorrect.correct(form)
    words = autocorrect._frequencies
    letters = "abcdefghijklmnopqrstuvwxyz'"
    if form in words:
        assert found == form
        return
    longer = {form[:i] + c + form[i:] for i in range(len(form) + 1) for c in letters}
    shorter = {form[:i] + form[i + 1 :] for i in range(len(form))}
    changed = {form[:i] + c + form[i + 1 :] for i in range(len(form)) for c in letters}
    swapped = {
        form[:i] + form[i + 1] + form[i] + form[i + 2 :]
        for i in range(len(form) - 1)
        if form[i] != form[i + 1]
    }
    candidates = {word for word in longer | shorter | changed | swapped if word in words}
    assert (found in candidates) if candidates else (found == form)
    best = max((words[w] for w in longer | shorter if w in words), default=0.0)
    assert words.get(found, 0.0) >= best / 2

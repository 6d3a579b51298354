import numpy as np
import pytest

from device_runtime import session as sessions
from device_runtime.decoder import DecoderState
from device_runtime.keyboard import Keyboard
from device_runtime.session import Session
from device_runtime.words import is_emoji, is_mark, is_word, split_words


def after(keyboard: Keyboard, *texts: str) -> Session:
    session = keyboard.session()
    for text in texts:
        session.commit(text)
    return session


def state_of(session: Session) -> DecoderState:
    state = session._trail.read()
    assert state is not None
    return state


def equal(one: Session, other: Session) -> bool:
    a, b = state_of(one), state_of(other)
    same = [np.array_equal(getattr(a, n), getattr(b, n)) for n in ("h", "c", "log_probs")]
    return all(same) and one._starts_sentence == other._starts_sentence


def texts(session: Session, prefix: str = "", count: int = 40) -> list[str]:
    return [s.text for s in session.suggest(prefix, count)]


@pytest.mark.parametrize(
    "context",
    [
        "",
        "we saw",
        "we saw the dog. tom",
        "we saw the dog. tom missed it 😂",
        "they saw",
        "we saw.",
    ],
)
def test_a_new_context_equals_a_fresh_message(keyboard: Keyboard, context: str) -> None:
    session = after(keyboard, "we saw the dog. tom missed", "tomorrow's dinner")
    session.set_context(context)
    assert equal(session, after(keyboard, context))
    session.commit("lol")
    assert equal(session, after(keyboard, context, "lol"))


@pytest.mark.parametrize(
    ("filler", "recognised"),
    [
        ("we saw Tom. ", True),
        ("ΑΣ a😂b ", True),
        ("x. a\u0301 ", False),
    ],  # no blank between letters
)
def test_long_texts_are_recognised(
    keyboard: Keyboard, filler: str, recognised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    split: list[int] = []

    def counted(text: str) -> list[str]:
        split.append(len(text))
        return split_words(text)

    monkeypatch.setattr(sessions, "split_words", counted)
    session = keyboard.session()
    text = filler * (6000 // len(filler))
    for edit in ("", " lol", " lol.", None, " again", " we", None, None, " found it"):
        text = text[: len(text) * 2 // 3].rstrip() if edit is None else text + edit
        split.clear()
        session.set_context(text)
        assert not recognised or edit in ("", None) or sum(split) < 2500
        assert equal(session, after(keyboard, text))
    changed = "you" + text[3:]
    session.set_context(changed)
    assert equal(session, after(keyboard, changed))


def test_suggesting_does_not_change_the_message(keyboard: Keyboard) -> None:
    session = after(keyboard, "We saw")
    first = session.suggest(count=5)
    session.suggest("t")
    session.autocorrect("tme")
    assert session.suggest(count=5) == first and equal(session, after(keyboard, "we saw"))


def test_reset_starts_a_new_message(keyboard: Keyboard) -> None:
    session = after(keyboard, "we saw the dog.")
    session.reset()
    assert equal(session, keyboard.session())


def test_next_words_are_the_models(keyboard: Keyboard) -> None:
    session = after(keyboard, "we saw")
    log_probs = state_of(session).log_probs
    tokenizer = keyboard.tokenizer
    for shown in session.suggest(count=30):
        [pieces] = tokenizer.encode_each_word([shown.text.lower()])
        if len(pieces) == 1:  # its other segmentations may add to it
            assert shown.log_prob >= log_probs[pieces[0]] - 1e-6


def test_words_are_shown_as_they_are_written(keyboard: Keyboard) -> None:
    assert "Tom" in texts(after(keyboard, "we saw"), "to")
    assert "tom" not in texts(after(keyboard, "we saw"), "to")
    assert texts(after(keyboard, "we saw"), "tomorro", 1) == ["tomorrow"]
    assert texts(after(keyboard, "we saw"), "monda", 1) == ["Monday"]
    assert "I" in texts(after(keyboard, "we saw"), "i")


@pytest.mark.parametrize(
    ("typed", "shown"), [("Dinn", "Dinner"), ("DINN", "DINNER"), ("dinn", "dinner"), ("D", "D")]
)
def test_capitals_that_were_typed_are_kept(keyboard: Keyboard, typed: str, shown: str) -> None:
    found = texts(after(keyboard, "we saw"), typed, 3)
    assert found[0] == shown if len(typed) > 1 else all(t[0].isupper() for t in found)


@pytest.mark.parametrize("text", ["", "we saw it.", "what?!", "no ..."])
def test_sentence_starts_with_a_capital(keyboard: Keyboard, text: str) -> None:
    shown = texts(after(keyboard, text), "d", 10)
    assert len(shown) == 10 and all(s[0].isupper() for s in shown)


@pytest.mark.parametrize("text", ["we", "we saw it,", "lol 😂"])
def test_middle_of_a_sentence_does_not(keyboard: Keyboard, text: str) -> None:
    shown = texts(after(keyboard, text), "d", 10)
    names = {"Tom", "Monday", "I"}
    assert len(shown) == 10 and all(s[0].islower() for s in set(shown) - names)


def test_blocked_words_are_never_suggested(keyboard: Keyboard) -> None:
    session = after(keyboard, "we saw the")
    for prefix in ("", "d", "do", "dog", "DOG", "dogg", "forgo"):
        assert not {"dog", "forgot"} & {t.lower() for t in texts(session, prefix, 50)}
    assert session.autocorrect("dogg") != "dog" and session.autocorrect("dog") == "dog"


def test_emoji_are_suggested(keyboard: Keyboard) -> None:
    found = keyboard.session().suggest(count=25)
    assert any(is_emoji(s.text) for s in found)
    assert all(is_word(s.text) or is_emoji(s.text) for s in found)


@pytest.mark.parametrize(
    ("above_the_best_word", "shown"), [(-1.0, False), (1.3, False), (1.5, True)]
)
def test_marks_are_suggested_first_where_they_are_clearly_likelier_than_any_word(
    keyboard: Keyboard, above_the_best_word: float, shown: bool
) -> None:
    session = keyboard.session()
    state = state_of(session)
    turn = keyboard.pacer.begin()
    words = keyboard.search.next_words(state, 4)
    tokenizer = keyboard.tokenizer
    [[full_stop]] = tokenizer.encode_each_word(["."])
    log_probs = state.log_probs.copy()
    log_probs[[i for i, text in enumerate(tokenizer.surfaces) if is_mark(text)]] = -20
    log_probs[full_stop] = words[0][1] + above_the_best_word
    found = session._next_words(DecoderState(state.h, state.c, log_probs), None, 4, turn)
    assert [text for text, _ in found] == (["."] if shown else []) + [w for w, _ in words][
        : 4 - shown
    ]


def test_a_mistyped_word_is_completed_and_corrected(keyboard: Keyboard) -> None:
    session = after(keyboard, "tom found")
    assert "tomorrow's" in texts(session, "tomprr", 3)
    # with this tokenizer a longer word takes more model steps than a correction may
    assert session.autocorrect("cpffee") == "coffee"
    assert session.autocorrect("Cpffee") == "Coffee"
    assert session.autocorrect("CPFFEE") == "COFFEE"


def test_touches_decide_between_neighbours(keyboard: Keyboard) -> None:
    session = after(keyboard, "tom found")
    layout = keyboard.layout
    width = layout.key_size_mm[0]
    point = {key: tuple(layout.centres_mm[i].tolist()) for i, key in enumerate(layout.keys)}
    between = (point["o"][0] + 0.45 * width, point["o"][1])  # an o that nearly is a p
    touches = [point["t"], between, point["m"]]
    plain, touched = (
        dict((s.text, s.log_prob) for s in session.suggest("tom", 8, t)) for t in (None, touches)
    )
    assert set(plain) & set(touched) and plain != touched


@pytest.mark.parametrize(
    "typed", ["", " ", "...", "10:30", "foo@bar.com", "two words", "😂", "x" * 99]
)
def test_what_is_no_word_is_left_alone(keyboard: Keyboard, typed: str) -> None:
    assert after(keyboard, "we saw").autocorrect(typed) == typed


def test_i_is_written_large(keyboard: Keyboard) -> None:
    session = after(keyboard, "we saw")
    assert session.autocorrect("i") == "I" and session.autocorrect("I") == "I"


def test_arguments_out_of_range_are_refused(keyboard: Keyboard) -> None:
    session = keyboard.session()
    with pytest.raises(ValueError, match="count"):
        session.suggest(count=0)
    for call in (session.suggest, session.autocorrect):
        with pytest.raises(ValueError, match="touches_mm"):
            call("abc", touches_mm=[None])

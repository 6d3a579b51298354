"""Scores recomputed word by word with the model; then what becomes of words that are typed."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.correction import Corrector
from device_runtime.decoder import Decoder, DecoderState
from device_runtime.layouts import load_layout
from device_runtime.lexicon import Lexicon, write_lexicon
from device_runtime.tokenizer import UNK, Tokenizer, is_one_word
from device_runtime.touch import WordTouches
from tests.device_runtime.tiny_model import count_words, export_random_model

LAYOUT = load_layout("qwerty")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(write_lexicon(*count_words()))


@pytest.fixture(scope="module")
def corrector(decoder: Decoder, tokenizer: Tokenizer, lexicon: Lexicon) -> Corrector:
    return Corrector(decoder, tokenizer, lexicon, LAYOUT, {"dog", "forgot"})


@pytest.fixture(scope="module")
def state(decoder: Decoder) -> DecoderState:
    return decoder.step(9, decoder.step(20, decoder.start(1)))


@pytest.fixture(scope="module")
def word_decoder(word_tokenizer: Tokenizer) -> Decoder:
    return Decoder(export_random_model(word_tokenizer.size, 6, 8))


def word_log_prob(decoder: Decoder, tokenizer: Tokenizer, state: DecoderState, word: str) -> float:
    total = 0.0
    for token in tokenizer.encode_words([word]):
        total += float(state.log_probs[token])
        state = decoder.step(token, state)
    return total


def candidates(tokenizer: Tokenizer, lexicon: Lexicon) -> list[str]:
    ends = np.flatnonzero(tokenizer.ends_word & tokenizer.can_suggest).tolist()
    pieces = {tokenizer.surfaces[i] for i in ends}
    alone = {piece for piece in pieces if is_one_word(piece) and any(map(str.isalpha, piece))}
    return sorted(alone.union(lexicon.words))


@pytest.mark.parametrize("typed", ["t", "fo", "cpf", "don'", "tomorr", "dogs", "zzz", "10", "жук"])
def test_complete_ranks_by_the_model_and_the_touches(
    corrector: Corrector,
    decoder: Decoder,
    tokenizer: Tokenizer,
    lexicon: Lexicon,
    state: DecoderState,
    typed: str,
) -> None:
    words = WordTouches(candidates(tokenizer, lexicon), LAYOUT)
    ids, likelihoods = words.beginning(typed)
    scores = {
        words.words[i]: value + word_log_prob(decoder, tokenizer, state, words.words[i])
        for i, value in zip(ids.tolist(), likelihoods.tolist(), strict=True)
        if words.words[i] not in ("dog", "forgot")
    }
    if typed not in scores:
        own = words.as_typed(typed) + word_log_prob(decoder, tokenizer, state, typed)
        own -= math.log(len(words.words) - 2) * tokenizer.encode_words([typed]).count(UNK)
        scores |= {typed: own} if is_one_word(typed) else {}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    everything = corrector.complete(state, typed, len(ranked) + 1, max_steps=10_000)
    assert [word for word, _ in everything] == [word for word, _ in ranked]
    assert [score for _, score in everything] == pytest.approx(
        [score for _, score in ranked], abs=1e-3
    )
    few = corrector.complete(state, typed, 3, max_steps=10_000)
    assert [score for _, score in few] == pytest.approx([scores[word] for word, _ in few], abs=1e-3)
    assert [score for _, score in few] == sorted((score for _, score in few), reverse=True)


def test_blocked_words_are_neither_suggested_nor_put_in_nor_changed(
    corrector: Corrector, state: DecoderState
) -> None:
    for typed in ("d", "do", "dog", "dogf", "forgo", "forgot"):
        words = [word for word, _ in corrector.complete(state, typed, 1000)]
        assert not {"dog", "forgot"} & set(words)
    for typed in ("dpg", "forgit", "dogg"):
        assert corrector.correct(state, typed) not in ("dog", "forgot")
    assert corrector.correct(state, "Dog") == "dog"


@pytest.fixture
def counted(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of all steps the decoder makes."""
    steps: list[int] = []
    step = decoder.step

    def count(token: int, state: DecoderState) -> DecoderState:
        steps.append(token)
        return step(token, state)

    monkeypatch.setattr(decoder, "step", count)
    return steps


@pytest.mark.parametrize("budget", [0, 1, 3, 16])
def test_steps_are_no_more_than_the_budget(
    corrector: Corrector, state: DecoderState, counted: list[int], budget: int
) -> None:
    for typed in ("t", "tonorro", "somw", "yesterdsy", "unheardof"):
        counted.clear()
        words = corrector.complete(state, typed, 5, max_steps=budget)
        assert words and len(counted) <= budget
        counted.clear()
        corrector.correct(state, typed, max_steps=budget)
        assert len(counted) <= budget


def flat(state: DecoderState) -> DecoderState:
    """All pieces alike: only the touches tell."""
    return DecoderState(state.h, state.c, np.full_like(state.log_probs, -4.0))


def test_ties_are_in_alphabetical_order(word_decoder: Decoder, word_tokenizer: Tokenizer) -> None:
    corrector = Corrector(word_decoder, word_tokenizer, Lexicon(write_lexicon({}, {})), LAYOUT)
    found = corrector.complete(flat(word_decoder.start(1)), "so", 3, max_steps=0)
    assert [word for word, _ in found[:2]] == ["some", "somebody"]
    assert found[0][1] == found[1][1]


def at_key(character: str, right_mm: float = 0.0) -> tuple[float, float]:
    x, y = LAYOUT.centres_mm[LAYOUT.key_index(character)].tolist()
    return x + 0.3 + right_mm, y + 0.4


@pytest.fixture(scope="module")
def words_alone(word_decoder: Decoder, word_tokenizer: Tokenizer) -> Callable[..., str]:
    """Corrects with words of one piece, those in `likely` much likelier than the others."""
    corrector = Corrector(word_decoder, word_tokenizer, Lexicon(write_lexicon({}, {})), LAYOUT)
    start = word_decoder.start(1)

    def correct(typed: str, likely: tuple[str, ...], gain: float, touches_mm=None) -> str:
        log_probs = np.full(word_tokenizer.size, -8.0, np.float32)
        log_probs[word_tokenizer.encode_words(list(likely))] += gain
        log_probs[3] = -20.0  # what the tokenizer does not know
        state = DecoderState(start.h, start.c, log_probs)
        return corrector.correct(state, typed, touches_mm)

    return correct


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sistwr", "sister"),
        ("cofffee", "coffee"),
        ("wnated", "wanted"),
        ("yestrday", "yesterday"),
        ("dont", "don't"),
        ("FIML", "film"),
        ("everyone", "everyone"),
        ("xylophone", "xylophone"),
        ("10:30", "10:30"),
        ("st2r", "st2r"),
        ("", ""),
        ("?!", "?!"),
        ("two words", "two words"),
    ],
)
def test_slips_are_corrected_and_all_else_is_left(
    words_alone: Callable[..., str], typed: str, meant: str
) -> None:
    assert words_alone(typed, (), 0.0) == meant


@pytest.mark.parametrize(
    ("gain", "right_mm", "put_in"),
    [
        (0, 0, "on"),
        (9, 0, "on"),
        (4, -3.1, "on"),
        (9, -3.1, "in"),
        (4, -6.2, "in"),
        (0, -6.2, "on"),
    ],
)
def test_a_known_word_gives_way_only_to_context_and_touches_together(
    decoder: Decoder,
    tokenizer: Tokenizer,
    state: DecoderState,
    gain: float,
    right_mm: float,
    put_in: str,
) -> None:
    """The context makes "in" e^gain times as likely; half way to i (3.1 mm) the touch favours neither."""
    corrector = Corrector(
        decoder, tokenizer, Lexicon(write_lexicon({"in": 1, "on": 1}, {})), LAYOUT
    )
    log_probs = np.full_like(state.log_probs, -8.0)
    firsts = [tokenizer.encode_words([word])[0] for word in ("in", "on")]
    odds = [word_log_prob(decoder, tokenizer, state, word) for word in ("in", "on")]
    odds = [value - state.log_probs[first] for value, first in zip(odds, firsts, strict=True)]
    log_probs[firsts[0]] += gain - odds[0] + odds[1]
    assert firsts[0] != firsts[1]
    touches = [at_key("o", right_mm), at_key("n")]
    given_context = DecoderState(state.h, state.c, log_probs)
    assert corrector.correct(given_context, "on", touches) == put_in


def test_touches_decide_between_neighbours(words_alone: Callable[..., str]) -> None:
    """ "my" and "me" are far apart, but for "ny" both "my" and what was typed are near."""
    towards_m, from_m = at_key("n", right_mm=2.6), at_key("n", right_mm=-2.6)
    assert words_alone("ny", (), 0.0, [towards_m, at_key("y")]) == "my"
    on_m = words_alone("ny", (), 0.0, [towards_m, at_key("y")])
    assert on_m == words_alone("ny", (), 0.0, [towards_m, at_key("y"), (0.0, 0.0)][:2])
    # One touch too many for the letters is no touch at all.
    without = words_alone("ny", (), 0.0)
    assert without == words_alone("ny", (), 0.0, [from_m])


@settings(max_examples=200, deadline=None)
@given(
    typed=st.text(max_size=40) | st.text("etaoin'’ İß", max_size=12),
    touches=st.none() | st.lists(st.none() | st.tuples(st.floats(), st.floats()), max_size=12),
    count=st.integers(1, 5),
)
def test_any_text_and_any_touches(
    corrector: Corrector,
    state: DecoderState,
    typed: str,
    touches: list[tuple[float, float] | None] | None,
    count: int,
) -> None:
    words = corrector.complete(state, typed, count, touches, max_steps=2)
    assert len(words) <= count
    assert all(is_one_word(word) and math.isfinite(score) for word, score in words)
    assert corrector.complete(state, typed, count, touches, max_steps=2) == words
    corrected = corrector.correct(state, typed, touches, max_steps=2)
    assert corrected == corrected.lower()

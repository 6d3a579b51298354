import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from device_runtime.decoder import Decoder, DecoderState, WordSearch
from device_runtime.tokenizer import Tokenizer, is_one_word
from tests.device_runtime.tiny_model import export_random_model, train_tokenizer


def test_step_is_a_distribution_and_its_state_cannot_be_changed(decoder: Decoder) -> None:
    state = decoder.start(1)
    for token in (5, 7, 9):
        state = decoder.step(token, state)
        assert state.log_probs.dtype == np.float32
        assert math.isclose(np.exp(state.log_probs.astype(np.float64)).sum(), 1, rel_tol=1e-5)
    for array in (state.h, state.c, state.log_probs):
        with pytest.raises(ValueError):
            array[...] = 0


def test_a_kept_state_gives_the_same_step_again(decoder: Decoder) -> None:
    kept = decoder.start(1)
    first = decoder.step(8, kept)
    decoder.step(9, first)
    again = decoder.step(8, kept)
    assert np.array_equal(first.log_probs, again.log_probs)
    assert np.array_equal(first.h, again.h) and np.array_equal(first.c, again.c)


def test_threads_share_one_decoder(decoder: Decoder) -> None:
    def walk(tokens: list[int]) -> DecoderState:
        state = decoder.start(1)
        for token in tokens:
            state = decoder.step(token, state)
        return state

    streams = [np.random.default_rng(k).integers(4, 60, 50).tolist() for k in range(16)]
    alone = [walk(stream) for stream in streams]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(walk, streams))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.log_probs, other.log_probs)


def test_tokens_outside_the_vocabulary_are_refused(decoder: Decoder) -> None:
    for token in (-1, decoder.vocabulary_size):
        with pytest.raises(ValueError, match="token"):
            decoder.step(token, decoder.start(1))


@pytest.mark.parametrize("content", [b"", b"TFL3", bytes(1000)])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="TFLite"):
        Decoder(content)


def test_model_and_tokenizer_must_fit(decoder: Decoder, word_tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="pieces"):
        WordSearch(decoder, word_tokenizer)


def enumerate_words(
    decoder: Decoder, tokenizer: Tokenizer, state: DecoderState, most_pieces: int
) -> dict[str, list[float]]:
    """Log-probabilities of all segmentations of all words, by trying every sequence of pieces."""
    begins = np.flatnonzero(tokenizer.can_suggest & ~tokenizer.ends_word).tolist()
    ends = np.flatnonzero(tokenizer.can_suggest & tokenizer.ends_word).tolist()
    words: dict[str, list[float]] = {}
    for length in range(most_pieces):
        for start in itertools.product(begins, repeat=length):
            after, total = state, 0.0
            for token in start:
                total += float(after.log_probs[token])
                after = decoder.step(token, after)
            text = "".join(tokenizer.surfaces[token] for token in start)
            for token in ends:
                word = text + tokenizer.surfaces[token]
                if is_one_word(word):
                    log_prob = total + float(after.log_probs[token])
                    words.setdefault(word, []).append(log_prob)
    return words


@pytest.fixture(scope="module")
def small() -> tuple[Decoder, Tokenizer, WordSearch]:
    """A model with so few pieces that every word of three pieces can be tried."""
    tokenizer = Tokenizer(train_tokenizer("bpe", 52, suffix=True))
    decoder = Decoder(export_random_model(tokenizer.size, 6, 8))
    return decoder, tokenizer, WordSearch(decoder, tokenizer)


@pytest.mark.parametrize("prefix", ["", "t", "to", "don'", "10", "zz"])
def test_unlimited_search_equals_trying_everything(
    small: tuple[Decoder, Tokenizer, WordSearch], prefix: str
) -> None:
    decoder, tokenizer, search = small
    for context in ((), (6, 11), (20, 8, 30)):
        state = decoder.start(1)
        for token in context:
            state = decoder.step(token, state)
        tried = enumerate_words(decoder, tokenizer, state, most_pieces=3)
        tried = {word: values for word, values in tried.items() if word.startswith(prefix)}
        summed = {word: float(np.logaddexp.reduce(values)) for word, values in tried.items()}
        everything = search.next_words(state, len(summed) + 1, prefix, max_steps=None, max_pieces=3)
        assert dict(everything) == pytest.approx(summed, abs=1e-9)
        assert everything == sorted(everything, key=lambda item: (-item[1], item[0]))

        few = search.next_words(state, 3, prefix, max_steps=None, max_pieces=3)
        assert len(few) == min(3, len(summed))
        for word, log_prob in few:
            assert max(tried[word]) - 1e-9 <= log_prob <= summed[word] + 1e-9
        left_out = [max(values) for word, values in tried.items() if word not in dict(few)]
        assert all(value <= few[-1][1] for value in left_out)


def test_budget_limits_the_steps(
    small: tuple[Decoder, Tokenizer, WordSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, _, search = small
    state = decoder.start(1)
    steps: list[int] = []
    step = decoder.step

    def counted(token: int, state: DecoderState) -> DecoderState:
        steps.append(token)
        return step(token, state)

    monkeypatch.setattr(decoder, "step", counted)
    for budget in (0, 1, 5):
        steps.clear()
        search.next_words(state, 1000, max_steps=budget)
        assert len(steps) == budget


def test_blocked_words_make_room_for_others(
    small: tuple[Decoder, Tokenizer, WordSearch],
) -> None:
    decoder, tokenizer, search = small
    state = decoder.start(1)
    words = [word for word, _ in search.next_words(state, 8)]
    blocking = WordSearch(decoder, tokenizer, blocked=words[:2])
    assert [word for word, _ in blocking.next_words(state, 6)] == words[2:]


def test_ties_are_in_alphabetical_order(
    small: tuple[Decoder, Tokenizer, WordSearch],
) -> None:
    decoder, tokenizer, search = small
    start = decoder.start(1)
    flat = DecoderState(start.h, start.c, np.full(tokenizer.size, -2.0, np.float32))
    words = [word for word, _ in search.next_words(flat, 5, max_steps=0)]
    sole = {
        surface
        for surface, ends in zip(tokenizer.surfaces, tokenizer.ends_word, strict=True)
        if ends and is_one_word(surface)
    }
    assert words == sorted(sole)[:5]


@pytest.mark.parametrize("prefix", [",", "'", "to,", "😂", " "])
def test_what_begins_no_word_costs_no_step(
    small: tuple[Decoder, Tokenizer, WordSearch], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, _, search = small
    state = decoder.start(1)
    monkeypatch.setattr(decoder, "step", None)
    assert search.next_words(state, 3, prefix) == []


def test_a_search_without_time_gives_what_it_has(
    small: tuple[Decoder, Tokenizer, WordSearch],
) -> None:
    decoder, _, search = small
    state = decoder.start(1)
    answers = iter([True, True, False])
    limited = search.next_words(state, 1000, in_time=lambda: next(answers))
    assert limited == search.next_words(state, 1000, max_steps=2)

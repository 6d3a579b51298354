import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import trail as trails
from device_runtime.decoder import Decoder, DecoderState, Memory
from device_runtime.trail import Trail


class Counting:
    """A decoder that counts its steps."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.steps = decoder, 0
        self.vocabulary_size = decoder.vocabulary_size

    def step(self, token: int, state: Memory) -> DecoderState:
        self.steps += 1
        return self.decoder.step(token, state)


def same(one: DecoderState | None, other: DecoderState | None) -> bool:
    assert one is not None and other is not None
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("h", "c", "log_probs")
    )


EDITS = st.lists(
    st.tuples(st.integers(0, 900), st.lists(st.integers(4, 59), max_size=700)), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(edits=EDITS)
def test_after_going_back_it_is_as_if_it_had_never_been_further(
    decoder: Decoder, edits: list[tuple[int, list[int]]]
) -> None:
    start = decoder.start(1)
    trail, tokens = Trail(decoder, start), list[int]()
    for back_to, more in edits:
        tokens = tokens[:back_to] + more
        trail.rewind(min(back_to, len(trail)))
        trail.append(more)
        trail.read()
    state = start
    for token in tokens:
        state = decoder.step(token, state)
    assert same(trail.read(), state)
    assert len(trail) == len(tokens) and trail.last(5) == tokens[-5:]


def test_going_back_costs_few_steps_and_memory_stays_the_same(decoder: Decoder) -> None:
    counting, random = Counting(decoder), np.random.default_rng(5)
    trail = Trail(counting, decoder.start(1))  # type: ignore[arg-type]
    tokens = random.integers(4, 60, 20_000).tolist()
    states = []
    for at in range(0, 20_000, 1000):
        trail.append(tokens[at : at + 1000])
        trail.read()
        states.append(len(trail._kept))
    assert counting.steps == 20_000
    assert max(states) <= trails.RECENT + trails._ANCHORS and states[-1] > trails.RECENT

    for back, most in ((1, 1), (200, 1), (trails.RECENT - 2, 1), (5_000, 128), (9_000, 128)):
        counting.steps = 0
        trail.rewind(20_000 - back)
        trail.read()
        assert 1 <= counting.steps <= most
        trail.append(tokens[-back:])
        trail.read()
    trail.rewind(0)
    counting.steps = 0
    assert same(trail.read(), decoder.start(1)) and counting.steps == 0


def test_common_beginning(decoder: Decoder) -> None:
    trail = Trail(decoder, decoder.start(1))
    assert trail.common_beginning([5, 6]) == 0
    trail.append([5, 6, 7])
    for tokens, common in (([], 0), ([5], 1), ([5, 6, 7, 8], 3), ([5, 9, 7], 1), ([6], 0)):
        assert trail.common_beginning(tokens) == common
        assert trail.common_beginning(tokens[1:], 1) == max(common, 1) or tokens[:1] != [5]


def test_reading_goes_on_where_time_ended_it(decoder: Decoder) -> None:
    trail = Trail(decoder, decoder.start(1))
    trail.append([5, 6, 7, 8, 9])
    answers = iter([True, True, False, True, True, True])
    assert trail.read(lambda: next(answers)) is None
    assert trail.read(lambda: next(answers)) is not None
    assert next(answers, None) is None

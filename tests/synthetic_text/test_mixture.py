"""Every single batch holds the shares it should, and the stream is one stream wherever it starts."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_text.mixture import (
    MAX_REPEATS,
    Pool,
    batch_rows,
    interleave_lines,
    stratum_probabilities,
    stream_batches,
)


def pool(
    name: int, rows: int, words: int, human: bool = True, strata: np.ndarray | None = None
) -> Pool:
    """Rows that tell pool and place, so that batches can be taken apart again."""
    table = np.stack([np.full(rows, name), np.arange(rows)], axis=1).astype(np.int32)
    return Pool(table, words, human, strata)


def stratified(name: int, counts: list[int], human: bool = True) -> Pool:
    """A pool whose strata have these numbers of rows, and numbers with gaps, mixed up."""
    strata = np.repeat(3 * np.arange(len(counts)) + 1, counts)
    return pool(name, len(strata), 100, human, np.random.default_rng(0).permutation(strata))


sizes = st.integers(1, 40)
stratum_sizes = st.lists(sizes, min_size=1, max_size=6)
temperatures = st.one_of(st.sampled_from([1.0, 2.0, math.inf]), st.floats(1, 10))


@given(
    web_rows=sizes,
    chat_strata=stratum_sizes,
    web=st.integers(0, 5),
    chats=st.integers(1, 5),
    seed=st.integers(0, 9),
    start=st.integers(0, 30),
    temperature=temperatures,
)
@settings(deadline=None)
def test_a_batch_does_not_depend_on_where_the_stream_starts(
    web_rows: int,
    chat_strata: list[int],
    web: int,
    chats: int,
    seed: int,
    start: int,
    temperature: float,
) -> None:
    pools = {"web": pool(0, web_rows, 100), "chats": stratified(1, chat_strata, human=False)}
    counts = {"web": web, "chats": chats}
    stream = stream_batches(pools, counts, seed, temperature=temperature)
    from_zero = list(itertools.islice(stream, start, start + 4))
    from_start = list(itertools.islice(stream_batches(pools, counts, seed, start, temperature), 4))
    assert np.array_equal(from_zero, from_start)
    for batch in from_start:
        assert Counter(batch[:, 0].tolist()) == Counter({0: web, 1: chats})


@given(stratum_sizes, st.integers(1, 7), st.integers(0, 9))
@settings(deadline=None)
def test_each_row_comes_once_an_epoch_and_epochs_differ_in_order(
    counts: list[int], a_batch: int, seed: int
) -> None:
    pools, rows = {"web": stratified(0, counts)}, sum(counts)
    batches = -(-3 * rows // a_batch)
    stream = itertools.islice(stream_batches(pools, {"web": a_batch}, seed), batches)
    read = np.concatenate(list(stream))[:, 1].tolist()
    epochs = [read[start : start + rows] for start in range(0, 3 * rows, rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    if rows > 20:
        assert epochs[0] != epochs[1]


def read(pool: Pool, rows: int, temperature: float, seed: int = 0) -> np.ndarray:
    """Places of the first rows of a pool's stream."""
    return next(stream_batches({"web": pool}, {"web": rows}, seed, 0, temperature))[:, 1]


@given(stratum_sizes, temperatures, st.integers(1, 4))
@settings(deadline=None)
def test_every_epoch_has_the_strata_s_shares_to_a_row_and_reads_a_stratum_evenly(
    counts: list[int], temperature: float, epochs: int
) -> None:
    each = stratified(0, counts)
    assert each.strata is not None
    size = sum(counts)
    probabilities = stratum_probabilities(np.array(counts), temperature)
    places = read(each, epochs * size, temperature).reshape(epochs, size)
    for epoch in places:
        got = np.bincount((each.strata[epoch] - 1) // 3, minlength=len(counts))
        assert np.all(abs(got - size * probabilities) < 1 + 1e-9)
    times = np.bincount(places.ravel(), minlength=size)
    for stratum in np.unique(each.strata):
        assert np.ptp(times[each.strata == stratum]) <= 1
    assert times.max() <= MAX_REPEATS * epochs


def test_a_stratum_is_spread_over_the_whole_epoch() -> None:
    each = stratified(0, [5_000, 5_000])
    assert each.strata is not None
    first_half = each.strata[read(each, 5_000, 1.0)] == 1
    # Hypergeometric: 5,000 drawn of 10,000, half of them marked; four standard deviations.
    assert abs(first_half.sum() - 2_500) < 4 * math.sqrt(5_000 * 0.25 * 5_000 / 9_999)


@pytest.mark.parametrize(
    ("counts", "temperature", "shares"),
    [
        ([1, 4, 9], 1.0, [1 / 14, 4 / 14, 9 / 14]),
        ([1, 4, 9], 2.0, [1 / 6, 2 / 6, 3 / 6]),
        ([10, 20, 30], math.inf, [1 / 3, 1 / 3, 1 / 3]),
        ([1, 99], math.inf, [MAX_REPEATS / 100, 1 - MAX_REPEATS / 100]),
        ([1, 16, 81], 4.0, [4 / 98, 94 / 98 * 2 / 5, 94 / 98 * 3 / 5]),
        ([7], 3.0, [1.0]),
    ],
)
def test_strata_have_their_closed_form_shares(
    counts: list[int], temperature: float, shares: list[float]
) -> None:
    assert stratum_probabilities(np.array(counts), temperature) == pytest.approx(shares)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30), temperatures, st.integers(1, 9))
def test_the_cap_takes_from_rare_strata_alone_and_gives_to_the_others_in_proportion(
    counts: list[int], temperature: float, max_repeats: int
) -> None:
    sizes = np.array(counts)
    probabilities = stratum_probabilities(sizes, temperature, max_repeats)
    # By another route: min(k * weight, cap) for the one k at which they sum to 1, found by bisection.
    weights, caps = sizes ** (1 / temperature), max_repeats * sizes / sizes.sum()
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if np.minimum(middle * weights, caps).sum() < 1:
            low = middle
        else:
            high = middle
    assert probabilities == pytest.approx(np.minimum(high * weights, caps), abs=1e-9)
    assert probabilities.sum() == pytest.approx(1)


def test_no_temperature_below_one_and_no_empty_stratum() -> None:
    for counts, temperature, repeats in (
        ([1, 2], 0.9, 4),
        ([1, 2], math.nan, 4),
        ([1, 0], 1.0, 4),
        ([], 1.0, 4),
        ([1, 2], 1.0, 0),
    ):
        with pytest.raises(ValueError, match="temperature"):
            stratum_probabilities(np.array(counts), temperature, repeats)
    with pytest.raises(ValueError, match="temperature"):
        next(stream_batches({"web": pool(0, 3, 10)}, {"web": 1}, 0, temperature=0.5))


def test_another_seed_is_another_order() -> None:
    pools = {"web": pool(0, 1_000, 100)}
    first, same, other = (
        next(stream_batches(pools, {"web": 100}, seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == same != other


@given(
    llm_share=st.floats(0, 0.7),
    human_floor=st.floats(0, 0.3),
    batch_words=st.integers(50, 2_000),
    web_words=st.integers(1_000, 50_000),
    llm_words=st.integers(1_000, 50_000),
)
def test_every_batch_keeps_the_shares_to_a_row_and_the_human_floor(
    llm_share: float, human_floor: float, batch_words: int, web_words: int, llm_words: int
) -> None:
    pools = {"web": pool(0, 500, web_words), "chats": pool(1, 500, llm_words, human=False)}
    shares = {"web": 1 - llm_share, "chats": llm_share}
    a_row = {name: each.words / len(each.rows) for name, each in pools.items()}
    try:
        counts = batch_rows(pools, shares, batch_words, human_floor)
    except ValueError as error:  # only where rounding to whole rows costs the humans their floor
        assert "human_floor" in str(error)
        assert (1 - llm_share - human_floor) * batch_words <= a_row["chats"]
        return
    words = {name: counts[name] * a_row[name] for name in pools}
    for name in pools:
        assert abs(words[name] - shares[name] * batch_words) <= a_row[name] * (1 + 1e-9)
    assert words["web"] >= human_floor * sum(words.values())
    assert words["web"] >= shares["web"] * batch_words * (1 - 1e-9)


def test_shares_that_do_not_fit_are_refused() -> None:
    pools = {"web": pool(0, 10, 100), "chats": pool(1, 10, 100, human=False)}
    for shares in ({"web": 1.0}, {"web": 0.5, "chats": 0.6}, {"web": 1.5, "chats": -0.5}):
        with pytest.raises(ValueError, match="shares"):
            batch_rows(pools, shares, 100, 0.0)
    with pytest.raises(ValueError, match=r"below human_floor 0.*: lower llm_share"):
        batch_rows(pools, {"web": 0.3, "chats": 0.7}, 100, 0.5)


@st.composite
def line_sources(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Words of each line, and a share, of one to four sources."""
    lines = st.lists(st.integers(1, 30), min_size=1, max_size=20)
    sources = draw(st.lists(lines, min_size=1, max_size=4))
    parts = draw(st.lists(st.integers(1, 9), min_size=len(sources), max_size=len(sources)))
    names = [f"source{i}" for i in range(len(sources))]
    sizes = {name: np.array(lines) for name, lines in zip(names, sources, strict=True)}
    return sizes, {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}


@given(line_sources(), st.floats(0, 1), st.integers(0, 4), st.integers(1, 500), st.integers(0, 9))
def test_lines_keep_shares_and_floor_up_to_any_of_them_and_read_sources_evenly(
    sources: tuple[dict[str, np.ndarray], dict[str, float]],
    tightness: float,
    humans: int,
    words: int,
    seed: int,
) -> None:
    sizes, shares = sources
    human = set(list(sizes)[:humans])
    floor = tightness * sum(shares[name] for name in human)
    taken = dict.fromkeys(sizes, 0)
    read: dict[str, list[int]] = {name: [] for name in sizes}
    longest = max(int(lines.max()) for lines in sizes.values())
    for name, line in interleave_lines(sizes, shares, human, floor, words, seed):
        assert sum(taken.values()) < words
        taken[name] += int(sizes[name][line])
        read[name].append(line)
        total = sum(taken.values())
        assert sum(taken[name] for name in human) >= floor * total - 1e-6
        if not floor:
            for source, count in taken.items():
                assert count <= shares[source] * total + longest + 1e-6
    assert sum(taken.values()) >= words
    for name, lines in read.items():
        assert np.ptp(np.bincount(lines, minlength=len(sizes[name]))) <= 1


def test_line_shares_are_right_to_a_line_in_a_large_mix() -> None:
    random = np.random.default_rng(0)
    sizes = {name: random.integers(1, 30, 2_000) for name in ("web", "llm", "chat")}
    shares = {"web": 0.3, "llm": 0.5, "chat": 0.2}
    human = {"web", "chat"}
    lines = list(interleave_lines(sizes, shares, human, 0.5, 50_000, 1))
    words = Counter[str]()
    for name, line in lines:
        words[name] += int(sizes[name][line])
    for name, share in shares.items():
        assert abs(words[name] - share * 50_000) <= 3 * 30
    assert words["llm"] <= 0.5 * words.total()
    assert lines == list(interleave_lines(sizes, shares, human, 0.5, 50_000, 1))
    assert lines != list(interleave_lines(sizes, shares, human, 0.5, 50_000, 2))


def test_lines_that_cannot_be_mixed_are_refused() -> None:
    sizes = {"web": np.array([3, 4]), "llm": np.array([5])}
    for shares, human, floor, said in (
        ({"web": 1.0}, {"web"}, 0.0, "shares"),
        ({"web": 0.5, "llm": 0.4}, {"web"}, 0.0, "1 in all"),
        ({"web": 1.0, "llm": 0.0}, {"web"}, 0.0, "above 0"),
        ({"web": 0.3, "llm": 0.7}, {"web"}, 0.4, "human_floor 0.4"),
    ):
        with pytest.raises(ValueError, match=said):
            interleave_lines(sizes, shares, human, floor, 10, 0)
    for lines in ([], [0, 3]):
        with pytest.raises(ValueError, match="source llm"):
            interleave_lines(
                {"web": np.array([1]), "llm": np.array(lines)},
                {"web": 0.5, "llm": 0.5},
                (),
                0,
                9,
                0,
            )

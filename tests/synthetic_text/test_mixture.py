"""Every single batch holds the shares it should, and the stream is one stream wherever it starts."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_text.mixture import Pool, batch_rows, stream_batches


def pool(name: int, rows: int, words: int, human: bool = True) -> Pool:
    """Rows that tell pool and place, so that batches can be taken apart again."""
    table = np.stack([np.full(rows, name), np.arange(rows)], axis=1).astype(np.int32)
    return Pool(table, words, human)


sizes = st.integers(1, 40)


@given(sizes, sizes, st.integers(0, 5), st.integers(1, 5), st.integers(0, 9), st.integers(0, 30))
@settings(deadline=None)
def test_a_batch_does_not_depend_on_where_the_stream_starts(
    web_rows: int, chat_rows: int, web: int, chats: int, seed: int, start: int
) -> None:
    pools = {"web": pool(0, web_rows, 100), "chats": pool(1, chat_rows, 100, human=False)}
    counts = {"web": web, "chats": chats}
    from_zero = list(itertools.islice(stream_batches(pools, counts, seed), start, start + 4))
    from_start = list(itertools.islice(stream_batches(pools, counts, seed, start), 4))
    assert np.array_equal(from_zero, from_start)
    for batch in from_start:
        assert Counter(batch[:, 0].tolist()) == Counter({0: web, 1: chats})


@given(sizes, st.integers(1, 7), st.integers(0, 9))
@settings(deadline=None)
def test_each_row_comes_once_an_epoch_and_epochs_differ_in_order(
    rows: int, a_batch: int, seed: int
) -> None:
    pools = {"web": pool(0, rows, 100)}
    batches = -(-3 * rows // a_batch)
    stream = itertools.islice(stream_batches(pools, {"web": a_batch}, seed), batches)
    read = np.concatenate(list(stream))[:, 1].tolist()
    epochs = [read[start : start + rows] for start in range(0, 3 * rows, rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    if rows > 20:
        assert epochs[0] != epochs[1]


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

"""Batches out of several pools of rows, with exact shares in every single batch."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Rows of one source.

    Attributes:
        rows: int32 [R, ...], R > 0.
        words: number of words in all rows.
        human: whether people wrote them.
    """

    rows: np.ndarray
    words: int
    human: bool


def batch_rows(
    pools: Mapping[str, Pool], shares: Mapping[str, float], batch_words: int, human_floor: float
) -> dict[str, int]:
    """Rows that each pool gives to every batch, for `batch_words` words at the given shares of words.

    Raises:
        ValueError: shares and pools do not fit, or the human share falls below the floor.
    """
    if (
        set(pools) != set(shares)
        or abs(sum(shares.values()) - 1) > 1e-9
        or min(shares.values()) < 0
    ):
        raise ValueError(f"shares {dict(shares)}: give each of {sorted(pools)} a share, 1 in all")
    counts = {}
    for name, pool in pools.items():
        exact = shares[name] * batch_words * len(pool.rows) / max(1, pool.words)
        counts[name] = math.ceil(exact) if pool.human else round(exact)
    words = {name: counts[name] * pool.words / len(pool.rows) for name, pool in pools.items()}
    human = sum(words[name] for name, pool in pools.items() if pool.human)
    if human < human_floor * sum(words.values()):
        raise ValueError(
            f"human-written share {human / sum(words.values()):.3f} is below human_floor {human_floor}: lower llm_share"
        )
    return counts


def stream_batches(
    pools: Mapping[str, Pool], counts: Mapping[str, int], seed: int, start: int = 0
) -> Iterator[np.ndarray]:
    """Endless batches int32 [sum of counts, ...]; batch i is the same wherever the stream starts.

    Each pool is read to its end in a random order, then again in another one.

    Args:
        pools: rows by source.
        counts: rows of each source in a batch, as `batch_rows` gives them.
        seed: of the orders.
        start: 0-based number of the first batch.
    """
    names = sorted(pools)
    orders: dict[tuple[int, int], np.ndarray] = {}

    def order(source: int, epoch: int, rows: int) -> np.ndarray:
        if (source, epoch) not in orders:
            orders.pop((source, epoch - 2), None)
            orders[source, epoch] = np.random.default_rng([seed, source, epoch]).permutation(rows)
        return orders[source, epoch]

    batch = start
    while True:
        parts: Sequence[np.ndarray] = [
            pools[name].rows[
                [
                    order(source, place // len(pools[name].rows), len(pools[name].rows))[
                        place % len(pools[name].rows)
                    ]
                    for place in range(batch * counts[name], (batch + 1) * counts[name])
                ]
            ]
            for source, name in enumerate(names)
            if counts[name]
        ]
        yield np.concatenate(parts)
        batch += 1

"""Batches out of several pools of rows, with exact shares in every single batch."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np

MAX_REPEATS = 4
"""A row of a rare stratum is read at most this many times as often as without a temperature; chosen."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Rows of one source.

    Attributes:
        rows: int32 [R, ...], R > 0.
        words: number of words in all rows.
        human: whether people wrote them.
        strata: int [R], the stratum of each row; None: all rows are one stratum.
    """

    rows: np.ndarray
    words: int
    human: bool
    strata: np.ndarray | None = None


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


def stratum_probabilities(
    counts: np.ndarray, temperature: float, max_repeats: int = MAX_REPEATS
) -> np.ndarray:
    """Probability of each stratum, float [S], sum 1: proportional to counts ** (1 / temperature), with a cap.

    At temperature 1 every row is as probable as any other; towards infinity every stratum is. No row is more than
    `max_repeats` times as probable as at temperature 1; what strata at this cap leave goes to the others in proportion.

    Args:
        counts: [S] rows of each stratum, > 0.
        temperature: in [1, inf].
        max_repeats: at least 1.

    Raises:
        ValueError: an argument is out of range.
    """
    counts = np.asarray(counts, np.float64)
    if not len(counts) or counts.min() <= 0 or not temperature >= 1 or max_repeats < 1:
        raise ValueError(
            f"temperature {temperature}, max_repeats {max_repeats}: give at least 1 of each, and strata with rows"
        )
    weights = counts ** (1 / temperature)
    caps = max_repeats * counts / counts.sum()
    probabilities = weights / weights.sum()
    capped = np.zeros(len(counts), bool)
    while (over := ~capped & (probabilities > caps * (1 + 1e-12))).any():
        capped |= over
        left = 1 - caps[capped].sum()
        probabilities = np.where(capped, caps, weights * left / weights[~capped].sum())
    return probabilities


def stream_batches(
    pools: Mapping[str, Pool],
    counts: Mapping[str, int],
    seed: int,
    start: int = 0,
    temperature: float = 1.0,
) -> Iterator[np.ndarray]:
    """Endless batches int32 [sum of counts, ...]; batch i is the same wherever the stream starts.

    A pool of R rows gives them in epochs of R. Each has as many rows of a stratum as `stratum_probabilities` says, to a
    row, in random order. A stratum is read to its end in a random order, then again in another one; so at temperature
    1 an epoch is every row once.

    Args:
        pools: rows by source.
        counts: rows of each source in a batch, as `batch_rows` gives them.
        seed: of the orders.
        start: 0-based number of the first batch.
        temperature: over the strata of each pool, in [1, inf].

    Raises:
        ValueError: the temperature is below 1.
    """
    sources = [
        (pools[name].rows, counts[name], _Order(pools[name], temperature, (seed, number)))
        for number, name in enumerate(sorted(pools))
        if counts[name]
    ]
    batch = start
    while True:
        yield np.concatenate(
            [rows[order.take(batch * count, (batch + 1) * count)] for rows, count, order in sources]
        )
        batch += 1


class _Order:
    """The endless order in which a pool's rows are read; any part of it can be asked for."""

    def __init__(self, pool: Pool, temperature: float, seed: tuple[int, ...]) -> None:
        size = len(pool.rows)
        strata = np.zeros(size, np.int64) if pool.strata is None else pool.strata
        _, stratum, counts = np.unique(strata, return_inverse=True, return_counts=True)
        self._members = np.split(np.argsort(stratum, kind="stable"), np.cumsum(counts)[:-1])
        self._quotas = _round(size * stratum_probabilities(counts, temperature))
        self._size = size
        self._seed = seed
        self._epochs: dict[int, np.ndarray] = {}

    def take(self, start: int, stop: int) -> np.ndarray:
        """Row numbers, int64 [stop - start], at these places."""
        parts = []
        while start < stop:
            epoch, place = divmod(start, self._size)
            part = self._epoch(epoch)[place : place + stop - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            rows = np.concatenate(
                [
                    self._read_stratum(s, epoch * quota, (epoch + 1) * quota)
                    for s, quota in enumerate(self._quotas)
                ]
            )
            self._epochs = {epoch: np.random.default_rng([*self._seed, 0, epoch]).permutation(rows)}
        return self._epochs[epoch]

    def _read_stratum(self, stratum: int, start: int, stop: int) -> np.ndarray:
        members = self._members[stratum]
        first, last = start // len(members), -(-stop // len(members))
        passes = [
            np.random.default_rng([*self._seed, 1, stratum, number]).permutation(members)
            for number in range(first, last)
        ]
        offset = first * len(members)
        return np.concatenate([members[:0], *passes])[start - offset : stop - offset]


def _round(exact: np.ndarray) -> np.ndarray:
    """Whole numbers of the same sum, each less than 1 away: the largest remainders are rounded up."""
    whole = np.floor(exact + 1e-9).astype(np.int64)
    missing = round(exact.sum()) - whole.sum()
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


def interleave_lines(
    line_words: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    human: Collection[str],
    human_floor: float,
    words: int,
    seed: int,
) -> Iterator[tuple[str, int]]:
    """Lines of several sources in one order, (source, line number), until they have `words` words.

    The source furthest behind its share comes next, so that up to any line none is ahead of its share by more than a
    line. Where the floor leaves no room, human text goes first instead: the human share is at the floor or above it up
    to any line. Each source is read to its end in a random order, then again in another one.

    Args:
        line_words: words of each line by source, int [n], > 0.
        shares: of the words, by source, > 0, 1 in all.
        human: sources that people wrote.
        human_floor: least share of their words, in [0, 1].
        words: at least that many come, and less than a line more.
        seed: of the orders.

    Raises:
        ValueError: shares and sources do not fit, a source is empty, or the human share is below the floor.
    """
    if (
        set(line_words) != set(shares)
        or abs(sum(shares.values()) - 1) > 1e-9
        or min(shares.values()) <= 0
    ):
        raise ValueError(
            f"shares {dict(shares)}: give each of {sorted(line_words)} a share above 0, 1 in all"
        )
    for name, counts in line_words.items():
        if not len(counts) or counts.min() < 1:
            raise ValueError(f"source {name}: no lines, or lines without words: give text")
    human_share = sum(shares[name] for name in human)
    if human_share < human_floor - 1e-9:
        raise ValueError(
            f"human-written share {human_share:.3f} is below human_floor {human_floor}: raise the shares of human text"
        )
    return _interleave(line_words, shares, frozenset(human), human_floor, words, seed)


def _interleave(
    line_words: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    human: frozenset[str],
    human_floor: float,
    words: int,
    seed: int,
) -> Iterator[tuple[str, int]]:
    names = sorted(line_words)
    orders = {
        name: _Order(Pool(line_words[name], 0, name in human), 1.0, (seed, number))
        for number, name in enumerate(names)
    }
    taken = dict.fromkeys(names, 0)
    places = dict.fromkeys(names, 0)

    def furthest_behind(names: Collection[str]) -> tuple[str, int]:
        name = min(names, key=lambda name: (taken[name] / shares[name], name))
        return name, int(orders[name].take(places[name], places[name] + 1)[0])

    total = 0
    while total < words:
        name, line = furthest_behind(names)
        size = int(line_words[name][line])
        human_words = sum(taken[name] for name in human)
        if name not in human and human_words < human_floor * (total + size) - 1e-9:
            name, line = furthest_behind(human)
            size = int(line_words[name][line])
        taken[name] += size
        places[name] += 1
        total += size
        yield name, line

"""The words a keyboard knows without its model: how frequent each is, and which words follow it.

A lexicon's file is a header (mark, number of words N, number of pairs M) and a zlib stream of five arrays: the words
in UTF-8, sorted and each ended by a line feed; N bytes, the words' costs; N + 1 little-endian uint16, how many
followers are kept of a message's beginning and of each word; M uint16, the followers, ascending for each; M bytes, the
followers' costs. A cost is a negative natural log-probability in sixteenths, at most 255.
"""

import itertools
import math
import struct
import zlib
from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from device_runtime.tokenizer import is_one_word
from device_runtime.words import normalize

WORDS = 20_000
PAIRS = 40_000
"""Most words and pairs that are written: a quarter of a megabyte, a tenth of a phone keyboard's bundle."""

_MARK = b"keyfedL1"
_HEADER = struct.Struct("<8sII")
_MOST_WORDS = 2**16 - 1
_MOST_BYTES = 2**23  # of the arrays; more is no lexicon
_COST = 16  # a nat's
# Taken off each pair's count for the words never seen after (Ney, Essen & Kneser 1994).
_DISCOUNT = 0.75
_LAST = "\U0010ffff"  # sorts after every character of a word


class Lexicon:
    """Words with their log-probabilities, and a bigram model of them that backs off to these.

    P(word | previous) is what was kept of the pair, else P(word) times what is left for all words not kept after
    `previous`, so that the sum over all words is one (less, if all words are kept).

    Args:
        content: what `write_lexicon` wrote.

    Attributes:
        words: sorted, as `words.normalize` gives them.
        log_probs: float32 [N], natural logarithm of each word's share in the text.

    Raises:
        ValueError: `content` is no lexicon.
    """

    def __init__(self, content: bytes) -> None:
        words, costs, counts, followers, pair_costs = _parse(content)
        self.words = words
        self.log_probs = -costs.astype(np.float32) / _COST
        if words:
            self.log_probs -= np.log(np.exp(self.log_probs, dtype=np.float64).sum())
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._followers = followers
        self._pair_log_probs = -pair_costs.astype(np.float32) / _COST

    def __len__(self) -> int:
        return len(self.words)

    def find(self, word: str) -> int:
        """Index of `word` in `words`; -1 where it is not among them."""
        at = bisect_left(self.words, word)
        return at if at < len(self.words) and self.words[at] == word else -1

    def starting_with(self, prefix: str) -> range:
        """Indices of the words that begin so."""
        return range(
            bisect_left(self.words, prefix),
            bisect_left(self.words, prefix + _LAST) if prefix else len(self.words),
        )

    def next_log_probs(self, previous: str | None) -> np.ndarray:
        """float32 [N], log-probability of every word after `previous`; None at a message's beginning.

        After a word that the lexicon does not know it is `log_probs`.
        """
        row = 0 if previous is None else self.find(previous) + 1
        if row == 0 and previous is not None:
            return self.log_probs
        kept = slice(int(self._ends[row - 1]) if row else 0, int(self._ends[row]))
        followers, pairs = self._followers[kept], self._pair_log_probs[kept]
        seen = math.fsum(np.exp(self.log_probs[followers], dtype=np.float64))
        left = 1 - math.fsum(np.exp(pairs, dtype=np.float64))
        with np.errstate(divide="ignore"):
            weight = np.log(max(left, 0.0)) - np.log(max(1 - seen, 1e-12))
        log_probs = self.log_probs + np.float32(weight)
        log_probs[followers] = pairs
        return log_probs

    def next_words(
        self, previous: str | None, count: int, prefix: str = ""
    ) -> list[tuple[str, float]]:
        """The `count` (>= 1) likeliest words after `previous` that start with `prefix`; ties by text.

        Args:
            previous: the word before, normalised as by `words.normalize`; None at a message's beginning.
            count: length of the list; it is shorter if fewer words are known.
            prefix: letters the words start with, normalised.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, not {count}")
        matching = self.starting_with(prefix)
        log_probs = self.next_log_probs(previous)[matching.start : matching.stop]
        least = np.partition(log_probs, -count)[-count] if len(log_probs) > count else -np.inf
        likely = np.flatnonzero(log_probs >= least)
        best = likely[np.argsort(-log_probs[likely], kind="stable")][:count]
        return [(self.words[matching.start + i], float(log_probs[i])) for i in best.tolist()]


def write_lexicon(counts: Mapping[str, int], pairs: Mapping[tuple[str, str], int]) -> bytes:
    """A lexicon of the `WORDS` most frequent words and, between these, the `PAIRS` most frequent pairs; ties by text.

    Args:
        counts: occurrences, >= 1, of single words, normalised as by `words.normalize`.
        pairs: occurrences, >= 1, of (word, next word); the word before a message's first one is "".

    Raises:
        ValueError: a text is no single word, or a count is below 1.
    """
    for word, count in counts.items():
        if not is_one_word(word) or normalize(word) != word or count < 1:
            raise ValueError("a lexicon counts single lower-case words, each at least once")
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
    words = sorted(ranked)
    index = {word: i for i, word in enumerate(words)}
    known = {"": 0} | {word: i + 1 for word, i in index.items()}
    inside = [pair for pair in pairs if pair[0] in known and pair[1] in index]
    totals = np.zeros(len(words) + 1)
    for before, after in inside:
        totals[known[before]] += pairs[before, after]
    kept = sorted(inside, key=lambda pair: (-pairs[pair], pair))[:PAIRS]
    kept.sort(key=lambda pair: (known[pair[0]], index[pair[1]]))
    rows = np.array([known[before] for before, _ in kept], np.intp)
    followers = np.array([index[after] for _, after in kept], np.uint16)
    seen = np.array([pairs[pair] for pair in kept], np.float64)
    shares = np.array([counts[word] for word in words], np.float64)
    body = b"".join(
        [
            "".join(f"{word}\n" for word in words).encode(),
            _costs(shares / shares.sum()),
            np.bincount(rows, minlength=len(words) + 1).astype("<u2").tobytes(),
            followers.astype("<u2").tobytes(),
            _costs((seen - _DISCOUNT) / totals[rows]),
        ]
    )
    return _HEADER.pack(_MARK, len(words), len(kept)) + zlib.compress(body, 9)


def _costs(probabilities: np.ndarray) -> bytes:
    """Rounded up, so that the sum of what is kept is never more than it was."""
    return np.minimum(np.ceil(-np.log(probabilities) * _COST), 255).astype(np.uint8).tobytes()


def _parse(
    content: bytes,
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Words, their costs, numbers of followers, followers and their costs."""
    if len(content) < _HEADER.size or not content.startswith(_MARK):
        raise ValueError("not a lexicon")
    _, words, pairs = _HEADER.unpack_from(content)
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(content[_HEADER.size :], _MOST_BYTES)
    except zlib.error as error:
        raise ValueError("not a lexicon: its stream is damaged") from error
    numbers = words + 2 * (words + 1) + 3 * pairs
    if not stream.eof or stream.unused_data or words > _MOST_WORDS or numbers > len(body):
        raise ValueError("not a lexicon: its length is wrong")
    text, body = body[: len(body) - numbers], body[len(body) - numbers :]
    try:
        known = tuple(text.decode().split("\n"))
    except UnicodeDecodeError as error:
        raise ValueError("not a lexicon: its words are not UTF-8") from error
    if len(known) != words + 1 or known[-1]:
        raise ValueError(f"not a lexicon: it holds {len(known) - 1} words, and says {words}")
    known = known[:-1]
    if any(a >= b for a, b in itertools.pairwise(known)):
        raise ValueError("not a lexicon: its words are not sorted")
    if not all(map(is_one_word, known)):
        raise ValueError("not a lexicon: not all of its words are single words")
    costs, at = np.frombuffer(body, np.uint8, words), words
    counts, at = np.frombuffer(body, "<u2", words + 1, at), at + 2 * (words + 1)
    followers, at = np.frombuffer(body, "<u2", pairs, at), at + 2 * pairs
    if counts.sum(dtype=np.int64) != pairs or (pairs and followers.max() >= words):
        raise ValueError("not a lexicon: its pairs name words that it does not hold")
    rows = np.repeat(np.arange(words + 1), counts)
    order = rows * (words + 1) + followers
    if (np.diff(order) <= 0).any():
        raise ValueError("not a lexicon: its pairs are not sorted")
    pair_costs = np.frombuffer(body, np.uint8, pairs, at)
    sums = np.bincount(rows, np.exp(pair_costs / -_COST), words + 1)
    if (sums > 1 + 1e-6).any():
        raise ValueError("not a lexicon: the followers of a word have more than its probability")
    return known, costs, counts, followers, pair_costs

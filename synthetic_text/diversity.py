"""How varied a corpus is: the figures of a data card, and what the loop watches for collapse.

Every figure is taken over the same number of words, drawn as whole messages: all of them depend on a text's length.
"""

import dataclasses
import functools
import lzma
from collections.abc import Iterator, Sequence

import numpy as np
import wordfreq

from device_runtime.words import is_word, split_words

TAIL_RANKS = (2_000, 10_000)
"""Ranks of English words that speech and text use now and then; the first words that a collapsing generator loses."""

_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**23}]


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Figures of `words` words; punctuation and emoji are no words.

    Attributes:
        words: words measured. Two corpora compare only where it is equal.
        vocabulary: distinct word forms.
        distinct_1, distinct_2, distinct_3: distinct n-grams over all n-grams, none across messages, in [0, 1] (Li et
            al. 2016, "A diversity-promoting objective function for neural conversation models").
        word_entropy: Shannon entropy of the words' frequencies, bits.
        tail_coverage: share of a tail of rare words that occur at all, in [0, 1].
        self_similarity: compression ratio, bytes over compressed bytes: how much of a text its other parts foretell
            (Shaib et al. 2024, "Standardizing the measurement of text diversity"). By xz with a window of
            8 MB, about 1.5 M words.
        human_share: share of words that people wrote, in [0, 1], as the caller says.
    """

    words: int
    vocabulary: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    word_entropy: float
    tail_coverage: float
    self_similarity: float
    human_share: float


def measure_diversity(
    messages: Sequence[Sequence[str]],
    human_share: float,
    sample_words: int = 50_000,
    tail: frozenset[str] | None = None,
    seed: int = 0,
) -> Diversity:
    """The figures of a random sample; equal arguments give equal figures.

    Args:
        messages: tokens of each message, as `split_words` gives them.
        human_share: of the words, known to the caller.
        sample_words: words of the sample, > 0; of the last message only as many as that takes.
        tail: rare words; by default `load_tail()`.
        seed: of the sample.

    Raises:
        ValueError: fewer words than `sample_words`, or an argument is out of range.
    """
    if sample_words < 1 or not 0 <= human_share <= 1:
        raise ValueError(
            f"sample_words {sample_words}, human_share {human_share}: give at least 1, and 0 to 1"
        )
    tail = load_tail() if tail is None else tail
    sample = list(_draw(messages, sample_words, seed))
    words = sum(map(len, sample))
    if words < sample_words:
        raise ValueError(
            f"diversity: {words} words are fewer than sample_words {sample_words}: give more text or lower it"
        )
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(w, len(numbers)) for message in sample for w in message])
    owner = np.repeat(np.arange(len(sample)), [len(message) for message in sample])
    frequencies = np.bincount(ids) / words
    text = "\n".join(map(" ".join, sample)).encode()
    return Diversity(
        words=words,
        vocabulary=len(numbers),
        distinct_1=len(numbers) / words,
        distinct_2=_distinct(ids, owner, 2),
        distinct_3=_distinct(ids, owner, 3),
        word_entropy=float(-(frequencies * np.log2(frequencies)).sum()),
        tail_coverage=len(tail & numbers.keys()) / max(1, len(tail)),
        self_similarity=len(text) / len(lzma.compress(text, filters=_XZ)),
        human_share=human_share,
    )


@functools.cache
def load_tail() -> frozenset[str]:
    """Single words at TAIL_RANKS of English by wordfreq, a fixed public list."""
    start, stop = TAIL_RANKS
    ranked = wordfreq.top_n_list("en", stop)[start:]
    return frozenset(word for word in ranked if split_words(word) == [word])


def _draw(messages: Sequence[Sequence[str]], words: int, seed: int) -> Iterator[list[str]]:
    """Messages in random order, words only, until they have `words`."""
    left = words
    for place in np.random.default_rng(seed).permutation(len(messages)):
        if not left:
            return
        message = list(filter(is_word, messages[place]))[:left]
        if message:
            left -= len(message)
            yield message


def _distinct(ids: np.ndarray, owner: np.ndarray, n: int) -> float:
    """Distinct n-grams over n-grams; 0 where no message is as long as n."""
    inside = np.flatnonzero(owner[n - 1 :] == owner[: len(owner) - n + 1])
    if not len(inside):
        return 0.0
    grams = np.zeros(len(inside), np.int64)
    for place in range(n):  # 10**6 forms make 10**18 trigrams: below 2**63
        grams = grams * (ids.max() + 1) + ids[inside + place]
    return len(np.unique(grams)) / len(inside)

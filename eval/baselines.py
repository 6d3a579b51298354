"""A model to stand beside: n-grams with stupid back-off, or words by frequency, of any text and our vocabulary."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from device_runtime.words import is_word, split_words
from eval.targets import EvaluationVocabulary

BACKOFF = 0.4  # for each word that a context is shortened by (Brants et al. 2007, EMNLP, sec. 4)
OUTSIDE = "\ufffd"  # any word outside the vocabulary, in a context
_START = "\n"  # before a message's first word


def replace_unknown(words: Sequence[str], vocabulary: EvaluationVocabulary) -> list[str]:
    """Words outside the vocabulary made one; punctuation and emoji stay."""
    return [OUTSIDE if is_word(word) and word not in vocabulary else word for word in words]


@dataclass(frozen=True)
class ScoredWord:
    """A suggestion and its stupid back-off score, which is no probability."""

    text: str
    score: float


class NgramModel:
    """Stupid back-off: S(w | context) is the share of w among the words that followed the context.

    Where w never followed it, it is 0.4 times S with the context's first word dropped (Brants et al. 2007,
    eq. 5). Measured as a `next_word.WordPredictor`.

    Args:
        texts: the text to count, a message or sentence each.
        vocabulary: words that may be suggested; all others are one word in a context.
        order: n >= 1, words of the longest context and the one that follows; 1 suggests by frequency alone.
    """

    def __init__(
        self, texts: Iterable[str], vocabulary: EvaluationVocabulary, order: int = 3
    ) -> None:
        if order < 1:
            raise ValueError(f"order is {order}, must be at least 1")
        self._order = order
        self._vocabulary = vocabulary
        followers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for text in texts:
            known = replace_unknown(split_words(text), vocabulary)
            for position, word in enumerate(known):
                if word == OUTSIDE or is_word(word):
                    for context in self._list_contexts(known, position):
                        followers[context][word] += 1
        # Best first: a search reads no further than it must.
        self._shares = {
            context: {
                word: counts[word] / counts.total()
                for word in sorted(counts, key=lambda word: (-counts[word], word))
                if word != OUTSIDE
            }
            for context, counts in followers.items()
        }

    @property
    def size_bytes(self) -> int:
        """Bytes of the vocabulary and of n-grams in a sorted array, each word's id in 2 bytes and the share in 1.

        Ids take 4 bytes beyond 65,000 words. A trie that shares beginnings takes less (Heafield 2011, WMT, sec. 3).
        """
        id_bytes = 2 if len(self._vocabulary) <= 65_000 else 4
        words = sum(len(word.encode()) + 1 for word in self._vocabulary.words)
        return words + sum(
            len(shares) * ((len(context) + 1) * id_bytes + 1)
            for context, shares in self._shares.items()
        )

    def predict_words(
        self, words: list[str], at: list[bool], count: int = 3
    ) -> list[list[ScoredWord]]:
        """As `Keyboard.predict_words`; ties by text."""
        known = replace_unknown(words, self._vocabulary)
        return [
            self._suggest(known, position, count) if asked else []
            for position, asked in enumerate(at)
        ]

    def _suggest(self, known: Sequence[str], position: int, count: int) -> list[ScoredWord]:
        scores: dict[str, float] = {}
        longer: list[dict[str, float]] = []
        for context in self._list_contexts(known, position):
            shares = self._shares.get(context, {})
            fresh = (word for word in shares if not any(word in before for before in longer))
            for word in islice(fresh, count):
                scores[word] = BACKOFF ** len(longer) * shares[word]
            longer.append(shares)
        best = sorted(scores, key=lambda word: (-scores[word], word))[:count]
        return [ScoredWord(word, scores[word]) for word in best]

    def _list_contexts(self, known: Sequence[str], position: int) -> list[tuple[str, ...]]:
        """Longest first, down to none; the message's start counts as a word."""
        longest = min(self._order - 1, position + 1)
        before = (_START, *known[:position])
        return [tuple(before[len(before) - size :]) for size in range(longest, -1, -1)]

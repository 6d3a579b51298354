"""Which web sentences sound like a phone chat: likelihood ratios of two small n-gram models."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log

from device_runtime.words import is_word, split_words

UNKNOWN = "<unk>"
START = "<s>"

SENTENCE_WORDS = (3, 30)
"""Words of the sentences worth keeping: one or two tell no register, long ones read as prose."""

DOUBT_WORDS = 11
"""Words of average sound added to each sentence when ranking (the shrinkage of a random-effects
mean). Measured on news by the covariance of a sentence's two halves: 11 words at lengths 8 to 12,
20 to 30 at greater lengths."""


@dataclass(frozen=True)
class RegisterModel:
    """Word bigram model with interpolated absolute discounting (Ney, Essen & Kneser 1994).

        P(w | v) = max(c(v, w) - D, 0) / c(v) + D * types(v) / c(v) * P(w)

    where P(w) discounts word counts the same way towards 1 / |vocabulary|, and D = n1 / (n1 + 2 n2)
    of the bigrams. Only words count, not punctuation, casing or where a sentence ends: conversion
    sets those later. The first word is predicted from a start symbol; words outside the vocabulary
    share one class.
    """

    vocabulary: frozenset[str] = field(repr=False)
    _word_log_probs: dict[str, float] = field(repr=False)
    _bigram_log_probs: dict[tuple[str, str], float] = field(repr=False)
    _back_off: dict[str, float] = field(repr=False)

    @classmethod
    def fit(cls, texts: Iterable[str], vocabulary: frozenset[str] | None = None) -> "RegisterModel":
        """Model of `texts`.

        Args:
            texts: any number of sentences or messages; at least one must hold a word.
            vocabulary: words with a probability of their own. Two models are comparable only over
                one vocabulary: give the second the first one's. Default: words seen twice or more
                (Moore & Lewis 2010, section 4).

        Raises:
            ValueError: no text holds a word.
        """
        sentences = [_words(text) for text in texts]
        counts = Counter(word for sentence in sentences for word in sentence)
        if not counts:
            raise ValueError("texts: no words to fit a register model on; give it some text")
        if vocabulary is None:
            vocabulary = frozenset(word for word, count in counts.items() if count > 1)
        bigrams: Counter[tuple[str, str]] = Counter()
        for sentence in sentences:
            known = [word if word in vocabulary else UNKNOWN for word in sentence]
            bigrams.update(zip([START, *known], known, strict=False))

        discount = _discount(bigrams)
        words: Counter[str] = Counter()
        contexts: Counter[str] = Counter()
        followers: Counter[str] = Counter()
        for (previous, word), count in bigrams.items():
            words[word] += count
            contexts[previous] += count
            followers[previous] += 1

        total = words.total()
        uniform = discount * len(words) / total / (len(vocabulary) + 1)
        word_probs = {
            word: max(words[word] - discount, 0.0) / total + uniform
            for word in (*vocabulary, UNKNOWN)
        }
        back_off = {v: discount * followers[v] / contexts[v] for v in contexts}
        return cls(
            vocabulary,
            {word: log(p) for word, p in word_probs.items()},
            {
                (v, w): log((count - discount) / contexts[v] + back_off[v] * word_probs[w])
                for (v, w), count in bigrams.items()
            },
            {v: log(share) for v, share in back_off.items()},
        )

    def log_prob(self, previous: str, word: str) -> float:
        """ln P(word | previous); START and UNKNOWN name the two special symbols."""
        return self._log_prob_of_words([word], previous)

    def mean_log_prob(self, text: str) -> float:
        """Natural log-probability per word of `text`; 0 for a text without words."""
        words = _words(text)
        return self._log_prob_of_words(words) / max(len(words), 1)

    def _log_prob_of_words(self, words: Sequence[str], previous: str = START) -> float:
        vocabulary, bigrams = self.vocabulary, self._bigram_log_probs
        word_log_probs, back_off = self._word_log_probs, self._back_off
        if previous not in vocabulary and previous != START:
            previous = UNKNOWN
        total = 0.0
        for word in words:
            if word not in vocabulary:
                word = UNKNOWN
            seen = bigrams.get((previous, word))
            # A context never seen keeps nothing for its bigrams: its back-off weight is 1, log 0.
            total += back_off.get(previous, 0.0) + word_log_probs[word] if seen is None else seen
            previous = word
        return total


def likelihood_ratio(text: str, register: RegisterModel, general: RegisterModel) -> float:
    """How much likelier each word of `text` is in the register than in general text, in nats.

    The cross-entropy difference of Moore & Lewis 2010 with its sign turned: above 0 sounds like the
    register. Fit `general` on about as many words as `register`, so that neither is better
    informed.

    Raises:
        ValueError: the models have different vocabularies.
    """
    words = _words(text)
    return _total_ratio(words, register, general) / max(len(words), 1)


def select_by_register(
    sentences: Iterable[str], register: RegisterModel, general: RegisterModel, words: int
) -> list[str]:
    """The sentences that sound most like the register, best first, until they hold `words` words.

    Ranked by the likelihood ratio with DOUBT_WORDS words of the pool's mean ratio added to each
    sentence: a plain mean is noisiest on short sentences, so its top is three-word accidents. Ties
    keep the order of `sentences`. Sentences outside SENTENCE_WORDS are left out; if all the others
    hold fewer than `words` words, all of them come back.

    Raises:
        ValueError: the models have different vocabularies.
    """
    shortest, longest = SENTENCE_WORDS
    pool = []
    for sentence in sentences:
        tokens = _words(sentence)
        if shortest <= len(tokens) <= longest:
            pool.append((_total_ratio(tokens, register, general), len(tokens), sentence))
    pool_words = sum(length for _, length, _ in pool)
    mean = sum(ratio for ratio, _, _ in pool) / max(pool_words, 1)
    pool.sort(key=lambda item: -(item[0] + DOUBT_WORDS * mean) / (item[1] + DOUBT_WORDS))
    kept, held = [], 0
    for _, length, sentence in pool:
        if held >= words:
            break
        kept.append(sentence)
        held += length
    return kept


def _total_ratio(words: Sequence[str], register: RegisterModel, general: RegisterModel) -> float:
    if register.vocabulary is not general.vocabulary and register.vocabulary != general.vocabulary:
        raise ValueError(
            f"vocabularies differ ({len(register.vocabulary)} and {len(general.vocabulary)} words);"
            " fit the general model with vocabulary=register.vocabulary"
        )
    return register._log_prob_of_words(words) - general._log_prob_of_words(words)


def _words(text: str) -> list[str]:
    return [token for token in split_words(text) if is_word(token)]


def _discount(bigrams: Counter[tuple[str, str]]) -> float:
    """n1 / (n1 + 2 n2), the leave-one-out estimate of Ney, Essen & Kneser 1994, within (0, 1)."""
    of_count = Counter(bigrams.values())
    once, twice = of_count[1], of_count[2]
    return min(max(once / (once + 2 * twice), 0.1), 0.9) if once else 0.5

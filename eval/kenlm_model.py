"""A model to stand beside: n-grams of an ARPA file, scored by KenLM, with the bytes that KenLM would store them in."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from eval.baselines import ScoredWord, replace_unknown
from eval.kneser_ney import START, Context, read_arpa
from eval.targets import EvaluationVocabulary

PROB_BITS, BACKOFF_BITS = 8, 8


def import_kenlm() -> Any:
    """The package kenlm.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import kenlm
    except ModuleNotFoundError:
        raise ValueError(
            "package kenlm is missing: run ./scripts/setup bench (it compiles: needs a C++ compiler), or give --without"
            " kenlm for a table that cannot extend the leaderboard"
        ) from None
    return kenlm


class KenlmModel:
    """An ARPA file's words of highest probability, by KenLM. Measured as a `next_word.WordPredictor`.

    The best words are found without scoring all: those listed behind a context come in the order of their listed
    probability, and all others in the order of the next shorter context (as `baselines.NgramModel` does it).

    Args:
        arpa: the file; words outside the vocabulary stand in it as `baselines.OUTSIDE`.
        vocabulary: words that may be suggested.

    Raises:
        ValueError: kenlm is not installed, or the file cannot be read.
    """

    def __init__(self, arpa: Path, vocabulary: EvaluationVocabulary) -> None:
        self._kenlm = import_kenlm()
        config = self._kenlm.Config()
        config.show_progress = False
        config.arpa_complain = self._kenlm.ARPALoadComplain.NONE
        try:
            self._model = self._kenlm.Model(str(arpa), config)
        except OSError as error:
            raise ValueError(
                f"{arpa}: KenLM cannot read it: {' '.join(str(error).split())}"
            ) from None
        self._vocabulary = vocabulary
        counts: defaultdict[int, int] = defaultdict(int)
        listed: defaultdict[Context, list[tuple[float, str]]] = defaultdict(list)
        self._word_bytes = 0
        for words, log_prob in read_arpa(arpa):
            counts[len(words)] += 1
            if len(words) == 1:
                self._word_bytes += len(words[0].encode()) + 1
            if words[-1] in vocabulary:
                listed[words[:-1]].append((-log_prob, words[-1]))
        self._counts = list(counts.values())
        # Dictionaries for their order and their quick look-up.
        self._followers = {
            context: dict.fromkeys(word for _, word in sorted(found))
            for context, found in listed.items()
        }

    @property
    def size_bytes(self) -> int:
        """Bytes of `build_binary -a 64 -q 8 -b 8 trie`, words included."""
        return measure_trie_bytes(self._counts, self._word_bytes)

    def predict_words(
        self, words: list[str], at: list[bool], count: int = 3
    ) -> list[list[ScoredWord]]:
        """As `Keyboard.predict_words`, with log10 of probabilities; ties by text."""
        state, after = self._kenlm.State(), self._kenlm.State()
        self._model.BeginSentenceWrite(state)
        before = [START]
        predictions: list[list[ScoredWord]] = []
        for known, asked in zip(replace_unknown(words, self._vocabulary), at, strict=True):
            predictions.append(self._suggest(before, state, count) if asked else [])
            self._model.BaseScore(state, known, after)
            state, after = after, state
            before = [*before, known][-self._model.order + 1 :]
        return predictions

    def _suggest(self, before: Sequence[str], state: Any, count: int) -> list[ScoredWord]:
        candidates: list[str] = []
        longer: list[dict[str, None]] = []
        for start in range(len(before) + 1):
            followers = self._followers.get(tuple(before[start:]), {})
            fresh = (word for word in followers if not any(word in others for others in longer))
            candidates += islice(fresh, count)
            longer.append(followers)
        unused = self._kenlm.State()
        scored = [(-self._model.BaseScore(state, word, unused), word) for word in candidates]
        return [ScoredWord(word, -score) for score, word in sorted(scored)[:count]]


def measure_trie_bytes(counts: Sequence[int], word_bytes: int) -> int:
    """Bytes of the file that KenLM's `build_binary -a 64 -q 8 -b 8 trie` writes, without writing it.

    A node takes its word in as many bits as the largest id, and quantised values; a node inside also where its
    followers start, with as many high bits of that cut off to a table as saves most (Heafield 2011, WMT, sec. 3;
    KenLM's lm/trie.cc, bhiksha.cc, quantize.hh, vocab.cc and binary_format.cc).

    Args:
        counts: n-grams of each length 1 to n, n >= 2, <s>, </s> and <unk> counted.
        word_bytes: of all words, each with a byte at its end.
    """
    order, word_bits = len(counts), counts[0].bit_length()
    header = 88 + 20 + 8 * order
    size = -(-header // 8) * 8
    size += 8 * (1 + counts[0])  # hashed words
    middle_table, longest_table = 4 * (2**PROB_BITS + 2**BACKOFF_BITS), 4 * 2**PROB_BITS
    size += (order - 2) * middle_table + longest_table + 8
    size += 16 * (counts[0] + 2)
    for entries, followers in pairwise(counts[1:]):
        entries += 1
        bits = followers.bit_length()
        cut = min(range(bits + 1), key=lambda cut: (followers >> (bits - cut)) * 64 - entries * cut)
        size += 8 * (1 + (followers >> (bits - cut)) + 1) + 7
        size += _packed(entries, word_bits + PROB_BITS + BACKOFF_BITS + bits - cut)
    return size + _packed(counts[-1] + 1, word_bits + PROB_BITS) + word_bytes


def _packed(entries: int, bits: int) -> int:
    return (entries * bits + 7) // 8 + 8

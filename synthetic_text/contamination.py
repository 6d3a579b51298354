"""Contamination: whether training text holds lines of the evaluation sets, as a certificate without anybody's text."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy import sparse

from device_runtime.words import is_word, split_words
from synthetic_text.duplicates import hash_shingles

MIN_LINE_WORDS = 5
"""Least words of an evaluation line that is looked for; shorter ones ("how are you") are nobody's."""

NGRAM_WORDS = (8, 13)
"""Word n-grams looked for: 13 as GPT-3's authors took (Brown et al. 2020, appendix C), 8 as PaLM's (Chowdhery et al.
2022, section 8), which suits short messages better."""

MIN_SIMILAR_WORDS = 8
"""Least words of an evaluation line whose edited copies are looked for; shorter ones resemble others by chance."""

MIN_SIMILARITY = 0.8
"""Cosine from which two lines count as copies of one another."""

LIMITS: Mapping[str, float] = MappingProxyType(
    {
        "whole lines": 0.05,
        "lines with 8-grams": 0.01,
        "lines with 13-grams": 0.005,
        "8-grams": 0.005,
        "13-grams": 0.005,
        "similar lines": 0.01,
    }
)
"""Greatest share of each measure that passes, four times and more what text shares by chance.

Chats of one LLM against others of it and of its prototype, 200,000 words: 1.1 % of whole lines (all but one of 5 to 7
words), 0.13 % of lines with an 8-gram, none with a 13-gram, 0.26 % similar. Chats against 2.2 M words of tweets,
speeches, snippets and news: 0.26, 0.02, 0 and 0 %. Halves of the review snippets: 0.06, 0.20, 0.03 and 0.02 %.
Whole lines by chance grow with the corpus, hence their wide limit; a leak of 1 % of the lines is above the others.
"""

_FEATURES = 1 << 18
_REST_NORM = 0.65  # of a line's most common shingles, which are left out when candidates are sought
_BLOCK_LINES = 512
_BLOCK_PAIRS = 50_000
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class Overlap:
    """One measure of one evaluation set.

    Attributes:
        measure: a key of LIMITS.
        checked: lines or n-grams of the set that are long enough to be looked for.
        found: those that the corpus holds.
        share: found / checked, 0 where none is checked.
        limit: greatest share that passes.
    """

    measure: str
    checked: int
    found: int
    share: float
    limit: float


@dataclasses.dataclass(frozen=True)
class SetCheck:
    """What was found of one evaluation set; `sha256` is `hash_lines` of it."""

    name: str
    sha256: str
    lines: int
    overlaps: tuple[Overlap, ...]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Result of `check_contamination`: figures and hashes only, so it may be published; JSON by dataclasses.asdict.

    Attributes:
        corpus_sha256: `hash_lines` of the corpus.
        min_line_words, min_similar_words, min_similarity: what was looked for.
        passed: no measure of any set is above its limit.
    """

    corpus_sha256: str
    corpus_lines: int
    corpus_words: int
    min_line_words: int
    min_similar_words: int
    min_similarity: float
    sets: tuple[SetCheck, ...]
    passed: bool


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of the sorted SHA-256 digests of the lines (UTF-8, as written), so their order does not matter."""
    digests = sorted(
        hashlib.sha256(line.encode("utf-8", "surrogatepass")).digest() for line in lines
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def check_contamination(
    corpus: Sequence[str],
    evaluation_sets: Mapping[str, Sequence[str]],
    limits: Mapping[str, float] = LIMITS,
) -> Certificate:
    """Looks for every evaluation line in the corpus: whole, in word n-grams, and as an edited copy.

    Lines are compared as words in lower case, without punctuation and apostrophes, so that a copy in other case or
    punctuation is a verbatim one. A whole line of at least MIN_LINE_WORDS words is found also inside a longer corpus
    line; windows are compared by 64-bit hashes, which collide by chance once in 10 million checks. Similarity is the
    cosine of TF-IDF weighted character 4-grams with frequencies of the corpus (Salton & Buckley 1988).

    Args:
        corpus: everything the model will train on, a message or sentence each.
        evaluation_sets: lines by the set's name.
        limits: greatest share by measure, LIMITS' keys.

    Raises:
        ValueError: no corpus, no evaluation set or an empty one, or limits that do not fit the measures.
    """
    if not corpus or not evaluation_sets:
        raise ValueError("contamination: give a corpus with lines and at least one evaluation set")
    for name, lines in evaluation_sets.items():
        if not lines:
            raise ValueError(f"evaluation set {name}: no lines: give its text or leave it out")
    if set(limits) != set(LIMITS) or not all(0 <= limit <= 1 for limit in limits.values()):
        raise ValueError(f"limits: give a share from 0 to 1 for each of {', '.join(LIMITS)}")
    corpus_lines = [_fold(text) for text in corpus]
    sets = {name: [_fold(text) for text in texts] for name, texts in evaluation_sets.items()}
    counts = _count_windows(corpus_lines, sets)
    similar = _count_similar(corpus_lines, sets)
    checks = tuple(
        SetCheck(
            name,
            hash_lines(texts),
            len(texts),
            tuple(
                Overlap(measure, checked, found, found / max(checked, 1), limits[measure])
                for measure, (checked, found) in (
                    counts[name] | {"similar lines": similar[name]}
                ).items()
            ),
        )
        for name, texts in evaluation_sets.items()
    )
    return Certificate(
        hash_lines(corpus),
        len(corpus),
        sum(len(line.split()) for line in corpus_lines),
        MIN_LINE_WORDS,
        MIN_SIMILAR_WORDS,
        MIN_SIMILARITY,
        checks,
        passed=all(o.share <= o.limit for check in checks for o in check.overlaps),
    )


def require_clean(certificate: Certificate) -> None:
    """Stops a run whose training text overlaps an evaluation set.

    Raises:
        ValueError: names the set, the measure, its share and its limit; never a text.
    """
    for check in certificate.sets:
        for overlap in check.overlaps:
            if overlap.share > overlap.limit:
                raise ValueError(
                    f"evaluation set {check.name}: {overlap.found:,} of {overlap.checked:,} {overlap.measure} "
                    f"({overlap.share:.2%}) stand in the training text, limit {overlap.limit:.2%}: "
                    "take them out of the corpus"
                )


def _fold(text: str) -> str:
    """The words of a text with a blank between, in lower case, without punctuation and apostrophes."""
    return " ".join(word.replace("'", "") for word in split_words(text) if is_word(word))


class _HashOfWord(dict[str, int]):
    """64-bit hash of each word asked for."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


class _WordHashes:
    """Hashes of the words of many lines, end to end."""

    def __init__(self, lines: Sequence[str], hash_of: _HashOfWord):
        self.counts = np.array([len(line.split()) for line in lines], np.int64)
        self.hashes = np.fromiter(
            (hash_of[word] for line in lines for word in line.split()),
            np.uint64,
            int(self.counts.sum()),
        )

    def windows(self, lengths: Iterable[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each ascending length: (uint64 hash of every run of so many words in one line, its line's index)."""
        line = np.repeat(np.arange(len(self.counts)), self.counts)
        start = np.arange(len(self.hashes))
        end = np.cumsum(self.counts)[line]
        value = np.zeros(len(start), np.uint64)
        hashed = 0
        for length in lengths:
            inside = start + length <= end
            line, start, end, value = line[inside], start[inside], end[inside], value[inside]
            for step in range(hashed, length):
                value = value * _BASE + self.hashes[start + step]
            hashed = length
            yield value, line


def _count_windows(
    corpus: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, tuple[int, int]]]:
    """(checked, found) of every measure but similarity, by set."""
    hash_of = _HashOfWord()
    corpus_hashes = _WordHashes(corpus, hash_of)
    set_hashes = {name: _WordHashes(lines, hash_of) for name, lines in sets.items()}
    every = np.concatenate([hashes.counts for hashes in set_hashes.values()])
    lengths = sorted({*NGRAM_WORDS, *every[every >= MIN_LINE_WORDS].tolist()})
    counts = {name: dict.fromkeys(itertools.islice(LIMITS, 5), (0, 0)) for name in sets}
    streams = {name: hashes.windows(lengths) for name, hashes in set_hashes.items()}
    for length, (held, _) in zip(lengths, corpus_hashes.windows(lengths), strict=True):
        held = np.sort(held)
        for name, stream in streams.items():
            windows, line = next(stream)
            found = _is_among(windows, held)
            whole = set_hashes[name].counts[line] == length
            checked_lines, found_lines = counts[name]["whole lines"]
            counts[name]["whole lines"] = (
                checked_lines + int(whole.sum()),
                found_lines + int(found[whole].sum()),
            )
            if length in NGRAM_WORDS:
                counts[name][f"{length}-grams"] = len(found), int(found.sum())
                counts[name][f"lines with {length}-grams"] = (
                    len(np.unique(line)),
                    len(np.unique(line[found])),
                )
    return counts


def _is_among(values: np.ndarray, sorted_values: np.ndarray) -> np.ndarray:
    if not len(sorted_values):
        return np.zeros(len(values), bool)
    at = np.searchsorted(sorted_values, values)
    return sorted_values[np.minimum(at, len(sorted_values) - 1)] == values


def _count_similar(
    corpus: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> dict[str, tuple[int, int]]:
    """(checked, found): lines of each set with a corpus line at a cosine of MIN_SIMILARITY or above."""
    held = _shingle_matrix(sorted(set(corpus)))
    frequency = np.bincount(held.indices, minlength=_FEATURES)
    weights = np.log((1 + held.shape[0]) / (1 + frequency)).astype(np.float32)
    held = _unit_rows(held, weights)
    postings = held.T.tocsr()
    counts = {}
    for name, lines in sets.items():
        checked = [line for line in lines if len(line.split()) >= MIN_SIMILAR_WORDS]
        distinct, inverse = np.unique(np.array(checked, dtype=object), return_inverse=True)
        wanted = _unit_rows(_shingle_matrix(distinct.tolist()), weights)
        found = _has_neighbour(wanted, held, postings, frequency)
        counts[name] = len(checked), int(found[inverse].sum())
    return counts


def _shingle_matrix(lines: Sequence[str]) -> sparse.csr_matrix:
    """float32 [lines, _FEATURES], 1 where a line has a shingle that hashes to the feature."""
    blocks = [sparse.csr_matrix((0, _FEATURES), dtype=np.float32)]
    for start in range(0, len(lines), _BLOCK_LINES):
        hashes, offsets = hash_shingles(lines[start : start + _BLOCK_LINES])
        features = (hashes % np.uint64(_FEATURES)).astype(np.int32)
        ones = np.ones(len(features), np.float32)
        block = sparse.csr_matrix(
            (ones, features, offsets.astype(np.int32)), shape=(len(offsets) - 1, _FEATURES)
        )
        block.sum_duplicates()
        block.data[:] = 1
        blocks.append(block)
    return sparse.vstack(blocks, format="csr")


def _unit_rows(matrix: sparse.csr_matrix, weights: np.ndarray) -> sparse.csr_matrix:
    matrix.data *= weights[matrix.indices]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(np.maximum(norms, 1e-9), np.diff(matrix.indptr))
    return matrix


def _has_neighbour(
    wanted: sparse.csr_matrix,
    held: sparse.csr_matrix,
    postings: sparse.csr_matrix,
    frequency: np.ndarray,
) -> np.ndarray:
    """Whether a row of `held` has a cosine of MIN_SIMILARITY with each row of `wanted`; exact.

    A row's most common features, together of norm _REST_NORM at most, add no more than that to any cosine (Bayardo, Ma
    & Srikant 2007), so the others alone, whose postings are short, propose all that can reach it.
    """
    row = np.repeat(np.arange(wanted.shape[0]), np.diff(wanted.indptr))
    order = np.lexsort((-frequency[wanted.indices], row))
    squares = np.cumsum(wanted.data[order].astype(np.float64) ** 2)
    before = np.concatenate([[0], squares])[wanted.indptr[:-1]]
    rare = np.empty(len(order), bool)
    rare[order] = squares - before[row] > _REST_NORM**2
    proposing = wanted.copy()
    proposing.data *= rare
    proposing.eliminate_zeros()
    found = np.zeros(wanted.shape[0], bool)
    for start in range(0, wanted.shape[0], _BLOCK_LINES):
        products = (proposing[start : start + _BLOCK_LINES] @ postings).tocoo()
        near = products.data >= MIN_SIMILARITY - _REST_NORM - 1e-5
        left, right = products.row[near] + start, products.col[near]
        for at in range(0, len(left), _BLOCK_PAIRS):
            a, b = left[at : at + _BLOCK_PAIRS], right[at : at + _BLOCK_PAIRS]
            cosines = np.asarray(wanted[a].multiply(held[b]).sum(axis=1)).ravel()
            found[a[cosines >= MIN_SIMILARITY]] = True
    return found

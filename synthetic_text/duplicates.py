"""Duplicates: the same text but for case, apostrophe style and blanks, and nearly the same by MinHash."""

import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from rensa import RMinHash

from device_runtime.words import normalize

SHORT_WORDS = 4
"""Most words of a message that people really send again and again ("ok", "how are you")."""

SHINGLE_CHARACTERS = 4
PERMUTATIONS = 128
"""Minima in a MinHash signature."""

_MIN_RECALL = 0.99
_BLOCK_LINES = 16_384
_MAX_KEPT_IN_BUCKET = 32  # bounds the work on boilerplate that is alike, yet below the threshold
_PLANTED_SHARE = 0.05
_ODD = np.random.default_rng(0).integers(2**63, size=256, dtype=np.uint64) | np.uint64(1)


def drop_duplicates(texts: Iterable[str], max_repeats: int = 1) -> tuple[list[str], int]:
    """Texts without repetition, in order, and how many were dropped.

    Texts are the same when `device_runtime.words.normalize` makes them equal; the first one's
    writing is kept.

    Args:
        texts: messages or sentences.
        max_repeats: times that a message of at most SHORT_WORDS words may stand, >= 1; longer ones
            stand once.

    Raises:
        ValueError: max_repeats is below 1.
    """
    if max_repeats < 1:
        raise ValueError(f"max_repeats: {max_repeats} is below 1; 1 keeps every text once")
    seen: Counter[str] = Counter()
    kept = []
    dropped = 0
    for text in texts:
        key = normalize(text)
        allowed = max_repeats if key.count(" ") < SHORT_WORDS else 1
        if seen[key] < allowed:
            seen[key] += 1
            kept.append(text)
        else:
            dropped += 1
    return kept, dropped


def find_near_duplicates(
    texts: Sequence[str], threshold: float = 0.85, seed: int = 0
) -> np.ndarray:
    """Which texts nearly repeat an earlier text that is kept; see `match_near_duplicates`.

    Returns:
        bool [n], True for a text to drop.
    """
    return match_near_duplicates(texts, threshold, seed) >= 0


def match_near_duplicates(
    texts: Sequence[str], threshold: float = 0.85, seed: int = 0
) -> np.ndarray:
    """For each text an earlier, kept one that it nearly repeats, exact repeats included.

    Two texts are near-duplicates when the Jaccard similarity of their `shingles` reaches the threshold. MinHash bands
    (Broder 1997; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4) propose pairs, the shingles themselves
    decide, so none is false; at the threshold 99 % are proposed, above it more (`choose_bands`). Texts of at most
    SHORT_WORDS words are never matched: people repeat them, `drop_duplicates` counts how often.

    Args:
        texts: messages or sentences, in the order in which they take precedence.
        threshold: least Jaccard similarity, 0.04 to 1.
        seed: of the permutations.

    Returns:
        int64 [n], index of the earlier text, -1 for a text to keep.

    Raises:
        ValueError: threshold out of range.
    """
    bands, rows = choose_bands(threshold)
    lines = [normalize(text) for text in texts]
    long = np.array([i for i, line in enumerate(lines) if line.count(" ") >= SHORT_WORDS], np.int64)
    matches = np.full(len(lines), -1, np.int64)
    buckets = _number_buckets(_hash_bands(lines, long, bands, rows, seed))
    kept_in: defaultdict[int, list[int]] = defaultdict(list)
    for column in np.flatnonzero((buckets >= 0).any(axis=0)):
        index = int(long[column])
        shared = [bucket for bucket in buckets[:, column].tolist() if bucket >= 0]
        own = shingles(lines[index])
        for other in sorted({other for bucket in shared for other in kept_in[bucket]}):
            if jaccard_similarity(own, shingles(lines[other])) >= threshold:
                matches[index] = other
                break
        else:
            for bucket in shared:
                if len(kept_in[bucket]) < _MAX_KEPT_IN_BUCKET:
                    kept_in[bucket].append(index)
    return matches


def shingles(line: str) -> set[str]:
    """Every run of SHINGLE_CHARACTERS characters of a normalized line between two blanks.

    Characters and not words: in a message of ten words one typo spoils a third of its word pairs.
    """
    padded = f" {line} ".ljust(SHINGLE_CHARACTERS)
    return {
        padded[start : start + SHINGLE_CHARACTERS]
        for start in range(len(padded) - SHINGLE_CHARACTERS + 1)
    }


def jaccard_similarity(a: set[str], b: set[str]) -> float:
    """|a & b| / |a | b| of two sets that are not both empty."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def hash_shingles(lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of the shingles of normalized lines, the same in every run; repeated shingles stay repeated.

    Returns:
        (uint64 [shingles], uint64 [n + 1]): all hashes in order, and where each line's begin; the last entry is their
        number.
    """
    padded = [f" {line} ".ljust(SHINGLE_CHARACTERS) for line in lines]
    characters = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
    ends = np.cumsum([len(line) for line in padded], dtype=np.int64)
    counts = np.array([len(line) - SHINGLE_CHARACTERS + 1 for line in padded], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    first = np.arange(offsets[-1]) + np.repeat(ends - offsets[1:] - SHINGLE_CHARACTERS + 1, counts)
    hashes = np.zeros(len(first), np.uint64)
    for k in range(SHINGLE_CHARACTERS):
        hashes += characters[first + k] * _ODD[k]
        hashes = (hashes ^ (hashes >> np.uint64(29))) * _ODD[k + SHINGLE_CHARACTERS]
    return hashes ^ (hashes >> np.uint64(32)), offsets.astype(np.uint64)


def choose_bands(threshold: float) -> tuple[int, int]:
    """Bands b and rows r of a signature: two texts of Jaccard similarity J share a band with 1 - (1 - J**r)**b.

    The longest bands, so the fewest needless comparisons, that find 99 % of the pairs at the threshold: 16 of 8 rows
    for 0.85, which find 99.4 % at 0.85, 99.99 % at 0.9, and propose 6 % of the pairs at 0.5.

    Raises:
        ValueError: threshold above 1, or so low that no bands do.
    """
    for rows in range(PERMUTATIONS, 0, -1):
        bands = PERMUTATIONS // rows
        if 0 < threshold <= 1 and 1 - (1 - threshold**rows) ** bands >= _MIN_RECALL:
            return bands, rows
    raise ValueError(f"threshold: {threshold} is outside 0.04 to 1; 0.85 is usual")


def _hash_bands(
    lines: Sequence[str], chosen: np.ndarray, bands: int, rows: int, seed: int
) -> np.ndarray:
    """uint64 [bands, chosen], one number a band of each chosen line's signature."""
    keys = np.empty((bands, len(chosen)), np.uint64)
    for start in range(0, len(chosen), _BLOCK_LINES):
        block = chosen[start : start + _BLOCK_LINES]
        hashes, offsets = hash_shingles([lines[i] for i in block])
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, seed)
        minima = np.array(matrix.to_rows(), np.uint64)[:, : bands * rows]
        mixed = minima.reshape(len(block), bands, rows) * _ODD[-rows:]
        keys[:, start : start + len(block)] = mixed.sum(axis=2, dtype=np.uint64).T
    return keys


def _number_buckets(keys: np.ndarray) -> np.ndarray:
    """int32 [bands, n], equal exactly where a band's keys are; -1 where a key stands alone in its band."""
    buckets = np.full(keys.shape, -1, np.int32)
    numbered = 0
    for band, key in enumerate(keys):
        order = np.argsort(key, kind="stable")
        repeats = np.zeros(len(key), bool)
        repeats[1:] = key[order[1:]] == key[order[:-1]]
        opens = ~repeats
        opens[:-1] &= repeats[1:]
        opens[-1:] = False
        shared = opens | repeats
        buckets[band, order[shared]] = numbered + np.cumsum(opens)[shared] - 1
        numbered += int(opens.sum())
    return buckets


def recombine_lines(sentences: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` lines, each the beginning of one sentence and the middle of another: chance overlap, no copies."""
    rng = np.random.default_rng(seed)
    words = [sentence.split() for sentence in sentences]
    lines = []
    for first, second in rng.integers(len(words), size=(count, 2)).tolist():
        head, tail = words[first][: int(rng.integers(2, 9))], words[second]
        start = int(rng.integers(max(len(tail) - len(head), 1)))
        lines.append(" ".join([*head, *tail[start : start + int(rng.integers(3, 10))]]))
    return lines


def measure_deduplication(
    lines: Sequence[str], threshold: float = 0.85, seed: int = 0
) -> dict[str, float]:
    """Speed, memory and correctness on real lines after which edited copies of 5 % of them are planted.

    A copy has one to four characters changed, dropped or added, or words left out. It counts as planted if its
    similarity to its line, which is kept, is in [threshold, 1).

    Returns:
        lines, planted: how many. seconds: wall time. peak_rss_bytes: of this process, so far. recall: share of the
        planted found. false_share: share of the lines marked whose similarity to their match is below the threshold.

    Raises:
        ValueError: threshold out of range, or nothing could be planted.
    """
    rng = np.random.default_rng(seed)
    sources = rng.choice(len(lines), int(len(lines) * _PLANTED_SHARE), replace=False)
    copies = [_edit(normalize(lines[i]), rng) for i in sources]
    texts = [*lines, *copies]
    start = time.perf_counter()
    matches = match_near_duplicates(texts, threshold, seed)
    seconds = time.perf_counter() - start

    found = planted = 0
    for position, (source, copy) in enumerate(zip(sources, copies, strict=True), len(lines)):
        is_kept = matches[source] < 0 and copy.count(" ") >= SHORT_WORDS
        if is_kept and threshold <= _similarity(lines[source], copy) < 1:
            planted += 1
            found += int(matches[position] >= 0)
    if not planted:
        raise ValueError(
            f"lines: none of {len(lines)} has more than {SHORT_WORDS} words to plant copies of"
        )
    marked = np.flatnonzero(matches >= 0)
    false = sum(_similarity(texts[i], texts[matches[i]]) < threshold for i in marked)
    return {
        "lines": len(texts),
        "planted": planted,
        "seconds": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "recall": found / planted,
        "false_share": false / max(len(marked), 1),
    }


def _similarity(a: str, b: str) -> float:
    return jaccard_similarity(shingles(normalize(a)), shingles(normalize(b)))


def _edit(line: str, rng: np.random.Generator) -> str:
    """A copy with a few slips: characters changed, dropped or added, or a word left out."""
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(line) + 1))
        letter = "etaoinshrd"[rng.integers(10)]
        kind = rng.integers(4)
        if kind == 3:
            words = line.split(" ")
            del words[rng.integers(len(words))]
            line = " ".join(words)
        else:
            line = line[:at] + (letter if kind < 2 else "") + line[at + (kind > 0) :]
    return line

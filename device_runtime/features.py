"""What a device counts of its messages for domain adaptation, and the one thing that is ever released of those counts.

A `FeatureSpace` is public and sent to devices; the synthesis side counts its pool in the same space. A `DpHistogram` is
the noised sum over devices, and its file is all that crosses from the private side to the synthesis side.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from device_runtime.words import split_words

_SCHEMA = "keyfed-features/1"  # also names the hash: another one needs another number
_HISTOGRAM_SCHEMA = "keyfed-dp-histogram/1"
_START = ""  # stands before a message's first word; no word is empty


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of messages, one message's after the other.

    Attributes:
        ids: int32 [n], each in [0, buckets of the space).
        offsets: int64 [messages + 1], message m has ids[offsets[m] : offsets[m + 1]].
    """

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sum_by_message(self, values: np.ndarray) -> np.ndarray:
        """Sum over each message's features of values[feature], float64 [messages]; 0 without features."""
        messages = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.bincount(messages, values[self.ids], len(self))


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Buckets of hashed words, of hashed pairs of neighbouring words, and of topics, in this order.

    Words are those of `split_words`, punctuation included. The hash is BLAKE2b modulo the number of buckets, so it is
    the same on every device and needs no dictionary of words; two words may share a bucket.

    Attributes:
        words: buckets of single words, >= 1.
        pairs: buckets of a word and the one before it (a message's first word follows a start mark), >= 0.
        topics: float32 [K, words], what each word bucket says for each of K public topics; K may be 0. A message's
            topic is the one with the largest sum over its words; if none is above 0 it has no topic.

    Raises:
        ValueError: an attribute is out of its range.
    """

    words: int
    pairs: int
    topics: np.ndarray

    def __post_init__(self) -> None:
        if self.words < 1 or self.pairs < 0:
            raise ValueError(
                f"features: {self.words} word and {self.pairs} pair buckets; give at least 1 and 0"
            )
        if self.topics.ndim != 2 or self.topics.shape[1] != self.words:
            raise ValueError(
                f"features: topics have shape {self.topics.shape}, must have (K, {self.words})"
            )

    @property
    def buckets(self) -> int:
        """Number of features."""
        return self.words + self.pairs + len(self.topics)

    @property
    def segments(self) -> dict[str, slice]:
        """Where the buckets of each kind lie."""
        ends = (self.words, self.words + self.pairs, self.buckets)
        return {
            "words": slice(0, ends[0]),
            "pairs": slice(*ends[:2]),
            "topics": slice(*ends[1:]),
        }

    @property
    def version(self) -> str:
        """Equal for two spaces exactly if they give every message the same features."""
        topics = hashlib.sha256(np.ascontiguousarray(self.topics, np.float32).tobytes())
        return f"{_SCHEMA} {self.words}+{self.pairs}+{len(self.topics)} {topics.hexdigest()[:16]}"

    def extract(self, texts: Iterable[str]) -> Features:
        """Features of each message: one a word, one a pair, and its topic."""
        ids: list[int] = []
        offsets = [0]
        buckets: dict[str, int] = {}  # for this call alone: no typed word is kept
        scores = np.ascontiguousarray(self.topics.T)
        for text in texts:
            words = split_words(text)
            word_ids = []
            for word in words:
                if word not in buckets:
                    buckets[word] = _hash(word) % self.words
                word_ids.append(buckets[word])
            ids += word_ids
            if self.pairs:
                pairs = zip([_START, *words], words, strict=False)
                ids += [self.words + _hash(f"{a} {b}") % self.pairs for a, b in pairs]
            if len(self.topics) and words:
                by_topic = scores[word_ids].sum(axis=0)
                topic = int(by_topic.argmax())
                if by_topic[topic] > 0:
                    ids.append(self.words + self.pairs + topic)
            offsets.append(len(ids))
        return Features(np.array(ids, np.int32), np.array(offsets, np.int64))

    def save(self, path: Path) -> None:
        """Writes the space to a file, whole or not at all."""
        facts = {"schema": _SCHEMA, "words": self.words, "pairs": self.pairs}
        _save(path, facts, {"topics": self.topics})

    @classmethod
    def load(cls, path: Path) -> "FeatureSpace":
        """Reads `save`.

        Raises:
            ValueError: names the file and what is wrong with it.
        """
        facts, topics = _load(path, _SCHEMA, "topics")
        try:
            return cls(facts["words"], facts["pairs"], topics)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: no feature space ({error}): build it again") from None


@dataclasses.dataclass(frozen=True, eq=False)
class DpHistogram:
    """Sum over devices of their clipped histograms with Gaussian noise on it: all that is ever released of them.

    One device, replaced by an empty one, changes the sum by at most clip_norm in L2; so the noise of standard deviation
    noise_multiplier * clip_norm in each bucket makes it (1 / (2 noise_multiplier**2))-zCDP (Bun & Steinke 2016,
    proposition 1.6). A histogram without noise cannot be had: it is no value of this class, so it has no file.

    Attributes:
        counts: float64 [buckets], noised; entries may be negative.
        clip_norm: largest L2 norm of a device's histogram, in counts.
        noise_multiplier: z in clip norms.
        devices: number of devices asked, which is public.
        rho: zCDP of the release.
        features: `FeatureSpace.version` of the space counted in.

    Raises:
        ValueError: a field is out of its range, or rho is not the noise multiplier's.
    """

    counts: np.ndarray
    clip_norm: float
    noise_multiplier: float
    devices: int
    rho: float
    features: str

    def __post_init__(self) -> None:
        for name in ("clip_norm", "noise_multiplier", "rho"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"histogram: {name} is {value!r}, must be positive and finite")
        if not math.isclose(self.rho, 1 / (2 * self.noise_multiplier**2), rel_tol=1e-9):
            raise ValueError(
                f"histogram: rho is {self.rho!r}, and noise_multiplier {self.noise_multiplier!r} gives"
                f" {1 / (2 * self.noise_multiplier**2)!r}"
            )
        if self.devices < 1:
            raise ValueError(f"histogram: devices is {self.devices!r}, must be at least 1")
        if self.counts.ndim != 1 or not np.isfinite(self.counts).all():
            raise ValueError("histogram: counts must be one row of finite numbers")

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise in every bucket, in counts."""
        return self.noise_multiplier * self.clip_norm

    def save(self, path: Path) -> None:
        """Writes the histogram to a file, whole or not at all."""
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del facts["counts"]
        _save(path, {"schema": _HISTOGRAM_SCHEMA} | facts, {"counts": self.counts})

    @classmethod
    def load(cls, path: Path) -> "DpHistogram":
        """Reads `save`.

        Raises:
            ValueError: names the file and what is wrong with it.
        """
        facts, counts = _load(path, _HISTOGRAM_SCHEMA, "counts")
        del facts["schema"]
        try:
            return cls(counts, **facts)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: no histogram ({error}): release it again") from None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _save(path: Path, facts: dict, arrays: dict[str, np.ndarray]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _load(path: Path, schema: str, name: str) -> tuple[dict, np.ndarray]:
    try:
        with np.load(path) as arrays:
            facts, array = json.loads(arrays["facts"].tobytes()), arrays[name]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # zipfile and numpy raise many kinds
        raise ValueError(f"{path}: not readable ({type(error).__name__}): write it again") from None
    if not isinstance(facts, dict) or facts.get("schema") != schema:
        raise ValueError(f"{path}: not of schema {schema!r}: write it again with this version")
    return facts, array

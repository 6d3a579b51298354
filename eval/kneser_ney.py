"""Interpolated modified Kneser-Ney estimates of n-grams, as an ARPA file that KenLM reads.

Estimated here because KenLM's own estimator, lmplz, cannot be installed with pip. The numbers are lmplz's (Heafield,
Pouzyrevsky, Clark and Koehn 2013, ACL, sec. 3), cutoffs included.
"""

import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # lmplz --discount_fallback

Context = tuple[str, ...]
Followers = dict[str, float]


@dataclass(frozen=True)
class NgramTable:
    """Probabilities of words behind contexts of 0 to n - 1 words.

    Attributes:
        log_probs: for each length of context, {context: {word: log10 of its probability}}.
        log_backoffs: {context: log10 of what a word that is not listed behind it takes from the next shorter one};
            0 where a context is missing.
    """

    log_probs: Sequence[Mapping[Context, Followers]]
    log_backoffs: Mapping[Context, float]


def estimate_kneser_ney(
    messages: Iterable[Sequence[str]], order: int, cutoffs: Sequence[int] | None = None
) -> NgramTable:
    """Estimates p(w | context) = (a - D(a)) / A + b(context) p(w | context without its first word).

    a is how often w follows the context in the longest n-grams and in those from a message's start, and elsewhere how
    many different words stand before both; A its sum; the discount D depends on whether a is 1, 2 or more (Chen and
    Goodman 1999, Computer Speech and Language 13(4), eq. 25 to 27). Single words are interpolated with a uniform
    distribution that knows <unk> too.

    Args:
        messages: words of each; none may hold white space or be <s>, </s> or <unk>.
        order: n >= 2.
        cutoffs: for each length 1 to n the count up to which its n-grams are left out (lmplz --prune), not
            decreasing, the first 0. What is left out adds to b. Default: all are kept.

    Raises:
        ValueError: no message, order or cutoffs out of range.
    """
    cutoffs = (0,) * order if cutoffs is None else cutoffs
    if order < 2:
        raise ValueError(f"order is {order}, must be at least 2")
    if len(cutoffs) != order or cutoffs[0] != 0 or list(cutoffs) != sorted(cutoffs):
        raise ValueError(f"cutoffs are {list(cutoffs)}: give {order}, from 0, none below another")
    counts = _count(messages, order)
    if not counts[0]:
        raise ValueError("no message to estimate n-grams of")
    uniform = 1 / (len(counts[0][()]) + 1)
    log_probs: list[dict[Context, Followers]] = []
    log_backoffs: dict[Context, float] = {}
    shorter: dict[Context, Followers] = {}
    for length, cutoff in enumerate(cutoffs):
        level = _adjust(counts, length)
        discounts = [0.0, *_find_discounts(level)]
        probs: dict[Context, Followers] = {}
        for context, followers in level.items():
            total = sum(followers.values())
            raw = counts[length][context]
            kept = {word: a for word, a in followers.items() if raw[word] > cutoff}
            if not kept:
                continue
            taken = sum(discounts[min(a, 3)] for a in kept.values()) + total - sum(kept.values())
            backoff = taken / total
            below = shorter[context[1:]] if length else {}
            probs[context] = {
                word: (a - discounts[min(a, 3)]) / total + backoff * below.get(word, uniform)
                for word, a in kept.items()
            }
            if length:
                log_backoffs[context] = _log10(backoff)
            else:
                probs[context][UNKNOWN] = backoff * uniform
        log_probs.append(
            {
                context: {word: min(0.0, _log10(p)) for word, p in followers.items()}
                for context, followers in probs.items()
            }
        )
        shorter = probs
    return NgramTable(log_probs, log_backoffs)


def write_arpa(table: NgramTable, path: Path) -> None:
    """Writes the file that `read_arpa`, KenLM and others read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n")
        for length, level in enumerate(table.log_probs, start=1):
            file.write(f"ngram {length}={sum(map(len, level.values())) + (length == 1)}\n")
        for length, level in enumerate(table.log_probs, start=1):
            file.write(f"\n\\{length}-grams:\n")
            if length == 1:
                file.write(f"0\t{START}\t{table.log_backoffs.get((START,), 0.0):.7g}\n")
            for context, followers in level.items():
                for word, log_prob in followers.items():
                    words = (*context, word)
                    backoff = f"\t{table.log_backoffs.get(words, 0.0):.7g}"
                    end = "" if length == len(table.log_probs) else backoff
                    file.write(f"{log_prob:.7g}\t{' '.join(words)}{end}\n")
        file.write("\n\\end\\\n")
    temporary.replace(path)


def read_arpa(path: Path) -> Iterator[tuple[Context, float]]:
    """(words, log10 of the last one's probability) of every n-gram of an ARPA file, shorter ones first.

    Raises:
        ValueError: names the line that is none of an ARPA file.
    """
    length = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            line = line.strip("\n ")
            if line.endswith("-grams:"):
                length = int(line[1 : -len("-grams:")])
            elif length and line and line != "\\end\\":
                log_prob, _, rest = line.partition("\t")
                words = tuple(map(sys.intern, rest.partition("\t")[0].split(" ")))
                try:
                    if len(words) != length:
                        raise ValueError
                    yield words, float(log_prob)
                except ValueError:
                    raise ValueError(f"{path}:{number}: no {length}-gram of an ARPA file") from None


def _count(messages: Iterable[Sequence[str]], order: int) -> list[dict[Context, dict[str, int]]]:
    """How often each word, message end included, followed each context, by the context's length."""
    counts: list[dict[Context, dict[str, int]]] = [{} for _ in range(order)]
    for message in messages:
        words = (START, *map(sys.intern, message), END)
        for position in range(1, len(words)):
            word = words[position]
            for length in range(min(order - 1, position) + 1):
                followers = counts[length].setdefault(words[position - length : position], {})
                followers[word] = followers.get(word, 0) + 1
    return counts


def _adjust(
    counts: Sequence[Mapping[Context, Mapping[str, int]]], length: int
) -> Mapping[Context, Mapping[str, int]]:
    """a of every n-gram whose context has `length` words."""
    if length == len(counts) - 1:
        return counts[length]
    adjusted: dict[Context, dict[str, int]] = {}
    for context, followers in counts[length + 1].items():
        preceded = adjusted.setdefault(context[1:], {})
        for word in followers:
            preceded[word] = preceded.get(word, 0) + 1
    starting = {c: dict(f) for c, f in counts[length].items() if c[:1] == (START,)}
    return adjusted | starting


def _find_discounts(level: Mapping[Context, Mapping[str, int]]) -> tuple[float, ...]:
    """D(1), D(2), D(3 and more), by how many n-grams have a = 1 to 4; the fallback where that gives none."""
    n = Counter(itertools.chain.from_iterable(followers.values() for followers in level.values()))
    if not (n[1] and n[2] and n[3]):
        return FALLBACK_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(a - (a + 1) * y * n[a + 1] / n[a] for a in (1, 2, 3))
    in_range = all(0 <= discount <= a for a, discount in enumerate(found, start=1))
    return found if in_range else FALLBACK_DISCOUNTS


def _log10(p: float) -> float:
    return math.log10(p) if p > 0 else -99.0  # as ARPA files write it

"""Kneser-Ney against its definition counted anew, word by word, and against what lmplz wrote for the same text."""

import functools
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.kneser_ney import NgramTable, estimate_kneser_ney, read_arpa, write_arpa

MESSAGES = st.lists(st.lists(st.sampled_from("abcd,"), max_size=6), min_size=1, max_size=12)


class Definition:
    """p(w | context) by the formulas, each count by a search through the messages."""

    def __init__(self, messages, order, cutoffs):
        self.lines = [["<s>", *message, "</s>"] for message in messages]
        self.order, self.cutoffs = order, cutoffs
        self.words = sorted({word for line in self.lines for word in line[1:]})

        self.occurs, self.adjusted, self.discount = map(
            functools.cache, (self._occurs, self._adjusted, self._discount)
        )

    def _occurs(self, ngram):
        size = len(ngram)
        return sum(
            tuple(line[at : at + size]) == ngram for line in self.lines for at in range(len(line))
        )

    def _adjusted(self, ngram):
        if len(ngram) == self.order or ngram[0] == "<s>":
            return self.occurs(ngram)
        return sum(self.occurs((word, *ngram)) > 0 for word in ["<s>", *self.words])

    def ngrams(self, size):
        found = {tuple(line[at : at + size]) for line in self.lines for at in range(len(line))}
        return {ngram for ngram in found if len(ngram) == size and ngram != ("<s>",)}

    def _discount(self, size, a):
        n = Counter(self.adjusted(ngram) for ngram in self.ngrams(size))
        fallback = {1: 0.5, 2: 1.0, 3: 1.5}
        if not (n[1] and n[2] and n[3]):
            return fallback[min(a, 3)]
        y = n[1] / (n[1] + 2 * n[2])
        d = {i: i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)}
        return (d if all(0 <= d[i] <= i for i in d) else fallback)[min(a, 3)]

    def probability(self, word, context):
        size = len(context) + 1
        lower = self.probability(word, context[1:]) if context else 1 / (len(self.words) + 1)
        behind = {other: self.adjusted((*context, other)) for other in self.words}
        total = sum(behind.values())
        if not total:
            return lower
        kept = {
            other: a
            for other, a in behind.items()
            if a and self.occurs((*context, other)) > self.cutoffs[size - 1]
        }
        used = {other: a - self.discount(size, a) for other, a in kept.items()}
        return used.get(word, 0) / total + (1 - sum(used.values()) / total) * lower


def _look_up(table: NgramTable, word: str, context: tuple[str, ...]) -> float:
    listed = table.log_probs[len(context)].get(context, {})
    if word in listed:
        return 10 ** listed[word]
    backoff = 10 ** table.log_backoffs.get(context, 0.0)
    return backoff * _look_up(table, word, context[1:])


@settings(deadline=None, max_examples=25)
@given(MESSAGES, st.sampled_from([(0, 0), (0, 1), (0, 0, 0), (0, 0, 1), (0, 1, 1)]), st.data())
def test_probabilities_are_the_definitions_and_sum_to_one(messages, cutoffs, data):
    order = len(cutoffs)
    table = estimate_kneser_ney(messages, order, cutoffs)
    definition = Definition(messages, order, cutoffs)
    before = data.draw(st.lists(st.sampled_from(definition.words), max_size=order))
    context = ("<s>", *(word for word in before if word != "</s>"))[-order + 1 :]
    found = {word: _look_up(table, word, context) for word in [*definition.words, "<unk>"]}
    for word, probability in found.items():
        assert probability == pytest.approx(definition.probability(word, context), rel=1e-9)
    assert sum(found.values()) == pytest.approx(1)


def _write_messages(count: int) -> list[list[str]]:
    source, messages = random.Random(5), []
    for _ in range(count):
        message, last = [], 0
        for _ in range(1 + int(source.random() * 9)):
            last = (last * 7 + int(2000 * source.random() ** 6)) % 2000
            message.append(f"w{last}")
        messages.append(message)
    return messages


@pytest.mark.parametrize(
    ("cutoffs", "levels"),
    [
        (
            (0, 0, 0),
            [(1402, -4520.4107, -72.7784), (2900, -4176.7326, -35.8615), (2782, -2999.5739, 0)],
        ),
        ((0, 1, 1), [(1402, -4520.4107, -11.8347), (239, -334.9361, -2.7747), (57, -68.4028, 0)]),
    ],
)
def test_the_file_is_lmplzs(tmp_path: Path, cutoffs, levels):
    """N-grams, sums of log10 probabilities and of backoffs by length, of lmplz -o 3 --prune (KenLM 0.3.0)."""
    path = tmp_path / "model.arpa"
    write_arpa(estimate_kneser_ney(_write_messages(600), 3, cutoffs), path)
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines() if "\t" in line]
    for length, (count, log_probs, backoffs) in enumerate(levels, start=1):
        of_length = [row for row in rows if len(row[1].split()) == length]
        assert len(of_length) == count
        assert f"ngram {length}={count}\n" in path.read_text("utf-8")
        assert sum(float(row[0]) for row in of_length) == pytest.approx(log_probs, abs=1e-3)
        assert sum(float(row[2]) for row in of_length if row[2:]) == pytest.approx(
            backoffs, abs=1e-3
        )
    assert [(words, p) for words, p in read_arpa(path)] == [
        (tuple(row[1].split()), float(row[0])) for row in rows
    ]


def test_what_cannot_be_estimated_or_read_is_refused(tmp_path: Path):
    for order, cutoffs, said in (
        (1, None, "order is 1"),
        (2, (0,), "give 2"),
        (2, (1, 1), "from 0"),
        (3, (0, 2, 1), "none below"),
    ):
        with pytest.raises(ValueError, match=said):
            estimate_kneser_ney([["a"]], order, cutoffs)
    with pytest.raises(ValueError, match="no message"):
        estimate_kneser_ney([], 2)
    path = tmp_path / "model.arpa"
    for line in ("-1 a", "much\ta", "-1\ta b"):
        path.write_text(f"\\data\\\nngram 1=1\n\n\\1-grams:\n{line}\n\n\\end\\\n", "utf-8")
        with pytest.raises(ValueError, match=r"model.arpa:5: no 1-gram"):
            list(read_arpa(path))

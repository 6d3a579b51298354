from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.alignment import find_edits

TEXTS = st.text(alphabet="abcA ", max_size=9)


def string_alignment_distance(a, b):
    """Textbook recursion of optimal string alignment (Damerau 1964), one pair at a time."""
    d = {}
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if not i or not j:
                d[i, j] = i + j
                continue
            d[i, j] = min(
                d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a), len(b)]


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=8))
def test_edits_are_as_few_as_one_pair_at_a_time(pairs):
    intended, typed = [a for a, _ in pairs], [b for _, b in pairs]
    edits = find_edits(intended, typed)
    assert edits.counts.tolist() == [string_alignment_distance(a, b) for a, b in pairs]
    assert edits.total() == (
        len(edits.substitutions)
        + edits.case
        + len(edits.omitted)
        + len(edits.inserted)
        + edits.transpositions
    )
    grown = len("".join(typed)) - len("".join(intended))
    assert len(edits.inserted) - len(edits.omitted) == grown


def test_each_kind_of_edit_is_told_apart():
    edits = find_edits(
        ["hello you", "hello you", "hello you", "hello you", "hello you", "hello you"],
        ["hwllo you", "helloyou", "helo you", "hlelo you", "hello yyou", "Hello you"],
    )
    assert edits.counts.tolist() == [1] * 6
    assert edits.substitutions == [("e", "w")]
    assert (sorted(edits.omitted), edits.inserted) == ([" ", "l"], "y")
    assert (edits.transpositions, edits.case) == (1, 1)

import itertools
import math
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import lexicon as lexicons
from device_runtime.lexicon import Lexicon, write_lexicon
from device_runtime.tokenizer import is_one_word
from tests.device_runtime.tiny_model import count_words, sentences

STEP = 1 / 16  # nats a cost is rounded by
LETTERS = st.text("abé'", min_size=1, max_size=4)
WORDS = LETTERS.filter(is_one_word)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(write_lexicon(*count_words()))


def test_log_probs_are_the_shares_in_the_text(lexicon: Lexicon) -> None:
    words = [word for sentence in sentences() for word in sentence.split() if word in lexicon.words]
    for word, log_prob in zip(lexicon.words, lexicon.log_probs.tolist(), strict=True):
        assert log_prob == pytest.approx(math.log(words.count(word) / len(words)), abs=STEP)
        assert lexicon.words[lexicon.find(word)] == word
    assert lexicon.find("nowhere") == lexicon.find("") == -1


@pytest.mark.parametrize("previous", [None, "i", "saw", "tomorrow's", "nowhere"])
def test_words_after_another_are_a_distribution_of_the_text(
    lexicon: Lexicon, previous: str | None
) -> None:
    before = "" if previous is None else previous
    after = Counter(
        word
        for sentence in sentences()
        for pair in [["", *sentence.split()]]
        for last, word in itertools.pairwise(pair)
        if last == before and word in lexicon.words
    )
    log_probs = lexicon.next_log_probs(previous)
    assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)
    for word, count in after.items():
        share = math.log((count - 0.75) / after.total())
        assert log_probs[lexicon.find(word)] == pytest.approx(share, abs=STEP)
    others = [i for i, word in enumerate(lexicon.words) if word not in after]
    lost = log_probs[others] - lexicon.log_probs[others]
    assert lost == pytest.approx(np.full(len(others), lost[0]), abs=1e-4)


@settings(deadline=None)
@given(
    counts=st.dictionaries(WORDS, st.integers(1, 9), max_size=20),
    pairs=st.dictionaries(st.tuples(WORDS | st.just(""), WORDS), st.integers(1, 9), max_size=40),
    previous=st.none() | WORDS,
    prefix=st.text("abé'", max_size=2),
    count=st.integers(1, 25),
)
def test_next_words_are_the_likeliest_of_all(
    counts: dict[str, int],
    pairs: dict[tuple[str, str], int],
    previous: str | None,
    prefix: str,
    count: int,
) -> None:
    lexicon = Lexicon(write_lexicon(counts, pairs))
    assert list(lexicon.words) == sorted(counts)
    log_probs = dict(zip(lexicon.words, lexicon.next_log_probs(previous).tolist(), strict=True))
    total = sum(map(math.exp, log_probs.values()))
    followers = {after for before, after in pairs if before == (previous or "")}
    assert total <= 1 + 1e-3
    assert total >= 1 - 1e-3 or followers.issuperset(counts)
    ranked = sorted(
        (item for item in log_probs.items() if item[0].startswith(prefix)),
        key=lambda item: (-item[1], item[0]),
    )
    assert lexicon.next_words(previous, count, prefix) == ranked[:count]


def test_only_the_most_frequent_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicons, "WORDS", 3)
    monkeypatch.setattr(lexicons, "PAIRS", 2)
    counts = {"rare": 1, "often": 9, "beta": 4, "alpha": 4}
    pairs = {("", "often"): 5, ("often", "rare"): 9, ("often", "beta"): 2, ("beta", "often"): 2}
    lexicon = Lexicon(write_lexicon(counts, pairs))
    assert lexicon.words == ("alpha", "beta", "often")
    # Of all followers of "often" that are known, 2; "beta" is kept before "often": ties by text.
    assert lexicon.next_words(None, 1) == [("often", pytest.approx(math.log(4.25 / 5), abs=STEP))]
    assert lexicon.next_words("beta", 1) == [
        ("often", pytest.approx(math.log((2 - 0.75) / 2), abs=STEP))
    ]
    assert (lexicon.next_log_probs("often") == lexicon.log_probs).all()


def test_counts_of_no_words_are_refused() -> None:
    for counts in ({"two words": 1}, {"Upper": 1}, {"!": 1}, {"": 1}, {"word": 0}):
        with pytest.raises(ValueError, match="lexicon counts"):
            write_lexicon(counts, {})


def test_size_of_a_full_lexicon() -> None:
    random = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlu"))
    drawn = random.choice(letters, (2 * lexicons.WORDS, 8))  # harder to compress than a language
    counts = Counter(map("".join, drawn.tolist()))
    words = sorted(counts)[: lexicons.WORDS]
    pairs = {
        (words[i], words[j]): 2
        for i, j in random.integers(len(words), size=(lexicons.PAIRS, 2)).tolist()
    }
    content = write_lexicon(counts, pairs)
    assert len(content) < 300_000
    assert len(Lexicon(content)) == lexicons.WORDS


def test_damaged_lexicons_are_refused() -> None:
    sound = write_lexicon(*count_words())
    damaged = [b"", b"keyfedL1", sound[:-1], sound + b"!", b"x" + sound[1:]]
    damaged += [sound[:8] + struct.pack("<I", n) + sound[12:] for n in (0, 3, 2**16, 2**32 - 1)]
    damaged += [sound[:12] + struct.pack("<I", n) + sound[16:] for n in (0, 3, 2**32 - 1)]
    for content in damaged:
        with pytest.raises(ValueError, match="not a lexicon"):
            Lexicon(content)


@pytest.mark.parametrize(
    ("words", "arrays"),
    [
        ("b\na\n", bytes([9, 9]) + bytes(6)),
        ("a\na\n", bytes([9, 9]) + bytes(6)),
        ("a b\nc\n", bytes([9, 9]) + bytes(6)),
        ("\nc\n", bytes([9, 9]) + bytes(6)),
        ("a\nb", bytes([9, 9]) + bytes(6)),
    ],
)
def test_words_that_no_lexicon_holds(words: str, arrays: bytes) -> None:
    with pytest.raises(ValueError, match="not a lexicon"):
        Lexicon(struct.pack("<8sII", b"keyfedL1", 2, 0) + zlib.compress(words.encode() + arrays))


@pytest.mark.parametrize(
    "pairs",
    [
        struct.pack("<3H2HBB", 2, 0, 0, 0, 2, 40, 40),  # names a third word
        struct.pack("<3H2HBB", 2, 0, 0, 1, 0, 40, 40),  # not sorted
        struct.pack("<3H2HBB", 2, 0, 0, 1, 1, 40, 40),  # twice the same
        struct.pack("<3H2HBB", 1, 0, 0, 0, 1, 40, 40),  # more pairs than counted
        struct.pack("<3H2HBB", 2, 0, 0, 0, 1, 8, 8),  # probabilities of 0.6 each
    ],
)
def test_pairs_that_no_lexicon_holds(pairs: bytes) -> None:
    body = b"a\nb\n" + bytes([9, 9])
    sound = body + struct.pack("<3H2HBB", 2, 0, 0, 0, 1, 40, 40)
    header = struct.pack("<8sII", b"keyfedL1", 2, 2)
    assert Lexicon(header + zlib.compress(sound)).words == ("a", "b")
    with pytest.raises(ValueError, match="not a lexicon"):
        Lexicon(header + zlib.compress(body + pairs))


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=60), sizes=st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_any_bytes(content: bytes, sizes: tuple[int, int]) -> None:
    header = struct.pack("<8sII", b"keyfedL1", *sizes)
    for candidate in (content, header + content, header + zlib.compress(content)):
        try:
            lexicon = Lexicon(candidate)
        except ValueError as error:
            assert str(error).startswith("not a lexicon")
        else:
            assert len(lexicon.words) == sizes[0]
            lexicon.next_words(None, 3)


def test_a_stream_that_grows_without_end_is_not_read_whole() -> None:
    header = struct.pack("<8sII", b"keyfedL1", 1, 0)
    with pytest.raises(ValueError, match="length"):
        Lexicon(header + zlib.compress(bytes(2**25)))

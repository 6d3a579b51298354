"""`keyfed evaluate` on every kind of file, in one process and in several; savings of a real bundle counted anew."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from device_runtime import typed_text
from device_runtime.keyboard import Keyboard
from device_runtime.words import normalize, split_words
from scripts.held_out import read_users
from tests.scripts.command import assert_refused, run_keyfed
from tests.scripts.conftest import FinishedRun

MESSAGES = ["See you tomorrow, ok?", "i don't know what you want", "happy birthday 😂", "at 10:30"]


def write_lines(path: Path, lines: list[str]) -> Path:
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
def test_each_line_of_plain_text_is_a_user(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / name, [MESSAGES[0], "  ", "write to a@b.com", MESSAGES[1]])
    users = read_users(path)
    told = [[message.text for message in messages] for messages in users]
    assert told[0] == [MESSAGES[0]] and told[2] == [MESSAGES[1]] and len(told) == 3
    assert "a@b.com" not in told[1][0]
    assert "each line counts as a user" in capsys.readouterr().err


def test_jsonl_and_parquet_are_grouped_by_user(tmp_path: Path) -> None:
    users = ["b", "a", "b", "a"]
    rows = [{"user": user, "text": text} for user, text in zip(users, MESSAGES, strict=True)]
    jsonl = write_lines(tmp_path / "m.jsonl", [json.dumps(row) for row in rows])
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for path in (jsonl, tmp_path / "m.parquet"):
        told = [[message.text for message in messages] for messages in read_users(path)]
        assert told == [MESSAGES[::2], MESSAGES[1::2]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "text.txt"),
        (b"", "text.txt: empty file"),
        (b" \n\n", "text.txt: all lines are blank"),
        (b"good\nprivate words \xff\n", "text.txt:2: "),
    ],
)
def test_bad_plain_text_is_one_line(
    finished: FinishedRun, tmp_path: Path, content: bytes | None, said: str
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    done = run_keyfed("evaluate", "--bundle", finished.bundle, "--text", text)
    assert_refused(done, said)
    assert "private words" not in done.stderr


def test_figures_are_the_same_for_any_file_and_number_of_processes(
    finished: FinishedRun, tmp_path: Path
) -> None:
    plain = write_lines(tmp_path / "m.txt", MESSAGES)
    named = [json.dumps({"user": str(i), "text": text}) for i, text in enumerate(MESSAGES)]
    jsonl = write_lines(tmp_path / "m.jsonl", named)
    printed = set()
    for text, processes in ((plain, 1), (jsonl, 3)):
        options = ("--bundle", finished.bundle, "--text", text, "--processes", processes)
        done = run_keyfed("evaluate", *options, "--json")
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    [figures] = map(json.loads, printed)
    assert figures["users"] == len(MESSAGES)
    savings = figures["keystroke_savings"]["value"]
    assert savings == pytest.approx(count_savings(Keyboard.open(finished.bundle)))


def test_speed_is_of_whole_users_of_the_fixed_text(finished: FinishedRun) -> None:
    done = run_keyfed(
        *(
            "bench",
            "evaluate",
            "--bundle",
            finished.bundle,
            "--words",
            3,
            "--processes",
            1,
            "--json",
        )
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    words = [word for message in typed_text.MESSAGES for word in message.split()]
    assert figures["words"] == 4 * sum(any(map(str.isalnum, word)) for word in words)
    assert (figures["users"], figures["processes"]) == (1, 1)
    for name in ("next_words", "all_figures"):
        assert figures[f"{name}_per_minute"] > 0 and figures[f"{name}_cpu_s_per_1000"] > 0


def count_savings(keyboard: Keyboard) -> float:
    """From a fresh session for each look, told all that stands before the word at once."""
    characters = taps = 0
    for message in MESSAGES:
        text, at = normalize(message), 0
        characters += len(text)
        for word in split_words(message):
            before, at = text[: text.index(word, at)], text.index(word, at) + len(word)
            length, blank = len(word), text[at : at + 1] == " "
            needed = [length + blank]
            for letters in range(length if word[0].isalnum() else 0):
                session = keyboard.session()
                session.commit(before)
                found = session.suggest(word[:letters])
                if word in [suggestion.text.lower() for suggestion in found]:
                    needed.append(letters + 1)
            taps += min(needed)
    return 1 - taps / characters

"""Each step of `keyfed synthesize` does to files what its room does to texts; bad input is one line, and no file."""

import contextlib
import gzip
import hashlib
import http.server
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_runtime.words import is_word, split_words
from scripts.keyfed import main
from synthetic_text import typing_check
from synthetic_text.conversion import convert_all
from synthetic_text.corpora import clean_sentences
from synthetic_text.judge import ATTRIBUTES

WEB = [
    "I am sure that is what they said because you do not know them. We are going to see it tomorrow!",
    "That is fine with me, but I am not going to wait for you until they close the shop.",
    "",
    "When I was at home I did not hear anything, so I am as surprised as you are now.",
]
CHAT = [f"are you still coming to the {place} tonight" for place in ("gym", "bar", "game", "pool")]

Keyfed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def keyfed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Keyfed:
    """Runs `keyfed synthesize` in this process: exit code, standard output, standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["keyfed", "synthesize", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def write_lines(path: Path, texts: list[str]) -> Path:
    content = "".join(text + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_records(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
    return [json.loads(line) for line in lines]


def count_words(text: str) -> int:
    return sum(map(is_word, split_words(text)))


def test_convert_is_the_rules_over_cleaned_sentences_from_any_file_to_any(
    keyfed: Keyfed, tmp_path: Path
) -> None:
    plain = write_lines(tmp_path / "web.txt", WEB)
    packed = write_lines(tmp_path / "c4.json.gz", [json.dumps({"text": text}) for text in WEB])
    sentences = [sentence for text in WEB for sentence in clean_sentences(text)]
    messages = convert_all(sentences, seed=5)
    for source in (plain, packed):
        for name in ("a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz"):
            out = tmp_path / name
            code, said, _ = keyfed("convert", source, out, "--seed", "5", "--json")
            counts = {"texts": 3, "sentences": len(sentences), "messages": len(messages)}
            assert (code, json.loads(said)) == (0, counts)
            if ".jsonl" in name:
                assert [record["text"] for record in read_records(out)] == messages
            else:
                content = out.read_bytes()
                content = gzip.decompress(content) if name.endswith(".gz") else content
                assert content.decode().splitlines() == messages
    once = (tmp_path / "a.txt.gz").read_bytes()
    keyfed("convert", packed, tmp_path / "b.txt.gz", "--seed", "5")
    assert (tmp_path / "b.txt.gz").read_bytes() == once


def test_filter_keeps_or_names_the_reason_of_every_line(keyfed: Keyfed, tmp_path: Path) -> None:
    bad = {
        "write me at somebody@example.org please": "personal data",
        "my card is 4111 1111 1111 1111 ok": "personal data",
        "how can i assist you today": "assistant residue",
        "no no no no no no no": "repetition",
        "<b>hello there</b> you": "markup",
        "привет как дела": "not Latin",
        "das ist wirklich sehr schön gewesen gestern": "not English",
    }
    texts = [text for pair in zip(CHAT + CHAT, bad, strict=False) for text in pair]
    out, rejected = tmp_path / "kept.txt", tmp_path / "rejected.jsonl"
    source = write_lines(tmp_path / "in.txt", texts)
    code, said, _ = keyfed("filter", source, out, "--rejected", rejected, "--json")
    assert code == 0
    assert out.read_text("utf-8").splitlines() == [text for text in texts if text not in bad]
    assert read_records(rejected) == [
        {"line": line, "reason": bad[text], "text": text}
        for line, text in enumerate(texts, 1)
        if text in bad
    ]
    figures = json.loads(said)
    counts = Counter({reason: n for reason, n in figures["rejected"].items() if n})
    assert counts == Counter(bad.values())
    assert figures["in"] == len(texts) == figures["out"] + sum(figures["rejected"].values())


class Grader(http.server.BaseHTTPRequestHandler):
    """An instruct model behind an OpenAI-compatible endpoint that finds "hereby" unlike a chat."""

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "grader", "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        grades = dict.fromkeys((attribute.name for attribute in ATTRIBUTES), 5)
        if "hereby" in request["messages"][-1]["content"]:
            grades["sounds_like_phone_chat"] = 1
        message = {"role": "assistant", "content": json.dumps(grades)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._answer({"id": "1", "object": "chat.completion", "choices": [choice]})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve_grader() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Grader) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def test_a_judge_grades_what_the_other_filters_left(keyfed: Keyfed, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="locks/llm.lock is not installed")
    texts = [*CHAT, "i hereby confirm the receipt of your letter"]
    source, out = write_lines(tmp_path / "in.txt", texts), tmp_path / "out.txt"
    rejected = tmp_path / "rejected.jsonl"
    with serve_grader() as url:
        code, said, _ = keyfed(
            *("filter", source, out, "--rejected", rejected, "--judge", url, "--json")
        )
    assert code == 0
    assert out.read_text("utf-8").splitlines() == CHAT
    (record,) = read_records(rejected)
    assert record["text"] == texts[-1] and "sounds_like_phone_chat" in record["reason"]
    assert json.loads(said)["rejected"][record["reason"]] == 1
    out.unlink()
    code, printed, errors = keyfed(
        *("filter", source, out, "--rejected", rejected, "--judge", url, "--json")
    )
    lines = [line for line in errors.splitlines() if line.startswith("keyfed: ")]
    assert (code, printed, len(lines)) == (2, "", 1) and url in lines[0]
    assert not out.exists() and len(read_records(rejected)) == 1


def replay(record: dict[str, Any]) -> str:
    """What stands in the field after the keys and the keyboard's replacements."""
    text = ""
    replacements = Counter[int]()
    changes = {change["after_keys"]: change for change in record["replacements"]}
    assert len(changes) == len(record["replacements"])
    for place, key in enumerate([*record["keys"], ""]):
        if change := changes.get(place):
            text = text[: len(text) - change["removed"]] + change["inserted"]
            replacements[place] += 1
        text = text[:-1] if key == "\b" else text + key
    assert len(replacements) == len(changes)
    return text


def test_typing_gives_what_was_meant_and_typed_and_a_log_that_replays_to_it(
    keyfed: Keyfed, tmp_path: Path
) -> None:
    texts = [text for number in range(60) for text in (*CHAT, f"I left {number} mins ago, sorry!")]
    source = write_lines(tmp_path / "in.txt", texts)
    out, log = tmp_path / "typed.jsonl", tmp_path / "log.jsonl.gz"
    code, said, _ = keyfed("type", source, out, "--log", log, "--layout", "qwertz", "--json")
    typed, keys = read_records(out), read_records(log)
    assert code == 0
    assert [record["text"] for record in typed] == texts
    wrong = sum(record["typed"] != record["text"] for record in typed)
    assert json.loads(said) == {"messages": len(texts), "typed_wrong": wrong}
    assert 0 < wrong < len(texts)
    assert [record["line"] for record in keys] == list(range(1, len(texts) + 1))
    assert {record["user"] for record in keys} == {0, 1}
    for record, result in zip(keys, typed, strict=True):
        assert replay(record) == result["typed"]
        times = record["times_ms"]
        assert times == sorted(times) and times[0] == 0
        assert len(times) == len(record["keys"]) == len(record["touches_mm"])
        for key, touch in zip(record["keys"], record["touches_mm"], strict=True):
            assert (touch is not None) == key.isalpha()
    again = tmp_path / "again.jsonl"
    keyfed("type", source, again, "--layout", "qwertz")
    assert again.read_bytes() == out.read_bytes()


def test_the_simulator_s_check_is_json_with_a_verdict_on_each_figure(
    keyfed: Keyfed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typing_check, "_USERS", 40)  # enough for the form, not for the figures
    monkeypatch.setattr(typing_check, "_CONVERTED_MESSAGES", 200)
    code, said, _ = keyfed("type", "--check", "--json")
    figures = json.loads(said)
    assert code == 0 and set(figures) == {"checks"}
    for check in figures["checks"]:
        assert set(check) == {"name", "published", "measured", "within"}
        off = abs(check["measured"] - check["published"])
        assert check["within"] == (off <= 0.1 * check["published"])
    code, said, _ = keyfed("type", "--check")
    lines = said.splitlines()
    assert len(lines) == len(figures["checks"])
    for line, check in zip(lines, figures["checks"], strict=True):
        assert line.startswith(check["name"])
        assert ("OUTSIDE" in line) != check["within"]


def test_dedup_drops_exact_and_near_repeats(keyfed: Keyfed, tmp_path: Path) -> None:
    kept = [
        "we could take the early train to the coast and come back on sunday night",
        "nobody told me that the whole meeting had been moved to the other building",
        "ok",
    ]
    texts = [kept[0], kept[1], kept[0].upper(), kept[2], kept[1] + "s", kept[2]]
    source = write_lines(tmp_path / "in.jsonl", [json.dumps({"text": text}) for text in texts])
    out = tmp_path / "out.txt"
    code, said, _ = keyfed("dedup", source, out, "--json")
    assert (code, json.loads(said)) == (0, {"in": 6, "exact": 2, "near": 1, "out": 3})
    assert out.read_text("utf-8").splitlines() == kept


def test_mix_keeps_shares_and_floor(keyfed: Keyfed, tmp_path: Path) -> None:
    web = write_lines(tmp_path / "web.txt", [*WEB, "..."])
    llm = write_lines(tmp_path / "llm:1.txt", CHAT)
    out = tmp_path / "mix.jsonl"
    code, said, _ = keyfed(
        *("mix", out, "--source", f"web={web}:0.4", "--source", f"llm={llm}:0.6"),
        *("--generated", "llm", "--human-floor", "0.4", "--words", "2000", "--json"),
    )
    assert code == 0
    records, figures = read_records(out), json.loads(said)
    texts = {"web": {text for text in WEB if text}, "llm": set(CHAT)}
    words = Counter[str]()
    for record in records:
        assert record["text"] in texts[record["source"]]
        words[record["source"]] += count_words(record["text"])
        assert words["web"] >= 0.4 * words.total()
    assert 2000 <= words.total() < 2030
    assert figures["words"] == words
    assert figures["human_share"] == words["web"] / words.total() == pytest.approx(0.4, abs=0.01)
    assert figures["shares"]["llm"] == words["llm"] / words.total()
    assert figures["passes"]["llm"] == words["llm"] / sum(map(count_words, CHAT))


def test_a_card_has_the_files_figures_and_text_of_generated_ones_alone(
    keyfed: Keyfed, tmp_path: Path
) -> None:
    web = write_lines(tmp_path / "web.txt", [text for text in WEB if text])
    llm = write_lines(tmp_path / "llm.txt", CHAT)
    test = write_lines(tmp_path / "test.txt", [CHAT[0], "a line that nobody trained on at all"])
    arguments = ("card", web, llm, "--generated", llm, "--against", test)
    code, said, _ = keyfed(*arguments, "--json")
    card = json.loads(said)
    words = {path: sum(map(count_words, path.read_text().splitlines())) for path in (web, llm)}
    assert code == 0
    assert card["sha256"] == hashlib.sha256(web.read_bytes() + llm.read_bytes()).hexdigest()
    assert card["lines"] == 3 + len(CHAT)
    assert card["words"] == sum(words.values())
    assert [source["words"] for source in card["sources"]] == list(words.values())
    assert card["diversity"]["human_share"] == words[web] / card["words"]
    assert not card["contamination"]["passed"]
    (checked,) = card["contamination"]["sets"]
    found = {overlap["measure"]: overlap["found"] for overlap in checked["overlaps"]}
    assert (checked["name"], checked["lines"], found["whole lines"]) == ("test.txt", 2, 1)
    assert sorted(card["samples"]["llm.txt"]) == sorted(CHAT)
    code, markdown, _ = keyfed(*arguments)
    for text in (markdown, said):
        assert "surprised" not in text and "nobody trained" not in text
    assert code == 0 and markdown.startswith("# web.txt, llm.txt")
    assert card["sha256"] in markdown


def test_bad_input_is_one_line_and_leaves_no_file(keyfed: Keyfed, tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.txt", CHAT)
    broken = write_lines(tmp_path / "broken.jsonl", [json.dumps({"text": "fine"}), "{private"])
    cyrillic = write_lines(tmp_path / "cyrillic.txt", ["fine", "", "fine так"])
    missing, out = tmp_path / "missing.txt", tmp_path / "out.txt"
    rejected = tmp_path / "rejected.jsonl"
    typed, nowhere = tmp_path / "typed.jsonl", tmp_path / "nowhere" / "out.txt"
    before = sorted(tmp_path.iterdir())
    mix = ("mix", out, "--words", "10", "--source")
    for arguments, said in (
        (("convert", missing, out), f"{missing}: cannot be read"),
        (("convert", broken, out), f"{broken}:2: not a JSON object"),
        (("convert", good, nowhere), f"{nowhere}: cannot be written"),
        (("convert", good, tmp_path / "out.csv"), f"{tmp_path / 'out.csv'}: its name ends"),
        (("filter", broken, out, "--rejected", rejected), f"{broken}:2: "),
        (("filter", good, out, "--rejected", out), f"{out}: its name ends"),
        (("type", good, out), f"{out}: its name ends in none of .jsonl"),
        (("type", cyrillic, typed), f"{cyrillic}:3: "),
        (("type", good, typed, "--layout", "colemak"), "colemak"),
        (("type", good), "OUT is missing"),
        (("type", good, "--check"), "--check"),
        (("dedup", broken, out), f"{broken}:2: "),
        ((*mix, "good.txt"), "--source good.txt: give NAME=FILE:SHARE"),
        ((*mix, f"a={good}:2"), f"--source a={good}:2: "),
        ((*mix, f"a={good}:0.5"), "1 in all"),
        ((*mix, f"a={good}:0.5", "--source", f"a={good}:0.5"), "a second a"),
        ((*mix, f"a={good}:1", "--generated", "b"), "--generated b"),
        ((*mix, f"a={good}:1", "--generated", "a"), "human_floor"),
        ((*mix, f"a={missing}:1"), f"{missing}: cannot be read"),
        (("card", broken), f"{broken}:2: "),
        (("card", good, "--generated", missing), f"--generated {missing}"),
    ):
        code, printed, errors = keyfed(*arguments)
        lines = [line for line in errors.splitlines() if line.startswith("keyfed: ")]
        assert (code, printed, len(lines)) == (2, "", 1), (arguments, errors)
        assert said in lines[0]
        assert "private" not in errors and "так" not in errors and "Traceback" not in errors
        assert sorted(tmp_path.iterdir()) == before


def test_a_failed_command_leaves_an_older_result_as_it_was(keyfed: Keyfed, tmp_path: Path) -> None:
    out = write_lines(tmp_path / "typed.jsonl", ["older"])
    late = write_lines(tmp_path / "late.txt", [*CHAT * 60, "так"])
    code, _, errors = keyfed("type", late, out)
    assert code == 2 and f"{late}:241: " in errors
    assert out.read_text() == "older\n"
    assert sorted(tmp_path.iterdir()) == [late, out]


def test_usage_errors_and_help(keyfed: Keyfed) -> None:
    code, printed, _ = keyfed("--help")
    assert code == 0
    for command in ("generate", "convert", "filter", "type", "dedup", "mix", "card"):
        assert f" {command} " in printed
    for arguments in (("convert",), ("nothing",), ("mix", "out.txt"), ("filter", "a", "b")):
        code, printed, errors = keyfed(*arguments)
        assert (code, printed) == (2, "") and "Traceback" not in errors

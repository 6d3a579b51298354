"""Answers to a corpus: parsing, filters, the log that survives a killed run, the committed file."""

import gzip
import hashlib
import itertools
import json
import multiprocessing
import re
import threading
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files

import pytest

from synthetic_text import generation, llm_chats
from synthetic_text.generation import (
    SLOTS,
    AnswerLog,
    build_corpus,
    build_request,
    collect_answers,
    load_prompts,
    read_log,
)
from synthetic_text.llm import EndpointError
from synthetic_text.llm_chats import Sift, load_llm_chats, parse_answer

MODEL = {"name": "test"}
PROMPTS = load_prompts()


class CountingModel:
    """Answers each request with one message of eight words nobody else says; may fail at will."""

    def __init__(self, start=0, answers=10**9, broken=None):
        self._numbers = itertools.count(start)
        self._answers = answers
        self._broken = broken
        self.seeds = []

    def __call__(self, prompt, **sampling):
        number = next(self._numbers)
        self.seeds.append(sampling["seed"])
        if number >= self._answers:
            if self._broken is None:
                raise EndpointError("connection refused")
            return self._broken
        return f" so number w{number} said x{number} to y{number} yesterday"


def collect(folder, model, words, seed=5):
    collect_answers(folder / "answers.jsonl", [model], MODEL, PROMPTS, words, seed)


def logged(folder):
    return list(read_log(folder / "answers.jsonl", PROMPTS))


def sift_one(answer, few_shot=()):
    sift = Sift(few_shot)
    return [message.text for message in sift.accept(answer, "topic")], dict(sift.counts.rejected)


def test_an_answer_goes_on_as_speaker_a():
    assert parse_answer(" hi  there\nB: yo: what\n\n A: ok\nsomebody else\nC: hm") == [
        ("A", "hi there"),
        ("B", "yo: what"),
        ("A", "ok"),
        ("", "somebody else"),
        ("", "C: hm"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty"),
        ("...", "empty"),
        ("word " * 61, "too long"),
        ("x" * 600, "too long"),
        ("see <b>this</b>", "markup"),
        ("[dinner]", "markup"),
        ("he said B: never", "markup"),
        ("As an AI I cannot", "markup"),
        ("no no no no no", "repetition"),
        ("i like it and i like it and i like it", "repetition"),
        ("aaaaaaaaaaaa", "repetition"),
        ("how are you and you are how and are you how and you", "repetition"),
        ("это я", "not Latin"),
        ("ask bob.smith@example.co", "personal data"),
        ("look at www.example.net", "personal data"),
        ("https://a.b", "personal data"),
        ("its on example.com", "personal data"),
        ("follow @somebody", "personal data"),
        ("call 555 010 9999", "personal data"),
        ("+44 (20) 7946-0000", "personal data"),
    ],
)
def test_junk_is_rejected_with_its_reason(line, reason):
    assert sift_one(f" fine then\nB: {line}") == (["fine then"], {reason: 1})


@pytest.mark.parametrize(
    "line",
    [
        "ok",
        "?!",
        "😂😂",
        "café at 10:30?",
        "noooo way",
        "ha ha ha ha",
        "i <3 u",
        "it was $1,200",
        "5-6",
    ],
)
def test_natural_messages_stay(line):
    assert sift_one(f" {line}") == ([line], {})


def test_copies_of_few_shot_messages_are_dropped_but_not_short_ones():
    few_shot = ["Bring the dog, he needs it more than us", "on my way"]
    assert sift_one(" bring the DOG he needs it more than us!", few_shot)[0] == []
    assert sift_one(" dog, he needs it more than me", few_shot)[0] == []  # six words in a row
    assert sift_one(" dog, he needs it less than me", few_shot)[0] != []
    assert sift_one(" on my way", few_shot)[0] == ["on my way"]


def test_repeats_are_capped_lower_for_long_messages():
    sift = Sift([])
    for _ in range(40):
        sift.accept(" lol\nB: Lol!\nA: that is a good one", "topic")
    assert sift.counts.messages == 20 + 3
    assert sift.counts.rejected == {"said too often": 60 + 37}
    assert sift.counts.lines == 120
    assert sift.counts.word_forms == 6


def test_a_chat_that_says_the_same_again_is_a_loop():
    answer = " come to my house" + "\nB: no\nA: come to my house" * 4
    assert sift_one(answer) == (["come to my house", "no", "no", "no"], {"repetition": 5})


def test_requests_are_determined_by_their_number_and_keep_dialogues_for_a_lane():
    requests = [build_request(PROMPTS, 3, number) for number in range(SLOTS * 30)]
    assert requests == [build_request(PROMPTS, 3, number) for number in range(SLOTS * 30)]
    assert len({request.seed for request in requests}) == len(requests)
    topics = [request.topic for request in requests]
    assert Counter(topics).most_common(1)[0][1] == 1
    prefixes: dict[int, str] = {}
    for request in requests:
        prefix = request.prompt.rpartition("\n\n")[0]
        assert prefixes.setdefault(request.prompt_set, prefix) == prefix
    assert len(prefixes) == 2 * SLOTS
    assert [r.prompt_set for r in requests[5::SLOTS]] == [5] * 24 + [5 + SLOTS] * 6
    registers = {dialogue.topic: dialogue.register for dialogue in PROMPTS.dialogues}
    shown = re.findall(r"^\[(.+)\]$", requests[0].prompt, re.MULTILINE)[:-1]
    assert [registers[topic] for topic in shown] == [requests[0].register] * 4


def test_a_run_goes_on_where_it_was_and_asks_nothing_twice(tmp_path):
    first, second = CountingModel(), CountingModel(start=1000)
    collect(tmp_path, first, words=160)
    before = logged(tmp_path)
    assert len(before) == 20  # 8 words each
    collect(tmp_path, second, words=400)
    after = logged(tmp_path)
    assert after[:20] == before
    assert len(after) == 50
    assert len({entry["number"] for entry in after}) == 50
    assert not {entry["seed"] for entry in before} & set(second.seeds)
    collect(tmp_path, second, words=400)
    assert logged(tmp_path) == after


def test_servers_share_the_requests_of_one_run(tmp_path):
    servers = [CountingModel(), CountingModel(start=5000)]
    collect_answers(tmp_path / "answers.jsonl", servers, MODEL, PROMPTS, 8 * 200, seed=5)
    numbers = [entry["number"] for entry in logged(tmp_path)]
    assert len(numbers) == len(set(numbers)) == 200
    lane = {build_request(PROMPTS, 5, n).seed: n % (2 * SLOTS) for n in range(max(numbers) + 99)}
    lanes = [{lane[seed] for seed in server.seeds} for server in servers]
    assert lanes[0] <= set(range(SLOTS))
    assert lanes[1] <= set(range(SLOTS, 2 * SLOTS))


def test_the_start_of_a_line_left_by_a_killed_run_is_cut_off(tmp_path):
    collect(tmp_path, CountingModel(), words=160)
    log = tmp_path / "answers.jsonl"
    whole = log.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    log.write_bytes(whole[: len(whole) - len(last) // 2])
    assert json.loads(last)["number"] not in collect_and_list_numbers(tmp_path, words=152)
    numbers = collect_and_list_numbers(tmp_path, words=800)
    assert len(numbers) == len(set(numbers)) == 100
    assert log.read_bytes().startswith(whole[: len(whole) - len(last)])


def collect_and_list_numbers(folder, words):
    collect(folder, CountingModel(start=5000 + words), words=words)
    return [entry["number"] for entry in logged(folder)]


class FakeEndpoint(BaseHTTPRequestHandler):
    """Counts up, a short answer each, for the loopback tests; says nothing on the console."""

    numbers = itertools.count()

    def do_POST(self):
        number = next(self.numbers)
        body = json.dumps({"choices": [{"text": f" then w{number} met x{number}"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def complete_over_http(prompt, *, url, **sampling):
    body = json.dumps({"prompt": prompt, **sampling}).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            return json.load(answer)["choices"][0]["text"]
    except OSError as error:
        raise EndpointError(str(error)) from error


def collect_over_http(folder, url, words, tell):
    def complete(prompt, **sampling):
        return complete_over_http(prompt, url=url, **sampling)

    collect_answers(folder / "answers.jsonl", [complete], MODEL, PROMPTS, words, 5, tell)


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeEndpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/completions"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_killed_mid_answer_neither_loses_nor_repeats_what_was_accepted(tmp_path, endpoint):
    context = multiprocessing.get_context("spawn")
    words = context.SimpleQueue()
    child = context.Process(target=collect_over_http, args=(tmp_path, endpoint, 10**9, words.put))
    child.start()
    told = 0
    while told < 200:
        told = words.get()
    child.kill()
    child.join()

    with AnswerLog(tmp_path / "answers.jsonl"):
        kept = logged(tmp_path)
    assert sum(len(entry["text"].split()) for entry in kept) >= told
    final: list[int] = []
    collect_over_http(tmp_path, endpoint, told + 4000, final.append)
    entries = logged(tmp_path)
    assert entries[: len(kept)] == kept
    for field in ("number", "text"):
        assert len({entry[field] for entry in entries}) == len(entries)
    assert final[-1] >= told + 4000


@pytest.mark.parametrize("broken", [None, "", "  \n"])
def test_failed_and_empty_answers_are_an_error_and_not_recorded(tmp_path, broken):
    with pytest.raises(EndpointError, match=r"32 requests in a row failed.*answers\.jsonl"):
        collect(tmp_path, CountingModel(answers=40, broken=broken), words=10**6)
    assert len(logged(tmp_path)) == 40
    counts = build_corpus(tmp_path / "answers.jsonl", PROMPTS, tmp_path)
    assert counts.words == 40 * 8


def test_garbage_is_an_error_with_accepted_lines_kept(tmp_path):
    with pytest.raises(EndpointError, match="nothing acceptable"):
        collect(tmp_path, CountingModel(answers=3, broken="</div>"), words=10**6)
    assert build_corpus(tmp_path / "answers.jsonl", PROMPTS, tmp_path).messages == 3


def test_an_error_that_is_no_endpoint_error_ends_the_run(tmp_path):
    def complete(prompt, **sampling):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(tmp_path, complete, words=100)


def test_a_log_in_use_or_damaged_or_of_other_prompts_is_refused(tmp_path):
    log = tmp_path / "answers.jsonl"
    collect(tmp_path, CountingModel(), words=16)
    with AnswerLog(log), pytest.raises(ValueError, match="in use by another process"):
        collect(tmp_path, CountingModel(), words=32)
    good = log.read_bytes()
    entry = json.loads(good.splitlines()[0])
    for line, message in [
        (b"{", "line 3: no JSON"),
        (b"\xff", "line 3: no JSON"),
        (b'{"text": "hi"}', "line 3: no answer"),
        (json.dumps(entry | {"run": {"seed": 5, "prompts_sha256": "0"}}).encode(), "field run"),
    ]:
        log.write_bytes(good + line + b"\n")
        with pytest.raises(ValueError, match=message):
            collect(tmp_path, CountingModel(), words=32)


def test_the_same_log_gives_the_same_corpus_and_card(tmp_path):
    collect(tmp_path, CountingModel(), words=160)
    for name in ("one", "two"):
        build_corpus(tmp_path / "answers.jsonl", PROMPTS, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    lines = gzip.decompress((tmp_path / "one" / "llm_chats.jsonl.gz").read_bytes()).splitlines()
    assert len(lines) == 20
    assert set(json.loads(lines[0])) == {"text", "topic", "chat", "speaker"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dialogues_a.json", "[{]", "dialogues_a.json: cannot be read as JSON"),
        ("dialogues_a.json", '[{"topic": "x", "messages": ["a", "b"]}]', "entry 1: needs topic"),
        (
            "dialogues_a.json",
            '[{"topic": "x", "register": "plain", "messages": ["a", "b"]}]',
            "register 'plain' has 1 dialogues, needs 4",
        ),
        ("topics.json", '{"food": "bread"}', "group 'food'"),
        ("topics.json", "[]", "needs a JSON object"),
    ],
)
def test_bad_prompt_files_are_refused_by_name(tmp_path, name, content, message):
    good = {"topic": "x", "register": "plain", "messages": ["a", "b"]}
    (tmp_path / "dialogues_a.json").write_text(json.dumps([good] * 4))
    (tmp_path / "topics.json").write_text('{"food": ["bread"]}')
    load_prompts(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_prompts(tmp_path)


def test_the_committed_corpus_is_what_its_card_says():
    messages = load_llm_chats()
    folder = files("synthetic_text") / "data"
    card = json.loads((folder / "llm_chats.card.json").read_text("utf-8"))
    data = (folder / "llm_chats.jsonl.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert len(data) == card["bytes"] < 2_000_000
    words = [word for message in messages for word in llm_chats.list_words(message.text)]
    counts = card["counts"]
    assert len(messages) == counts["messages"]
    assert len(words) == counts["words"] >= 60_000
    assert len(set(words)) == counts["word_forms"]
    assert counts["lines"] == counts["messages"] + sum(counts["rejected"].values())
    assert len({message.chat for message in messages}) <= counts["answers"]
    assert card["prompts_sha256"] == PROMPTS.sha256
    assert {message.topic for message in messages} <= set(PROMPTS.topics)
    assert card["sha256"] in (folder / "llm_chats.card.md").read_text("utf-8")


def test_the_committed_corpus_holds_no_few_shot_message():
    def plain(text):
        return re.sub(r"\W+", " ", text.lower().replace("’", "'").replace("'", "")).strip()

    shown = {plain(message) for d in PROMPTS.dialogues for message in d.messages}
    shown = {text for text in shown if len(text.split()) > 4}
    assert len(shown) > 300
    assert not [message for message in load_llm_chats() if plain(message.text) in shown]


def test_a_corpus_that_is_not_its_cards_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "llm_chats.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "data" / "llm_chats.card.json").write_text('{"sha256": "0"}')
    monkeypatch.setattr(llm_chats, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"llm_chats\.jsonl\.gz: sha256"):
        load_llm_chats()


def test_the_run_asks_for_variety_within_the_tested_bounds():
    sampled = [build_request(PROMPTS, 1, number).sampling for number in range(200)]
    assert {s["temperature"] for s in sampled} == set(generation.TEMPERATURES)
    assert {s["min_p"] for s in sampled} == set(generation.MIN_PS)

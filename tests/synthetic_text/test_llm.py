"""The client against endpoints on loopback, good and bad, and generation that outlives them."""

import itertools
import json
import multiprocessing
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from synthetic_text.answer_log import AnswerLog, read_log
from synthetic_text.generation import collect_answers, find_families, load_families
from synthetic_text.instruct_prompts import convert_with_llm, load_instruct_families
from synthetic_text.llm import SLOTS, EndpointError, connect, connect_chat
from synthetic_text.personas import load_tables

MODEL = {"name": "test"}
KNOWN = find_families()


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible server; `answer` turns a request's number and body into a status and a body.

    `block` keeps requests waiting for ever, until the server closes.
    """

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.numbers = itertools.count()
        self.bodies = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def block(self):
        self.closing.wait()
        return 500, {}

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.closing.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append((self.path, body))
            number = next(server.numbers)
        status, content = server.answer(number, body)
        self.reply(status, content)

    def reply(self, status, content):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the client has gone

    def log_message(self, format, *args):
        pass


def completion(text, finish="stop"):
    return 200, {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def chat(text, finish="stop"):
    message = {"role": "assistant", "content": text}
    return 200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def say_something_new(number, body):
    return completion(f" so w{number} met x{number} and y{number} yesterday")


def connect_plainly(url, timeout_s):
    """A client of the standard library alone, for where openai is not installed."""

    def complete(prompt, **sampling):
        body = json.dumps({"prompt": prompt, **sampling}).encode()
        try:
            with urllib.request.urlopen(f"{url}/completions", body, timeout=timeout_s) as answer:
                return json.load(answer)["choices"][0]["text"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise EndpointError(str(error)) from error

    return complete


def connect_with_openai(url, timeout_s):
    pytest.importorskip("openai")
    return connect(url, retries=0, timeout_s=timeout_s)[0]


def collect(folder, url, words, connect_to, timeout_s, tell=lambda words: None):
    complete = connect_to(url, timeout_s)
    family = load_families()[0]
    collect_answers(folder / "answers.jsonl", [complete], MODEL, family, words, 5, tell)


def logged(folder):
    return list(read_log(folder / "answers.jsonl", KNOWN))


CLIENTS = pytest.mark.parametrize("connect_to", [connect_plainly, connect_with_openai])


@CLIENTS
def test_a_run_killed_mid_answer_neither_loses_nor_repeats_what_was_accepted(tmp_path, connect_to):
    with Endpoint(say_something_new) as endpoint:
        connect_to(endpoint.url, 30)  # skips here where the client is not installed
        context = multiprocessing.get_context("spawn")
        told = context.SimpleQueue()
        arguments = (tmp_path, endpoint.url, 10**9, connect_to, 30, told.put)
        child = context.Process(target=collect, args=arguments)
        child.start()
        words = 0
        while words < 200:
            words = told.get()
        child.kill()
        child.join()

        with AnswerLog(tmp_path / "answers.jsonl"):
            kept = logged(tmp_path)
        assert sum(len(entry["text"].split()) for entry in kept) >= words
        final: list[int] = []
        collect(tmp_path, endpoint.url, words + 2000, connect_to, 30, final.append)
        entries = logged(tmp_path)
    assert entries[: len(kept)] == kept
    for field in ("number", "text", "seed"):
        assert len({entry[field] for entry in entries}) == len(entries)
    assert final[-1] >= words + 2000


@CLIENTS
@pytest.mark.parametrize("ending", ["never", "500", "garbage", "no JSON", "markup"])
def test_a_bad_endpoint_ends_in_one_error_with_all_accepted_lines_kept(
    tmp_path, connect_to, ending
):
    bad = {
        "never": lambda: endpoint.block(),
        "500": lambda: (500, {"error": "out of memory"}),
        "garbage": lambda: (200, {"choices": "what"}),
        "no JSON": lambda: (200, b"\x00<html>"),
        "markup": lambda: completion("</div>"),
    }[ending]
    good = 40

    def answer(number, body):
        return say_something_new(number, body) if number < good else bad()

    with Endpoint(answer) as endpoint:
        timeout_s = 0.3 if ending == "never" else 30
        with pytest.raises(EndpointError) as error:
            collect(tmp_path, endpoint.url, 10**9, connect_to, timeout_s)
    said = "nothing acceptable" if ending == "markup" else "32 requests in a row failed"
    assert said in str(error.value) and "answers.jsonl" in str(error.value)
    kept = [entry["text"] for entry in logged(tmp_path) if "met" in entry["text"]]
    # A request that timed out on a busy machine was not accepted.
    assert len(kept) == len(set(kept)) and (len(kept) == good or (ending == "never" and kept))
    with Endpoint(say_something_new) as endpoint:
        endpoint.numbers = itertools.count(1000)
        collect(tmp_path, endpoint.url, 7 * good + 700, connect_to, 30)
    assert {entry["text"] for entry in logged(tmp_path)} >= set(kept)


@CLIENTS
def test_an_endpoint_that_dies_ends_in_one_error_with_all_accepted_lines_kept(tmp_path, connect_to):
    words = []
    with Endpoint(say_something_new) as endpoint:
        connect_to(endpoint.url, 5)  # skips here where the client is not installed
        runner = threading.Thread(
            target=expect_error,
            args=(words, tmp_path, endpoint.url, 10**9, connect_to, 5, words.append),
        )
        runner.start()
        while len(words) < 30 and runner.is_alive():
            time.sleep(0.01)
    runner.join()
    assert isinstance(words.pop(), EndpointError)
    entries = logged(tmp_path)
    assert len(entries) == len(words) >= 30
    assert sum(len(entry["text"].split()) for entry in entries) == words[-1]


def expect_error(caught, *arguments):
    try:
        collect(*arguments)
    except EndpointError as error:
        caught.append(error)


@CLIENTS
def test_an_endpoint_gets_16_requests_at_once(tmp_path, connect_to):
    together = threading.Barrier(SLOTS)

    def answer(number, body):
        if number < SLOTS:
            together.wait(timeout=60)  # an error, and no answer, unless all 16 are waiting here
        return say_something_new(number, body)

    with Endpoint(answer) as endpoint:
        collect(tmp_path, endpoint.url, 1000, connect_to, 90)
    assert not together.broken
    # Requests that were under way when the words were reached are not asked for again.
    assert len(endpoint.bodies) < len(logged(tmp_path)) + SLOTS


def test_a_failed_request_is_tried_again_and_then_counts_once(tmp_path):
    pytest.importorskip("openai")
    failed = set()

    def answer(number, body):
        if body["seed"] not in failed:
            failed.add(body["seed"])
            return 503, {}
        return say_something_new(number, body)

    with Endpoint(answer) as endpoint:
        complete, name = connect(endpoint.url, retries=1)
        assert name == "fake"
        assert complete("hi", seed=1, min_p=0.1).startswith(" so w")
        assert [body["seed"] for _, body in endpoint.bodies] == [1, 1]
        path, body = endpoint.bodies[-1]
        assert path == "/v1/completions"
        assert (body["prompt"], body["min_p"], body["model"]) == ("hi", 0.1, "fake")


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_unfinished_lines_are_cut_off_and_empty_answers_refused(kind):
    pytest.importorskip("openai")
    form, connect_to = (completion, connect) if kind == "completion" else (chat, connect_chat)
    answers = iter(
        [form("one\ntwo thr", "length"), form("unfinished", "length"), form("  "), form(None)]
    )
    with Endpoint(lambda number, body: next(answers)) as endpoint:
        ask, _ = connect_to(endpoint.url, retries=0)
        assert ask("x") == "one"
        for _ in range(3):
            with pytest.raises(EndpointError, match="empty answer"):
                ask("x")


def test_a_chat_sends_one_message_of_the_user():
    pytest.importorskip("openai")
    with Endpoint(lambda number, body: chat("hi there")) as endpoint:
        ask, name = connect_chat(endpoint.url, api_key="secret")
        assert (ask("hello?", temperature=0.5), name) == ("hi there", "fake")
        path, body = endpoint.bodies[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "hello?"}]
    assert body["temperature"] == 0.5


def test_an_endpoint_without_models_is_refused():
    pytest.importorskip("openai")
    with pytest.raises(EndpointError, match="does not list its models"):
        connect("http://127.0.0.1:9/v1", retries=0)


def test_instruct_families_fill_their_templates_and_read_what_comes_back(tmp_path):
    for family, answer, lines in zip(
        load_instruct_families(load_tables()),
        ("A: hi u\nB: yo", "- hi mum\nlate again"),
        ([("A", "hi u"), ("B", "yo")], [("A", "hi mum"), ("A", "late again")]),
        strict=True,
    ):
        requests = [family.build_request(2, number) for number in range(40)]
        assert requests == [family.build_request(2, number) for number in range(40)]
        assert len({request.prompt for request in requests}) == 40
        for request in requests:
            assert "{" not in request.prompt and request.cell["topic"] in request.prompt
            assert family.stratum(request.cell) == request.cell["stratum"]
        assert family.parse(answer) == lines
        words = collect_answers(
            tmp_path / "answers.jsonl", [lambda *_, text=answer, **__: text], MODEL, family, 3, 1
        )
        assert words == sum(len(text.split()) for _, text in lines)
    assert [entry["family"] for entry in logged(tmp_path)] == ["chat", "message"]


def test_web_text_is_converted_in_order_and_what_nobody_would_type_is_left_out():
    asked = []

    def answer(message):
        asked.append(message)
        line = json.loads(message.rpartition("Sentence: ")[2])
        return "NONE" if "share" in line else f"did u hear\n{line.lower()} lol"

    texts = ['The "Bank" {rose}.', "Shares and share prices fell.", *map(str, range(40))]
    converted = convert_with_llm(texts, answer)
    assert converted[0] == ["did u hear", 'the "bank" {rose}. lol']
    assert converted[1] == []
    assert [messages[1] for messages in converted[2:]] == [f"{i} lol" for i in range(40)]
    assert len(asked) == 42


def test_a_failed_conversion_is_an_error():
    def answer(message):
        raise EndpointError("gone")

    with pytest.raises(EndpointError, match="gone"):
        convert_with_llm(["a"] * 100, answer)


@pytest.mark.parametrize("name", ["generate_chat.txt", "generate_messages.txt"])
def test_a_template_without_its_fields_is_refused_by_name(tmp_path, name):
    for other in ("generate_chat.txt", "generate_messages.txt"):
        fields = {
            "generate_chat.txt": "{first} {second} {topic} {style}",
            "generate_messages.txt": "{persona} {relationship} {topic} {tone} {dialect} {style}",
        }[other]
        (tmp_path / other).write_text(fields if other != name else "{topic}")
    with pytest.raises(ValueError, match=rf"{name}: has fields topic; needs"):
        load_instruct_families(load_tables(), tmp_path)


def test_a_template_for_conversion_needs_the_line(tmp_path):
    (tmp_path / "convert.txt").write_text("rewrite this")
    with pytest.raises(ValueError, match=r"convert\.txt: has fields none; needs line"):
        convert_with_llm([], lambda message: "", tmp_path)

"""Answers to a corpus: requests, the sift, the log that survives a killed run, the committed files."""

import gzip
import hashlib
import itertools
import json
import re
from collections import Counter
from importlib.resources import files

import pytest

from synthetic_text import generation, llm_chats
from synthetic_text.answer_log import AnswerLog, read_log
from synthetic_text.chat_prompts import load_chat_family
from synthetic_text.filters import LineFilter
from synthetic_text.generation import (
    SLOTS,
    build_corpus,
    collect_answers,
    find_families,
    load_families,
)
from synthetic_text.llm import EndpointError
from synthetic_text.llm_chats import (
    Message,
    Sift,
    decode_messages,
    encode_messages,
    list_words,
    load_llm_chats,
)
from synthetic_text.message_prompts import load_message_family
from synthetic_text.personas import load_tables
from synthetic_text.prompting import REQUESTS_PER_PROMPT_SET

MODEL = {"name": "gemma-test"}
TABLES = load_tables()
CHATS, EVERYDAY, MESSAGES = load_families()
KNOWN = find_families()
# 70 of the 120 everyday dialogues: what the first half of that corpus was shown
FORMER = {("everyday", "0988ef0c851a48d157c401a77847376477a6d78f887f7007a1e829bc94df0dc2")}


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


def collect(folder, model, words, seed=5, family=CHATS):
    return collect_answers(folder / "answers.jsonl", [model], MODEL, family, words, seed)


def logged(folder):
    return list(read_log(folder / "answers.jsonl", KNOWN))


def build(folder, directory=None):
    return build_corpus([folder / "answers.jsonl"], directory or folder, filters=())


def sift_one(answer, shown=()):
    sift = Sift(shown)
    lines = sift.accept(CHATS.parse(answer))
    return [text for _, text, reason in lines if reason is None], dict(sift.counts.rejected)


def test_an_answer_to_a_chat_goes_on_as_speaker_a_and_messages_are_a_line_each():
    assert CHATS.parse(" hi  there\nB: yo: what\n\n A: ok\nsomebody else\nC: hm") == [
        ("A", "hi there"),
        ("B", "yo: what"),
        ("A", "ok"),
        ("", "somebody else"),
        ("", "C: hm"),
    ]
    assert MESSAGES.parse("hi  mum\n\n- on my way") == [("A", "hi mum"), ("A", "on my way")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("...", "empty"),
        ("word " * 61, "too long"),
        ("see <b>this</b>", "markup"),
        ("no no no no no", "repetition"),
        ("это я", "not Latin"),
        ("look at www.example.net", "personal data"),
    ],
)
def test_junk_is_rejected_with_its_reason(line, reason):
    assert sift_one(f" fine then\nB: {line}") == (["fine then"], {reason: 1})


def test_copies_of_shown_messages_are_dropped_but_not_short_ones():
    shown = ["Bring the dog, he needs it more than us", "on my way"]
    assert sift_one(" bring the DOG he needs it more than us!", shown)[0] == []
    assert sift_one(" dog, he needs it more than me", shown)[0] == []  # six words in a row
    assert sift_one(" dog, he needs it less than me", shown)[0] != []
    assert sift_one(" on my way", shown)[0] == ["on my way"]


def test_repeats_are_capped_lower_for_long_messages():
    sift = Sift([])
    for _ in range(40):
        sift.accept(CHATS.parse(" lol\nB: Lol!\nA: that is a good one"))
    assert sift.counts.messages == 20 + 3
    assert sift.counts.rejected == {"said too often": 60 + 37}
    assert sift.counts.lines == 120


def test_a_chat_that_says_the_same_again_is_a_loop():
    answer = " come to my house" + "\nB: no\nA: come to my house" * 4
    assert sift_one(answer) == (["come to my house", "no", "no", "no"], {"repetition": 5})


@pytest.mark.parametrize("family", [CHATS, EVERYDAY, MESSAGES], ids=lambda family: family.name)
def test_requests_are_determined_by_their_number_and_keep_examples_for_a_lane(family):
    requests = [family.build_request(3, number) for number in range(SLOTS * 30)]
    assert requests == [family.build_request(3, number) for number in range(SLOTS * 30)]
    assert len({request.seed for request in requests}) == len(requests)
    prefixes: dict[int, str] = {}
    for request in requests:
        prefix = request.prompt.rpartition("\n\n")[0]
        assert prefixes.setdefault(request.prompt_set, prefix) == prefix
    same = REQUESTS_PER_PROMPT_SET
    assert [r.prompt_set for r in requests[5::SLOTS]] == [
        5 + i // same * SLOTS for i in range(len(requests[5::SLOTS]))
    ]
    assert len(set(prefixes.values())) > len(prefixes) // 2


@pytest.mark.parametrize("family", [CHATS, EVERYDAY], ids=lambda family: family.name)
def test_a_chats_prompt_shows_dialogues_of_its_register_and_no_topic_comes_again(family):
    requests = [family.build_request(3, number) for number in range(600)]
    assert Counter(r.cell["topic"] for r in requests).most_common(1)[0][1] == 1
    registers = {dialogue.topic: dialogue.register for dialogue in family.prompts.dialogues}
    for request in requests[::37]:
        shown = re.findall(r"^\[(.+)\]$", request.prompt, re.MULTILINE)[:-1]
        assert [registers[topic] for topic in shown] == [request.cell["register"]] * 4
        assert request.prompt.endswith(f"[{request.cell['topic']}]\nA:")


def test_a_messages_prompt_shows_the_style_of_its_writer_and_one_of_the_dialect():
    examples = MESSAGES.prompts.examples
    with_dialect = {example.dialect for example in examples}
    for number in range(0, 3000, 41):
        request = MESSAGES.build_request(3, number)
        cell = request.cell
        first, *others = (examples[i] for i in cell["shown"])
        assert {example.style for example in others} == {cell["register"]}
        assert first.dialect == cell["dialect"] or cell["dialect"] not in with_dialect
        assert request.prompt.rstrip().splitlines()[-1] == (
            f"[to {cell['relationship']}: {cell['topic']}, {cell['tone']}]"
        )
        for example in (first, *others):
            assert "\n".join(example.messages) in request.prompt


def test_a_run_goes_on_where_it_was_and_asks_nothing_twice(tmp_path):
    first, second = CountingModel(), CountingModel(start=1000)
    assert collect(tmp_path, first, words=160) == 160
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


def test_families_share_a_log_and_count_their_own_words(tmp_path):
    assert collect(tmp_path, CountingModel(), words=80) == 80
    assert collect(tmp_path, CountingModel(start=500), words=160, family=MESSAGES) == 160
    assert collect(tmp_path, CountingModel(start=900), words=40, family=EVERYDAY) == 40
    counted = Counter(entry["family"] for entry in logged(tmp_path))
    assert counted == {"chat": 10, "everyday": 5, "message": 20}
    assert build(tmp_path) == {"chat": 80, "everyday": 40, "message": 160}
    for name, entries in (("llm_chats", 10), ("llm_everyday", 5), ("llm_messages", 20)):
        card = json.loads((tmp_path / f"{name}.card.json").read_text())
        assert card["lines"] == entries


def test_servers_share_the_requests_of_one_run(tmp_path):
    servers = [CountingModel(), CountingModel(start=5000)]
    collect_answers(tmp_path / "answers.jsonl", servers, MODEL, CHATS, 8 * 200, seed=5)
    numbers = [entry["number"] for entry in logged(tmp_path)]
    assert len(numbers) == len(set(numbers)) == 200
    lane = {CHATS.build_request(5, n).seed: n % (2 * SLOTS) for n in range(max(numbers) + 99)}
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


@pytest.mark.parametrize("broken", [None, "", "  \n"])
def test_failed_and_empty_answers_are_an_error_and_not_recorded(tmp_path, broken):
    with pytest.raises(EndpointError, match=r"32 requests in a row failed.*answers\.jsonl"):
        collect(tmp_path, CountingModel(answers=40, broken=broken), words=10**6)
    assert len(logged(tmp_path)) == 40
    assert build(tmp_path)["chat"] == 40 * 8


def test_garbage_is_an_error_with_accepted_lines_kept(tmp_path):
    with pytest.raises(EndpointError, match="nothing acceptable"):
        collect(tmp_path, CountingModel(answers=3, broken="</div>"), words=10**6)
    assert build(tmp_path)["chat"] == 3 * 8


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
    of_message = {**entry, "family": "message"}  # with the hash of the chats' prompts
    for line, message in [
        (b"{", "line 3: no JSON"),
        (b"\xff", "line 3: no JSON"),
        (b'{"text": "hi"}', "line 3: no answer"),
        (json.dumps(entry | {"run": {"seed": 5, "prompts_sha256": "0"}}).encode(), "field run"),
        (json.dumps(of_message).encode(), "other prompts of family message"),
    ]:
        log.write_bytes(good + line + b"\n")
        with pytest.raises(ValueError, match=message):
            collect(tmp_path, CountingModel(), words=32)


def test_logs_from_before_there_were_families_are_chats(tmp_path):
    collect(tmp_path, CountingModel(), words=80)
    log = tmp_path / "answers.jsonl"
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    for entry in entries:
        for key in ("family", "stratum", "personas"):
            del entry[key]
        del entry["run"]["tables_sha256"]
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert build(tmp_path) == {"chat": 80, "everyday": 0, "message": 0}
    written = decode_messages((tmp_path / "llm_chats.jsonl.gz").read_bytes(), "chat")
    groups = CHATS.topic_groups
    assert [m.stratum for m in written] == [
        f"{groups[entry['topic']]}/{entry['register']}" for entry in entries
    ]


def test_the_same_log_gives_the_same_files_and_every_line_is_kept_or_rejected(tmp_path):
    collect(tmp_path, CountingModel(), words=160)
    collect(tmp_path, CountingModel(answers=3, broken="ok\n<b>no</b>\nhi mum"), 24, family=MESSAGES)
    for name in ("one", "two"):
        build(tmp_path, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    chats = decode_messages((tmp_path / "one" / "llm_chats.jsonl.gz").read_bytes(), "chat")
    assert [m.text for m in chats] == [entry["text"].strip() for entry in logged(tmp_path)[:20]]
    rejected = gzip.decompress((tmp_path / "one" / "llm_rejected.jsonl.gz").read_bytes())
    cards = [json.loads(path.read_text()) for path in (tmp_path / "one").glob("*.card.json")]
    counted = Counter(
        {step["reason"]: step["rejected"] for card in cards for step in card["filters"]}
    )
    assert Counter(json.loads(line)["reason"] for line in rejected.splitlines()) == +counted


def test_corpus_filters_have_the_last_word(tmp_path):
    collect(tmp_path, CountingModel(), words=160)
    first = logged(tmp_path)[0]["text"].strip()
    never_first = LineFilter("first", lambda text: text == first)
    words = build_corpus([tmp_path / "answers.jsonl"], tmp_path, filters=[never_first])
    assert words["chat"] == 160 - 8
    card = json.loads((tmp_path / "llm_chats.card.json").read_text())
    assert card["filters"] == [{"reason": "first", "in": 20, "rejected": 1, "out": 19}]


def test_extending_the_published_corpus_gives_what_all_logs_would(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    collect(first, CountingModel(answers=6, broken="ok\n<b>no</b>\nhi mum"), 60, seed=5)
    collect(first, CountingModel(start=500), 30, family=MESSAGES)
    collect(second, CountingModel(start=3), 100, seed=6)
    logs = [first / "answers.jsonl", second / "answers.jsonl"]
    build_corpus(logs[:1], tmp_path / "data", filters=())
    expected = build_corpus(logs, tmp_path / "both", filters=())
    monkeypatch.setattr(llm_chats, "files", lambda package: tmp_path)
    assert build_corpus(logs[1:], tmp_path / "out", filters=(), extend=True) == expected
    assert expected["chat"] > 130
    for name in llm_chats.CORPUS_NAMES.values():
        for ending in ("jsonl.gz", "card.json", "card.md"):
            file = f"{name}.{ending}"
            assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "both" / file).read_bytes()


def test_a_file_holds_what_was_written_to_it():
    messages = [
        Message("hi 😀", "chat", "a/b", "c", 0, "A"),
        Message('yo: "x"', "chat", "a/b", "c", 0, "B"),
        Message("hi 😀", "chat", "a/b", "c", 2, "A"),
    ]
    assert decode_messages(encode_messages(messages), "chat") == messages
    assert encode_messages(messages) == encode_messages(list(messages))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dialogues_a.json", "[{]", "dialogues_a.json: cannot be read as JSON"),
        ("dialogues_a.json", '[{"topic": "x", "messages": ["a", "b"]}]', "entry 1: needs topic"),
        (
            "dialogues_a.json",
            '[{"topic": "x", "register": "plain", "messages": ["a", "b"]}]',
            "register 'brief' has 0 dialogues, needs 4",
        ),
        (
            "everyday.json",
            '[{"topic": "x", "register": "plain", "messages": ["a", "b"]}]',
            "everyday*.json: register 'casual' has 0 dialogues, needs 4",
        ),
        ("topics.json", '{"food": "bread"}', "group 'food'"),
        ("topics.json", '{"food": ["bread"], "home": ["bread"]}', "'bread' comes twice"),
        ("topics.json", "[]", "needs a JSON object"),
        ("messages.json", "{}", "messages.json: needs a JSON array"),
        ("messages.json", '[{"messages": ["hi"]}]', "entry 1: needs dialect, messages"),
        ("messages.json", "[1]", "entry 1: needs dialect, messages"),
    ],
)
def test_bad_prompt_files_are_refused_by_name(tmp_path, name, content, message):
    dialogues = [
        {"topic": "x", "register": register, "messages": ["a", "b"]}
        for register in ("plain", "casual", "brief")
        for _ in range(4)
    ]
    names = ("persona", "relationship", "situation", "tone", "dialect")
    examples = [
        {**dict.fromkeys(names, "x"), "style": style, "messages": ["hi"]}
        for style in ("plain", "casual", "standard", "expressive")
        for _ in range(5)
    ]
    (tmp_path / "dialogues_a.json").write_text(json.dumps(dialogues))
    (tmp_path / "everyday.json").write_text(json.dumps(dialogues))
    (tmp_path / "topics.json").write_text('{"food": ["bread"]}')
    (tmp_path / "messages.json").write_text(json.dumps(examples))

    def load():
        load_chat_family(TABLES, tmp_path)
        load_chat_family(TABLES, tmp_path, "everyday")
        load_message_family(TABLES, tmp_path)

    load()
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        load()


@pytest.mark.parametrize("name", llm_chats.CORPUS_NAMES.values())
def test_the_committed_corpus_is_what_its_card_says(name):
    family = {value: key for key, value in llm_chats.CORPUS_NAMES.items()}[name]
    messages = [message for message in load_llm_chats() if message.family == family]
    folder = files("synthetic_text") / "data"
    card = json.loads((folder / f"{name}.card.json").read_text("utf-8"))
    data = (folder / f"{name}.jsonl.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert len(data) == card["bytes"] < 2_000_000
    assert len(messages) == card["lines"]
    assert sum(len(list_words(message.text)) for message in messages) == card["words"]
    assert all(message.stratum and message.topic for message in messages)
    assert card["filters"][-1]["out"] == len(messages)
    hashes = {entry["prompts_sha256"] for entry in card["prompts"]["hashes"]}
    assert {(family, sha256) for sha256 in hashes} <= KNOWN.keys() | FORMER
    assert card["sha256"] in (folder / f"{name}.card.md").read_text("utf-8")


def test_the_committed_corpus_holds_no_shown_message():
    def plain(text):
        return re.sub(r"\W+", " ", text.lower().replace("’", "'").replace("'", "")).strip()

    families = (CHATS, EVERYDAY, MESSAGES)
    shown = {plain(message) for family in families for message in family.shown}
    shown = {text for text in shown if len(text.split()) > 4}
    assert len(shown) > 500
    written = load_llm_chats()
    for family in families:
        own = {plain(message) for message in family.shown} & shown
        assert not [m.text for m in written if m.family == family.name and plain(m.text) in own]


def test_a_corpus_that_is_not_its_cards_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "llm_chats.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "data" / "llm_chats.card.json").write_text('{"sha256": "0"}')
    monkeypatch.setattr(llm_chats, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"llm_chats\.jsonl\.gz: sha256"):
        load_llm_chats()


def test_the_two_families_of_chats_show_different_dialogues():
    assert len(set(CHATS.shown) & set(EVERYDAY.shown)) < len(EVERYDAY.shown) / 20
    temperatures = [
        {family.build_request(3, number).sampling["temperature"] for number in range(200)}
        for family in (CHATS, EVERYDAY)
    ]
    assert max(temperatures[1]) <= 1.0 < max(temperatures[0])
    registers = Counter(
        EVERYDAY.build_request(3, SLOTS * REQUESTS_PER_PROMPT_SET * n).cell["register"]
        for n in range(2_000)
    )
    assert 0.25 < registers["casual"] / registers.total() < 0.37  # 31 % start in lower case


def test_a_family_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'poem': not one of chat, everyday, message"):
        generation.generate(tmp_path, 10, 1, only=["chat", "poem"])


def test_instruct_needs_an_endpoint(tmp_path):
    with pytest.raises(ValueError, match="base model; give an endpoint"):
        generation.generate(tmp_path, 10, 1, instruct=True)

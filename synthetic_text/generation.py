"""Phone text written by a language model: prompts of several families in, a log and a corpus out.

Chats between two personas, full of particulars or of everyday phrases (`chat_prompts`), and single
messages (`message_prompts`); for instruct models chats and messages (`instruct_prompts`). Answers
are appended to a log as they come, and the corpus is a pure function of the logs, so a killed run
goes on where it was. Nothing private is read here.
"""

import gzip
import itertools
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from device_runtime.words import is_word, split_words
from synthetic_text.answer_log import AnswerLog, read_log
from synthetic_text.card import Source, build_card, write_card
from synthetic_text.chat_prompts import load_chat_family
from synthetic_text.diversity import measure_diversity
from synthetic_text.filters import Filter, apply_filters, list_words
from synthetic_text.instruct_prompts import load_instruct_families
from synthetic_text.llm import (
    EMBEDDED_MODEL,
    REQUEST_TIMEOUT_S,
    SLOTS,
    Complete,
    EndpointError,
    connect,
    connect_chat,
    start_embedded_server,
)
from synthetic_text.llm_chats import (
    CORPUS_NAMES,
    Message,
    Sift,
    encode_messages,
    list_corpus_filters,
    read_corpus,
    write_file,
)
from synthetic_text.message_prompts import load_message_family
from synthetic_text.personas import load_tables
from synthetic_text.prompting import Family

LOG_NAME = "answers.jsonl"

_FAILURES_IN_A_ROW = 2 * SLOTS
_USELESS_ANSWERS_IN_A_ROW = 12 * SLOTS
_MAX_SERVERS = 4
_CARD_SAMPLES = 20
_DIVERSITY_WORDS = 50_000


def load_families(instruct: bool = False) -> list[Family]:
    """Chats, everyday chats of base models, and single messages."""
    tables = load_tables()
    if instruct:
        return list(load_instruct_families(tables))
    everyday = load_chat_family(tables, name="everyday")
    return [load_chat_family(tables), everyday, load_message_family(tables)]


def find_families() -> dict[tuple[str, str], Family]:
    """All that `load_families` gives, by name and hash of the prompts."""
    known = [*load_families(), *load_families(instruct=True)]
    return {(family.name, family.hashes["prompts_sha256"]): family for family in known}


def generate(
    out_dir: Path,
    words: int,
    seed: int,
    endpoint: str | None = None,
    progress: Callable[[int], None] = lambda accepted_words: None,
    instruct: bool = False,
    timeout_s: float = REQUEST_TIMEOUT_S,
    only: Sequence[str] = (),
    extend: bool = False,
) -> dict[str, int]:
    """Has the model write until `words` words, as many of each family, have passed the sift.

    Args:
        out_dir: folder of the log, `answers.jsonl`, and of the corpus as `build_corpus` writes it.
            An earlier run's log there is gone on with.
        words: accepted words to reach, those of earlier runs included.
        seed: of prompts and sampling. It fixes the questions; answers also depend on batching.
        endpoint: base URL of an OpenAI-compatible server; None starts the embedded model.
        progress: called with the accepted words so far after each answer.
        instruct: whether the endpoint's model follows instructions (chat completions).
        timeout_s: of one try of a request.
        only: names of the families to ask; all if empty.
        extend: whether the corpus is the published one and, after it, what the log holds.

    Returns:
        Words of each family that are in the corpus, after all filters.

    Raises:
        EndpointError: the endpoint died or answers nothing useful. Answers before are in the log.
        ValueError: the log is damaged, of other prompts, or in use by another process; a family that
            there is not; or instruct without an endpoint.
    """
    if instruct and endpoint is None:
        raise ValueError("instruct: the embedded model is a base model; give an endpoint")
    families = {family.name: family for family in load_families(instruct)}
    if unknown := sorted(set(only) - families.keys()):
        raise ValueError(f"family {unknown[0]!r}: not one of {', '.join(families)}")
    asked = [family for name, family in families.items() if not only or name in only]
    filters = list_corpus_filters()  # now: a missing package is not found out after hours
    log_path = out_dir / LOG_NAME
    with ExitStack() as context:
        if endpoint is None:
            # Threads of one server wait for each other: on two busy cores a server with one thread
            # wrote as many tokens a second (52) as one with two (50), so there are several.
            cores = os.cpu_count() or 1
            servers = [
                context.enter_context(start_embedded_server(threads=max(1, cores // _MAX_SERVERS)))
                for _ in range(min(cores, _MAX_SERVERS))
            ]
            completes = [connect(server.base_url, timeout_s=timeout_s)[0] for server in servers]
            model = {"name": EMBEDDED_MODEL, "sha256": servers[0].model_sha256}
        else:
            connect_to = connect_chat if instruct else connect
            complete, name = connect_to(endpoint, timeout_s=timeout_s)
            completes, model = [complete], {"name": name}
        before = 0
        for i, family in enumerate(asked):

            def add_progress(accepted: int, before: int = before) -> None:
                progress(before + accepted)

            share = words * (i + 1) // len(asked) - words * i // len(asked)
            before += collect_answers(log_path, completes, model, family, share, seed, add_progress)
    return build_corpus([log_path], out_dir, filters, extend)


def collect_answers(
    log_path: Path,
    completes: Sequence[Complete],
    model: Mapping[str, str],
    family: Family,
    words: int,
    seed: int,
    progress: Callable[[int], None] = lambda accepted_words: None,
) -> int:
    """Appends answers, a JSON object a line, until the log holds `words` accepted words of a family.

    Each function of `completes` gets SLOTS requests at a time. An answer is on disk before the next
    request follows it. A failed or empty answer is not recorded; the next run asks again.

    Returns:
        Accepted words of the family in the log.

    Raises:
        EndpointError: 2 * SLOTS requests in a row failed, or 12 * SLOTS answers in a row held
            nothing acceptable.
        ValueError: the log is damaged, of other prompts, or in use by another process.
    """
    run = {"seed": seed, **family.hashes}
    sift = Sift(family.shown)
    lanes = SLOTS * len(completes)
    lock = threading.Lock()  # over log, sift and the two counts
    stop = threading.Event()
    failures = useless = 0

    def ask(number: int, complete: Complete) -> None:
        nonlocal failures, useless
        request = family.build_request(seed, number)
        try:
            text = complete(request.prompt, seed=request.seed, **request.sampling)
            if not text.strip():
                raise EndpointError("empty answer")
        except EndpointError as error:
            with lock:
                failures += 1
                if failures == _FAILURES_IN_A_ROW:
                    raise EndpointError(
                        f"{failures} requests in a row failed, the last with: {error}. "
                        f"Answers before are kept in {log_path}; run again to go on"
                    ) from error
            return
        entry = {
            "run": run,
            "family": family.name,
            "number": number,
            "prompt_set": request.prompt_set,
            **request.cell,
            "seed": request.seed,
            "sampling": request.sampling,
            "model": model,
            "text": text,
        }
        with lock:
            if sift.counts.words >= words:
                return
            log.append(entry)
            failures = 0
            accepted = any(reason is None for _, _, reason in sift.accept(family.parse(text)))
            useless = 0 if accepted else useless + 1
            progress(sift.counts.words)
            if sift.counts.words >= words:
                stop.set()
            elif useless == _USELESS_ANSWERS_IN_A_ROW:
                raise EndpointError(
                    f"{useless} answers in a row held nothing acceptable: this model does not "
                    f"write phone messages. Answers before are kept in {log_path}"
                )

    def work(lane: int) -> None:
        try:
            for number in itertools.count(lane, lanes):
                if stop.is_set():
                    return
                if number not in done:
                    ask(number, completes[lane // SLOTS])
        finally:
            stop.set()  # one lane's error ends all

    with AnswerLog(log_path) as log:
        done = set()
        known = find_families()
        for entry in read_log(log_path, known):
            if entry["family"] == family.name:
                sift.accept(_parse(known, entry))
                if entry["run"] == run:
                    done.add(entry["number"])
        if sift.counts.words >= words:
            return sift.counts.words
        with ThreadPoolExecutor(lanes) as pool:
            try:
                for lane in as_completed([pool.submit(work, lane) for lane in range(lanes)]):
                    lane.result()
            finally:
                stop.set()
    return sift.counts.words


def build_corpus(
    log_paths: Sequence[Path],
    directory: Path,
    filters: Sequence[Filter] | None = None,
    extend: bool = False,
) -> dict[str, int]:
    """Sifts and filters logs, and writes a file with a card for each family, and what was rejected.

    `llm_chats.jsonl.gz`, `llm_everyday.jsonl.gz`, `llm_messages.jsonl.gz`, `.card.json` and `.card.md` of each, and
    `llm_rejected.jsonl.gz`, {family, chat, reason, text} a line. The same logs and prompts give the
    same files.

    Args:
        log_paths: read in this order, as if they were one log. None may be in use.
        directory: made if missing.
        filters: tried after the sift, by default those of `list_corpus_filters`.
        extend: whether the corpus starts with the published one, whose logs are not needed: of families
            in the logs it is sifted again, so that nothing in it copies the dialogues of today's prompts.

    Returns:
        Words of each family in the corpus.

    Raises:
        ValueError: a log is damaged or of other prompts, or a published file is not its card's.
    """
    filters = list_corpus_filters() if filters is None else filters
    known = find_families()
    entries = [entry for path in log_paths for entry in read_log(path, known)]
    words: dict[str, int] = {}
    rejected: list[dict[str, Any]] = []
    for name in CORPUS_NAMES:
        own = [entry for entry in entries if entry["family"] == name]
        published = read_corpus(name) if extend else ([], None)
        words[name] = _write_family(name, known, own, filters, rejected, directory, *published)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rejected)
    write_file(directory / "llm_rejected.jsonl.gz", gzip.compress(lines.encode(), mtime=0))
    return words


def _parse(
    known: Mapping[tuple[str, str], Family], entry: Mapping[str, Any]
) -> list[tuple[str, str]]:
    family = known[entry["family"], entry["run"]["prompts_sha256"]]
    return family.parse(entry["text"])


def _write_family(
    name: str,
    known: Mapping[tuple[str, str], Family],
    entries: Sequence[Mapping[str, Any]],
    filters: Sequence[Filter],
    rejected: list[dict[str, Any]],
    directory: Path,
    published: Sequence[Message],
    published_card: Mapping[str, Any] | None,
) -> int:
    """Words in the file; rejected lines are added to `rejected`."""
    if published_card and not entries:
        write_file(directory / published_card["file"], encode_messages(published))
        write_card(published_card, directory, CORPUS_NAMES[name])
        return _count_words(published)
    own = [family for (family_name, _), family in known.items() if family_name == name]
    sift = Sift(message for family in own for message in family.shown)
    sifted: list[Message] = []

    def accept(chat: int, stratum: str, topic: str, lines: Iterable[tuple[str, str]]) -> None:
        for speaker, text, reason in sift.accept(lines):
            if reason is None:
                sifted.append(Message(text, name, stratum, topic, chat, speaker))
            else:
                rejected.append(_describe_rejected(name, chat, reason, text))

    for (chat, stratum, topic), said in groupby(published, lambda m: (m.chat, m.stratum, m.topic)):
        accept(chat, stratum, topic, [(message.speaker, message.text) for message in said])
    first = published_card["sources"][0]["details"]["answers"] if published_card else 0
    for chat, entry in enumerate(entries, start=first):
        family = known[name, entry["run"]["prompts_sha256"]]
        accept(chat, family.stratum(entry), entry["topic"], family.parse(entry["text"]))
    result = apply_filters([message.text for message in sifted], filters)
    for i, reason in result.rejected:
        rejected.append(_describe_rejected(name, sifted[i].chat, reason, sifted[i].text))
    messages = [sifted[i] for i in result.kept]
    data = encode_messages(messages)
    write_file(directory / f"{CORPUS_NAMES[name]}.jsonl.gz", data)
    counts = Counter(dict(sift.counts.rejected.most_common()))
    counts.update(result.counts)
    origin = _Origin.of(entries)
    lines_in = sift.counts.lines
    if published_card:
        counts.update({step["reason"]: step["rejected"] for step in published_card["filters"]})
        lines_in += sum(step["rejected"] for step in published_card["filters"])
        origin = _Origin.read(published_card) + origin
    card = _build_card(name, origin, messages, data, lines_in, counts)
    write_card(card, directory, CORPUS_NAMES[name])
    return _count_words(messages)


@dataclass(frozen=True)
class _Origin:
    """How the answers of a corpus came to be, as its card tells."""

    answers: int
    models: list[Mapping[str, Any]]
    hashes: list[Mapping[str, Any]]
    registers: Counter[str]
    sampling: list[Mapping[str, Any]]
    temperatures: Counter[str]
    seeds: frozenset[int]

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]]) -> "_Origin":
        """Of answers in a log."""
        return cls(
            len(entries),
            _list_different(entry["model"] for entry in entries),
            _list_different(
                {key: value for key, value in sorted(entry["run"].items()) if key != "seed"}
                for entry in entries
            ),
            Counter(entry["register"] for entry in entries),
            _list_different(
                {k: v for k, v in sorted(entry["sampling"].items()) if k != "temperature"}
                for entry in entries
            ),
            Counter(str(entry["sampling"]["temperature"]) for entry in entries),
            frozenset(entry["run"]["seed"] for entry in entries),
        )

    @classmethod
    def read(cls, card: Mapping[str, Any]) -> "_Origin":
        """Of a corpus, from its card."""
        prompts, settings = card["prompts"], card["settings"]
        return cls(
            sum(source["details"]["answers"] for source in card["sources"]),
            card["models"],
            prompts["hashes"],
            Counter(prompts["answers_by_register"]),
            settings["sampling"],
            Counter(settings["answers_by_temperature"]),
            frozenset(settings["seeds"]),
        )

    def __add__(self, later: "_Origin") -> "_Origin":
        return _Origin(
            self.answers + later.answers,
            _list_different([*self.models, *later.models]),
            _list_different([*self.hashes, *later.hashes]),
            self.registers + later.registers,
            _list_different([*self.sampling, *later.sampling]),
            self.temperatures + later.temperatures,
            self.seeds | later.seeds,
        )


def _build_card(
    family: str,
    origin: _Origin,
    messages: Sequence[Message],
    data: bytes,
    lines_in: int,
    rejected: Mapping[str, int],
) -> dict[str, Any]:
    name = CORPUS_NAMES[family]
    words = _count_words(messages)
    rng = random.Random(name)
    is_gemma = all(model["name"].startswith("gemma") for model in origin.models)
    diversity = None
    if words:
        tokens = [split_words(message.text) for message in messages]
        sample_words = min(
            _DIVERSITY_WORDS, sum(is_word(token) for line in tokens for token in line)
        )
        diversity = asdict(measure_diversity(tokens, human_share=0.0, sample_words=sample_words))
    return build_card(
        name=name,
        description=_DESCRIPTIONS[family],
        file=f"{name}.jsonl.gz",
        data=data,
        sources=[
            Source(
                name,
                _GEMMA_LICENCE if is_gemma else _OTHER_LICENCE,
                len(messages),
                words,
                True,
                {"answers": origin.answers},
            )
        ],
        models=origin.models,
        prompts={
            "hashes": origin.hashes,
            "topics_used": len({message.topic for message in messages}),
            "strata_used": len({message.stratum for message in messages}),
            "answers_by_register": dict(sorted(origin.registers.items())),
        },
        settings={
            "sampling": origin.sampling,
            "answers_by_temperature": dict(sorted(origin.temperatures.items())),
            "seeds": sorted(origin.seeds),
        },
        lines_in=lines_in,
        rejected=rejected,
        diversity=diversity,
        error_statistics=None,
        contamination=None,
        known_gaps=_KNOWN_GAPS,
        samples={name: [m.text for m in rng.sample(messages, min(_CARD_SAMPLES, len(messages)))]},
    )


def _describe_rejected(family: str, chat: int, reason: str, text: str) -> dict[str, Any]:
    return {"family": family, "chat": chat, "reason": reason, "text": text}


def _count_words(messages: Iterable[Message]) -> int:
    return sum(len(list_words(message.text)) for message in messages)


def _list_different(values: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({json.dumps(value): value for value in values}.values())


_DESCRIPTIONS = {
    "chat": "Two-person phone chats written by a language model from few-shot prompts, for "
    "pre-training keyboards. A chat a line: chat, topic, stratum, messages as [speaker, text]. Made "
    "by `keyfed synthesize generate`. Sampling in batches does not repeat bit for bit, so the file, "
    "and not the seed, is the record.",
    "everyday": "Two-person phone chats in the phrases that most chats are made of, written by a "
    "language model from few-shot prompts, for pre-training keyboards. A chat a line: chat, topic, "
    "stratum, messages as [speaker, text]. Made by `keyfed synthesize generate`. Sampling in batches "
    "does not repeat bit for bit, so the file, and not the seed, is the record.",
    "message": "Single phone messages written by a language model for a persona, relationship, "
    "situation and tone, from few-shot prompts, for pre-training keyboards. An answer a line: chat, "
    "topic, stratum, messages as [speaker, text], one after the other but of no conversation. Made "
    "by `keyfed synthesize generate`. Sampling in batches does not repeat bit for bit, so the file, "
    "and not the seed, is the record.",
}
_GEMMA_LICENCE = (
    "Written by Gemma 3 270M. Gemma is provided under and subject to the Gemma Terms of Use found "
    "at ai.google.dev/gemma/terms; Google claims no rights in outputs. The prompts are this "
    "project's own."
)
_OTHER_LICENCE = "That of the models' outputs, see Models. The prompts are this project's own."
_KNOWN_GAPS = [
    "A 270M base model wrote it: messages are fluent, but chats lose their thread, contradict "
    "themselves and often leave their topic, and single messages seldom keep to theirs: the stratum "
    "says what was asked for.",
    "Facts, names and places are made up; any likeness to persons is chance.",
    "English only. Registers are those of the prompts, not sampled from a population; the casual "
    "one overdoes 'u' and 'ur'.",
    "No typing errors: the typing simulator adds them.",
    "The toxicity filter knows words, not meanings.",
]

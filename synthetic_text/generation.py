"""Phone chats written by a language model: few-shot prompts in, a log of answers and a corpus out.

A prompt shows a few hand-written dialogues of one register and then a topic, and the model goes on.
Answers are appended to a log as they come, and the corpus is a pure function of the log, so a
killed run goes on where it was. Nothing private is read here.
"""

import fcntl
import hashlib
import itertools
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from synthetic_text.llm import (
    EMBEDDED_MODEL,
    SLOTS,
    Complete,
    EndpointError,
    connect,
    start_embedded_server,
)
from synthetic_text.llm_chats import Counts, Message, Sift, write_llm_chats

HEADER = "Phone chats between two people."
DIALOGUES_PER_PROMPT = 4
REQUESTS_PER_PROMPT_SET = 24
SAMPLING: Mapping[str, Any] = {
    "max_tokens": 220,
    "stop": ["\n\n", "["],
    "repeat_penalty": 1.08,
    "top_k": 200,
    "top_p": 1.0,
}
TEMPERATURES = (0.9, 1.0, 1.1, 1.2)
MIN_PS = (0.02, 0.05)

_FAILURES_IN_A_ROW = 2 * SLOTS
_USELESS_ANSWERS_IN_A_ROW = 12 * SLOTS
_MAX_SERVERS = 4


@dataclass(frozen=True)
class Dialogue:
    """A hand-written chat of two persons, A first, taking turns."""

    topic: str
    register: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Prompts:
    """What the model is shown: dialogues as examples, and topics to write about."""

    dialogues: tuple[Dialogue, ...]
    topics: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    """One prompt to the model, determined by the prompts, the run's seed and `number`."""

    number: int
    prompt_set: int
    """Which dialogues are shown."""
    register: str
    topic: str
    seed: int
    sampling: Mapping[str, Any]
    prompt: str


def load_prompts(directory: Path | None = None) -> Prompts:
    """Reads `dialogues*.json` and `topics.json`, by default those of this package.

    Raises:
        ValueError: names file, entry and what it needs.
    """
    root = directory or Path(str(files("synthetic_text") / "prompts"))
    dialogues = [d for path in sorted(root.glob("dialogues*.json")) for d in _read_dialogues(path)]
    if not dialogues:
        raise ValueError(f"{root}: needs dialogues*.json")
    for register, count in Counter(dialogue.register for dialogue in dialogues).items():
        if count < DIALOGUES_PER_PROMPT:
            raise ValueError(
                f"{root}/dialogues*.json: register {register!r} has {count} dialogues, "
                f"needs {DIALOGUES_PER_PROMPT}"
            )
    return Prompts(tuple(dialogues), tuple(_read_topics(root / "topics.json")))


def build_request(prompts: Prompts, seed: int, number: int) -> Request:
    """The request of that number in the run of that seed.

    Dialogues stay the same for REQUESTS_PER_PROMPT_SET requests SLOTS apart, so that every slot of
    the server finds its own in the prefix cache. No topic comes again before all have come.
    """
    prompt_set = number // (SLOTS * REQUESTS_PER_PROMPT_SET) * SLOTS + number % SLOTS
    rng = random.Random(f"{seed}/dialogues/{prompt_set}")
    register = rng.choice(prompts.dialogues).register
    shown = rng.sample(
        [d for d in prompts.dialogues if d.register == register], DIALOGUES_PER_PROMPT
    )

    cycle, position = divmod(number, len(prompts.topics))
    rng = random.Random(f"{seed}/topics/{cycle}")
    topic = rng.sample(prompts.topics, len(prompts.topics))[position]

    rng = random.Random(f"{seed}/request/{number}")
    return Request(
        number=number,
        prompt_set=prompt_set,
        register=register,
        topic=topic,
        seed=rng.randrange(2**31),
        sampling={
            **SAMPLING,
            "temperature": rng.choice(TEMPERATURES),
            "min_p": rng.choice(MIN_PS),
        },
        prompt="\n\n".join([HEADER, *map(_show, shown), f"[{topic}]\nA:"]),
    )


def generate(
    out_dir: Path,
    words: int,
    seed: int,
    endpoint: str | None = None,
    progress: Callable[[int], None] = lambda accepted_words: None,
) -> Counts:
    """Has the model write until `words` words have passed the filters; the corpus in `out_dir`.

    Args:
        out_dir: folder of the log, `answers.jsonl`, and of the corpus and its card as
            `write_llm_chats` names them. An earlier run's log there is gone on with.
        words: accepted words to reach, those of earlier runs included.
        seed: of prompts and sampling. It fixes the questions; answers also depend on batching.
        endpoint: base URL of an OpenAI-compatible server; None starts the embedded model.
        progress: called with the accepted words so far after each answer.

    Raises:
        EndpointError: the endpoint died or answers nothing useful. Answers before are in the log.
        ValueError: the log is damaged, of other prompts, or in use by another process.
    """
    prompts = load_prompts()
    log_path = out_dir / "answers.jsonl"
    with ExitStack() as context:
        if endpoint is None:
            # Threads of one server wait for each other: on two busy cores a server with one thread
            # wrote as many tokens a second (52) as one with two (50), so there are several.
            cores = os.cpu_count() or 1
            servers = [
                context.enter_context(start_embedded_server(threads=max(1, cores // _MAX_SERVERS)))
                for _ in range(min(cores, _MAX_SERVERS))
            ]
            completes = [connect(server.base_url)[0] for server in servers]
            model = {"name": EMBEDDED_MODEL, "sha256": servers[0].model_sha256}
        else:
            complete, name = connect(endpoint)
            completes, model = [complete], {"name": name}
        collect_answers(log_path, completes, model, prompts, words, seed, progress)
    return build_corpus(log_path, prompts, out_dir)


def collect_answers(
    log_path: Path,
    completes: Sequence[Complete],
    model: Mapping[str, str],
    prompts: Prompts,
    words: int,
    seed: int,
    progress: Callable[[int], None] = lambda accepted_words: None,
) -> None:
    """Appends answers to the log, one JSON object a line, until it holds `words` accepted words.

    Each function of `completes` gets SLOTS requests at a time. An answer is on disk before the next
    request follows it. A failed or empty answer is not recorded; the next run asks again.

    Raises:
        EndpointError: 2 * SLOTS requests in a row failed, or 12 * SLOTS answers in a row held
            nothing acceptable.
        ValueError: the log is damaged, of other prompts, or in use by another process.
    """
    run = {"seed": seed, "prompts_sha256": prompts.sha256}
    sift = _start_sift(prompts)
    lanes = SLOTS * len(completes)
    lock = threading.Lock()  # over log, sift and the two counts
    stop = threading.Event()
    failures = useless = 0

    def ask(number: int, complete: Complete) -> None:
        nonlocal failures, useless
        request = build_request(prompts, seed, number)
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
        entry = {"run": run, **asdict(request), "model": model, "text": text}
        del entry["prompt"]  # follows from the run, `prompt_set` and `topic`
        with lock:
            if sift.counts.words >= words:
                return
            log.append(entry)
            failures = 0
            useless = 0 if sift.accept(text, request.topic) else useless + 1
            progress(sift.counts.words)
            if sift.counts.words >= words:
                stop.set()
            elif useless == _USELESS_ANSWERS_IN_A_ROW:
                raise EndpointError(
                    f"{useless} answers in a row held nothing acceptable: this model does not go "
                    f"on with chats. Answers before are kept in {log_path}"
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
        for entry in read_log(log_path, prompts):
            sift.accept(entry["text"], entry["topic"])
            if entry["run"] == run:
                done.add(entry["number"])
        if sift.counts.words >= words:
            return
        with ThreadPoolExecutor(lanes) as pool:
            try:
                for lane in as_completed([pool.submit(work, lane) for lane in range(lanes)]):
                    lane.result()
            finally:
                stop.set()


class AnswerLog:
    """The answers of a run as lines of JSON, open in one process at a time.

    What a killed process left of a line is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError where another process has the log open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"{path}: in use by another process; wait for it or stop it"
            ) from error
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Returns when the line is on disk."""
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_log(path: Path, prompts: Prompts) -> Iterator[dict[str, Any]]:
    """The entries of a log.

    Raises:
        ValueError: names the line that is no answer, or was made with other prompts, copies of
            which could not be found.
    """
    with path.open("rb") as log:
        for number, line in enumerate(log, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: no JSON; remove the line") from error
            match entry:
                case {
                    "run": {"seed": int(), "prompts_sha256": str(prompts_sha256)},
                    "number": int(),
                    "register": str(),
                    "topic": str(),
                    "sampling": {"temperature": float()},
                    "model": {"name": str()},
                    "text": str(),
                }:
                    if prompts_sha256 != prompts.sha256:
                        raise ValueError(
                            f"{path}: line {number}: field run.prompts_sha256: made with other "
                            "prompts; start in another folder"
                        )
                    yield entry
                case _:
                    raise ValueError(f"{path}: line {number}: no answer of keyfed; remove the line")


def build_corpus(log_path: Path, prompts: Prompts, directory: Path) -> Counts:
    """Sifts a log and writes what is kept, with its card, to `directory`.

    The same log and prompts give the same files.

    Raises:
        ValueError: the log is damaged or of other prompts.
    """
    sift = _start_sift(prompts)
    messages: list[Message] = []
    models: dict[str, Mapping[str, Any]] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    temperatures: Counter[float] = Counter()
    registers: Counter[str] = Counter()
    seeds: set[int] = set()
    for entry in read_log(log_path, prompts):
        messages += sift.accept(entry["text"], entry["topic"])
        others = {k: v for k, v in sorted(entry["sampling"].items()) if k != "temperature"}
        settings[json.dumps(others)] = others
        models[json.dumps(entry["model"])] = entry["model"]
        temperatures[entry["sampling"]["temperature"]] += 1
        registers[entry["register"]] += 1
        seeds.add(entry["run"]["seed"])
    provenance = {
        "models": list(models.values()),
        "prompts_sha256": prompts.sha256,
        "dialogues": len(prompts.dialogues),
        "dialogues_per_prompt": DIALOGUES_PER_PROMPT,
        "topics": len(prompts.topics),
        "topics_used": len({message.topic for message in messages}),
        "sampling": list(settings.values()),
        "answers_by_temperature": {str(t): n for t, n in sorted(temperatures.items())},
        "answers_by_register": dict(sorted(registers.items())),
        "seeds": sorted(seeds),
    }
    write_llm_chats(messages, sift.counts, provenance, directory)
    return sift.counts


def _start_sift(prompts: Prompts) -> Sift:
    return Sift(message for dialogue in prompts.dialogues for message in dialogue.messages)


def _show(dialogue: Dialogue) -> str:
    lines = [f"{'AB'[i % 2]}: {message}" for i, message in enumerate(dialogue.messages)]
    return "\n".join([f"[{dialogue.topic}]", *lines])


def _read_dialogues(path: Path) -> Iterable[Dialogue]:
    for number, entry in enumerate(_read_json(path, list), start=1):
        match entry:
            case {"topic": str(topic), "register": str(register), "messages": [_, _, *_] as said}:
                if all(isinstance(message, str) and message.strip() for message in said):
                    yield Dialogue(topic, register, tuple(said))
                    continue
        raise ValueError(
            f"{path}: entry {number}: needs topic, register, and messages (two or more), all text"
        )


def _read_topics(path: Path) -> Iterable[str]:
    for group, topics in _read_json(path, dict).items():
        if not isinstance(topics, list) or not all(isinstance(t, str) and t for t in topics):
            raise ValueError(f"{path}: group {group!r}: needs a list of topics, all text")
        yield from topics


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, kind) or not content:
        raise ValueError(f"{path}: needs a JSON {'array' if kind is list else 'object'}, not empty")
    return content

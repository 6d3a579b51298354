"""The command line `keyfed synthesize`: one step of the text's way each, from file to file.

Files are text, a line each, or JSONL of {text}, both also as .gz; what is read may also be Parquet, and C4 or
StackOverflow records. A result is written beside its place and renamed when it is whole.
"""

import contextlib
import dataclasses
import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.text_files import in_blocks, read_lines, write_texts

if TYPE_CHECKING:
    from synthetic_text.filters import Filter

synthesize = typer.Typer(help="Synthetic typing text, step by step.", no_args_is_help=True)

In = Annotated[Path, typer.Argument(metavar="IN", help="Text, JSONL of {text}, or Parquet.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="*.txt or *.jsonl, also .gz.")]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Text, JSONL of {text}, or Parquet.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of all draws.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]

_FILTERED_LINES = 2_000
_JUDGE_TOKENS = 150
_SAMPLES = 20
_DIVERSITY_WORDS = 50_000


@synthesize.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder of the answers' log; a run there goes on.")],
    words: Annotated[int, typer.Option(min=1, help="Accepted words to reach.")] = 60_000,
    seed: Seed = 1,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="An OpenAI-compatible /v1; default: the embedded model (locks/llm.lock)."
        ),
    ] = None,
    instruct: Annotated[
        bool, typer.Option("--instruct", help="The endpoint's model follows instructions.")
    ] = False,
    family: Annotated[
        list[str] | None,
        typer.Option(help="chat, everyday or message; may be given again. Default: all."),
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="The new text comes after the published corpus.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Have an LLM write chats and messages, as many words each; what passes the filters is the corpus."""
    from scripts.progress import show_progress
    from synthetic_text.generation import generate as generate_corpus

    with _one_line_endpoint_errors(), show_progress("generate", words) as advance:
        kept = generate_corpus(
            out,
            words,
            seed,
            endpoint,
            lambda done: advance(min(done, words)),
            instruct,
            only=family or (),
            extend=extend,
        )
    print_figures({"words": kept}, as_json)


@synthesize.command()
def convert(source: In, out: Out, seed: Seed = 1, as_json: AsJson = False) -> None:
    """Rewrite web text as phone messages, by rules at published rates."""
    import numpy as np

    from synthetic_text.conversion import convert as convert_sentence
    from synthetic_text.corpora import clean_sentences

    counts = {"texts": 0, "sentences": 0, "messages": 0}
    with write_texts(out) as write:
        for _, text in read_lines(source, "convert"):
            counts["texts"] += 1
            for sentence in clean_sentences(text):
                rng = np.random.default_rng((seed, counts["sentences"]))
                counts["sentences"] += 1
                if message := convert_sentence(sentence, rng):
                    write({"text": message})
                    counts["messages"] += 1
    print_figures(counts, as_json)


@synthesize.command("filter")
def filter_texts(
    source: In,
    out: Out,
    rejected: Annotated[Path, typer.Option(help="JSONL of {line, reason, text}.")],
    judge: Annotated[
        str | None,
        typer.Option(
            help="An OpenAI-compatible /v1 of an instruct model that grades what is left."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the texts that no filter rejects; every other one goes to --rejected with its reason."""
    from synthetic_text.filters import (
        HEURISTIC_FILTERS,
        apply_filters,
        language_filter,
        personal_data_filter,
        toxicity_filter,
    )

    filters: list[Filter] = [
        *HEURISTIC_FILTERS,
        language_filter(),
        personal_data_filter(),
        toxicity_filter(),
    ]
    lines_in = kept = 0
    with (
        _one_line_endpoint_errors(),
        write_texts(out) as write,
        write_texts(rejected, ".jsonl") as write_rejected,
    ):
        filters += _list_judge_filters(judge) if judge else []
        reasons = {one.reason: 0 for one in filters}
        for block in in_blocks(read_lines(source, "filter"), _FILTERED_LINES):
            result = apply_filters([text for _, text in block], filters)
            lines_in += len(block)
            kept += len(result.kept)
            for i in result.kept:
                write({"text": block[i][1]})
            for i, reason in result.rejected:
                reasons[reason] += 1
                write_rejected({"line": block[i][0], "reason": reason, "text": block[i][1]})
    print_figures({"in": lines_in, "rejected": reasons, "out": kept}, as_json)


@synthesize.command("type")
def type_texts(
    source: Annotated[Path | None, typer.Argument(metavar="IN", help="Messages.")] = None,
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="JSONL of {text, first_typed, typed}.")
    ] = None,
    layout: Annotated[str, typer.Option(help="qwerty, qwertz, azerty or dvorak.")] = "qwerty",
    log: Annotated[
        Path | None, typer.Option(help="JSONL, a message's keystrokes a line, times in ms.")
    ] = None,
    seed: Seed = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the simulator with published figures.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let simulated thumbs type messages, 200 a user; or --check the simulator."""
    if check:
        if source or out or log:
            raise ValueError("type --check: reads and writes no file: leave IN, OUT and --log out")
        _check_typing(layout, seed, as_json)
        return
    if not source or not out:
        raise ValueError("type: IN or OUT is missing: give both, or --check")
    from synthetic_text.keystrokes import type_corpus
    from synthetic_text.typist import load_layout

    keyboard = load_layout(layout)
    counts = {"messages": 0, "typed_wrong": 0}
    numbers: deque[int] = deque()

    def read_typeable() -> Iterator[str]:
        for line, text in read_lines(source, "type"):
            try:
                keyboard.check_script(text)
            except ValueError as error:
                raise ValueError(f"{source}:{line}: {error}") from error
            numbers.append(line)
            yield text

    with contextlib.ExitStack() as files:
        write = files.enter_context(write_texts(out, ".jsonl"))
        write_log = files.enter_context(write_texts(log, ".jsonl")) if log else None
        typings = type_corpus(read_typeable(), keyboard, seed, log=log is not None)
        for user, typing in enumerate(typings):
            columns = typing.intended, typing.first_typed, typing.typed
            for text, first, typed in zip(*columns, strict=True):
                write({"text": text, "first_typed": first, "typed": typed})
                counts["typed_wrong"] += typed != text
            lines = [numbers.popleft() for _ in typing.intended]
            if write_log and typing.log:
                for record in _list_keystrokes(typing.log, len(lines)):
                    write_log({"line": lines[record.pop("message")], "user": user, **record})
            counts["messages"] += len(lines)
    print_figures(counts, as_json)


@synthesize.command()
def dedup(source: In, out: Out, as_json: AsJson = False) -> None:
    """Drop what repeats an earlier text, exactly or nearly (MinHash, Jaccard similarity 0.85)."""
    from scripts.progress import say
    from synthetic_text.duplicates import drop_duplicates, find_near_duplicates

    texts = [text for _, text in read_lines(source, "dedup")]
    distinct, exact = drop_duplicates(texts)
    say(f"dedup: {exact:,} exact duplicates of {len(texts):,}; near ones next")
    repeats = find_near_duplicates(distinct)
    with write_texts(out) as write:
        for text, is_repeat in zip(distinct, repeats, strict=True):
            if not is_repeat:
                write({"text": text})
    near = int(repeats.sum())
    figures = {"in": len(texts), "exact": exact, "near": near, "out": len(distinct) - near}
    print_figures(figures, as_json)


@synthesize.command()
def mix(
    out: Out,
    source: Annotated[
        list[str], typer.Option(help="NAME=FILE:SHARE of the words; give one for each source.")
    ],
    words: Annotated[int, typer.Option(min=1, help="Words to write; texts repeat if too few.")],
    human_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of human-written words, at any line.")
    ] = 0.3,
    generated: Annotated[
        list[str] | None, typer.Option(help="NAME of a source that a model wrote; repeatable.")
    ] = None,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Mix sources at exact shares of words, with a floor of human-written text, from start to end."""
    import numpy as np

    from scripts.progress import show_progress
    from synthetic_text.mixture import interleave_lines

    files = _parse_sources(source)
    if unknown := set(generated or ()) - set(files):
        raise ValueError(f"--generated {min(unknown)}: no such source among {', '.join(files)}")
    texts: dict[str, list[str]] = {}
    sizes: dict[str, np.ndarray] = {}
    for name, (path, _) in files.items():
        counted = [(text, _count_words(text)) for _, text in read_lines(path, f"mix: {name}")]
        texts[name] = [text for text, count in counted if count]
        sizes[name] = np.array([count for _, count in counted if count], np.int64)
    shares = {name: share for name, (_, share) in files.items()}
    human = set(files) - set(generated or ())
    lines = interleave_lines(sizes, shares, human, human_floor, words, seed)
    written = dict.fromkeys(files, 0)
    done = 0
    with write_texts(out) as write, show_progress("mix", words) as advance:
        for name, line in lines:
            write({"text": texts[name][line], "source": name})
            written[name] += int(sizes[name][line])
            done += int(sizes[name][line])
            advance(min(done, words))
    figures = {
        "words": written,
        "shares": {name: count / done for name, count in written.items()},
        "human_share": sum(written[name] for name in human) / done,
        "passes": {name: count / int(sizes[name].sum()) for name, count in written.items()},
    }
    print_figures(figures, as_json)


@synthesize.command()
def card(
    source: Files,
    generated: Annotated[
        list[Path] | None, typer.Option(help="FILE that a model wrote; repeatable.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation text to look for in the corpus; repeatable."),
    ] = None,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Data card of a corpus of one or more files: Markdown, or JSON; no text of people's in it."""
    import numpy as np

    from device_runtime.words import split_words
    from synthetic_text.card import Source, build_card, describe_card
    from synthetic_text.contamination import check_contamination
    from synthetic_text.diversity import measure_diversity

    written = set(generated or ())
    if unknown := written - set(source):
        raise ValueError(f"--generated {min(unknown)}: none of the FILEs: give one of them")
    texts = {path: [text for _, text in read_lines(path, "card")] for path in source}
    words = {path: sum(map(_count_words, lines)) for path, lines in texts.items()}
    everything = [text for lines in texts.values() for text in lines]
    total = sum(words.values())
    if not total:
        raise ValueError(f"{source[0]}: no words: give a corpus with text")
    diversity = measure_diversity(
        [split_words(text) for text in everything],
        sum(words[path] for path in texts if path not in written) / total,
        min(_DIVERSITY_WORDS, total),
        seed=seed,
    )
    certificate = None
    if against:
        evaluation = {path.name: [text for _, text in read_lines(path, "card")] for path in against}
        certificate = dataclasses.asdict(check_contamination(everything, evaluation))
    rng = np.random.default_rng(seed)
    built = build_card(
        name=", ".join(path.name for path in texts),
        description="Lines of the files below as they stand.",
        file=", ".join(path.name for path in texts),
        data=b"".join(path.read_bytes() for path in texts),
        sources=[
            Source(path.name, "not stated", len(lines), words[path], path in written)
            for path, lines in texts.items()
        ],
        models=[],
        prompts={},
        settings={"seed": seed},
        lines_in=len(everything),
        rejected={},
        diversity=dataclasses.asdict(diversity),
        error_statistics=None,
        contamination=certificate,
        known_gaps=["What was left out of these files before, and why, is not known here."],
        samples={
            path.name: [texts[path][i] for i in rng.permutation(len(texts[path]))[:_SAMPLES]]
            for path in texts
            if path in written
        },
    )
    print(json.dumps(built, ensure_ascii=False) if as_json else describe_card(built))


@contextlib.contextmanager
def _one_line_endpoint_errors() -> Iterator[None]:
    from synthetic_text.llm import EndpointError

    try:
        yield
    except EndpointError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _list_judge_filters(endpoint: str) -> "Sequence[Filter]":
    from synthetic_text.judge import create_grading_judge
    from synthetic_text.llm import connect_chat

    chat, _ = connect_chat(endpoint)
    return create_grading_judge(
        lambda message: chat(message, temperature=0.0, max_tokens=_JUDGE_TOKENS)
    ).filters


def _check_typing(layout: str, seed: int, as_json: bool) -> None:
    from synthetic_text.typing_check import check_typing

    checks = [
        {
            "name": check.name,
            "published": check.published,
            "measured": check.measured,
            "within": check.within,
        }
        for check in check_typing(layout, seed)
    ]
    if as_json:
        print(json.dumps({"checks": checks}))
        return
    for check in checks:
        verdict = "within 10 %" if check["within"] else "OUTSIDE 10 %"
        print(f"{check['name']:45} {check['published']:8.4g} {check['measured']:8.4g}  {verdict}")


def _list_keystrokes(log: Any, messages: int) -> Iterator[dict[str, Any]]:
    """The log of each message: keys, times and touches side by side, replacements by place in it."""
    import numpy as np

    starts = np.searchsorted(log.messages, np.arange(messages + 1)).tolist()
    for message, (start, stop) in enumerate(itertools.pairwise(starts)):
        yield {
            "message": message,
            "keys": log.keys[start:stop].tolist(),
            "times_ms": log.times_ms[start:stop].tolist(),
            "touches_mm": [
                None if np.isnan(touch).any() else np.round(touch, 2).tolist()
                for touch in log.touches_mm[start:stop]
            ],
            "replacements": [
                {
                    "after_keys": replacement.keystroke - start,
                    "removed": replacement.removed,
                    "inserted": replacement.inserted,
                }
                for replacement in log.replacements
                if start < replacement.keystroke <= stop
            ],
        }


def _parse_sources(options: Sequence[str]) -> dict[str, tuple[Path, float]]:
    sources: dict[str, tuple[Path, float]] = {}
    for option in options:
        name, found, rest = option.partition("=")
        path, also_found, share = rest.rpartition(":")
        try:
            number = float(share)
        except ValueError:
            number = -1.0
        if not (name and found and path and also_found) or not 0 < number <= 1:
            raise ValueError(
                f"--source {option}: give NAME=FILE:SHARE with a share above 0, up to 1"
            )
        if name in sources:
            raise ValueError(f"--source {option}: a second {name}: give each source its own name")
        sources[name] = (Path(path), number)
    return sources


def _count_words(text: str) -> int:
    from device_runtime.words import is_word, split_words

    return sum(map(is_word, split_words(text)))


def print_figures(figures: Mapping[str, Any], as_json: bool) -> None:
    """Figures on standard output, as one JSON object or a line each."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        if isinstance(value, Mapping):
            print(f"{name}:")
            for inner, number in value.items():
                print(f"  {inner:20} {_format(number):>12}")
        else:
            print(f"{name:22} {_format(value):>12}")


def _format(figure: Any) -> str:
    return (
        f"{figure:,}"
        if isinstance(figure, int)
        else f"{figure:.4f}"
        if isinstance(figure, float)
        else str(figure)
    )

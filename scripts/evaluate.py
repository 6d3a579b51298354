"""`keyfed evaluate`: every figure of a bundle on people's messages, several processes side by side."""

import functools
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from device_runtime.keyboard import Keyboard
    from eval.keystrokes import TapCounts
    from eval.next_word import WordScores
    from eval.perplexity import WordBits
    from eval.targets import EvaluationVocabulary
    from eval.typed_words import TypedWordScores

TYPED_WORDS = 50
"""Words of each user that thumbs type, for correction and completion."""


@dataclass(frozen=True)
class UserScores:
    """One user's counts: next words, the same behind what was left wrong, bits, words as thumbs type them, taps."""

    clean: "WordScores"
    noisy: "WordScores"
    bits: "WordBits"
    typed: "TypedWordScores"
    taps: "TapCounts"


def evaluate(
    bundle: Annotated[Path, typer.Option(help="Keyboard bundle, a folder.")],
    text: Annotated[
        Path,
        typer.Option(
            help="JSONL or Parquet of {user, text}; or .txt, a message a line, each as of a user of its own."
        ),
    ],
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Words that count as in-vocab, one a line; default: vocabulary.txt of the run."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the bootstrap over users and the simulated typists.")
    ] = 1,
    processes: Annotated[int, typer.Option(min=1, help="That score users side by side.")] = (
        os.cpu_count() or 1
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Next-word accuracy, correction, completion and keystroke savings of a bundle on people's messages."""
    from device_runtime.keyboard import Keyboard
    from eval.processes import join_scores, score_each
    from scripts.fingers import LAYOUT
    from scripts.held_out import load_vocabulary, read_users
    from scripts.progress import show_progress

    words = load_vocabulary(bundle, vocabulary)
    people = [[message.text for message in messages] for messages in read_users(text)]
    open_keyboard = functools.partial(Keyboard.open, bundle, LAYOUT)
    open_keyboard()  # a fault of the bundle is told here, and not by every process
    score = functools.partial(score_person, vocabulary=words, seed=seed)
    processes = min(processes, len(people))
    with show_progress("evaluate", len(people)) as advance:
        scores = list(score_each(open_keyboard, score, enumerate(people), processes, advance))
    clean = join_scores([user.clean for user in scores])
    if not clean.in_vocab.any():
        raise ValueError(f"{text}: holds no word of the vocabulary: give more text or --vocabulary")
    noisy = join_scores([user.noisy for user in scores]).intervals(seed)
    intervals = clean.intervals(seed) | {f"{name}_noisy": noisy[name] for name in ("top1", "top3")}
    intervals |= join_scores([user.typed for user in scores]).intervals(seed)
    intervals["perplexity"] = join_scores([user.bits for user in scores]).perplexity(seed)
    intervals["keystroke_savings"] = join_scores([user.taps for user in scores]).savings(seed)
    figures: dict[str, Any] = {name: asdict(interval) for name, interval in intervals.items()}
    figures |= {"users": len(clean), "targets": int(clean.targets.sum())}
    if as_json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        if name == "perplexity":
            print(
                f"{name:27} {figure['value']:7,.0f}   95 % interval {figure['low']:,.0f} to {figure['high']:,.0f}"
            )
        elif isinstance(figure, dict):
            print(
                f"{name:27} {figure['value']:7.2%}   95 % interval {figure['low']:.2%} to {figure['high']:.2%}"
            )
        else:
            print(f"{name:27} {figure:,}")


def bench_evaluate(
    bundle: Annotated[Path, typer.Option(help="Keyboard bundle, a folder.")],
    words: Annotated[int, typer.Option(min=1, help="To score; rounded up to whole users.")] = (
        50_000
    ),
    processes: Annotated[int, typer.Option(min=1, help="That score users side by side.")] = (
        os.cpu_count() or 1
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Words a minute that `keyfed evaluate` scores, and next-word accuracy alone, on a fixed text."""
    from scripts.evaluation_speed import measure_evaluation_speed
    from scripts.synthesize import print_figures

    print_figures(measure_evaluation_speed(bundle, words, processes), as_json)


def score_person(
    keyboard: "Keyboard",
    person: tuple[int, list[str]],
    vocabulary: "EvaluationVocabulary",
    seed: int,
) -> UserScores:
    """Counts of user number `person[0]` with messages `person[1]`, typed by thumbs of their own."""
    from eval.keystrokes import WORDS_A_USER, count_taps
    from eval.next_word import score_user
    from eval.noisy_context import NoisyContext
    from eval.perplexity import measure_bits
    from eval.typed_words import score_typed_words
    from scripts.fingers import draw_fingers, draw_writer

    number, messages = person
    layout = keyboard.layout
    behind_errors = NoisyContext(keyboard, draw_writer(layout, seed, number))
    fingers = draw_fingers(layout, seed, number)
    return UserScores(
        score_user(keyboard, messages, vocabulary),
        score_user(behind_errors, messages, vocabulary),
        measure_bits(keyboard, [messages]),
        score_typed_words(keyboard, messages, fingers, vocabulary, TYPED_WORDS),
        count_taps(keyboard, messages, WORDS_A_USER),
    )

"""`keyfed compare`: two keyboard bundles on the same people's messages, paired by user."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from eval.next_word import WordScores

FIGURES = ("top1", "top3", "top1_all", "top3_all")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def compare(
    a: Annotated[Path, typer.Argument(help="Keyboard bundle to compare with, a folder.")],
    b: Annotated[Path, typer.Argument(help="Keyboard bundle that may be better.")],
    text: Annotated[Path, typer.Option(help="JSONL or Parquet of {user, text, timestamp?}.")],
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Words that count as in-vocab, one a line; default: vocabulary.txt of their run."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap over users.")] = 1,
    as_json: AsJson = False,
) -> None:
    """How much better B is than A, how sure that is, for whom, and how many users it takes to see."""
    from device_runtime.keyboard import Keyboard
    from eval.cohorts import compare_cohorts, compare_rates, find_cohorts
    from eval.comparison import compare_scores
    from eval.next_word import score_users
    from scripts.held_out import load_vocabulary, read_users
    from scripts.progress import show_progress

    words = load_vocabulary(a, vocabulary)
    if load_vocabulary(b, vocabulary).sha256 != words.sha256:
        raise ValueError(f"{a} and {b}: of runs with different vocabularies: give --vocabulary")
    messages = read_users(text)
    users = [[message.text for message in of_user] for of_user in messages]
    scores: list[WordScores] = []
    for bundle in (a, b):
        open_keyboard = functools.partial(Keyboard.open, bundle)
        with show_progress(f"evaluate {bundle}", len(users)) as advance:
            scores.append(
                score_users(open_keyboard, users, words, on_user=lambda done: advance(done, ""))
            )
    if not scores[0].in_vocab.any():
        raise ValueError(f"{text}: holds no word of the vocabulary: give more text or --vocabulary")
    times = [[message.timestamp for message in of_user] for of_user in messages]
    pair = [scores[0]], [scores[1]]
    rates = compare_rates(*pair, seed)
    figures: dict[str, Any] = {
        name: dataclasses.asdict(compare_scores(*pair, seed, figure=name)) for name in FIGURES
    }
    figures |= {
        "users": len(scores[0]),
        "targets": int(scores[0].targets.sum()),
        "cohorts": [
            dataclasses.asdict(row)
            for row in compare_cohorts(*pair, find_cohorts(users, times), seed)
        ],
        "rates": dataclasses.asdict(rates) if rates else None,
    }
    figures = _null_infinities(figures)
    print(json.dumps(figures, allow_nan=False)) if as_json else _print(figures, a, b)


def _print(figures: dict[str, Any], a: Path, b: Path) -> None:
    print(f"{b} over {a}; {figures['users']:,} users, {figures['targets']:,} words; 95 % intervals")
    for name in FIGURES:
        row = figures[name]
        relative, needed = row["relative"], row["users_needed"]
        print(
            f"{name:9} {_points(row['difference'])}"
            + (f"   relative {_percent(relative)}" if relative else "   relative: A has no hit")
            + (f"   seen with {needed:,} users" if needed else "   no difference to see")
        )
    print("Intervals are over users; another training seed may differ by more.")
    if figures["cohorts"]:
        print("\ntop-1 by cohort; intervals that hold all together with 95 %")
    for row in figures["cohorts"]:
        print(
            f"{row['cohort']:30} {row['users']:6,} users   {row['baseline']:7.2%} to {row['share']:7.2%}"
            f"   {_points(row['difference'])}{'   WORSE' if row['hurts'] else ''}"
        )
    if figures["rates"]:
        rates = figures["rates"]
        for name, of_users in (("A", rates["baseline"]), ("B", rates["scores"])):
            low, middle, high = of_users
            print(f"users under {name}: 10th {low:.2%}, median {middle:.2%}, 90th {high:.2%}")
        print(f"worst tenth of users: {_points(rates['worst_decile'])}")


def _points(interval: dict[str, float]) -> str:
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{value:+6.2f} points ({low:+.2f} to {high:+.2f})"


def _percent(interval: dict[str, float | None]) -> str:
    high = "no limit" if interval["high"] is None else f"{interval['high']:+.1%}"
    return f"{interval['value']:+.1%} ({interval['low']:+.1%} to {high})"


def _null_infinities(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _null_infinities(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_null_infinities(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

"""`keyfed kebbie`: bundles on kebbie, the public keyboard benchmark, with local text, in kebbie's environment."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from scripts.kebbie_scores import KebbieScores

SEED = 42  # kebbie's default
ENVIRONMENT = Path(__file__).parent.parent / ".venv-kebbie" / "bin" / "python"
# kebbie brings in Hugging Face's libraries, which ask their hub for nothing then.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
_PROBE = "import importlib.util as u; print(*(name for name in ('kebbie', 'eval') if not u.find_spec(name)))"


def kebbie(
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="Folder of a finished run: scores both arms on its test users into kebbie.json, for the next report.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Or a keyboard bundle, a folder, with --text.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="JSONL or Parquet of {user, text}; or .txt, a message a line."),
    ] = None,
    python: Annotated[
        Path,
        typer.Option(help="Python of an environment with kebbie and keyfed.", show_default=False),
    ] = ENVIRONMENT,
    processes: Annotated[
        int, typer.Option(min=1, help="That score messages side by side.")
    ] = os.cpu_count() or 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Scores of kebbie's own evaluation: next word, completion, correction. Needs `./scripts/setup kebbie`."""
    from scripts.progress import say

    if (run is None) == (bundle is None) or (bundle is None) != (text is None):
        raise ValueError("give --run, or --bundle and --text")
    check_environment(python)
    try:
        if run is not None:
            scores = _score_run(run, python, processes)
        else:
            assert bundle is not None and text is not None
            scores = score_bundles({"bundle": bundle}, _read_messages(text), python, processes)
    except KeyboardInterrupt:
        say("keyfed: stopped")
        raise SystemExit(130) from None
    print(scores.model_dump_json()) if as_json else _print(scores)


def check_environment(python: Path) -> None:
    """Whether that interpreter finds kebbie and keyfed.

    Raises:
        ValueError: it does not, or is none; with the remedy.
    """
    remedy = "run `./scripts/setup kebbie`, or give --python of an environment with both"
    try:
        probe = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True)
    except OSError:
        raise ValueError(f"{python}: no environment with kebbie: {remedy}") from None
    missing = " and ".join(probe.stdout.split()).replace("eval", "keyfed")
    if probe.returncode or missing:
        raise ValueError(f"{python}: has no {missing or 'working Python'}: {remedy}")


def score_bundles(
    bundles: dict[str, Path], messages: Sequence[str], python: Path, processes: int
) -> "KebbieScores":
    """Scores of each bundle on the same messages, which that Python gets through a pipe.

    Raises:
        BundleError: a bundle cannot be used.
        ValueError: no messages, or kebbie failed.
    """
    from device_runtime.keyboard import Keyboard
    from scripts.kebbie_scores import KebbieScores, hash_manifest
    from scripts.progress import say
    from synthetic_text.misspellings import misspellings

    if not messages:
        raise ValueError("no message holds a word: give more text")
    for bundle in bundles.values():
        Keyboard.open(bundle)  # a fault of the bundle is told here
    task = {
        "messages": messages,
        # codespell's stand in for a list that kebbie would fetch from a web site
        "common_typos": {word: forms for word, (forms, _) in misspellings().items()},
        "processes": processes,
        "seed": SEED,
    }
    scored: dict[str, Any] = {}
    answer: dict[str, Any] = {}
    for name, bundle in bundles.items():
        say(f"kebbie: {name}, {len(messages)} messages")
        answer = _ask(python, task | {"bundle": str(bundle.resolve())})
        scored[name] = answer["scores"] | {"manifest_sha256": hash_manifest(bundle)}
    facts = {"kebbie": answer["kebbie"], "seed": SEED, "messages": len(messages)}
    return KebbieScores.model_validate(facts | {"bundles": scored})


def take_messages(users: Sequence[Sequence[str]], max_targets: int | None) -> Iterator[str]:
    """Each user's messages with words, up to the one that reaches `max_targets` of them; without what was masked."""
    from device_runtime.words import split_words
    from eval.targets import find_targets
    from federated.population import MASK

    for messages in users:
        taken = 0
        for message in messages:
            if max_targets is not None and taken >= max_targets:
                break
            words = len(find_targets(split_words(message)))
            if words:
                yield message.replace(MASK, " ")
            taken += words


def _score_run(out: Path, python: Path, processes: int) -> "KebbieScores":
    from scripts.config import RunConfig
    from scripts.kebbie_scores import FILE
    from scripts.pipeline import ARMS, Run

    try:
        record = json.loads((out / "report" / "stage.json").read_text("utf-8"))
        config = RunConfig.model_validate(record["settings"]["config"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{out}: no finished run of this version: finish it with `keyfed run --out {out}`"
        ) from None
    run = Run(out, config, preset="")
    bundles = {arm: out / run.exported(arm, "federated").name / "bundle" for arm in ARMS}
    users = list(run.split_population()[0]["test"].values())
    messages = list(take_messages(users, config.evaluation.max_targets or None))
    scores = score_bundles(bundles, messages, python, processes)
    scores.save(out / FILE)
    return scores


def _read_messages(text: Path) -> list[str]:
    from scripts.held_out import read_users

    users = [[message.text for message in messages] for messages in read_users(text)]
    return list(take_messages(users, None))


def _ask(python: Path, task: dict[str, Any]) -> dict[str, Any]:
    """The answer of eval/kebbie_score.py, which ends with its standard input: so it never outlives this process."""
    environment = os.environ | dict.fromkeys(_OFFLINE, "1")
    command = [str(python), "-m", "eval.kebbie_score"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            said = process.stdout.read()
        except BrokenPipeError:
            said = ""
        finally:
            process.stdin.close()
    try:
        answer = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        raise ValueError(
            f"{python}: kebbie's process ended with code {process.returncode}: see the lines above"
        ) from None
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def _print(scores: "KebbieScores") -> None:
    print(f"kebbie {scores.kebbie}, {scores.messages:,} messages")
    for name, of_bundle in scores.bundles.items():
        print(f"\n{name:27} overall {of_bundle.overall_score:.2f}")
        for task in ("next_word_prediction", "auto_completion"):
            accuracy = getattr(of_bundle, task)
            print(
                f"{task:27} top-1 {accuracy.accuracy:.2f}   top-3 {accuracy.top3_accuracy:.2f}   of {accuracy.n:,}"
            )
        correction = of_bundle.auto_correction
        print(
            f"auto_correction             F {correction.fscore:.2f}   precision {correction.precision:.2f}"
            f"   recall {correction.recall:.2f}   {correction.n_typo:,} errors in {correction.n:,}"
        )
        print("swipe_resolution            not answered: our keyboard takes no swipes")

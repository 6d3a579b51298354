"""The command line `keyfed`: thin calls into the rooms, one clear line and exit code 2 for bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError:  # the device runtime alone was installed
    print(
        "keyfed: the command line needs more: run ./scripts/setup, or pip install '.[cli]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

app = typer.Typer(
    help="Trains a phone keyboard's next-word model on synthetic typing text and private federated learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
synthesize = typer.Typer(help="Synthetic typing text.", no_args_is_help=True)
app.add_typer(synthesize, name="synthesize")

Preset = Annotated[str, typer.Option(help="quick, full, test, or a YAML file.")]
Out = Annotated[
    Path, typer.Option(help="Folder of the run; a finished stage there is not run again.")
]
Arm = Annotated[str, typer.Option(help="web or synthetic.")]
Force = Annotated[bool, typer.Option(help="Run it again even if nothing changed.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@app.command()
def run(out: Out, preset: Preset = "quick", force: Force = False, as_json: AsJson = False) -> None:
    """Every stage: text, tokenizer, both arms, federated learning, export, evaluation, report."""

    def choose(run: Any) -> Any:
        from scripts.results import report_stage

        return report_stage(run)

    folder = _run_stage(out, preset, force, choose, everything=True)
    for name in ("results.json", "report.html"):  # beside the stages, where people look
        content = (folder / name).read_bytes()
        if not (out / name).is_file() or (out / name).read_bytes() != content:
            temporary = out / f".{name}"
            temporary.write_bytes(content)
            temporary.rename(out / name)
    results = json.loads((folder / "results.json").read_text("utf-8"))
    if as_json:
        print(json.dumps(results))
    else:
        _print_headline(results)
        print(f"report: {out / 'report.html'}")


@app.command()
def pretrain(
    out: Out, arm: Arm = "synthetic", preset: Preset = "quick", force: Force = False
) -> None:
    """Pre-train one arm on public text."""
    print(
        _run_stage(out, preset, force, lambda run: run.pretrained(_check_arm(arm))) / "weights.npz"
    )


@app.command()
def federate(
    out: Out, arm: Arm = "synthetic", preset: Preset = "quick", force: Force = False
) -> None:
    """Fine-tune one pre-trained arm by private federated learning."""
    print(
        _run_stage(out, preset, force, lambda run: run.federated(_check_arm(arm))) / "weights.npz"
    )


@app.command()
def export(
    out: Out,
    arm: Arm = "synthetic",
    step: Annotated[str, typer.Option(help="pretrained or federated.")] = "federated",
    preset: Preset = "quick",
    force: Force = False,
) -> None:
    """Write one arm's keyboard bundle."""
    if step not in ("pretrained", "federated"):
        raise ValueError(f"--step {step}: give pretrained or federated")
    print(
        _run_stage(out, preset, force, lambda run: run.exported(_check_arm(arm), step)) / "bundle"
    )


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option(help="Keyboard bundle, a folder.")],
    text: Annotated[Path, typer.Option(help="JSONL or Parquet of {user, text}.")],
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Words that count as in-vocab, one a line; default: vocabulary.txt of the run."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap over users.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Next-word accuracy of a bundle on people's messages, through its TFLite file."""
    import functools

    from device_runtime.keyboard import Keyboard
    from eval.next_word import score_users
    from eval.targets import EvaluationVocabulary
    from federated.population import mask_pii, read_message_file
    from scripts.progress import show_progress

    if vocabulary is None:
        folders = [bundle, *bundle.resolve().parents]
        found = [
            path
            for folder in folders
            if (path := folder / "tokenizer" / "vocabulary.txt").is_file()
        ]
        if not found:
            raise ValueError(f"{bundle}: lies in no run's folder: give --vocabulary")
        vocabulary = found[0]
    if not vocabulary.is_file():
        raise ValueError(f"{vocabulary}: no such file: give --vocabulary")
    words = EvaluationVocabulary.load(vocabulary)
    users: dict[str, list[str]] = {}
    for message in read_message_file(text):
        users.setdefault(message.user, []).append(mask_pii(message.text))
    open_keyboard = functools.partial(Keyboard.open, bundle)
    with show_progress("evaluate", len(users)) as advance:
        scores = score_users(
            open_keyboard, list(users.values()), words, on_user=lambda done: advance(done, "")
        )
    if not scores.in_vocab.any():
        raise ValueError(f"{text}: holds no word of {vocabulary}: give more text or --vocabulary")
    figures: dict[str, Any] = {
        name: {"value": interval.value, "low": interval.low, "high": interval.high}
        for name, interval in scores.intervals(seed).items()
    }
    figures |= {"users": len(scores), "targets": int(scores.targets.sum())}
    if as_json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        if isinstance(figure, dict):
            print(
                f"{name:10} {figure['value']:7.2%}   95 % interval {figure['low']:.2%} to {figure['high']:.2%}"
            )
        else:
            print(f"{name:10} {figure:,}")


@app.command()
def suggest(
    text: Annotated[str, typer.Argument(help="What was typed so far.")],
    bundle: Annotated[Path, typer.Option(help="Keyboard bundle, a folder.")],
    prefix: Annotated[str, typer.Option(help="Letters of the word being typed.")] = "",
    count: Annotated[int, typer.Option(min=1, max=100)] = 3,
    as_json: AsJson = False,
) -> None:
    """Most probable next words."""
    from device_runtime.keyboard import Keyboard

    session = Keyboard.open(bundle).session()
    session.commit(text)
    suggestions = session.suggest(prefix, count)
    if as_json:
        print(
            json.dumps(
                {"suggestions": [{"text": s.text, "log_prob": s.log_prob} for s in suggestions]}
            )
        )
    else:
        for suggestion in suggestions:
            print(f"{suggestion.text}\t{suggestion.log_prob:.2f}")


@app.command()
def account(
    noise_multiplier: Annotated[float, typer.Option(help="z, noise on a tree node in clip norms.")],
    rounds: Annotated[int, typer.Option(help="Server steps.")],
    min_separation: Annotated[
        int, typer.Option(help="b: two rounds of a device are at least b apart.")
    ],
    max_participations: Annotated[int, typer.Option(help="k: rounds of one device at the most.")],
    delta: Annotated[float, typer.Option(help="Of (epsilon, delta).")],
    mechanism: Annotated[str, typer.Option(help="tree")] = "tree",
    as_json: AsJson = False,
) -> None:
    """Privacy of a federated run: zCDP rho and (epsilon, delta)."""
    import dataclasses

    from federated.accounting import account as account_mechanism

    guarantee = account_mechanism(
        mechanism, noise_multiplier, rounds, min_separation, max_participations, delta
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(guarantee)))
        return
    print(f"mechanism            {guarantee.mechanism}")
    print(f"squared sensitivity  {guarantee.squared_sensitivity} clip norms squared")
    print(f"rho                  {guarantee.rho:.2f} (zCDP)")
    print(f"epsilon              {guarantee.epsilon:.2f} (exact) at delta {delta:g}")
    print(f"epsilon              {guarantee.epsilon_rdp:.2f} (grid RDP) at delta {delta:g}")


@synthesize.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder of the answers' log; a run there goes on.")],
    words: Annotated[int, typer.Option(min=1, help="Accepted words to reach.")] = 60_000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="An OpenAI-compatible /v1; default: the embedded model (locks/llm.lock)."
        ),
    ] = None,
) -> None:
    """Have an LLM write phone chats, and build the corpus of those that pass the filters."""
    from scripts.progress import show_progress
    from synthetic_text.generation import generate as generate_chats
    from synthetic_text.llm import EndpointError

    try:
        with show_progress("generate", words) as advance:
            generate_chats(out, words, seed, endpoint, lambda done: advance(min(done, words), ""))
    except EndpointError as error:
        raise ValueError(str(error)) from error
    print(out)


def _check_arm(arm: str) -> str:
    if arm not in ("web", "synthetic"):
        raise ValueError(f"--arm {arm}: give web or synthetic")
    return arm


def _run_stage(
    out: Path, preset: str, force: bool, choose: Callable[[Any], Any], everything: bool = False
) -> Path:
    """Folder of the chosen stage, after those it needs; `force` builds it again, or everything it needs as well."""
    from federated.isolation import isolate_network
    from scripts.config import load_config

    config = load_config(preset)
    isolate_network()  # before anything starts threads
    from scripts.pipeline import Run, list_needed
    from scripts.progress import say
    from scripts.stages import lock_run

    try:
        with lock_run(out):
            stage = choose(Run(out, config, preset))
            names = [needed.name for needed in list_needed(stage)] if everything else [stage.name]
            run = Run(out, config, preset, frozenset(names if force else ()))
            return run.ensure(choose(run))
    except KeyboardInterrupt:
        say("keyfed: stopped; the same command goes on from here")
        raise SystemExit(130) from None


def _print_headline(results: dict[str, Any]) -> None:
    import rich.console
    import rich.table

    table = rich.table.Table(
        title="next-word accuracy on held-out people's messages, top-1 in vocabulary"
    )
    for column in ("", "web", "synthetic", "relative lift"):
        table.add_column(column, justify="left" if not column else "right")
    for step in ("pretrained", "federated"):
        row = [step]
        for arm in ("web", "synthetic"):
            top1 = results["arms"][arm][step]["top1"]
            row.append(f"{top1['value']:.2%} ({top1['low']:.2%} to {top1['high']:.2%})")
        lift = results["lift"][step]
        high = "no limit" if lift["high"] is None else f"{lift['high']:+.1%}"
        table.add_row(*row, f"{lift['relative']:+.1%} ({lift['low']:+.1%} to {high})")
    rich.console.Console().print(table)
    privacy = results["privacy"]
    projected = privacy["projected"]
    print(
        f"privacy: this simulation epsilon {privacy['epsilon']:.3g} (rho {privacy['rho']:.3g}); "
        f"projected to {projected['cohort']:,} of {projected['population']:,} devices a round: "
        f"epsilon {projected['epsilon']:.3g}, delta {privacy['delta']:g}"
    )


def main() -> None:
    """Entry point: bad input is one line and exit code 2; Ctrl-C is exit code 130."""
    try:
        app()
    except ValueError as error:
        print(f"keyfed: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

"""The command line `keyfed`: thin calls into the rooms, one clear line and exit code 2 for bad input."""

import json
import sys
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

from scripts.account import account, mechanisms
from scripts.bench import bench
from scripts.compare import compare
from scripts.device import install, keyboard, rollback, suggest, type_message
from scripts.evaluate import evaluate
from scripts.fleet import fleet
from scripts.kebbie import kebbie
from scripts.plan import plan
from scripts.report import report
from scripts.run_stage import (
    Arm,
    AsJson,
    Force,
    Out,
    Preset,
    Rotation,
    Step,
    check_arm,
    check_step,
    isolate,
    publish,
    rotate,
    run_stage,
)
from scripts.synthesize import synthesize

app = typer.Typer(
    help="Trains a phone keyboard's next-word model on synthetic typing text and private federated learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(synthesize, name="synthesize")
app.add_typer(fleet, name="fleet")
app.add_typer(bench, name="bench")
app.command()(account)
app.command()(mechanisms)
app.command()(plan)
app.command()(compare)
app.command()(evaluate)
app.command()(kebbie)
app.command()(report)
app.command()(suggest)
app.command()(install)
app.command()(rollback)
app.command()(keyboard)
app.command("type")(type_message)


@app.command()
def run(
    out: Out,
    preset: Preset = "quick",
    eval_rotation: Rotation = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Every stage: text, tokenizer, both arms, federated learning, export, evaluation, report."""

    def choose(run: Any) -> Any:
        from scripts.results import report_stage

        return report_stage(run)

    folder = run_stage(out, preset, force, choose, everything=True, eval_rotation=eval_rotation)
    publish(folder, out, "results.json", "report.html")
    results = json.loads((folder / "results.json").read_text("utf-8"))
    if as_json:
        print(json.dumps(results))
    else:
        from scripts.results import print_headline

        print_headline(results)
        print(f"report: {out / 'report.html'}")


@app.command()
def pretrain(
    out: Out, arm: Arm = "synthetic", preset: Preset = "quick", force: Force = False
) -> None:
    """Pre-train one arm on public text."""
    print(run_stage(out, preset, force, lambda run: run.pretrained(check_arm(arm))) / "weights.npz")


@app.command()
def federate(
    out: Out, arm: Arm = "synthetic", preset: Preset = "quick", force: Force = False
) -> None:
    """Fine-tune one pre-trained arm by private federated learning."""
    print(run_stage(out, preset, force, lambda run: run.federated(check_arm(arm))) / "weights.npz")


@app.command()
def export(
    out: Out,
    arm: Arm = "synthetic",
    step: Step = "federated",
    preset: Preset = "quick",
    quantisation: Annotated[
        str, typer.Option(help="mixed, dynamic, float16 or int8, see `keyfed bench quantisation`.")
    ] = "mixed",
    force: Force = False,
) -> None:
    """Write one arm's keyboard bundle."""
    from model.quantisation import check_quantisation

    check_arm(arm), check_step(step)
    kind = check_quantisation(quantisation)
    print(run_stage(out, preset, force, lambda run: run.exported(arm, step, kind)) / "bundle")


@app.command()
def audit(
    out: Annotated[
        Path, typer.Option("--run", help="Folder of a run; what it lacks for the audit is made.")
    ],
    preset: Preset = "audit",
    arm: Arm = "synthetic",
    seeds: Annotated[int, typer.Option(min=1, help="Runs with canaries.")] = 1,
    canaries: Annotated[int, typer.Option(min=8, help="Added to the devices.")] = 3_000,
    remove_noise: Annotated[
        bool, typer.Option(help="Take the noise away behind the ledger's back: it must be noticed.")
    ] = False,
    memorisation: Annotated[
        bool, typer.Option(help="Also exposure of planted sentences after four ways of training.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Canaries in federated runs against their ledgers, for the next report too; exit code 1 if they contradict one."""
    from scripts.config import load_config

    check_arm(arm)
    config = load_config(preset)
    isolate(config)
    from scripts.audit import (
        audit_runs,
        choose_folder,
        measure_memorisation,
        print_audits,
        write_audits,
        write_memorisation,
    )
    from scripts.pipeline import Run

    folder = choose_folder(Run(out, config, preset), arm)
    run_stage(folder, preset, False, lambda run: run.pretrained(arm))
    run = Run(folder, config, preset)
    figures: dict[str, Any] = {"audits": audit_runs(run, arm, canaries, seeds, remove_noise)}
    write_audits(figures["audits"], run, arm, not remove_noise, out)
    page = None
    if memorisation:
        figures["memorisation"] = measure_memorisation(run, arm)
        page = write_memorisation(figures["memorisation"], out)
    print(json.dumps(figures)) if as_json else print_audits(figures, page)
    violated = [audit for audit in figures["audits"] if audit["violated"]]
    if violated:
        worst = max(violated, key=lambda audit: audit["lower_bound"])
        print(
            f"keyfed: audit: {len(violated)} of {seeds} runs are less private than their ledgers say: epsilon is at"
            f" least {worst['lower_bound']:.3g} (seed {worst['seed']}), the ledger's {worst['epsilon']:.3g}",
            file=sys.stderr,
        )
        raise typer.Exit(1)


@app.command()
def study(
    out: Out,
    preset: Preset = "full",
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of the headline arms.")] = 3,
    ablation_seeds: Annotated[
        int, typer.Option(min=0, help="Training seeds of the other arms.")
    ] = 1,
    web: Annotated[
        list[Path] | None,
        typer.Option(help="More public web text, see `corpora.load_corpus`; may be repeated."),
    ] = None,
    second_test: Annotated[
        Path | None, typer.Option(help="Another human test set: JSONL or Parquet of {user, text}.")
    ] = None,
    loop: Annotated[
        list[Path] | None,
        typer.Option(help="loop.json of `keyfed loop`, to show beside; may be repeated."),
    ] = None,
    eval_rotation: Rotation = None,
    as_json: AsJson = False,
) -> None:
    """Synthetic text against web text and its own parts, over several seeds: study.html, study.json."""
    from scripts.config import load_config
    from scripts.progress import say
    from scripts.stages import lock_run
    from scripts.study import read_loop, run_study

    config = rotate(load_config(preset), eval_rotation)
    loops = [read_loop(path) for path in loop or ()]
    files = (*config.text.files, *(web or ()))
    config = config.model_copy(
        update={"text": config.text.model_copy(update={"files": tuple(files)})}
    )
    try:
        with lock_run(out):
            results = run_study(
                out, preset, config, seeds, min(ablation_seeds, seeds), second_test, loops
            )
    except KeyboardInterrupt:
        say("keyfed: stopped; the same command goes on from here")
        raise SystemExit(130) from None
    print(json.dumps(results) if as_json else out / "study.html")


@app.command()
def loop(
    out: Out,
    preset: Preset = "loop",
    generations: Annotated[int, typer.Option(min=2, help="At the most.")] = 3,
    words: Annotated[int, typer.Option(min=1_000, help="Words of each generation's pool.")] = (
        8_000
    ),
    human_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of human text in a pool.")
    ] = 0.3,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Generate, judge, mix, train, evaluate, repeat; stops when the text collapses."""
    from synthetic_text.loop import LoopConfig

    config = LoopConfig(
        generations=generations,
        words=words,
        human_floor=human_floor,
        sample_words=min(50_000, words // 2, int((1 - human_floor) * words)),
    )

    def choose(run: Any) -> Any:
        from scripts.loop import loop_stage

        return loop_stage(run, config)

    folder = run_stage(out, preset, force, choose)
    record = json.loads((folder / "loop.json").read_text("utf-8"))
    if as_json:
        print(json.dumps(record))
        return
    for generation in record["generations"]:
        diversity, score = generation["diversity"], generation["score"]
        print(
            f"generation {generation['generation']}: top-1 {score['top1']:.2%}, vocabulary"
            f" {diversity['vocabulary']:,}, tail {diversity['tail_coverage']:.3f}"
        )
    for crossing in record["crossed"]:
        print(
            f"stopped: {crossing['monitor']} is {crossing['value']:.4g}, the limit {crossing['limit']:.4g}"
        )
    if not record["crossed"]:
        print("no limit was crossed")


@app.command()
def benchmark(
    out: Annotated[
        Path, typer.Option("--run", "--out", help="Folder of a run; what it lacks is made.")
    ],
    preset: Preset = "quick",
    bundle: Annotated[
        Path | None, typer.Option(help="Another keyboard bundle to put beside.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of that bundle's row.")] = "bundle",
    without: Annotated[
        list[str] | None, typer.Option(help="kenlm: its rows are left out where it is not there.")
    ] = None,
    submit: Annotated[
        str | None, typer.Option(help="Add the table to the leaderboard under this name.")
    ] = None,
    protocol: Annotated[
        Path | None, typer.Option(help="Another protocol than eval/protocol.json; not to submit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Our arms beside KenLM and other n-grams of the same text, by a fixed protocol: benchmark.json."""
    from eval.benchmark import PROTOCOL, Protocol
    from eval.leaderboard import LEADERBOARD, check_name, extend_leaderboard, load_leaderboard
    from scripts import benchmark as table_of

    by = Protocol.load(protocol or PROTOCOL)
    if unknown := set(without or ()) - {"kenlm"}:
        raise ValueError(f"--without {min(unknown)}: only kenlm can be left out")
    if name in by.rows:
        raise ValueError(f"--name {name}: is a row of the protocol: give another")
    if submit is not None:
        if without or protocol:
            raise ValueError(
                "--submit: only a complete table of eval/protocol.json is added: leave --without and --protocol out"
            )
        check_name(load_leaderboard(LEADERBOARD, by), submit)
    if not without:
        from eval.kenlm_model import import_kenlm

        import_kenlm()

    def choose_tokenizer(run: Any) -> Any:
        table_of.check_settings(run, by)
        return run.tokenizer

    def choose(run: Any) -> Any:
        table_of.check_vocabulary(run, by)
        beside = None if bundle is None else (name, bundle)
        return table_of.benchmark_stage(run, by, bool(without), beside)

    run_stage(out, preset, False, choose_tokenizer)
    folder = run_stage(out, preset, False, choose)
    publish(folder, out, table_of.TABLE)
    table = json.loads((folder / table_of.TABLE).read_text("utf-8"))
    print(json.dumps(table)) if as_json else table_of.print_table(table)
    if submit is not None:
        facts = table_of.describe_code() | {"environment": table["environment"]}
        extend_leaderboard(LEADERBOARD, submit, table, by, facts)
        print(f"keyfed: {submit} is in {LEADERBOARD}", file=sys.stderr)


def main() -> None:
    """Entry point: bad input is one line and exit code 2; Ctrl-C is exit code 130."""
    try:
        app()
    except ValueError as error:
        print(f"keyfed: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

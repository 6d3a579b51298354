"""The command line `keyfed`: thin calls into the rooms, one clear line and exit code 2 for bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
except ModuleNotFoundError:  # the device runtime alone was installed
    print(
        "keyfed: the command line needs more: run ./scripts/setup, or pip install '.[cli]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

from scripts.account import account, mechanisms
from scripts.compare import compare
from scripts.device import (
    bench_device,
    install,
    keyboard,
    rollback,
    suggest,
    type_message,
)
from scripts.evaluate import bench_evaluate, evaluate
from scripts.fleet import fleet
from scripts.kebbie import kebbie
from scripts.plan import plan
from scripts.report import report
from scripts.synthesize import print_figures, synthesize

if TYPE_CHECKING:
    from scripts.config import RunConfig

app = typer.Typer(
    help="Trains a phone keyboard's next-word model on synthetic typing text and private federated learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Speed on this machine.", no_args_is_help=True)
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
bench.command("device")(bench_device)
bench.command("evaluate")(bench_evaluate)

Preset = Annotated[str, typer.Option(help="quick, full, gboard, loop, test, or a YAML file.")]
Out = Annotated[
    Path, typer.Option(help="Folder of the run; a finished stage there is not run again.")
]
Arm = Annotated[str, typer.Option(help="web or synthetic.")]
Step = Annotated[str, typer.Option(help="pretrained or federated.")]
Rotation = Annotated[
    int | None, typer.Option(min=0, help="Which users are tested; default: the preset's, 0.")
]
Force = Annotated[bool, typer.Option(help="Run it again even if nothing changed.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


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

    folder = _run_stage(out, preset, force, choose, everything=True, eval_rotation=eval_rotation)
    _publish(folder, out, "results.json", "report.html")
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
    step: Step = "federated",
    preset: Preset = "quick",
    quantisation: Annotated[
        str, typer.Option(help="mixed, dynamic, float16 or int8, see `keyfed bench quantisation`.")
    ] = "mixed",
    force: Force = False,
) -> None:
    """Write one arm's keyboard bundle."""
    from model.quantisation import check_quantisation

    _check_arm(arm), _check_step(step)
    kind = check_quantisation(quantisation)
    print(_run_stage(out, preset, force, lambda run: run.exported(arm, step, kind)) / "bundle")


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

    _check_arm(arm)
    config = load_config(preset)
    _isolate(config)
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
    _run_stage(folder, preset, False, lambda run: run.pretrained(arm))
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

    config = _rotate(load_config(preset), eval_rotation)
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

    folder = _run_stage(out, preset, force, choose)
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
    from eval.leaderboard import LEADERBOARD, extend_leaderboard, load_leaderboard
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
        load_leaderboard(LEADERBOARD, by)
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

    _run_stage(out, preset, False, choose_tokenizer)
    folder = _run_stage(out, preset, False, choose)
    _publish(folder, out, table_of.TABLE)
    table = json.loads((folder / table_of.TABLE).read_text("utf-8"))
    print(json.dumps(table)) if as_json else table_of.print_table(table)
    if submit is not None:
        facts = table_of.describe_code() | {"environment": table["environment"]}
        extend_leaderboard(LEADERBOARD, submit, table, by, facts)
        print(f"keyfed: {submit} is in {LEADERBOARD}", file=sys.stderr)


@bench.command("typing")
def bench_typing(as_json: AsJson = False) -> None:
    """Words a second of the typing simulator on one core, without the keystroke log."""
    from synthetic_text.typing_check import measure_words_per_second

    print_figures({"words_per_s": measure_words_per_second()}, as_json)


@bench.command("quantisation")
def bench_quantisation(
    out: Out,
    arm: Arm = "synthetic",
    step: Step = "federated",
    preset: Preset = "quick",
    positions: Annotated[int, typer.Option(min=1, help="Words of held-out text.")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Every kind of stored weights against the float model: words in common, accuracy, bytes, latency."""
    _check_arm(arm), _check_step(step)
    _run_stage(out, preset, False, lambda run: run.exported(arm, step))
    from scripts.config import load_config
    from scripts.pipeline import Run
    from scripts.quantisation import measure_quantisation

    run = Run(out, load_config(preset), preset)
    print_figures(measure_quantisation(run, arm, step, positions), as_json)


@bench.command("noise")
def bench_noise(out: Out, arm: Arm = "synthetic", preset: Preset = "quick") -> None:
    """Accuracy after federated runs at several noise / cohort ratios; writes what `keyfed plan` reads."""
    _run_stage(out, preset, False, lambda run: run.pretrained(_check_arm(arm)))
    from scripts.config import load_config
    from scripts.pipeline import Run
    from scripts.plan import MEASURED, measure_points

    measured = measure_points(Run(out, load_config(preset), preset), arm, out / "noise")
    MEASURED.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    print(MEASURED)


@bench.command("dedup")
def bench_dedup(
    lines: Annotated[int, typer.Option(min=1_000, help="Lines to look for duplicates in.")] = (
        1_000_000
    ),
    as_json: AsJson = False,
) -> None:
    """Near-duplicates planted among many lines: share found, share of false ones, time, memory."""
    from synthetic_text.corpora import load_public_source
    from synthetic_text.duplicates import measure_deduplication, recombine_lines

    text = recombine_lines(load_public_source("news").sentences, lines)
    print_figures(measure_deduplication(text), as_json)


@bench.command("memory")
def bench_memory(
    engine: Annotated[str, typer.Option(help="local, tff or ray.")] = "tff",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    devices: Annotated[int, typer.Option(min=100, help="Of the large round.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=100, help="Of the long run.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Resident memory: of a round of many devices over one of 100, and its growth over many rounds."""
    from federated.isolation import isolate_network

    isolate_network()  # before anything starts threads
    from scripts.training import quieten_tensorflow

    quieten_tensorflow()
    from scripts.memory import measure_memory

    print_figures(measure_memory(engine, workers, devices, rounds), as_json)


@bench.command("simulate")
def bench_simulate(
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each contestant.")] = 5,
    as_json: AsJson = False,
) -> None:
    """A round of simulated devices: ours, stock TFF, a plain loop, and the machine's matrix-multiply peak, in turns."""
    from scripts.simulation_contestants import Workload
    from scripts.simulation_speed import measure_simulation

    print_figures(measure_simulation(Workload(), repeats, (20, 200, 2_000)), as_json)


def _check_arm(arm: str) -> str:
    if arm not in ("web", "synthetic"):
        raise ValueError(f"--arm {arm}: give web or synthetic")
    return arm


def _check_step(step: str) -> str:
    if step not in ("pretrained", "federated"):
        raise ValueError(f"--step {step}: give pretrained or federated")
    return step


def _publish(folder: Path, out: Path, *names: str) -> None:
    """Copies what a stage made to beside the stages, where people look."""
    for name in names:
        content = (folder / name).read_bytes()
        if not (out / name).is_file() or (out / name).read_bytes() != content:
            temporary = out / f".{name}"
            temporary.write_bytes(content)
            temporary.rename(out / name)


def _rotate(config: "RunConfig", eval_rotation: int | None) -> "RunConfig":
    if eval_rotation is None:
        return config
    population = config.population.model_copy(update={"rotation": eval_rotation})
    return config.model_copy(update={"population": population})


def _isolate(config: "RunConfig") -> None:
    """Nobody outside reaches the engine, unless it is one of another machine; before anything starts threads."""
    from federated.isolation import isolate_network

    if config.federated.engine_address is None:
        isolate_network()


def _run_stage(
    out: Path,
    preset: str,
    force: bool,
    choose: Callable[[Any], Any],
    everything: bool = False,
    eval_rotation: int | None = None,
) -> Path:
    """Folder of the chosen stage, after those it needs; `force` builds it again, or everything it needs as well."""
    from scripts.config import load_config

    config = _rotate(load_config(preset), eval_rotation)
    _isolate(config)
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


def main() -> None:
    """Entry point: bad input is one line and exit code 2; Ctrl-C is exit code 130."""
    try:
        app()
    except ValueError as error:
        print(f"keyfed: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

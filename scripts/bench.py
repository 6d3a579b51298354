"""`keyfed bench ...`: speed, memory, and what noise and quantisation cost, on this machine."""

import json
from typing import Annotated

import typer

from scripts.device import bench_device
from scripts.evaluate import bench_evaluate
from scripts.run_stage import Arm, AsJson, Out, Preset, Step, check_arm, check_step, run_stage
from scripts.synthesize import print_figures

bench = typer.Typer(help="Speed on this machine.", no_args_is_help=True)
bench.command("device")(bench_device)
bench.command("evaluate")(bench_evaluate)


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
    check_arm(arm), check_step(step)
    run_stage(out, preset, False, lambda run: run.exported(arm, step))
    from scripts.config import load_config
    from scripts.pipeline import Run
    from scripts.quantisation import measure_quantisation

    run = Run(out, load_config(preset), preset)
    print_figures(measure_quantisation(run, arm, step, positions), as_json)


@bench.command("noise")
def bench_noise(out: Out, arm: Arm = "synthetic", preset: Preset = "quick") -> None:
    """Accuracy after federated runs at several noise / cohort ratios; writes what `keyfed plan` reads."""
    run_stage(out, preset, False, lambda run: run.pretrained(check_arm(arm)))
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

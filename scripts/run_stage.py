"""What commands that make stages of a run share: their options, and how one is made or goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from scripts.config import RunConfig

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


def check_arm(arm: str) -> str:
    if arm not in ("web", "synthetic"):
        raise ValueError(f"--arm {arm}: give web or synthetic")
    return arm


def check_step(step: str) -> str:
    if step not in ("pretrained", "federated"):
        raise ValueError(f"--step {step}: give pretrained or federated")
    return step


def publish(folder: Path, out: Path, *names: str) -> None:
    """Copies what a stage made to beside the stages, where people look."""
    for name in names:
        content = (folder / name).read_bytes()
        if not (out / name).is_file() or (out / name).read_bytes() != content:
            temporary = out / f".{name}"
            temporary.write_bytes(content)
            temporary.rename(out / name)


def rotate(config: "RunConfig", eval_rotation: int | None) -> "RunConfig":
    if eval_rotation is None:
        return config
    population = config.population.model_copy(update={"rotation": eval_rotation})
    return config.model_copy(update={"population": population})


def isolate(config: "RunConfig") -> None:
    """Nobody outside reaches the engine, unless it is one of another machine; before anything starts threads."""
    from federated.isolation import isolate_network

    if config.federated.engine_address is None:
        isolate_network()


def run_stage(
    out: Path,
    preset: str,
    force: bool,
    choose: Callable[[Any], Any],
    everything: bool = False,
    eval_rotation: int | None = None,
) -> Path:
    """Folder of the chosen stage, after those it needs; `force` builds it again, or everything it needs as well."""
    from scripts.config import load_config

    config = rotate(load_config(preset), eval_rotation)
    isolate(config)
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

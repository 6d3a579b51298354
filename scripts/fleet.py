"""The command line `keyfed fleet`: devices on disk, and how a fleet of them would take part."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.progress import show_progress
from scripts.synthesize import print_figures

fleet = typer.Typer(help="Stores of many devices, and how a fleet behaves.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder of the store; must not exist.")]
RowTokens = Annotated[int, typer.Option(min=4, max=256, help="Pieces of a row.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all draws.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
TokenizerFile = typer.Option(help="tokenizer.model of a run.")


@fleet.command()
def build(
    messages: Annotated[Path, typer.Argument(help="JSONL or Parquet of {user, text}.")],
    out: Out,
    tokenizer: Annotated[Path, TokenizerFile],
    row_tokens: RowTokens = 24,
    rotation: Annotated[int, typer.Option(min=0, help="Which users are left out to test.")] = 0,
    max_messages: Annotated[int, typer.Option(min=1, help="Of a user; the earliest stay.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Store the training users of a file as devices, in bounded memory, whatever the order of its lines."""
    from federated.population import read_message_file
    from federated.store_builder import build_store
    from model.rows import encode_text

    pieces, digest = _load_tokenizer(tokenizer)
    counts = build_store(
        read_message_file(messages),
        lambda text: encode_text(pieces, text),
        out,
        row_tokens,
        pieces.size,
        rotation,
        max_messages,
        tokenizer=digest,
    )
    print_figures(counts, as_json)


@fleet.command()
def synthesize(
    out: Out,
    devices: Annotated[int, typer.Option(min=1)] = 1_000_000,
    tokenizer: Annotated[Path | None, TokenizerFile] = None,
    vocabulary: Annotated[
        int, typer.Option(min=5, max=65_536, help="Pieces, where no tokenizer is given.")
    ] = 4_000,
    row_tokens: RowTokens = 24,
    max_rows: Annotated[int, typer.Option(min=1, help="Of a device.")] = 32,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Store synthetic typists: rows of the LLM corpus with a tokenizer, else pieces by Zipf's law."""
    from federated.store import StoreFacts
    from federated.synthetic_devices import draw_zipf_rows, synthesize_store
    from model.rows import encode_text, pack_rows

    digest = None
    if tokenizer is None:
        pool = draw_zipf_rows(vocabulary, row_tokens, messages=50_000, seed=seed)
    else:
        from synthetic_text.llm_chats import load_llm_chats

        pieces, digest = _load_tokenizer(tokenizer)
        vocabulary = pieces.size
        pool = pack_rows((encode_text(pieces, m.text) for m in load_llm_chats()), row_tokens)
    with show_progress("synthesize", devices) as advance:
        synthesize_store(out, devices, pool, vocabulary, max_rows, seed, advance, digest)
    print_figures(dataclasses.asdict(StoreFacts.read(out)), as_json)


@fleet.command()
def simulate(
    preset: Annotated[
        str, typer.Option(help="Its `federated` section is played: a preset or YAML file.")
    ],
    devices: Annotated[int, typer.Option(min=1, help="Each with all the batches a round uses.")],
    update_bytes: Annotated[
        int, typer.Option(min=1, help="Of the model down and the update up; float32 weights.")
    ] = 5_600_000,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Play the rounds of a run without training: who would be there, report in time, and how long it takes."""
    import numpy as np

    from federated.participation import Participation
    from scripts.config import load_config

    config = load_config(preset).federated
    if config.fleet is None:
        raise ValueError(f"{preset}: federated.fleet is missing: give it, `{{}}` for the defaults")
    rows = np.full(devices, config.batch_rows * config.max_batches)
    participation = Participation(rows, config, seed, update_bytes)
    played: list[dict[str, float]] = []
    times = np.zeros(devices, np.int64)
    with show_progress("simulate", config.rounds) as advance:
        for round_index in range(config.rounds):
            gathered = participation.gather(round_index)
            times[gathered.reported] += 1
            played.append(gathered.figures)
            advance(round_index + 1)
    available = [figures["available"] for figures in played]
    figures: dict[str, Any] = {
        "rounds": config.rounds,
        "rounds_abandoned": participation.abandoned,
        "days": (config.rounds + participation.abandoned)
        * config.fleet.minutes_between_rounds
        / 1440,
        "available_least": min(available),
        "available_most": max(available),
        "rounds_short_of_reports": sum(f["reported"] < config.cohort for f in played),
        "most_participations": int(times.max()),
        "devices_that_reported": int(np.count_nonzero(times)),
    }
    for name in ("selected", "reported", "dropped", "late", "simulated_seconds"):
        figures[f"mean_{name}"] = float(np.mean([f[name] for f in played]))
    print_figures(figures, as_json)


def _load_tokenizer(path: Path) -> tuple[Any, str]:
    """The tokenizer and the SHA-256 of its file."""
    from device_runtime.tokenizer import Tokenizer

    try:
        content = path.read_bytes()
        return Tokenizer(content), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}): give a run's tokenizer/tokenizer.model"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

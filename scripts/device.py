"""`keyfed` on a device: what a bundle suggests."""

import json
from pathlib import Path
from typing import Annotated

import typer

Installation = Annotated[
    Path,
    typer.Option("--into", help="Folder of installed bundles; a keyboard opens its `current`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


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


def install(
    bundle: Annotated[Path, typer.Option(help="Keyboard bundle, a folder.")], into: Installation
) -> None:
    """Install a bundle, tried out before; the one before is kept for `keyfed rollback`."""
    from device_runtime.installation import install

    print(install(bundle, into))


def rollback(into: Installation) -> None:
    """Go back to the bundle installed before; twice is back again."""
    from device_runtime.installation import roll_back

    print(roll_back(into))

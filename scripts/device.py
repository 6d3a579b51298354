"""`keyfed` on a device: what a bundle suggests, in a line, a browser, a terminal; installing it; how fast it is."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from device_runtime.keyboard import Keyboard

Installation = Annotated[
    Path,
    typer.Option("--into", help="Folder of installed bundles; a keyboard opens its `current`."),
]
_RACE_WORDS = 200
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


RunFolder = Annotated[
    Path | None,
    typer.Option("--run", help="Folder of a finished run: both arms, synthetic and web."),
]
Bundles = Annotated[
    list[Path] | None,
    typer.Option("--bundle", help="Keyboard bundle, a folder; a second one is shown beside it."),
]
LayoutName = Annotated[str, typer.Option(help="qwerty, qwertz, azerty or dvorak.")]


def keyboard(
    run: RunFolder = None,
    bundle: Bundles = None,
    layout: LayoutName = "qwerty",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of this machine; 0 takes a free one.")
    ] = 0,
) -> None:
    """A phone keyboard in the browser, served to this machine alone; stores nothing of what is typed."""
    import sys

    from device_runtime.page_server import PageServer

    keyboards = _open_keyboards(run, bundle, layout)
    try:
        server = PageServer(keyboards, port)
    except OSError as error:
        raise ValueError(
            f"--port {port}: {error.strerror}; give another, or none for a free one"
        ) from None
    with server:
        try:
            print(f"keyfed: keyboard at {server.address}", flush=True)
            print("keyfed: only this machine reaches it; Ctrl-C ends it", file=sys.stderr)
            server.serve_forever()
        except KeyboardInterrupt:
            print("keyfed: keyboard ended; nothing typed was kept", file=sys.stderr)
            raise typer.Exit(130) from None


def type_message(
    run: RunFolder = None,
    bundle: Bundles = None,
    layout: LayoutName = "qwerty",
    personal: Annotated[
        Path | None, typer.Option(help="File of your own words, to suggest and learn.")
    ] = None,
) -> None:
    """The keyboard in a terminal, for a board over ssh; stores no message."""
    from device_runtime.personal import PersonalHistory
    from scripts.terminal import TypingApp

    history = PersonalHistory(personal) if personal else None
    TypingApp(_open_keyboards(run, bundle, layout), history).run()


def _open_keyboards(
    run: Path | None, bundles: list[Path] | None, layout: str
) -> "dict[str, Keyboard]":
    """One or two keyboards by the name to show."""
    from device_runtime.keyboard import Keyboard

    if (run is None) == (not bundles) or len(bundles or ()) > 2:
        raise ValueError("give --run, or --bundle once or twice")
    if run is not None:
        paths = {
            arm: run / "exported" / f"{arm}-federated" / "bundle" for arm in ("synthetic", "web")
        }
        paths = {arm: path for arm, path in paths.items() if path.is_dir()}
        if not paths:
            raise ValueError(
                f"{run}: no bundle in exported/; finish it with `keyfed run --out {run}`, or give --bundle"
            )
    else:
        paths = {}
        for path in bundles or ():
            full = path.resolve()
            name = full.parent.name if full.name == "bundle" else full.name
            paths[name if name not in paths else f"(2) {name}"] = path
    return {name: Keyboard.open(path, layout=layout) for name, path in paths.items()}


def bench_device(
    bundle: Annotated[Path, typer.Option(help="Keyboard bundle, a folder.")],
    keystrokes: Annotated[
        int | None, typer.Option(min=1, help="Timed ones.  [default: 2000; of a day 200000]")
    ] = None,
    warm_up: Annotated[int, typer.Option(min=0, help="Untimed ones before; a day has none.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Of the interpreter.")] = 1,
    against_fused: Annotated[
        bool,
        typer.Option(
            "--against-fused",
            help="Also in turns with a fused LSTM that reads the context anew for each word (needs TensorFlow).",
        ),
    ] = False,
    day: Annotated[
        bool,
        typer.Option(
            "--day",
            help="Instead, a day's typing of our language-model chats in one session: memory and time, tenth by tenth.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A bundle's latency, cold start, memory and bytes on this machine, typing a fixed text."""
    from scripts.synthesize import print_figures

    if day:
        if against_fused:
            raise ValueError("give --day or --against-fused, not both")
        print_figures(_measure_day(bundle, keystrokes, threads), as_json)
        return
    from device_runtime.latency import measure_latency

    figures = measure_latency(bundle, keystrokes or 2_000, warm_up, threads).figures()
    if against_fused:
        from scripts.training import quieten_tensorflow

        quieten_tensorflow()
        from scripts.fused_model import race_fused

        figures |= race_fused(bundle, _RACE_WORDS)
    print_figures(figures, as_json)


def _measure_day(bundle: Path, keystrokes: int | None, threads: int) -> dict[str, Any]:
    """A day of the committed chats typed on the bundle; shows how far it is."""
    from device_runtime.typing_day import KEYSTROKES, measure_day
    from scripts.progress import show_progress
    from synthetic_text.llm_chats import load_llm_chats

    messages = [message.text for message in load_llm_chats()]
    total = keystrokes or KEYSTROKES
    with show_progress("keystrokes", total) as advance:
        return measure_day(bundle, messages, total, threads, advance)

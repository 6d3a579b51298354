"""Installs and rolls back again and again, each time killed one file operation later: `python -m ... BUNDLE PLACE`.

Without TensorFlow, whose threads a fork does not survive. Prints how often the old and the new bundle was found.
"""

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_runtime import installation
from device_runtime.bundle import FILES, open_bundle, write_bundle
from device_runtime.installation import install, roll_back

_OPERATIONS = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.symlink",
    "os.remove",
    "os.rmdir",
    "os.truncate",
)


def _killed(call: Callable[[], Any], folder: Path, operation: int) -> bool:
    """Runs `call` in a process that is killed before its n-th operation in `folder`; whether it came to that."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            places = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | Path)]
            # Names alone are of entries of a folder that is being removed.
            if event in _OPERATIONS and any(
                place.startswith(str(folder)) or "/" not in place for place in places
            ):
                if seen == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(watch)
        call()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise AssertionError(f"operation {operation}: exit code {status}")
    return status != 0


def _name(bundle: Path) -> str:
    return open_bundle(bundle).manifest["training"]["name"]


def main(source: str, place: str) -> None:
    # That a bundle is tried out is tested elsewhere; here it would take half a second each time.
    installation._try_out = lambda bundle: None
    opened = open_bundle(Path(source))
    files = {name: opened.read(name) for name in FILES}
    bundles = {}
    for name in "abc":
        facts = {k: v for k, v in opened.manifest.items() if k not in ("files", "schema_version")}
        bundles[name] = write_bundle(
            Path(place) / name, files, {**facts, "training": {"name": name}}
        )
    start = Path(place) / "start"
    install(bundles["a"], start)
    install(bundles["b"], start)

    report = {}
    calls: dict[str, tuple[Callable[[Path], Any], str]] = {
        "install": (lambda folder: install(bundles["c"], folder), "c"),
        "roll_back": (roll_back, "a"),
    }
    for title, (call, new) in calls.items():
        found = {"old": 0, "new": 0}
        operation = 0
        while True:
            folder = Path(place) / f"{title}-{operation}"
            shutil.copytree(start, folder, symlinks=True)
            was_killed = _killed(functools.partial(call, folder), folder, operation)
            name = _name(folder / "current")
            if name not in ("b", new):
                raise AssertionError(f"{title}, operation {operation}: found {name}")
            found["old" if name == "b" else "new"] += 1
            # What was left over is no hindrance, and goes: first forward, then back to the other one.
            if name == "b":
                call(folder)
            if _name(folder / "current") != new or _name(roll_back(folder)) != "b":
                raise AssertionError(f"{title}, operation {operation}: the next call goes wrong")
            left = [len(os.listdir(folder / kind)) for kind in ("bundles", "states")]
            if left != [2, 1] or sorted(os.listdir(folder)) != sorted(os.listdir(start)):
                raise AssertionError(f"{title}, operation {operation}: left {left}")
            shutil.rmtree(folder)
            if not was_killed:
                break
            operation += 1
        report[title] = found
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])

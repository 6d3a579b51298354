"""The command line as people start it: a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEYFED = (sys.executable, "-m", "scripts.keyfed")
_PATIENCE_S = 30
# The tests quieten TensorFlow for themselves; the command has to do it on its own.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}

# Runs the command line and kills it, without a chance to tidy up, at the Nth rename to a path that ends as given. What
# it had started by then goes to standard error first.
_DOOMED = """
import os, re, signal, sys
from pathlib import Path

ending, left = re.compile(sys.argv[1] + "$"), int(sys.argv[2])
sys.argv[1:3] = []

def name_children():
    for status in Path("/proc").glob("[0-9]*/status"):
        facts = dict(line.split(":\\t", 1) for line in status.read_text().splitlines() if ":\\t" in line)
        if int(facts["PPid"]) == os.getpid():
            print("child:", facts["Name"], file=sys.stderr, flush=True)

def watch(event, arguments):
    global left
    if event == "os.rename" and ending.search(str(arguments[1])):
        left -= 1
        if not left:
            name_children()
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
from scripts.keyfed import main
main()
"""


def run_keyfed(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The finished command."""
    command = [*KEYFED, *map(str, arguments)]
    environment = _ENVIRONMENT | (environment or {})
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def run_keyfed_killed_at(
    ending: str, times: int, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """The command killed at the moment of its `times`th rename to a path that matches `ending` at its end."""
    command = [sys.executable, "-c", _DOOMED, ending, str(times), *map(str, arguments)]
    with _no_process_left() as environment:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    return done


def stop_keyfed_at(line: str, number: signal.Signals, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of the command that got a signal when it said `line`."""
    command = [*KEYFED, *map(str, arguments)]
    with (
        _no_process_left() as environment,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=-3,
            stderr=-1,
            text=True,
            preexec_fn=listen_to_ctrl_c,
        ) as process,
    ):
        assert process.stderr is not None
        said = []
        for said_line in process.stderr:
            said.append(said_line)
            if said_line.startswith(line):
                process.send_signal(number)
        code = process.wait()
    return code, "".join(said)


def listen_to_ctrl_c() -> None:
    """As on a terminal: a shell's background jobs, these tests among them, are born with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def _no_process_left() -> Iterator[dict[str, str]]:
    """An environment for one process; after it, no process that inherited the environment may live on."""
    mark = f"KEYFED_TEST_MARK={os.getpid()}.{time.monotonic_ns()}"
    name, _, value = mark.partition("=")
    yield _ENVIRONMENT | {name: value}
    deadline = time.monotonic() + _PATIENCE_S
    while left := _marked_processes(mark.encode()):
        assert time.monotonic() < deadline, f"left over: {left}"
        time.sleep(0.05)


def _marked_processes(mark: bytes) -> list[str]:
    names = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            if mark in (process / "environ").read_bytes():
                names.append((process / "comm").read_text().strip())
    return names


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Bad input: one line that says so, and nothing else."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("keyfed: ")
    assert all(words in lines[0] for words in said), lines[0]

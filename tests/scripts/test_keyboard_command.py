"""`keyfed keyboard` and `keyfed type` as people start and end them."""

import contextlib
import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.command import KEYFED, ROOT, listen_to_ctrl_c, run_keyfed
from tests.scripts.conftest import FinishedRun

SECRET = "qzvxsecret"


def test_both_arms_of_a_run_are_served_until_ctrl_c(finished: FinishedRun) -> None:
    command = [*KEYFED, "keyboard", "--run", str(finished.out)]
    with started(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"keyfed: keyboard at http://127\.0\.0\.1:(\d+)/#(\S+)\n", line)
        assert found is not None, process.stderr.read()
        port, token = int(found[1]), found[2]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"X-Keyfed-Token": token, "Content-Type": "application/json"}
        connection.request("POST", "/open", "{}", headers)
        assert json.loads(connection.getresponse().read())["arms"] == ["synthetic", "web"]
        question = {"context": f"{SECRET} ", "prefix": SECRET, "touches_mm": None}
        connection.request("POST", "/suggest", json.dumps(question), headers)
        assert connection.getresponse().status == 200

        taken = run_keyfed("keyboard", "--bundle", finished.bundle, "--port", str(port))
        assert (taken.returncode, taken.stdout) == (2, "")
        assert taken.stderr == (
            f"keyfed: --port {port}: Address already in use; give another, or none for a free one\n"
        )

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stdout.read() + process.stderr.read()
    assert said.splitlines() == [
        "keyfed: only this machine reaches it; Ctrl-C ends it",
        "keyfed: keyboard ended; nothing typed was kept",
    ]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("keyboard", "give --run, or --bundle once or twice"),
        ("type --run {empty} --bundle {empty}", "give --run, or --bundle once or twice"),
        ("type --bundle a --bundle b --bundle c", "give --run, or --bundle once or twice"),
        ("keyboard --run {empty}", "no bundle in exported/"),
        ("type --bundle {empty}/none", "none: no such folder"),
        ("keyboard --bundle {empty}", "manifest.json: missing"),
        ("keyboard --bundle {bundle} --layout abcdef", "layout 'abcdef' is unknown; known are azerty"),
        ("type --bundle {bundle} --personal {empty}/words", "words: line 1"),
    ],
)  # fmt: skip
def test_a_wrong_start_is_one_line(
    finished: FinishedRun, tmp_path: Path, command: str, said: str
) -> None:
    (tmp_path / "words").write_text("no words of anybody's")
    done = run_keyfed(*command.format(empty=tmp_path, bundle=finished.bundle).split())
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("keyfed: ") and said in line


def test_typing_in_a_terminal_ends_with_ctrl_c(finished: FinishedRun, tmp_path: Path) -> None:
    """On a terminal of its own: what is typed comes up there, and on no file of the folder it was started in."""
    controller, terminal = pty.openpty()
    command = [*KEYFED, "type", "--bundle", str(finished.bundle), "--bundle", str(finished.bundle)]
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    streams = {name: terminal for name in ("stdin", "stdout", "stderr")}
    with started(command, cwd=tmp_path, env=environment, **streams) as process:
        os.close(terminal)
        seen = read_until(controller, b"Message")
        os.write(controller, SECRET.encode())
        seen += read_until(controller, SECRET[-4:].encode())
        os.write(controller, b"\x03")
        while chunk := read_some(controller):
            seen += chunk
        assert process.wait(60) == 0
    os.close(controller)
    shown = seen.decode("utf-8", "replace")
    assert "synthetic-federa" in shown and "(2) synthetic-fe" in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def started(command: list[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """The running command; killed if the test fails before it ended."""
    with subprocess.Popen(command, preexec_fn=listen_to_ctrl_c, **how) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(controller: int, ending: bytes) -> bytes:
    seen = b""
    while ending not in seen:
        chunk = read_some(controller)
        assert chunk, seen
        seen += chunk
    return seen


def read_some(controller: int) -> bytes:
    """What comes up next; nothing at the end."""
    ready, _, _ = select.select([controller], [], [], 60)
    try:
        return os.read(controller, 65_536) if ready else b""
    except OSError:  # the other end is closed
        return b""

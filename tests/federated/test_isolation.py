"""After isolation the process has a loopback interface and nothing else; where that is refused, nothing changes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_REPORT = """
import json, os, socket
from federated.isolation import is_isolated, isolate_network

def describe():
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            socket.create_connection(server.getsockname(), timeout=5).close()
            loopback = True
        except OSError:
            loopback = False
    return {
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "ids": [os.getuid(), os.geteuid(), os.getgid()],
        "network": os.readlink("/proc/self/ns/net"),
        "user": os.readlink("/proc/self/ns/user"),
        "loopback": loopback,
        "claims": is_isolated(),
    }

before = describe()
PREPARE
done = isolate_network()
again = isolate_network()
RESTORE
print(json.dumps({"before": before, "done": done, "again": again, "after": describe()}))
"""

_REFUSALS = {
    # the kernel lets no process with several threads into a user namespace
    "threads": (
        "import threading; stop = threading.Event(); threading.Thread(target=stop.wait).start()",
        "stop.set()",
    ),
    # the namespaces are made, and then no file can be opened to set them up
    "later step": (
        "import resource; limits = resource.getrlimit(resource.RLIMIT_NOFILE); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))",
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)",
    ),
}


def isolate_in_child(prepare: str = "", restore: str = "") -> dict:
    """What a fresh process sees before and after `isolate_network`, as JSON."""
    program = _REPORT.replace("PREPARE", prepare).replace("RESTORE", restore)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return json.loads(ended.stdout)


def test_only_a_loopback_interface_is_left() -> None:
    seen = isolate_in_child()
    assert seen["again"] == seen["done"] == seen["after"]["claims"]
    assert not seen["before"]["claims"]
    assert seen["after"]["ids"] == seen["before"]["ids"]
    assert seen["after"]["loopback"]
    if seen["done"]:
        assert seen["after"]["interfaces"] == ["lo"]
        assert seen["after"]["network"] != seen["before"]["network"]
    else:
        assert seen["after"] == seen["before"]


@pytest.mark.parametrize("refusal", _REFUSALS)
def test_a_refusal_changes_nothing(refusal) -> None:
    seen = isolate_in_child(*_REFUSALS[refusal])
    assert seen["done"] is seen["again"] is False
    assert seen["after"] == seen["before"]

"""What runs on this machine, read from /proc."""

import contextlib
import time
from pathlib import Path

_PATIENCE_S = 60

Process = tuple[int, int]  # id and start time, for ids are used again


def list_descendants(process: int) -> set[Process]:
    """All running processes that were started by this one, by those, and so on."""
    children: dict[int, list[Process]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            number, _, rest = stat.read_text().partition(" ")
            facts = rest.rpartition(")")[2].split()
            if facts[0] != "Z":
                children.setdefault(int(facts[1]), []).append((int(number), int(facts[19])))
    found, left = set[Process](), [process]
    while left:
        below = children.get(left.pop(), [])
        found.update(below)
        left += [number for number, _ in below]
    return found


def is_running(process: Process) -> bool:
    """Whether the process is there and no zombie."""
    try:
        facts = Path(f"/proc/{process[0]}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return facts[0] != "Z" and int(facts[19]) == process[1]


def find_process(number: int) -> Process:
    """The running process of this id."""
    facts = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return number, int(facts[19])


def assert_all_end(processes: set[Process]) -> None:
    """They end soon: a killed process is gone at once, but a loaded machine takes a moment to end those it has left."""
    deadline = time.monotonic() + _PATIENCE_S
    while left := [process for process in processes if is_running(process)]:
        assert time.monotonic() < deadline, f"left over: {left}"
        time.sleep(0.05)

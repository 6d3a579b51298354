"""Ends the Ray that keyfed started once keyfed has ended, in whatever way: a process of its own, given Ray's folder.

Ray's own processes notice a killed parent, but some of them a minute later, and their folder stays. They rename
themselves, which hides their arguments and environment, but keep files of the folder open.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

_QUIET_S = 2.0  # a process that is just being started has nothing open yet


def find_processes(folder: str) -> list[int]:
    """Ids of other processes that have a file or socket of the folder open, or its name in their command."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        if int(process) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            with open(f"/proc/{process}/cmdline", "rb") as file:
                names = [file.read().decode(errors="replace")]
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    names.append(os.readlink(f"/proc/{process}/fd/{descriptor}"))
            if any(folder in name for name in names):
                found.append(int(process))
    return found


def main() -> None:
    """Waits for the end of standard input, then ends everybody and removes the folder."""
    folder = sys.argv[1]
    sys.stdin.read()
    last_seen = time.monotonic()
    while time.monotonic() - last_seen < _QUIET_S:
        for process in find_processes(folder):
            last_seen = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

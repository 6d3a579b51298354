"""Starts a Ray for keyfed and ends it once keyfed has ended, in whatever way: a process of its own, given Ray's folder.

Ray's own processes notice a killed parent, but some of them a minute later, and their folder stays. They rename
themselves, which hides their arguments and environment, but keep files of the folder open. Ray is started from here and
not from keyfed's process because it forks, and forks crash now and then among TensorFlow's threads.
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import time

_QUIET_S = 2.0  # a process that is just being started has nothing open yet


def find_processes(folder: str) -> list[int]:
    """Ids of processes that have a file or socket of the folder open, or its name in their command.

    The guard and its parent are none of them: a parent that lives has closed its Ray, and keeps a log open.
    """
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        if int(process) in (os.getpid(), os.getppid()):
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
    """Prints Ray's address, waits for the end of standard input, then ends everybody and removes the folder."""
    folder, cpus, object_store_bytes = sys.argv[1:]
    try:
        _run_ray(folder, int(cpus), int(object_store_bytes))
    finally:
        last_seen = time.monotonic()
        while time.monotonic() - last_seen < _QUIET_S:
            for process in find_processes(folder):
                last_seen = time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def _run_ray(folder: str, cpus: int, object_store_bytes: int) -> None:
    import ray

    started = ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=object_store_bytes,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
        _system_config={"automatic_object_spilling_enabled": False},
    )
    print(started.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()

"""A hundred times the devices in a round need little more memory, and many rounds leave little behind."""

import subprocess
import sys

from scripts.memory import measure_memory, resident_bytes

# A process that holds this much, in a process that holds nothing; it says so, and waits.
_HOLDER = """
import subprocess, sys
inner = "held = bytearray(60_000_000); held[::4096] = b'x' * len(held[::4096]); print(flush=True); input()"
subprocess.run([sys.executable, "-c", inner])
"""


def test_resident_memory_is_that_of_all_descendants() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 60e6 < resident_bytes(process.pid) < 60e6 + 2 * 30e6
        process.communicate(b"\n")


def test_memory_does_not_grow_with_the_cohort_or_the_rounds() -> None:
    """`keyfed bench memory` on TFF: at most 300 MB for 9,900 devices more. Fewer rounds than its 500."""
    figures = measure_memory("tff", 2, devices=10_000, rounds=150)
    assert figures["more_bytes"] < 300e6
    assert figures["growth"] < 0.05

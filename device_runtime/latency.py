"""How fast and how big a bundle is on this machine, in numbers that compare between boards."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_runtime.bundle import MANIFEST, open_bundle
from device_runtime.keyboard import Keyboard
from device_runtime.tokenizer import BOS, is_one_word

_ROOT = Path(__file__).resolve().parent.parent  # the folder this package is imported from


@dataclass(frozen=True)
class LatencyReport:
    """Measured with one thread in a process of its own, which holds nothing but the device runtime.

    Attributes:
        step_p50_ms, step_p99_ms: one model step (one piece committed), log-softmax included.
        suggest_p50_ms, suggest_p95_ms: one call of `suggest` as made while words are typed: before
            the word, after one letter and after two, in equal parts.
        cold_start_ms: from starting the process (Python's own start included) to the first
            suggestions; median of three.
        peak_rss_bytes: peak resident memory of the process.
        bundle_bytes: all files of the bundle with the manifest.
    """

    step_p50_ms: float
    step_p99_ms: float
    suggest_p50_ms: float
    suggest_p95_ms: float
    cold_start_ms: float
    peak_rss_bytes: int
    bundle_bytes: int

    def to_json(self) -> str:
        """One JSON object with the attributes as keys."""
        return json.dumps(asdict(self))


def measure_latency(bundle_path: Path, calls: int = 1000, warm_up: int = 100) -> LatencyReport:
    """Measures the bundle in folder `bundle_path`.

    Args:
        bundle_path: the bundle's folder.
        calls: timed steps, and timed calls of `suggest`, >= 1.
        warm_up: untimed ones before, >= 0.

    Raises:
        BundleError: the bundle cannot be used.
        RuntimeError: the measuring process failed.
    """
    if calls < 1 or warm_up < 0:
        raise ValueError(f"calls must be >= 1 and warm_up >= 0, not {calls} and {warm_up}")
    bundle = open_bundle(bundle_path)
    cold_starts_ms = [_run_child(bundle_path, 0, 0)[0] for _ in range(2)]
    cold_start_ms, figures = _run_child(bundle_path, calls, warm_up)
    sizes = [entry["bytes"] for entry in bundle.manifest["files"].values()]
    return LatencyReport(
        **figures,
        cold_start_ms=float(np.median([*cold_starts_ms, cold_start_ms])),
        bundle_bytes=sum(sizes) + (bundle.directory / MANIFEST).stat().st_size,
    )


def _run_child(bundle_path: Path, calls: int, warm_up: int) -> tuple[float, dict[str, Any]]:
    """Cold start in ms, and the figures the process prints after it (none if `calls` is 0)."""
    command = [sys.executable, "-m", "device_runtime.latency", str(bundle_path), str(calls)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, str(warm_up)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        cold_start_ms = 1e3 * (time.perf_counter() - start)
        figures = process.stdout.read()
    if process.returncode != 0 or not first:
        raise RuntimeError(f"the measuring process failed with exit code {process.returncode}")
    return cold_start_ms, json.loads(figures or "{}")


def _measure(keyboard: Keyboard, calls: int, warm_up: int) -> dict[str, Any]:
    """Types the same random words of the vocabulary every time; times steps and suggestions."""
    tokenizer, random = keyboard.tokenizer, np.random.default_rng(0)
    words = [word for word in tokenizer.surfaces if len(word) > 1 and is_one_word(word)]
    steps_ms: list[float] = []
    suggestions_ms: list[float] = []

    state = keyboard.decoder.start(BOS)
    for token in random.integers(tokenizer.size, size=warm_up + calls).tolist():
        start = time.perf_counter()
        state = keyboard.decoder.step(token, state)
        steps_ms.append(1e3 * (time.perf_counter() - start))

    session = keyboard.session()
    while len(suggestions_ms) < warm_up + calls:
        word = words[random.integers(len(words))]
        for typed in ("", word[:1], word[:2]):
            start = time.perf_counter()
            session.suggest(typed)
            suggestions_ms.append(1e3 * (time.perf_counter() - start))
        session.commit(word)

    step_p50, step_p99 = np.percentile(steps_ms[warm_up:], [50, 99]).tolist()
    suggest_p50, suggest_p95 = np.percentile(suggestions_ms[warm_up:], [50, 95]).tolist()
    return {
        "step_p50_ms": step_p50,
        "step_p99_ms": step_p99,
        "suggest_p50_ms": suggest_p50,
        "suggest_p95_ms": suggest_p95,
        "peak_rss_bytes": _peak_rss_bytes(),
    }


def _peak_rss_bytes() -> int:
    """Peak resident memory of this process since it began to run this program."""
    try:
        # Not getrusage: on Linux its maximum is inherited from the process that started this one.
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except FileNotFoundError:  # macOS, where ru_maxrss is in bytes
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _main(bundle_path: str, calls: str, warm_up: str) -> None:
    keyboard = Keyboard.open(bundle_path)
    keyboard.session().suggest()
    print("ready", flush=True)
    if int(calls):
        print(json.dumps(_measure(keyboard, int(calls), int(warm_up))))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""How fast and how big a bundle is on this machine, in numbers that compare between boards."""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from device_runtime.bundle import MANIFEST, open_bundle
from device_runtime.decoder import Interpreter
from device_runtime.keyboard import Keyboard
from device_runtime.layouts import Layout
from device_runtime.tokenizer import is_one_word
from device_runtime.touch import OFFSET_MM, SIGMA_MM
from device_runtime.typed_text import MESSAGES

_ROOT = Path(__file__).resolve().parent.parent  # the folder this package is imported from
_COLD_STARTS = 3
_PERCENTILES = (50, 95, 99)
# Neither tflite-runtime nor ai-edge-litert hands its profiler to Python.
_OP_PROFILE = "not available: the interpreter's Python interface gives none"


@dataclass(frozen=True)
class Times:
    """Percentiles of calls, in ms."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class LatencyReport:
    """Measured in a process of its own, which holds nothing but the device runtime.

    Attributes:
        step: one model step, log-softmax included.
        word: `commit` of one word.
        suggest: `suggest()`, the next words, after it.
        keystroke: what a key costs. After a letter, `suggest` for the letters so far with their touches; for the space
            after a word, `autocorrect`, `commit` and `suggest()` together.
        cold_start_ms: from starting the process (Python's own start included) to the first
            suggestions; median of three.
        peak_rss_bytes: peak resident memory of the process.
        bundle_bytes: all files of the bundle with the manifest.
        files_bytes: each of them.
        keystrokes: timed ones; there is a word and a list of next words for each space among them, and as many steps as
            keystrokes.
        warm_up: untimed ones before.
        environment: what the figures depend on beside the bundle.
    """

    step: Times
    word: Times
    suggest: Times
    keystroke: Times
    cold_start_ms: float
    peak_rss_bytes: int
    bundle_bytes: int
    files_bytes: dict[str, int]
    keystrokes: int
    warm_up: int
    environment: dict[str, Any]

    def figures(self) -> dict[str, Any]:
        """JSON values: the percentiles as `step_p50_ms` and so on, the other attributes, `op_profile`."""
        figures: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Times):
                figures |= {f"{name}_{key}": number for key, number in vars(value).items()}
            else:
                figures[name] = value
        return figures | {"op_profile": _OP_PROFILE}


def measure_latency(
    bundle_path: Path, keystrokes: int = 2000, warm_up: int = 200, threads: int = 1
) -> LatencyReport:
    """Measures the bundle in folder `bundle_path` while the messages of `typed_text` are typed on it, again and again.

    Fingers are simulated with a fixed seed, so that the same bundle gets the same touches everywhere.

    Args:
        bundle_path: the bundle's folder.
        keystrokes: timed ones, >= 1.
        warm_up: untimed ones before, >= 0.
        threads: of the interpreter, >= 1.

    Raises:
        BundleError: the bundle cannot be used.
        ValueError: an argument is out of range.
        RuntimeError: the measuring process failed.
    """
    if keystrokes < 1 or warm_up < 0 or threads < 1:
        raise ValueError(
            f"keystrokes {keystrokes} and threads {threads} must be >= 1, warm_up {warm_up} >= 0"
        )
    bundle = open_bundle(bundle_path)
    starts = [_run_child(bundle_path, 0, 0, threads)[0] for _ in range(_COLD_STARTS - 1)]
    start, measured = _run_child(bundle_path, keystrokes, warm_up, threads)
    sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
    sizes[MANIFEST] = (bundle.directory / MANIFEST).stat().st_size
    return LatencyReport(
        **{name: Times(*times) for name, times in measured["times_ms"].items()},
        cold_start_ms=float(np.median([*starts, start])),
        peak_rss_bytes=measured["peak_rss_bytes"],
        bundle_bytes=sum(sizes.values()),
        files_bytes=sizes,
        keystrokes=keystrokes,
        warm_up=warm_up,
        environment=describe_board() | {"threads": threads},
    )


def describe_board() -> dict[str, Any]:
    """Processor, cores, clock, system, Python, NumPy and interpreter; None for what the system does not tell."""
    package = Interpreter.__module__.partition(".")[0].replace("_", "-")
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    frequency = "/sys/devices/system/cpu/cpu0/cpufreq/{}"
    most_khz = _read_line(frequency.format("cpuinfo_max_freq"))
    return {
        "cpu": _processor(),
        "cores": len(usable(0)),
        "governor": _read_line(frequency.format("scaling_governor")),
        "max_mhz": int(most_khz) / 1000 if most_khz else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "interpreter": f"{package} {version(package)}",
    }


def _processor() -> str | None:
    """The processor's name; the board's where only that is told, as on ARM."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or None
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    return facts.get("model name") or facts.get("Model") or facts.get("Hardware")


def _read_line(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def child_environment() -> dict[str, str]:
    """Of a measuring process: it imports the same device runtime."""
    paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths}


def _run_child(
    bundle_path: Path, keystrokes: int, warm_up: int, threads: int
) -> tuple[float, dict[str, Any]]:
    """Cold start in ms, and the figures the process prints after it (none if `keystrokes` is 0)."""
    command = [sys.executable, "-m", "device_runtime.latency", str(bundle_path)]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, *map(str, (keystrokes, warm_up, threads))],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        cold_start_ms = 1e3 * (time.perf_counter() - start)
        figures = process.stdout.read()
    if process.returncode != 0 or not first:
        raise RuntimeError(f"the measuring process failed with exit code {process.returncode}")
    return cold_start_ms, json.loads(figures or "{}")


def _measure(keyboard: Keyboard, keystrokes: int, warm_up: int) -> dict[str, Any]:
    """Types until there are enough keystrokes; times steps first, one after the other as in a long message."""
    words = [word for message in MESSAGES for word in message.split()]
    tokens = keyboard.tokenizer.encode_words(words)
    state, steps = keyboard.start, Stopwatch()
    for number in range(warm_up + keystrokes):
        token = tokens[number % len(tokens)]
        with steps:
            state = keyboard.decoder.step(token, state)

    typist = _Typist(keyboard)
    random = np.random.default_rng(0)
    while len(typist.keystrokes.ms) < warm_up:
        typist.type_message(MESSAGES[0], random)
    typist = _Typist(keyboard)
    number = 0
    while len(typist.keystrokes.ms) < keystrokes:
        typist.type_message(MESSAGES[number % len(MESSAGES)], random)
        number += 1
    return {
        "times_ms": {
            "step": np.percentile(steps.ms[warm_up:], _PERCENTILES).tolist(),
            "word": np.percentile(typist.words.ms, _PERCENTILES).tolist(),
            "suggest": np.percentile(typist.lists.ms, _PERCENTILES).tolist(),
            "keystroke": np.percentile(typist.keystrokes.ms[:keystrokes], _PERCENTILES).tolist(),
        },
        "peak_rss_bytes": _peak_rss_bytes(),
    }


class Stopwatch:
    """Times what is done in `with`; `ms` holds what each time took."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.ms.append(1e3 * (time.perf_counter() - self._start))


class _Typist:
    """Types messages key by key and times what the keyboard does."""

    def __init__(self, keyboard: Keyboard) -> None:
        self._layout = keyboard.layout
        self._session = keyboard.session()
        self.words, self.lists, self.keystrokes = Stopwatch(), Stopwatch(), Stopwatch()

    def type_message(self, message: str, random: np.random.Generator) -> None:
        """A fresh message, every word of it ended by a space."""
        session = self._session
        session.reset()
        for word in message.split():
            typed, touches = simulate_touches(self._layout, word, random)
            if is_one_word(word):
                for end in range(1, len(typed) + 1):
                    with self.keystrokes:
                        session.suggest(typed[:end], touches_mm=touches[:end])
            with self.keystrokes:
                session.autocorrect(typed, touches)
                with self.words:
                    session.commit(
                        word
                    )  # what was meant, so that nothing later depends on the correction
                with self.lists:
                    session.suggest()


def simulate_touches(
    layout: Layout, word: str, random: np.random.Generator
) -> tuple[str, list[tuple[float, float] | None]]:
    """Letters as touched, and where in mm; what has no key on the page of letters is typed as it is."""
    typed, touches = "", list[tuple[float, float] | None]()
    for character in word:
        key = layout.key_index(character)
        point = None
        if key >= 0:
            x, y = layout.centres_mm[key] + random.normal(OFFSET_MM, SIGMA_MM)
            point = (float(x), float(y))
            nearest = int(layout.nearest_key(np.array([point], np.float64))[0])
            capital = character.isupper()
            character = layout.keys[nearest].upper() if capital else layout.keys[nearest]
        typed += character
        touches.append(point)
    return typed, touches


def _peak_rss_bytes() -> int:
    """Peak resident memory of this process since it began to run this program."""
    try:
        # Not getrusage: on Linux its maximum is inherited from the process that started this one.
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except FileNotFoundError:  # macOS, where ru_maxrss is in bytes
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _main(bundle_path: str, keystrokes: str, warm_up: str, threads: str) -> None:
    keyboard = Keyboard.open(bundle_path, threads=int(threads))
    keyboard.session().suggest()
    print("ready", flush=True)
    if int(keystrokes):
        print(json.dumps(_measure(keyboard, int(keystrokes), int(warm_up))))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""kebbie's own `evaluate` on one bundle: a process of the environment that has kebbie (`./scripts/setup kebbie`).

The text comes in through standard input and is written nowhere: kebbie's list of mistakes, which quotes it, stays off.
"""

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kebbie
import kebbie.noise_model

from device_runtime.keyboard import Keyboard
from device_runtime.session import Session
from eval.correctors import KeyboardCorrector
from eval.processes import exit_with_parent


class BundleCorrector(KeyboardCorrector, kebbie.Corrector):
    """A bundle as the class that kebbie wants: `kebbie.evaluate(BundleCorrector("bundle"))`.

    Calls are not profiled: kebbie would trace every allocation for it, and never stop, which slows all that follows.
    """

    def profiled_auto_correct(self, *call: Any) -> tuple[list[str], int, int]:
        return self.auto_correct(*call), -1, -1

    def profiled_auto_complete(self, *call: Any) -> tuple[list[str], int, int]:
        return self.auto_complete(*call), -1, -1

    def profiled_resolve_swipe(self, *call: Any) -> tuple[list[str], int, int]:
        return self.resolve_swipe(*call), -1, -1

    def profiled_predict_next_word(self, *call: Any) -> tuple[list[str], int, int]:
        return self.predict_next_word(*call), -1, -1

    def _open(self) -> tuple[Keyboard, Session]:
        threading.Thread(target=exit_with_parent, daemon=True).start()  # in kebbie's worker
        return super()._open()


def score_bundle(
    bundle: str,
    messages: Sequence[str],
    common_typos: Mapping[str, Sequence[str]],
    processes: int,
    seed: int,
) -> dict[str, Any]:
    """kebbie's `score` of each task and `overall_score`, in its two digits.

    Args:
        bundle: folder of a keyboard bundle.
        messages: kebbie's sentences.
        common_typos: wrong forms by word, in place of the list that kebbie fetches from a web site.
        processes: that score messages side by side.
        seed: of kebbie's typos.

    Raises:
        RuntimeError: one of the processes died.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "en.json").write_text(json.dumps(common_typos), "utf-8")
        kebbie.noise_model.CACHE_DIR = (
            folder  # where kebbie's processes, forks of this one, look first
        )
        signal.signal(signal.SIGCHLD, _notice_death)
        results = kebbie.evaluate(
            BundleCorrector(bundle),
            dataset={"messages": list(messages)},
            n_proc=processes,
            seed=seed,
        )
    overall = results.pop("overall_score")
    return {"overall_score": overall} | {name: task["score"] for name, task in results.items()}


def _notice_death(*_: Any) -> None:
    """kebbie starts another process for one that died, and then waits forever."""
    died = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if died is not None and died.si_status not in (0, signal.SIGTERM):  # how kebbie ends them
        raise RuntimeError(f"one of its processes died (status {died.si_status})")


def _exit_with_caller() -> None:
    while os.read(0, 1_024):  # not sys.stdin, whose lock a fork would inherit
        pass
    os._exit(1)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends all processes, without a word
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_caller, daemon=True).start()
    try:
        answer = {"kebbie": version("kebbie"), "scores": score_bundle(**task)}
    except Exception as error:  # whatever kebbie raises; its message may hold what was typed
        said = str(error) if isinstance(error, RuntimeError) else "its message is not shown"
        answer = {"error": f"kebbie failed with {type(error).__name__}: {said}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()

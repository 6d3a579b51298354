"""`keyfed bench evaluate`: how many words a minute a bundle is scored on, on this machine."""

import functools
import math
import os
import time
from pathlib import Path
from typing import Any

from device_runtime.keyboard import Keyboard
from device_runtime.typed_text import MESSAGES
from eval.next_word import score_user
from eval.processes import score_each
from eval.targets import EvaluationVocabulary
from scripts.evaluate import score_person
from scripts.fingers import LAYOUT

_REPEATS = 4  # of the text by each user, who writes about as many words then as a held-out one of the chat population


def measure_evaluation_speed(bundle: Path, words: int, processes: int) -> dict[str, Any]:
    """Words a minute of wall time and CPU seconds per 1,000 words, starting the processes included.

    `next_words`: top-1 and top-3; `all_figures`: what `keyfed evaluate` prints, of which correction, completion and
    savings are counted on a user's first words alone. Both of the same users, who write the text of `bench device`.

    Args:
        bundle: folder of a keyboard bundle.
        words: to score, >= 1; rounded up to whole users.
        processes: that score users side by side, >= 1.

    Raises:
        BundleError: the bundle cannot be used.
    """
    messages = MESSAGES * _REPEATS
    vocabulary = EvaluationVocabulary.build(MESSAGES, size=10_000)
    open_keyboard = functools.partial(Keyboard.open, bundle, LAYOUT)
    of_user = int(score_user(open_keyboard(), messages, vocabulary).targets.sum())
    users = math.ceil(words / of_user)
    figures: dict[str, Any] = {"words": users * of_user, "users": users, "processes": processes}
    for name, score, people in (
        ("next_words", functools.partial(score_user, vocabulary=vocabulary), [messages] * users),
        (
            "all_figures",
            functools.partial(score_person, vocabulary=vocabulary, seed=1),
            [(number, messages) for number in range(users)],
        ),
    ):
        wall, cpu = time.perf_counter(), _cpu_seconds()
        for _ in score_each(open_keyboard, score, people, processes):
            pass
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
        figures[f"{name}_per_minute"] = round(60 * figures["words"] / wall)
        figures[f"{name}_cpu_s_per_1000"] = 1_000 * cpu / figures["words"]
    return figures


def _cpu_seconds() -> float:
    """Of this process and those that it started and that ended."""
    return sum(os.times()[:4])

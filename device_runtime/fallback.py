"""The time a call may take, and who answers when the model does not keep to it: the bundle's lexicon."""

import threading
import time
from collections.abc import Callable

from device_runtime.lexicon import Lexicon

_MISSES = 3  # in a row, before the model rests
_FIRST_REST_S, _LONGEST_REST_S = 1.0, 60.0  # each rest is twice the one before
# A model that makes more steps than this in a call keeps up with typing, 1.2 pieces a word. If it did not get there, it
# had much to read, such as a pasted text, and gets there in the next calls.
_FAIR_STEPS = 2


class Pacer:
    """Times the calls of a keyboard, for any threads.

    A call makes model steps as long as one more is expected to end in time, going by how long the last ones took, and
    its first step in any case. So a call overruns its budget by what one step takes longer than expected. After three
    calls in a row that missed it the model rests for a second, then, each time it misses again, for twice as long,
    up to a minute; a call that keeps to the budget ends this.

    Args:
        budget_ms: time of a call, > 0; None for no limit.
        clock: seconds, never going back.

    Raises:
        ValueError: the budget is not positive.
    """

    def __init__(
        self, budget_ms: float | None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if budget_ms is not None and not budget_ms > 0:
            raise ValueError(f"budget_ms must be > 0, not {budget_ms}")
        self._budget_s = None if budget_ms is None else budget_ms / 1e3
        self._clock = clock
        self._lock = threading.Lock()
        self._step_s = 0.0  # what a step takes
        self._misses = 0
        self._rest_s = _FIRST_REST_S
        self._rests_until = float("-inf")

    def begin(self) -> "Turn":
        """A call begins."""
        if self._budget_s is None:
            return Turn(self, None, False)
        now = self._clock()
        return Turn(self, now + self._budget_s, now < self._rests_until)

    def _learn_step(self, seconds: float) -> None:
        with self._lock:  # slower at once, faster bit by bit
            self._step_s = max(seconds, (self._step_s + seconds) / 2)

    def _judge(self, missed: bool, now: float) -> None:
        with self._lock:
            if not missed:
                self._misses, self._rest_s = 0, _FIRST_REST_S
                return
            self._misses += 1
            if self._misses >= _MISSES and now >= self._rests_until:
                self._rests_until = now + self._rest_s
                self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)


class Turn:
    """One call's time. One thread at a time."""

    def __init__(self, pacer: Pacer, deadline: float | None, resting: bool) -> None:
        self._pacer = pacer
        self._deadline = deadline
        self._resting = resting
        self._steps = 0
        self._stepping_since: float | None = None

    def in_time(self) -> bool:
        """Whether one more model step may be made, which the caller then makes at once."""
        if self._deadline is None:
            return True
        if self._resting:
            return False
        now = self._end_step()
        expected = self._pacer._step_s if self._steps else 0.0
        if now + expected > self._deadline:
            return False
        self._stepping_since = now
        self._steps += 1
        return True

    def steps_left(self, most: int) -> int:
        """How many steps, at most `most`, are expected to end in time, for who cannot ask before each."""
        if self._deadline is None:
            return most
        if self._resting:
            return 0
        now = self._end_step()
        step_s = self._pacer._step_s
        steps = most if step_s == 0 else int(min(most, max(0.0, self._deadline - now) / step_s))
        self._steps += steps
        return steps

    def end(self, answered: bool) -> None:
        """The call ends; `answered` is whether the model had its say."""
        if self._deadline is None or self._resting:
            return
        now = self._end_step()
        late = now > self._deadline
        if self._steps and (answered or late or self._steps <= _FAIR_STEPS):
            self._pacer._judge(late or not answered, now)

    def _end_step(self) -> float:
        """The time now; what passed since the last step began is what a step takes."""
        now = self._pacer._clock()
        if self._stepping_since is not None:
            self._pacer._learn_step(now - self._stepping_since)
            self._stepping_since = None
        return now


class Fallback:
    """Suggests words without the model.

    Args:
        lexicon: the bundle's words.
        blocked: words never to suggest.
    """

    def __init__(self, lexicon: Lexicon, blocked: frozenset[str]) -> None:
        self._lexicon = lexicon
        self._blocked = blocked

    def next_words(
        self, previous: str | None, count: int, prefix: str = ""
    ) -> list[tuple[str, float]]:
        """The `count` likeliest words after `previous` that start with `prefix`, as `Lexicon.next_words` gives them."""
        found = self._lexicon.next_words(previous, count + len(self._blocked), prefix)
        return [pair for pair in found if pair[0] not in self._blocked][:count]

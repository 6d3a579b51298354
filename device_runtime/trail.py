"""The tokens of one message and what the model remembers of them, so that going back is cheap."""

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from device_runtime.decoder import Decoder, DecoderState, Memory

RECENT = 256
"""Memories kept of the last tokens: 3 KB each at Gboard's size (96 / 670)."""

_ANCHORS = 256  # memories kept of all tokens before, evenly spaced
_FIRST_SPACING = 32


class Trail:
    """A message as token ids, read one model step a token, with a way back.

    The memory after each of the last `RECENT` tokens is kept, and that of every n-th one before: n starts at 32 and
    doubles whenever more than 256 are kept. So going back any distance costs at most n steps (n = 256 in a message of
    60,000 tokens), and memory stays the same however long the message is, but for 4 bytes a token. A memory taken up
    again gives the same states as before, bit by bit, for a step depends on nothing else.

    Args:
        model: the model.
        start: its state at the beginning of a message.
    """

    def __init__(self, model: Decoder, start: DecoderState) -> None:
        self._model = model
        self._start = start
        self._tokens = array("i")
        self._forget_all()

    def __len__(self) -> int:
        return len(self._tokens)

    def _forget_all(self) -> None:
        self._read = 0
        self._memory: Memory = self._start
        self._kept: dict[int, Memory] = {}  # by number of tokens read
        self._spacing = _FIRST_SPACING

    def append(self, tokens: Sequence[int]) -> None:
        """Tokens to be read."""
        self._tokens.extend(tokens)

    def last(self, count: int) -> list[int]:
        """The last `count` tokens, fewer if there are no more."""
        return self._tokens[max(0, len(self._tokens) - count) :].tolist()

    def common_beginning(self, tokens: Sequence[int], start: int = 0) -> int:
        """How many tokens this begins with that are its own first `start` ones and then `tokens`."""
        ours = np.array(self._tokens[start : start + len(tokens)], np.intc)
        differ = np.flatnonzero(ours != np.array(tokens[: len(ours)], np.intc))
        return start + (int(differ[0]) if len(differ) else len(ours))

    def rewind(self, length: int) -> None:
        """Goes back to the first `length` tokens, at most as many as there are."""
        del self._tokens[length:]
        if length >= self._read:
            return
        if length == 0:
            self._forget_all()
            return
        self._kept = {at: memory for at, memory in self._kept.items() if at < length}
        # What comes next is not kept, only the memory: the last token is read again.
        self._read = max(self._kept, default=0)
        self._memory = self._kept.get(self._read, self._start)

    def read(self, in_time: Callable[[], bool] = lambda: True) -> DecoderState | None:
        """The state after all tokens; None if `in_time`, asked before each step, ended it earlier.

        What was read stays read, so that the next call goes on from there.
        """
        while self._read < len(self._tokens):
            if not in_time():
                return None
            self._memory = self._model.step(self._tokens[self._read], self._memory)
            self._read += 1
            self._keep()
        assert isinstance(self._memory, DecoderState)
        return self._memory

    def _keep(self) -> None:
        """Keeps the newest memory; lets go of the one that is no longer recent unless it is an anchor."""
        self._kept[self._read] = Memory(self._memory.h, self._memory.c)
        old = self._read - RECENT
        if old % self._spacing:
            self._kept.pop(old, None)
        elif len(self._kept) > RECENT + _ANCHORS:
            self._spacing *= 2
            self._kept = {
                at: memory
                for at, memory in self._kept.items()
                if at > old or at % self._spacing == 0
            }

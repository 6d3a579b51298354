"""The language model on the device: a TFLite step per piece, and the search for whole words."""

import contextlib
import heapq
import math
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from device_runtime.step_model import SIGNATURE, check_step_model
from device_runtime.tokenizer import Tokenizer, begins_word, is_one_word

try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:  # newer Pythons have no tflite-runtime wheel; this is the same interpreter
    from ai_edge_litert.interpreter import Interpreter

# Segmentations less than e^-3 (a twentieth) as probable as the list's last word are not added up.
_NEGLIGIBLE = 3.0
_FEW = 64  # pieces that are sorted first
_BLOCK = 64  # pieces whose best one bounds what the list's last word can be


@contextlib.contextmanager
def _without_info_lines() -> Iterator[None]:
    """Takes what native code writes to standard error in here, and passes on all but INFO lines.

    TFLite announces its delegate there and has no switch for it.
    """
    with tempfile.TemporaryFile() as taken:
        own = os.dup(2)
        os.dup2(taken.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(own, 2)
            taken.seek(0)
            for line in taken:
                if not line.startswith(b"INFO:"):
                    os.write(own, line)
            os.close(own)


@dataclass(frozen=True, eq=False)
class Memory:
    """What the model remembers of some tokens; read-only, so it can be shared and kept.

    Attributes:
        h: float32 [1, P], projected recurrent state.
        c: float32 [1, H], cell state.
    """

    h: np.ndarray
    c: np.ndarray


@dataclass(frozen=True, eq=False)
class DecoderState(Memory):
    """What the model knows after some tokens: its memory and what comes next.

    Attributes:
        log_probs: float32 [V], natural log-probability of every next piece.
    """

    log_probs: np.ndarray


class Decoder:
    """A TFLite model with the signature `step(token, h, c) -> logits, h, c`, for any threads.

    Args:
        model: the .tflite file; token is int32 [1], logits float32 [1, V], h [1, P] and c [1, H].
        threads: threads of the interpreter, >= 1.

    Attributes:
        vocabulary_size: V.
        state_shapes: {"h": (1, P), "c": (1, H)}.
        steps: model steps made so far.

    Raises:
        ValueError: `model` is no TFLite model or has no such signature.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads must be >= 1, not {threads}")
        try:
            check_step_model(model)
            with _without_info_lines():
                interpreter = Interpreter(model_content=model, num_threads=threads)
                # Before the signature runner is made: afterwards XNNPACK would silently stay off.
                interpreter.allocate_tensors()
            # 6 us a step slower (4 to 8 %) than tensors by index, whose indices are private.
            self._step = interpreter.get_signature_runner(SIGNATURE)
            inputs = _shapes(self._step.get_input_details())
            outputs = _shapes(self._step.get_output_details())
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"not a TFLite model with a signature {SIGNATURE!r}: {error}"
            ) from error
        float32 = np.dtype(np.float32)
        units, cells, pieces = (
            tensors.get(name, ((0, 0), None))[0][-1]
            for tensors, name in ((inputs, "h"), (inputs, "c"), (outputs, "logits"))
        )
        state = {"h": ((1, units), float32), "c": ((1, cells), float32)}
        if inputs != {"token": ((1,), np.dtype(np.int32)), **state} or outputs != {
            "logits": ((1, pieces), float32),
            **state,
        }:
            raise ValueError(
                f"signature {SIGNATURE!r} must be token int32 [1], h float32 [1, P], "
                "c float32 [1, H] -> logits float32 [1, V], h, c; "
                f"found {inputs} -> {outputs}"
            )
        self.vocabulary_size = pieces
        self.state_shapes = {"h": (1, units), "c": (1, cells)}
        self.steps = 0
        self._lock = threading.Lock()

    def start(self, token: int) -> DecoderState:
        """State after `token` (the beginning of the message) from the zero state."""
        h, c = (np.zeros(self.state_shapes[name], np.float32) for name in ("h", "c"))
        return self._run(token, h, c)

    def step(self, token: int, state: Memory) -> DecoderState:
        """State after one more token, 0 <= token < V."""
        return self._run(token, state.h, state.c)

    def _run(self, token: int, h: np.ndarray, c: np.ndarray) -> DecoderState:
        if not 0 <= token < self.vocabulary_size:
            raise ValueError(f"token must be in [0, {self.vocabulary_size}), not {token}")
        with self._lock:
            self.steps += 1
            out = self._step(token=np.array([token], np.int32), h=h, c=c)
        logits = out["logits"][0]
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        for array in (out["h"], out["c"], logits):
            array.flags.writeable = False
        return DecoderState(h=out["h"], c=out["c"], log_probs=logits)


class PieceModel(Protocol):
    """What a search asks: a `Decoder`, or another model of the same pieces beside it."""

    vocabulary_size: int

    def step(self, token: int, state: DecoderState) -> DecoderState:
        """State after one more token."""
        ...


class WordSearch:
    """Most probable whole words after a state, although the model speaks in pieces.

    Best-first: of all words begun, the most probable is continued by one model step, until none of
    them is as probable as the last word of the list; then no segmentation is left that could enter
    it. A word met in several segmentations has the sum of their probabilities. Punctuation, emoji,
    unknown and control pieces are no words.

    Args:
        decoder: the model.
        tokenizer: its tokenizer.
        blocked: words never to return.
        accepts: whether a text is a word to return.

    Raises:
        ValueError: model and tokenizer have different numbers of pieces.
    """

    def __init__(
        self,
        decoder: PieceModel,
        tokenizer: Tokenizer,
        blocked: Collection[str] = frozenset(),
        accepts: Callable[[str], bool] = is_one_word,
    ) -> None:
        if decoder.vocabulary_size != tokenizer.size:
            raise ValueError(
                f"model of {decoder.vocabulary_size} pieces, tokenizer of {tokenizer.size} pieces"
            )
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._blocked = frozenset(blocked)
        self._accepts = accepts
        # What a piece is at the beginning of a word: a word all by itself, or a part that goes on.
        self._is_word = np.array(
            [
                bool(ends) and self._is_wanted(surface)
                for surface, ends in zip(tokenizer.surfaces, tokenizer.ends_word, strict=True)
            ]
        )
        self._goes_on = tokenizer.can_suggest & ~tokenizer.ends_word
        self._words = np.flatnonzero(self._is_word)

    def next_words(
        self,
        state: DecoderState,
        count: int,
        prefix: str = "",
        max_steps: int | None = 16,
        max_pieces: int = 8,
        in_time: Callable[[], bool] = lambda: True,
    ) -> list[tuple[str, float]]:
        """The `count` most probable next words with natural log-probabilities; ties by text.

        Args:
            state: state at the beginning of the word.
            count: length of the list, >= 1; it is shorter if fewer words are found.
            prefix: letters the words must start with, normalised as by `words.normalize`.
            max_steps: model steps to spend, >= 0; None for as many as it takes.
            max_pieces: words of more pieces are not found.
            in_time: asked before each step; False ends the search with what was found.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, not {count}")
        if prefix and not begins_word(prefix):
            return []
        found: dict[str, float] = {}
        least = -math.inf  # log-probability of the count-th best word so far
        # Heap of words begun: -log_prob, text, order of entry, last piece, state before it, pieces
        begun: list[tuple[float, str, int, int, DecoderState, int]] = []
        entered = steps = 0

        text, log_prob, after, pieces = "", 0.0, state, 0
        while True:
            rest = prefix[len(text) :]
            allowed = self._tokenizer.pieces_towards(rest) if rest else None
            bound = least if text else self._bound(after, allowed, count)
            tokens, log_probs = self._likely(after, allowed, log_prob, bound - _NEGLIGIBLE)
            for word, value in self._ended(text, tokens, log_probs, count):
                found[word] = float(np.logaddexp(found[word], value)) if word in found else value
            if len(found) >= count:
                least = heapq.nlargest(count, found.values())[-1]
            # No more of them than there are steps left can ever be continued.
            most = len(tokens) if max_steps is None else max_steps - steps
            if most and pieces + 1 < max_pieces:
                goes_on = self._goes_on[tokens] & (log_probs >= least)
                for token, value in _descending(tokens[goes_on], log_probs[goes_on], most):
                    longer = text + self._tokenizer.surfaces[token]
                    heapq.heappush(begun, (-value, longer, entered, token, after, pieces + 1))
                    entered += 1
            if not begun or -begun[0][0] < least or steps == max_steps or not in_time():
                best = [item for item in found.items() if item[1] >= least]
                return sorted(best, key=lambda item: (-item[1], item[0]))[:count]
            negative, text, _, token, before, pieces = heapq.heappop(begun)
            log_prob, after = -negative, self._decoder.step(token, before)
            steps += 1

    def _ended(
        self, text: str, tokens: np.ndarray, log_probs: np.ndarray, count: int
    ) -> list[tuple[str, float]]:
        """Words that `text` and one of `tokens` make, best first, as far as they can matter."""
        ends = self._tokenizer.ends_word[tokens] if text else self._is_word[tokens]
        words: list[tuple[str, float]] = []
        least = -math.inf
        for token, log_prob in _descending(tokens[ends], log_probs[ends], len(tokens)):
            if log_prob < least - _NEGLIGIBLE:
                break
            word = text + self._tokenizer.surfaces[token]
            if not text or self._is_wanted(word):
                words.append((word, log_prob))
                if len(words) == count:
                    least = log_prob
        return words

    def _is_wanted(self, word: str) -> bool:
        return self._accepts(word) and word not in self._blocked

    def _bound(self, state: DecoderState, allowed: np.ndarray | None, count: int) -> float:
        """What the count-th best of the words that are one of the `allowed` pieces has at least."""
        words = self._words if allowed is None else allowed[self._is_word[allowed]]
        log_probs = state.log_probs[words]
        blocks = len(words) // _BLOCK
        if blocks >= count:
            # The best of each block are different words, so their count-th best is such a bound,
            # found five times faster than the count-th best of all. Frequent pieces have low ids:
            # blocks go across them.
            log_probs = log_probs[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
        return float(np.partition(log_probs, -count)[-count]) if len(words) >= count else -math.inf

    def _likely(
        self, state: DecoderState, allowed: np.ndarray | None, log_prob: float, least: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those `allowed` (None: any text) that make, after a text of `log_prob`, one of >= `least`.

        Returns:
            Their ids, int64 ascending, and the log-probabilities of the texts, float64.
        """
        # Just below, for the rounding; the comparison that counts is the exact one.
        enough = np.nextafter(np.float32(least - log_prob), np.float32(-np.inf))
        if allowed is None:
            tokens = np.flatnonzero(state.log_probs >= enough)
            tokens = tokens[self._tokenizer.can_suggest[tokens]]
        else:
            tokens = allowed[state.log_probs[allowed] >= enough]
        log_probs = log_prob + state.log_probs[tokens].astype(np.float64)
        matters = log_probs >= least
        return tokens[matters], log_probs[matters]


def _descending(
    tokens: np.ndarray, log_probs: np.ndarray, most: int
) -> Iterator[tuple[int, float]]:
    """The `most` best, and those as good as the last of them, best first; ties by token."""
    taken = 0
    for size in (min(most, _FEW), len(tokens)):  # who asks for few need not wait for all
        if size < len(tokens):
            chosen = np.flatnonzero(log_probs >= np.partition(log_probs, -size)[-size])
            tokens_now, log_probs_now = tokens[chosen], log_probs[chosen]
        else:
            tokens_now, log_probs_now = tokens, log_probs
        order = np.lexsort((tokens_now, -log_probs_now))[taken:]
        yield from zip(tokens_now[order].tolist(), log_probs_now[order].tolist(), strict=True)
        taken += len(order)
        if taken >= min(most, len(tokens)):
            return


def _shapes(details: dict[str, dict[str, Any]]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each tensor of a signature."""
    return {
        name: (tuple(int(n) for n in tensor["shape"]), np.dtype(tensor["dtype"]))
        for name, tensor in details.items()
    }

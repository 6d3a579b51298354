"""The keyboard: open a bundle, start a message, ask what comes next."""

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from device_runtime import bundle as bundles
from device_runtime.bundle import Bundle, BundleError, open_bundle
from device_runtime.correction import Corrector
from device_runtime.decoder import Decoder, DecoderState, WordSearch
from device_runtime.display import Display, decode_lines
from device_runtime.fallback import Fallback, Pacer
from device_runtime.layouts import load_layout
from device_runtime.lexicon import Lexicon
from device_runtime.personal import PersonalHistory
from device_runtime.session import Session, Suggestion
from device_runtime.tokenizer import BOS, UNK, Tokenizer, is_one_word
from device_runtime.words import is_emoji, is_mark, split_words


class Keyboard:
    """A loaded bundle. Sessions of several threads may share it.

    Args:
        bundle: an opened bundle.
        layout: name of the keyboard that is typed on, one of `layouts.KEYBOARDS`.
        threads: threads of the TFLite interpreter, >= 1.
        budget_ms: time a session's call may take, > 0; None for as long as it takes.
        clock: seconds, never going back, for the budget.

    Attributes:
        tokenizer: how words are pieces.
        decoder: the model.
        start: its state at the beginning of a message.
        search: finds the words, and emoji, that are suggested before a word.
        fallback: answers when the model misses its budget.
        pacer: times the calls of all sessions.
        display: how words are written.
        blocked: words never suggested.
        layout: where the keys are.

    Raises:
        BundleError: the bundle's files do not fit each other.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        layout: str = "qwerty",
        threads: int = 1,
        budget_ms: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.layout = load_layout(layout)
        self.pacer = Pacer(budget_ms, clock)
        if threads < 1:
            raise ValueError(f"threads must be >= 1, not {threads}")
        with _blaming(bundles.TOKENIZER):
            self.tokenizer = Tokenizer(bundle.read(bundles.TOKENIZER))
            if self.tokenizer.size != bundle.manifest["vocabulary_size"]:
                raise ValueError(f"{self.tokenizer.size} pieces, not as {bundles.MANIFEST} says")
        with _blaming(bundles.MODEL):
            self.decoder = Decoder(bundle.read(bundles.MODEL), threads)
            self._unfiltered = WordSearch(self.decoder, self.tokenizer)
        promised = (bundle.manifest["vocabulary_size"], bundle.manifest["state_shapes"])
        found = {name: list(shape) for name, shape in self.decoder.state_shapes.items()}
        if promised != (self.decoder.vocabulary_size, found):
            raise BundleError(f"{bundles.MODEL}: shapes differ from those in {bundles.MANIFEST}")
        with _blaming(bundles.BLOCKLIST):
            self.blocked = _parse_blocklist(bundle.read(bundles.BLOCKLIST))
        with _blaming(bundles.TRUECASE):
            self.display = Display(bundle.read(bundles.TRUECASE))
        with _blaming(bundles.LEXICON):
            self._lexicon = Lexicon(bundle.read(bundles.LEXICON))
        self.search = WordSearch(
            self.decoder,
            self.tokenizer,
            self.blocked,
            lambda text: is_one_word(text) or is_emoji(text),
        )
        self.fallback = Fallback(self._lexicon, self.blocked)
        self.start = self.decoder.start(BOS)
        self._marks = np.array(
            [
                i
                for i, surface in enumerate(self.tokenizer.surfaces)
                if self.tokenizer.ends_word[i] and is_mark(surface) and surface not in self.blocked
            ],
            np.intp,
        )
        self._corrector: Corrector | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Path | str,
        layout: str = "qwerty",
        threads: int = 1,
        budget_ms: float | None = None,
    ) -> "Keyboard":
        """Opens the bundle in folder `path`; raises BundleError naming the file at fault."""
        return cls(open_bundle(Path(path)), layout, threads, budget_ms)

    def session(self, personal: PersonalHistory | None = None, private: bool = False) -> Session:
        """A new, empty message.

        Args:
            personal: the user's own words, to suggest from and to learn from; None for neither.
            private: whether nothing is to be learnt from the session.
        """
        return Session(self, personal, private)

    @property
    def corrector(self) -> Corrector:
        """Finds what was meant by letters; made for the first session, as `predict_words` needs none."""
        with self._lock:
            if self._corrector is None:
                self._corrector = Corrector(
                    self.decoder, self.tokenizer, self._lexicon, self.layout, self.blocked
                )
            return self._corrector

    def likeliest_mark(self, state: DecoderState) -> tuple[str, float] | None:
        """The punctuation mark most probably next, with its natural log-probability; None if there are no marks."""
        if not len(self._marks):
            return None
        log_probs = state.log_probs[self._marks]
        best = int(log_probs.argmax())
        return self.tokenizer.surfaces[self._marks[best]], float(log_probs[best])

    def one_piece_log_prob(self, state: DecoderState, word: str) -> float:
        """Natural log-probability of a word that is one piece; -inf for others, which would cost steps."""
        [tokens] = self.tokenizer.encode_each_word([word])
        return float(state.log_probs[tokens[0]]) if len(tokens) == 1 else -math.inf

    def word_log_prob(self, state: DecoderState, word: str, in_time: Callable[[], bool]) -> float:
        """Natural log-probability of a word as it is encoded; too high if `in_time` ends its steps early."""
        [tokens] = self.tokenizer.encode_each_word([word])
        log_prob = float(state.log_probs[tokens[0]])
        for before, token in itertools.pairwise(tokens):
            if not in_time():
                break
            state = self.decoder.step(before, state)
            log_prob += float(state.log_probs[token])
        return log_prob

    def knows(self, word: str) -> bool:
        """Whether `word`, normalised, is in the lexicon or one of the tokenizer's pieces."""
        [tokens] = self.tokenizer.encode_each_word([word])
        return (len(tokens) == 1 and tokens[0] != UNK) or self._lexicon.find(word) >= 0

    def predict_words(
        self, words: Sequence[str], at: Sequence[bool], count: int = 3
    ) -> list[list[Suggestion]]:
        """What the model would suggest before each word of a message: the benchmark's view.

        Raw predictions: lower-case, without truecasing and without the blocklist, so they compare
        with lower-cased text as it is. Nothing is computed twice, and nothing after the last
        prediction.

        Args:
            words: the message as `split_words` gives it.
            at: for each word, whether predictions are wanted before it.
            count: how many, >= 1.

        Returns:
            One list for each word, empty where `at` is false; each sees only the words before it.
        """
        predictions: list[list[Suggestion]] = []
        state, unread = self.start, list[int]()
        for tokens, wanted in zip(self.tokenizer.encode_each_word(words), at, strict=True):
            if wanted:
                state, unread = self._advance(state, unread), list[int]()
                found = self._unfiltered.next_words(state, count)
                predictions.append([Suggestion(word, log_prob) for word, log_prob in found])
            else:
                predictions.append([])
            unread = unread + tokens
        return predictions

    def _advance(self, state: DecoderState, tokens: Sequence[int]) -> DecoderState:
        for token in tokens:
            state = self.decoder.step(token, state)
        return state


@contextlib.contextmanager
def _blaming(name: str) -> Iterator[None]:
    """What is wrong in here is that file of the bundle."""
    try:
        yield
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{name}: {error}") from error


def _parse_blocklist(content: bytes) -> frozenset[str]:
    """Lower-case words, one a line; empty lines are allowed."""
    blocked = set()
    for number, line in enumerate(decode_lines(content), start=1):
        words = split_words(line)
        if len(words) > 1:
            raise ValueError(f"line {number}: write one word a line")
        blocked.update(words)
    return frozenset(blocked)

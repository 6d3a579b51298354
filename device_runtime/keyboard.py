"""The keyboard: open a bundle, commit what is typed, ask for the next words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_runtime import bundle as bundles
from device_runtime.bundle import Bundle, BundleError, open_bundle
from device_runtime.decoder import Decoder, DecoderState, WordSearch
from device_runtime.tokenizer import BOS, Tokenizer
from device_runtime.words import normalize, split_words

_SENTENCE_ENDS = (".", "!", "?", "…")


@dataclass(frozen=True)
class Suggestion:
    """A whole word as it would be typed and its natural log-probability."""

    text: str
    log_prob: float


class Keyboard:
    """A loaded bundle. Sessions of several threads may share it.

    Args:
        bundle: an opened bundle.
        threads: threads of the TFLite interpreter, >= 1.

    Raises:
        BundleError: the bundle's files do not fit each other.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        pieces, model = bundle.read(bundles.TOKENIZER), bundle.read(bundles.MODEL)
        try:
            self.tokenizer = Tokenizer(pieces)
        except ValueError as error:
            raise _at(bundles.TOKENIZER, error) from error
        try:
            self.decoder = Decoder(model, threads)
            self._unfiltered = WordSearch(self.decoder, self.tokenizer)
        except ValueError as error:
            raise _at(bundles.MODEL, error) from error
        promised = (bundle.manifest["vocabulary_size"], bundle.manifest["state_shapes"])
        found = {name: list(shape) for name, shape in self.decoder.state_shapes.items()}
        if promised != (self.decoder.vocabulary_size, found):
            raise BundleError(f"{bundles.MODEL}: shapes differ from those in {bundles.MANIFEST}")
        blocked = _parse_blocklist(bundle.read(bundles.BLOCKLIST))
        self._search = WordSearch(self.decoder, self.tokenizer, blocked)
        self._display = _parse_truecase(bundle.read(bundles.TRUECASE))
        self._start = self.decoder.start(BOS)

    @classmethod
    def open(cls, path: Path | str, threads: int = 1) -> "Keyboard":
        """Opens the bundle in folder `path`; raises BundleError naming the file at fault."""
        return cls(open_bundle(Path(path)), threads)

    def session(self) -> "Session":
        """A new, empty message."""
        return Session(self)

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
        state, unread = self._start, list[int]()
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


class Session:
    """One message being typed. Holds the model's state, never the text. One thread at a time."""

    def __init__(self, keyboard: Keyboard) -> None:
        self._keyboard = keyboard
        self.reset()

    def reset(self) -> None:
        """Starts a new message."""
        self._state = self._keyboard._start
        self._starts_sentence = True

    def commit(self, text: str) -> None:
        """Takes `text` as typed for good: all its words are complete, the last one too.

        Any Unicode is accepted. Committing a text word by word is the same as committing it whole.
        """
        words = split_words(text)
        tokens = self._keyboard.tokenizer.encode_words(words)
        self._state = self._keyboard._advance(self._state, tokens)
        if words:
            self._starts_sentence = words[-1].endswith(_SENTENCE_ENDS)

    def suggest(self, prefix: str = "", count: int = 3) -> list[Suggestion]:
        """The `count` (>= 1) most probable next words, best first; fewer if no more are found.

        Args:
            prefix: the first letters of the word, already typed but not committed; case is ignored.
            count: length of the list.
        """
        found = self._keyboard._search.next_words(self._state, count, normalize(prefix))
        return [Suggestion(self._displayed(word), log_prob) for word, log_prob in found]

    def _displayed(self, word: str) -> str:
        display = self._keyboard._display.get(word, word)
        if display == "i" or display.startswith("i'"):
            display = "I" + display[1:]
        if self._starts_sentence and display == word:
            display = display[0].title() + display[1:]
        return display


def _at(name: str, error: ValueError) -> BundleError:
    return BundleError(f"{name}: {error}")


def _lines(name: str, content: bytes) -> list[str]:
    try:
        return content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BundleError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _parse_blocklist(content: bytes) -> frozenset[str]:
    """Lower-case words, one a line; empty lines are allowed."""
    blocked = set()
    for number, line in enumerate(_lines(bundles.BLOCKLIST, content), start=1):
        words = split_words(line)
        if len(words) > 1:
            raise BundleError(f"{bundles.BLOCKLIST}: line {number}: write one word a line")
        blocked.update(words)
    return frozenset(blocked)


def _parse_truecase(content: bytes) -> dict[str, str]:
    """How words are displayed, from lines `lower<TAB>Display`; empty lines are allowed."""
    displays = {}
    for number, line in enumerate(_lines(bundles.TRUECASE, content), start=1):
        if not line:
            continue
        lower, tab, display = line.partition("\t")
        if not tab or not lower or normalize(display) != lower:
            raise BundleError(
                f"{bundles.TRUECASE}: line {number}: write the lower-case word, a tab and the "
                "same word as displayed"
            )
        displays[lower] = display
    return displays

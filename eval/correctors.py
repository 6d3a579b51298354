"""Keyboards in the shape of kebbie's `Corrector`: ours for that benchmark, and any other one for this one.

kebbie (github.com/FleksySDK/kebbie, MIT) tests public keyboards by four methods. Nothing here needs it to be installed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_runtime.keyboard import Keyboard
from device_runtime.layouts import Layout
from device_runtime.session import Session
from device_runtime.touch import Touches
from device_runtime.words import is_mark
from eval.next_word import SUGGESTIONS

Keystrokes = Sequence[tuple[float, float] | None]
"""kebbie's: x to the right and y downwards from the keyboard's corner; None for what is not on the page of letters."""

# A key's width and height in kebbie's units, in its kebbie/layouts/en-US.json. The first key's centre is half of both.
KEY_SIZE = (32.0, 72.0)


class NextWordCorrector(Protocol):
    """The one of kebbie's four methods that next-word accuracy asks for."""

    def predict_next_word(self, context: str) -> list[str]:
        """Next words, best first, after `context`, which ends in a blank or is empty."""
        ...


@dataclass(frozen=True)
class NextWord:
    """A suggestion."""

    text: str


class CorrectorPredictor:
    """A `next_word.WordPredictor` out of anything with kebbie's `predict_next_word`.

    The corrector is told the message up to the word, in lower case as the metric reads it, words apart by a blank and
    marks without one before them.
    """

    def __init__(self, corrector: NextWordCorrector) -> None:
        self._corrector = corrector

    def predict_words(
        self, words: list[str], at: list[bool], count: int = SUGGESTIONS
    ) -> list[list[NextWord]]:
        """As `Keyboard.predict_words`."""
        predictions: list[list[NextWord]] = []
        context = ""
        for word, asked in zip(words, at, strict=True):
            found = self._corrector.predict_next_word(context)[:count] if asked else []
            predictions.append([NextWord(text) for text in found])
            context = f"{context.rstrip() if is_mark(word) else context}{word} "
        return predictions


def find_touches(keystrokes: Keystrokes, typed: str, layout: Layout) -> Touches | None:
    """kebbie's keystrokes in the layout's millimetres; None where they are not one for each character typed."""
    if len(keystrokes) != len(typed):
        return None
    return [
        None
        if keystroke is None
        else (
            (keystroke[0] / KEY_SIZE[0] - 0.5) * layout.key_size_mm[0],
            (keystroke[1] / KEY_SIZE[1] - 0.5) * layout.key_size_mm[1],
        )
        for keystroke in keystrokes
    ]


class KeyboardCorrector:
    """A bundle's keyboard in kebbie's shape, as people meet it: with capitals, and without blocked words.

    kebbie takes the punctuation out of its sentences, so no mark is suggested. The bundle is opened by the first call
    and never pickled, so that a corrector is cheap to hand to processes.

    Args:
        bundle: folder of a keyboard bundle.
    """

    def __init__(self, bundle: Path | str) -> None:
        self._bundle = bundle
        self._opened: tuple[Keyboard, Session] | None = None

    def __reduce__(self) -> tuple[type, tuple[Path | str]]:
        return type(self), (self._bundle,)

    def predict_next_word(self, context: str) -> list[str]:
        """Three words or emoji."""
        _, session = self._open_after(context)
        found = session.suggest(count=SUGGESTIONS + 1)
        return [word.text for word in found if not is_mark(word.text)][:SUGGESTIONS]

    def auto_complete(self, context: str, keystrokes: Keystrokes, partial_word: str) -> list[str]:
        """Three words begun with these letters, mistyped or not."""
        keyboard, session = self._open_after(context)
        touches = find_touches(keystrokes, partial_word, keyboard.layout)
        return [word.text for word in session.suggest(partial_word, SUGGESTIONS, touches)]

    def auto_correct(self, context: str, keystrokes: Keystrokes, word: str) -> list[str]:
        """What the space bar puts in, then what else is suggested for the letters; three in all."""
        keyboard, session = self._open_after(context)
        touches = find_touches(keystrokes, word, keyboard.layout)
        put_in = session.autocorrect(word, touches)
        others = [other.text for other in session.suggest(word, SUGGESTIONS, touches)]
        return [put_in, *(other for other in others if other != put_in)][:SUGGESTIONS]

    def resolve_swipe(self, context: str, swipe_gesture: Keystrokes) -> list[str]:
        """Nothing: the keyboard takes no swipes."""
        return []

    def _open_after(self, context: str) -> tuple[Keyboard, Session]:
        """The keyboard, and its one session with that text before the caret."""
        if self._opened is None:
            self._opened = self._open()
        self._opened[1].set_context(context)
        return self._opened

    def _open(self) -> tuple[Keyboard, Session]:
        keyboard = Keyboard.open(self._bundle)
        return keyboard, keyboard.session()

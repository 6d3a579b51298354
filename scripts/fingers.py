"""Simulated fingers for `eval`, which knows no typists: people's words, typed with the touches of the simulator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from device_runtime.layouts import Layout
    from eval.noisy_context import Writer
    from eval.typed_words import Fingers, TypedWord

LAYOUT = "qwerty"


def draw_fingers(layout: "Layout", seed: int, user: int) -> "Fingers":
    """Fingers of user number `user` of this seed, their precision and offset drawn from the population.

    Every touch counts for the key nearest to it, so 8 to 9 letters in 100 are others than were meant. What has no key
    on the page of letters is typed right.
    """
    from eval.typed_words import TypedWord
    from synthetic_text.typist import Typist

    rng = np.random.default_rng((seed, user))
    thumb = Typist.sample(layout, rng).thumb

    def type_word(word: str) -> "TypedWord | None":
        keys = layout.key_indices(np.array([ord(character) for character in word], np.int64))
        at = np.flatnonzero(keys >= 0)
        if not len(at) or not layout.can_type(word):
            return None
        points = thumb.touch(keys[at], rng)
        pressed = layout.nearest_key(points)
        letters = list(word)
        touches: list[tuple[float, float] | None] = [None] * len(word)
        for place, (right, down), key in zip(
            at.tolist(), points.tolist(), pressed.tolist(), strict=True
        ):
            touches[place] = (right, down)
            if key != keys[place]:
                letters[place] = layout.keys[key]
        return TypedWord("".join(letters), touches, int((pressed != keys[at]).sum()))

    return type_word


def draw_writer(layout: "Layout", seed: int, user: int) -> "Writer":
    """The same user's messages as they are sent, with the errors that were not corrected.

    Words with letters that the layout lacks are left alone.
    """
    from synthetic_text.typist import Typist

    typist = Typist.sample(layout, np.random.default_rng((seed, user)))
    rng = np.random.default_rng((seed, user, 1))

    def write(words: Sequence[str]) -> list[str]:
        forms = list(words)
        at = [place for place, word in enumerate(words) if layout.can_type(word)]
        typed = typist.type_words([words[place] for place in at], rng)
        for place, form in zip(at, typed, strict=True):
            forms[place] = form
        return forms

    return write

"""Simulated fingers for `eval`, which knows no typists: people's words, typed with the touches of the simulator."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from device_runtime.keyboard import Keyboard
    from device_runtime.layouts import Layout
    from eval.targets import EvaluationVocabulary
    from eval.typed_words import Fingers, TypedWord, TypedWordScores

WORDS_A_USER = 50
LAYOUT = "qwerty"


def score_typing(
    keyboard: "Keyboard",
    users: Sequence[Sequence[str]],
    vocabulary: "EvaluationVocabulary",
    seed: int,
    on_user: Callable[[int], None],
) -> "TypedWordScores":
    """Correction and completion of each user's first WORDS_A_USER words, typed by fingers of their own.

    Args:
        keyboard: opened with LAYOUT.
        users: the messages of each user, at least one user.
        vocabulary: words that count for completion.
        seed: of the fingers.
        on_user: told the number of users finished after each of them.
    """
    from device_runtime.layouts import load_layout
    from eval.typed_words import score_typed_words

    layout, scores = load_layout(LAYOUT), None
    for number, messages in enumerate(users):
        fingers = draw_fingers(layout, seed, number)
        user = score_typed_words(keyboard, messages, fingers, vocabulary, WORDS_A_USER)
        scores = user if scores is None else scores + user
        on_user(number + 1)
    assert scores is not None
    return scores


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

"""Recognises the beginning of a text it has seen, so that a caret move in a long one need not split it all again."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SEGMENT = 1024  # characters, at least, between two places that are recognised
# No word, no composed letter and no rule of lower case reaches over such a blank.
_BLANK = re.compile(r"(?<=\w) (?=\w)")


@dataclass(frozen=True)
class Place:
    """A place in a text between two words.

    Attributes:
        at: number of characters before it.
        tokens: number of tokens of these.
        starts_sentence: whether the next word begins a sentence.
    """

    at: int
    tokens: int
    starts_sentence: bool


class ContextIndex:
    """Places in the text of a message. Of the text itself it keeps keyed digests, of a thousand characters each."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._places: list[
            tuple[Place, bytes]
        ] = []  # with the digest of what is before, from the last place

    def find(self, text: str) -> Place:
        """The last place known up to which `text` is as it was."""
        found = Place(0, 0, True)
        for place, digest in self._places:
            if place.at >= len(text) or digest != self._digest(text[found.at : place.at]):
                break
            found = place
        return found

    def add(self, text: str, place: Place) -> None:
        """A place in `text` that is beyond all others known."""
        before = self._places[-1][0].at if self._places else 0
        self._places.append((place, self._digest(text[before : place.at])))

    def drop(self, tokens: int) -> None:
        """Only the message's first `tokens` tokens are as they were."""
        while self._places and self._places[-1][0].tokens > tokens:
            self._places.pop()

    def _digest(self, text: str) -> bytes:
        content = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, digest_size=16, key=self._key).digest()


def segments(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Parts of `text` from `start` on, each but the last of some thousand characters and ending between two words."""
    while (blank := _BLANK.search(text, start + _SEGMENT)) is not None:
        yield start, blank.start()
        start = blank.start()
    yield start, len(text)

"""Exact duplicates: the same text but for case, apostrophe style and blanks."""

from collections import Counter
from collections.abc import Iterable

from device_runtime.words import normalize

SHORT_WORDS = 4
"""Most words of a message that people really send again and again ("ok", "how are you")."""


def drop_duplicates(texts: Iterable[str], max_repeats: int = 1) -> tuple[list[str], int]:
    """Texts without repetition, in order, and how many were dropped.

    Texts are the same when `device_runtime.words.normalize` makes them equal; the first one's
    writing is kept.

    Args:
        texts: messages or sentences.
        max_repeats: times that a message of at most SHORT_WORDS words may stand, >= 1; longer ones
            stand once.

    Raises:
        ValueError: max_repeats is below 1.
    """
    if max_repeats < 1:
        raise ValueError(f"max_repeats: {max_repeats} is below 1; 1 keeps every text once")
    seen: Counter[str] = Counter()
    kept = []
    dropped = 0
    for text in texts:
        key = normalize(text)
        allowed = max_repeats if key.count(" ") < SHORT_WORDS else 1
        if seen[key] < allowed:
            seen[key] += 1
            kept.append(text)
        else:
            dropped += 1
    return kept, dropped

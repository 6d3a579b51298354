"""Which words of a message may be learnt: words, not numbers, addresses or passwords."""

import itertools
import re
import unicodedata
from collections.abc import Collection

from device_runtime.tokenizer import is_one_word
from device_runtime.words import normalize, split_words

_LONGEST = 24  # letters; what is longer is no word to learn
_RANDOM = re.compile("[bcdfghjklmnpqrstvwxz]{6}")  # keys hit at random, not English


def learnable_forms(text: str, blocked: Collection[str]) -> list[tuple[str, str | None]]:
    """The words of `text` as `split_words` gives them, each with its written form if it may be learnt.

    Never learnt are blocked words, numbers, and what stands together with other signs than punctuation around it, as
    in addresses and passwords; nor what has digits, more than 24 letters, capitals here and there, or six consonants in
    a row. A password of letters that looks like a word cannot be told from one.
    """
    found: list[tuple[str, str | None]] = []
    for chunk in text.split():
        words = split_words(chunk)
        form = _written_form(chunk)
        learnable = (
            [word for word in words if is_one_word(word)] == [normalize(form)]
            and "@" not in chunk
            and normalize(form) not in blocked
            and _looks_like_a_word(form)
        )
        found += [(word, form if learnable and is_one_word(word) else None) for word in words]
    words = split_words(text)
    if [word for word, _ in found] != words:  # other blanks than those of `split`
        return [(word, None) for word in words]
    return found


def _written_form(chunk: str) -> str:
    """The chunk in its own case, composed, with straight apostrophes, without punctuation around it."""
    letters = [i for i, c in enumerate(chunk) if unicodedata.category(c)[0] in "LMN"]
    inside = chunk[letters[0] : letters[-1] + 1] if letters else ""
    form = unicodedata.normalize("NFC", inside).replace("’", "'")
    return form if form.lower() == normalize(inside) else normalize(inside)


def _looks_like_a_word(form: str) -> bool:
    turns = sum(a.islower() and b.isupper() for a, b in itertools.pairwise(form))
    return (
        len(form) <= _LONGEST
        and not any(map(str.isnumeric, form))
        and turns <= 1
        and not _RANDOM.search(form.lower())
    )

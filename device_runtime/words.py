"""What a word is: the one definition that training, the device and the metric share."""

import re
import unicodedata

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "＇": "'", "`": "'"})
# Emoji joiners and variation selectors are dropped: a family is its members, a heart is a heart.
_DROPPED = str.maketrans(dict.fromkeys("\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\u00ad"))
_TOKEN = re.compile(
    r"\d+(?:[.,:]\d+)+"  # 3.50, 10:30
    r"|[^\W_]+(?:'[^\W_]+)*"  # don't, o'clock, 2nd
    r"|([^\w\s]|_)\1*"  # ..., !!, 😂😂
)


def normalize(text: str) -> str:
    """Lower-cased NFC text with straight apostrophes, no control characters and single blanks."""
    text = unicodedata.normalize("NFC", text.lower().translate(_DROPPED)).translate(_APOSTROPHES)
    if not text.isascii() or not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _BLANK else c for c in text)
    return " ".join(text.split())


_BLANK = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})


def split_words(text: str) -> list[str]:
    """Tokens of a message in order: words, numbers, punctuation runs and emoji, lower-cased.

    >>> split_words("Don't know... 10:30? 😂😂")
    ["don't", 'know', '...', '10:30', '?', '😂😂']
    """
    text = normalize(text)
    shape = text
    if (
        not text.isascii()
    ):  # the re module counts combining marks as punctuation; they belong to their word
        shape = "".join("a" if unicodedata.category(c)[0] == "M" else c for c in text)
    return [text[slice(*match.span())] for match in _TOKEN.finditer(shape)]


def is_word(token: str) -> bool:
    """Whether a token is a target of the next-word metric: it holds a letter or a digit."""
    return any(c.isalnum() for c in token)


def is_emoji(token: str) -> bool:
    """Whether one of `split_words`' tokens is an emoji, or a run of it."""
    return bool(token) and all(
        ord(c) >= _FIRST_PICTURE and unicodedata.category(c) in _PICTURES for c in token
    )


def is_mark(token: str) -> bool:
    """Whether one of `split_words`' tokens is a punctuation mark of a sentence, or a run of it."""
    return bool(token) and all(c in _MARKS for c in token)


_FIRST_PICTURE = 0x2190  # below are signs such as ° and ©
_PICTURES = frozenset({"So", "Sk"})  # Sk: skin tones
_MARKS = frozenset(".,!?…")

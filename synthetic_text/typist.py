"""One phone user: how fast, how precise, and what is left wrong in the text they send."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, hypot, log

import numpy as np
from numpy.typing import NDArray

from device_runtime.layouts import KEYBOARDS, Layout, load_layout
from synthetic_text.misspellings import misspellings
from synthetic_text.slips import FINGER_SIGMA_MM, SPEED_SIGMA_MM, Codes, Thumb, slip

__all__ = ["KEYBOARDS", "Layout", "Typist", "load_layout", "misspellings"]

# Wrong characters in a user's chat text, p50, and the log-spreads that put p10 and p90 where DESIGN
# measured them: 0.14 / 0.64 / 2.3 %. Chat is re-read and forgiving to short messages, so this, not
# the 2.3 % that 37,370 phone typists left on average in a timed transcription, is the rate of chat
# text.
MEDIAN_ERROR_RATE = 0.0064
LOG_SPREAD_BELOW = 1.186  # ln(0.64 / 0.14) / 1.2816
LOG_SPREAD_ABOVE = 0.998  # ln(2.3 / 0.64) / 1.2816
MAX_ERROR_RATE = 0.15

# Wrong first-typed keys in a timed transcription, the same way. DESIGN: p10/50/90 = 1.6/3.7/7.0 %,
# mean 3.98 %, of 990 typists with 510 keys each. So few keys spread the measured rates, and the
# users' own rates lie closer together; tuned until the measured ones agree, see typing_check.py.
MEDIAN_KEY_ERROR_RATE = 0.0373
KEY_LOG_SPREAD_BELOW = 0.57
KEY_LOG_SPREAD_ABOVE = 0.49

SPEED_LOG_SPREAD = 0.3  # chosen; the user's draw is the one that sets the error rates
MEAN_OFFSET_MM = (0.3, 0.4)  # touches skew right and down; sizes chosen
OFFSET_SPREAD_MM = 0.5  # over users; chosen

# DESIGN: 74 % type with two thumbs, and transcribe 36.2 words a minute, SD 13.2, over all users.
# The log-normal's parameters are tuned until times in the log give that, corrections included.
TWO_THUMBS_SHARE = 0.74
ONE_FINGER_SLOWDOWN = 1.25  # chosen
MEDIAN_INTERVAL_MS = 288.0
INTERVAL_LOG_SPREAD = 0.33

# Of the errors, chosen: a misspelling where the word has a known one, or the word typed twice.
MISSPELLING_SHARE = 0.15
DOUBLED_WORD_SHARE = 0.002

EDITS_PER_ERROR = 1.14
"""Levenshtein distance an error adds on average (a transposition 2, a doubled word its length and a
blank), measured on LLM-written chat and converted news with the shares above."""

_MARKS_AROUND = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Typist:
    """One simulated user.

    Attributes:
        thumb: layout, precision and offset of touches.
        two_thumbs: posture; one thumb or an index finger otherwise.
        error_rate: wrong characters among those of the user's chat text, blanks included, after all
            correction.
        key_error_rate: wrong keys among first-typed ones, before any correction.
        interval_ms: mean time from one keystroke to the next.
    """

    thumb: Thumb
    two_thumbs: bool
    error_rate: float
    key_error_rate: float
    interval_ms: float

    @classmethod
    def sample(cls, layout: Layout, rng: np.random.Generator) -> "Typist":
        """A user drawn from the population; those with a less precise thumb make more errors."""
        clumsiness, haste = rng.normal(size=2)
        two_thumbs = bool(rng.random() < TWO_THUMBS_SHARE)
        right, down = rng.normal(MEAN_OFFSET_MM, OFFSET_SPREAD_MM)
        spread = LOG_SPREAD_BELOW if clumsiness < 0 else LOG_SPREAD_ABOVE
        key_spread = KEY_LOG_SPREAD_BELOW if clumsiness < 0 else KEY_LOG_SPREAD_ABOVE
        sigma_mm = hypot(FINGER_SIGMA_MM, SPEED_SIGMA_MM * exp(SPEED_LOG_SPREAD * clumsiness))
        slowdown = INTERVAL_LOG_SPREAD * haste + (0 if two_thumbs else log(ONE_FINGER_SLOWDOWN))
        return cls(
            Thumb(layout, sigma_mm, (float(right), float(down))),
            two_thumbs,
            min(MEDIAN_ERROR_RATE * exp(spread * clumsiness), MAX_ERROR_RATE),
            min(MEDIAN_KEY_ERROR_RATE * exp(key_spread * clumsiness), MAX_ERROR_RATE),
            MEDIAN_INTERVAL_MS * exp(slowdown),
        )

    def type_words(self, words: Sequence[str], rng: np.random.Generator) -> list[str]:
        """What stands in the chat message for each intended word, one to one.

        Typed forms are context, intended words remain the targets. A form is never empty; a word
        typed twice is one form with a blank in it. Words without letters stay as they are. Drawn by
        `rng` alone. For first-typed text, corrections and times see keystrokes.py.

        Raises:
            ValueError: a letter that the layout cannot type; see `Layout.can_type`.
        """
        self.thumb.layout.check_script("".join(words))
        rate = self.error_rate / EDITS_PER_ERROR
        planned, mistakes = plan_words(words, rate, rng)
        codes, owners = encode(planned)
        errors = max(0.0, rate * (len(codes) + len(words)) - mistakes)  # and blanks between words
        slipped = slip(self.thumb, codes, owners, errors, rng, keep_blanks=True)
        return split_text(slipped.codes, owners[slipped.owners], len(words))


def plan_words(
    words: Sequence[str], rate: float, rng: np.random.Generator
) -> tuple[list[str], int]:
    """Words as the user means to type them: mostly so, some misspelt, some twice (a lapse).

    Args:
        rate: errors per character of all kinds, in [0, 1].

    Returns:
        the words, and how many of them have such an error.
    """
    lengths = np.fromiter(map(len, words), dtype=np.float64, count=len(words)) + 1
    kinds, picks = rng.random((2, len(words)))
    limits = rate * lengths
    planned, mistakes = list(words), 0
    for i in np.flatnonzero(kinds < (DOUBLED_WORD_SHARE + MISSPELLING_SHARE) * limits).tolist():
        if kinds[i] >= DOUBLED_WORD_SHARE * limits[i]:
            planned[i] = _misspell(words[i], picks[i])
        elif any(map(str.isalpha, words[i])):
            planned[i] = f"{words[i]} {words[i].lstrip()}"
        mistakes += planned[i] != words[i]
    return planned, mistakes


def _misspell(word: str, draw: float) -> str:
    """The word with its letters misspelt as a uniform draw says; itself where nobody does."""
    match = _MARKS_AROUND.fullmatch(word)
    assert match
    before, core, after = match.groups()
    if core.lower() not in misspellings():
        return word
    forms, cumulative = misspellings()[core.lower()]
    form = forms[min(bisect_right(cumulative, draw * cumulative[-1]), len(forms) - 1)]
    return before + (form.capitalize() if core[0].isupper() else form) + after


def encode(words: Sequence[str]) -> tuple[Codes, NDArray[np.intp]]:
    """Code points of all words one after the other, and which word each belongs to."""
    codes = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter(map(len, words), dtype=np.intp, count=len(words))
    return codes, np.repeat(np.arange(len(words)), lengths)


def split_text(codes: Codes, words: NDArray[np.intp], count: int) -> list[str]:
    """Strings of `count` words again, from their code points and the word of each, ascending."""
    text = codes.tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.searchsorted(words, np.arange(1, count + 1)).tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]

"""Brings deliberate variants ("im", "u") in a corpus to the rates at which people type them.

A language model overdoes what its examples show: our few-shot chats in the casual register made "u" 23 % of all "you",
where people write 0.4 %. A keyboard that learns from it offers the wrong word half of the time.
"""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from synthetic_text.conversion import PHONE

_APOSTROPHES = str.maketrans("’ʼ`", "'''")


def list_variant_rates() -> dict[tuple[str, str], float]:
    """(plain form, variant) -> share of the variant among both, of the pairs that were counted in real chat (DESIGN).

    "its" is left out, being more often a word of its own; `conversion` does so with "well" and its like.
    """
    pairs = {
        (plain, variant): rate
        for plain, forms in PHONE.apostrophe_drops.items()
        for variant, rate in forms.items()
        if variant != "its"
    }
    (rate,) = PHONE.variants["you"].values()
    return pairs | {("you", "u"): rate, ("your", "ur"): rate}


def calibrate_variants(
    texts: Sequence[str], rates: Mapping[tuple[str, str], float], seed: int
) -> list[str]:
    """Texts with each pair's forms at its rate: of the one that comes too often, some are written as the other.

    A text keeps one habit: for each pair, all its occurrences are rewritten or none. Casing follows the form that was
    there. Pairs that occur in no text change nothing.

    Args:
        texts: messages.
        rates: (plain form, variant), in lower case -> share of the variant among both, in [0, 1].
        seed: of the draws.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    for pair, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"rate of {pair}: {rate} is outside 0 to 1")
    kept = [text.translate(_APOSTROPHES) for text in texts]
    lower = [text.lower() for text in kept]  # a quick look before the pattern's slow one
    rng = np.random.default_rng([seed, 2])
    for (plain, variant), rate in rates.items():
        find = {form: re.compile(rf"(?<![\w']){form}(?![\w'])", re.I) for form in (plain, variant)}
        counts = {
            form: np.array(
                [
                    len(pattern.findall(text)) if form in low else 0
                    for text, low in zip(kept, lower, strict=True)
                ]
            )
            for form, pattern in find.items()
        }
        variants, total = counts[variant].sum(), counts[plain].sum() + counts[variant].sum()
        wanted = rate * total
        source, other = (variant, plain) if variants > wanted else (plain, variant)
        available = counts[source].sum()
        if not available:
            continue
        draws = rng.random(len(kept)) < abs(variants - wanted) / available
        for i in np.flatnonzero(draws & (counts[source] > 0)):
            kept[i] = find[source].sub(functools.partial(_write_as, other), kept[i])
            lower[i] = kept[i].lower()
    return kept


def _write_as(form: str, match: re.Match[str]) -> str:
    """The form with the casing of what was there: "Im" becomes "I'm", "im" "i'm", and "U" "You"."""
    return form[0].upper() + form[1:] if match[0][0].isupper() else form

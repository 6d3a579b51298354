"""How English words are misspelt, weighted by how often each wrong form is met."""

from functools import cache
from importlib.resources import files
from itertools import accumulate

_RARE = 1e-9  # weight of a misspelling too rare for the frequency list, which ends at 1e-8
_TOO_COMMON = (
    0.01  # of its word's frequency: a "misspelling" above is a word, name or variant of its own
)


@cache
def misspellings() -> dict[str, tuple[list[str], list[float]]]:
    """Word -> its misspellings and their cumulative weights: how often each is met in English text.

    codespell's pairs with one single-word correction, weighted by wordfreq's frequency of the wrong
    form.
    """
    from wordfreq import get_frequency_dict

    frequencies = get_frequency_dict("en", wordlist="best")
    pairs = files("codespell_lib").joinpath("data", "dictionary.txt").read_text(encoding="utf-8")
    weights: dict[str, dict[str, float]] = {}
    for line in pairs.splitlines():
        wrong, _, right = line.lower().partition("->")
        frequency = frequencies.get(wrong, 0.0)
        if (
            right.isalpha()
            and wrong.isalpha()
            and frequency <= _TOO_COMMON * frequencies.get(right, 0.0)
        ):
            weights.setdefault(right, {})[wrong] = frequency + _RARE
    return {
        right: (list(forms), list(accumulate(forms.values()))) for right, forms in weights.items()
    }

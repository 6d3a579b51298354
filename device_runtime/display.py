"""How words are written where they are shown: capitals of names, of sentences and of I."""

from device_runtime.words import normalize

_SENTENCE_ENDS = (".", "!", "?", "…")


class Display:
    """The display forms of a bundle.

    Args:
        content: truecase.tsv: lines `lower<TAB>Display`, UTF-8; empty lines are allowed.

    Raises:
        ValueError: naming the line at fault.
    """

    def __init__(self, content: bytes) -> None:
        self._forms = {}
        for number, line in enumerate(decode_lines(content), start=1):
            if not line:
                continue
            lower, tab, form = line.partition("\t")
            if not tab or not lower or normalize(form) != lower:
                raise ValueError(
                    f"line {number}: write the lower-case word, a tab and the same word as displayed"
                )
            self._forms[lower] = form

    def show(self, word: str, starts_sentence: bool, own_form: str | None = None) -> str:
        """`word`, lower-case, as it is written there; `own_form` is how this user writes it."""
        form = own_form or self._forms.get(word, word)
        if form == "i" or form.startswith("i'"):
            form = "I" + form[1:]
        return _with_capital(form) if starts_sentence and form == word else form


def ends_sentence(token: str) -> bool:
    """Whether the next word begins a sentence after this one of `split_words`' tokens."""
    return token.endswith(_SENTENCE_ENDS)


def follow_case(word: str, typed: str) -> str:
    """`word` with the capitals that were typed: the first letter's, or all of them."""
    letters = [c for c in typed if c.isalpha()]
    upper = word.upper()
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return upper if normalize(upper) == normalize(word) else word
    return _with_capital(word) if typed[:1].isupper() else word


def decode_lines(content: bytes) -> list[str]:
    """Lines of a text file; ValueError unless it is UTF-8."""
    try:
        return content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _with_capital(word: str) -> str:
    capital = word[0].title() + word[1:]
    return capital if normalize(capital) == normalize(word) else word

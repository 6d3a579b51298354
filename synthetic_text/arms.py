"""What the two arms read before they meet anybody's typing: web text as it is, and synthetic typing text."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from device_runtime.words import is_word, split_words
from synthetic_text.config import TextConfig
from synthetic_text.conversion import convert_all
from synthetic_text.corpora import load_corpus, load_web_text
from synthetic_text.duplicates import drop_duplicates
from synthetic_text.llm_chats import load_llm_chats
from synthetic_text.register import RegisterModel, select_by_register
from synthetic_text.typist import Typist, load_layout

_MESSAGES_A_TYPIST = 200
_WORD_INSIDE = re.compile(r"(?<=[\w,] )[^\W\d_]+(?:['’][^\W\d_]+)*")
_MIN_DISPLAY_COUNT = 3
_MIN_DISPLAY_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Source:
    """Messages of one source.

    Attributes:
        messages: intended words of each message, as `split_words` gives them.
        typed: what the simulated thumb left in their place, word for word.
        human: whether people wrote the text that was converted, or an LLM.
    """

    messages: list[list[str]]
    typed: list[list[str]]
    human: bool

    def words(self) -> int:
        """Number of words, punctuation not counted."""
        return sum(map(count_words, self.messages))


@dataclasses.dataclass(frozen=True)
class ArmTexts:
    """Sources of both arms by name, how words are displayed, and counts for the report."""

    web: dict[str, Source]
    synthetic: dict[str, Source]
    display: dict[str, str]
    counts: dict[str, dict[str, int]]


def find_display_forms(texts: Iterable[str]) -> dict[str, str]:
    """How words are written that are mostly not in lower case: {"i'm": "I'm", "london": "London"}.

    Counted inside sentences only, where a capital says something about the word.
    """
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        for match in _WORD_INSIDE.finditer(text):
            forms[match.group().lower().replace("’", "'")][match.group().replace("’", "'")] += 1
    display = {}
    for lower, counts in forms.items():
        form, count = max(counts.items(), key=lambda item: (item[1], item[0]))
        if (
            form != lower
            and count >= _MIN_DISPLAY_COUNT
            and count > _MIN_DISPLAY_SHARE * counts.total()
        ):
            display[lower] = form
    return dict(sorted(display.items()))


def count_words(tokens: Sequence[str]) -> int:
    """Words among tokens: what holds a letter or a digit."""
    return sum(map(is_word, tokens))


BUILD_STEPS = 5


def build_arms(
    config: TextConfig, seed: int, on_step: Callable[[int, str], object] = lambda *_: None
) -> ArmTexts:
    """Texts of both arms from public sources and the committed LLM chats. Reads nothing private.

    The register model of the LLM chats against a general model of as many web words picks the web sentences that sound
    most like a chat (Moore & Lewis 2010); rules convert them; a simulated typist types everything of this arm.

    Args:
        config: what to read, and how much.
        seed: of samples, conversion and typing.
        on_step: told, before each of BUILD_STEPS steps, how many are done and what comes.

    Raises:
        ValueError: a source is missing or malformed.
    """
    on_step(0, "web text")
    rng = np.random.default_rng([seed, 0])
    corpus = load_web_text() if config.web is None else load_corpus(config.web)
    shuffled = [corpus.sentences[i] for i in rng.permutation(len(corpus.sentences))]
    web = _take_words(shuffled, config.words)

    on_step(1, "register")
    chats = [message.text for message in load_llm_chats()]
    register = RegisterModel.fit(chats)
    general_words = sum(count_words(split_words(text)) for text in chats)
    general_text = [" ".join(words) for words in _take_words(shuffled[::-1], general_words)]
    general = RegisterModel.fit(general_text, vocabulary=register.vocabulary)
    selected = select_by_register(corpus.sentences, register, general, config.register_words)
    on_step(2, "conversion")
    converted, repeated = drop_duplicates(convert_all(selected, seed))

    on_step(3, "typing")
    sources = {
        "web_converted": _type_source(converted, True, config, seed),
        "llm_chats": _type_source(chats, False, config, seed + 1),
    }
    on_step(4, "counts")
    web_source = Source(web, web, human=True)
    return ArmTexts(
        {"web": web_source},
        sources,
        find_display_forms([*corpus.sentences, *chats]),
        {
            "web": corpus.counts | {"training_words": web_source.words()},
            "synthetic": {
                "web_sentences_kept_by_register": len(selected),
                "converted_messages": len(converted),
                "converted_duplicates_dropped": repeated,
                "messages_the_layout_cannot_type": len(converted)
                + len(chats)
                - sum(len(source.messages) for source in sources.values()),
                "converted_words": sources["web_converted"].words(),
                "llm_messages": len(chats),
                "llm_words": sources["llm_chats"].words(),
                "words_mistyped": sum(_count_mistyped(source) for source in sources.values()),
            },
        },
    )


def _take_words(texts: Sequence[str], words: int) -> list[list[str]]:
    taken, total = [], 0
    for text in texts:
        if total >= words:
            break
        tokens = split_words(text)
        taken.append(tokens)
        total += count_words(tokens)
    return taken


def _type_source(texts: Sequence[str], human: bool, config: TextConfig, seed: int) -> Source:
    """Messages as typed by simulated users, each of whom types `_MESSAGES_A_TYPIST` of them.

    What the layout has no keys for is left out, with or without typing noise, so the switch changes nothing else.
    """
    layout = load_layout(config.layout)
    messages = [words for text in texts if (words := split_words(text)) and layout.can_type(text)]
    if not config.typing_noise:
        return Source(messages, messages, human)
    rng = np.random.default_rng([seed, 1])
    typed: list[list[str]] = []
    for start in range(0, len(messages), _MESSAGES_A_TYPIST):
        block = messages[start : start + _MESSAGES_A_TYPIST]
        forms = iter(
            Typist.sample(layout, rng).type_words([word for words in block for word in words], rng)
        )
        typed += [[next(forms) for _ in words] for words in block]
    return Source(messages, typed, human)


def _count_mistyped(source: Source) -> int:
    pairs = zip(source.messages, source.typed, strict=True)
    return sum(a != b for words, forms in pairs for a, b in zip(words, forms, strict=True))

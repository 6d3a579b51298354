"""What the arms read before they meet anybody's typing: pools of public and synthetic text, and recipes to mix them."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from device_runtime.words import is_word, split_words
from synthetic_text.config import TextConfig
from synthetic_text.conversion import convert_all
from synthetic_text.corpora import Corpus, load_corpus, load_public_source
from synthetic_text.duplicates import drop_duplicates, find_near_duplicates
from synthetic_text.filters import (
    HEURISTIC_FILTERS,
    apply_filters,
    language_filter,
    personal_data_filter,
    toxicity_filter,
)
from synthetic_text.llm_chats import Message, load_llm_chats
from synthetic_text.register import RegisterModel, select_by_register
from synthetic_text.typist import Typist, load_layout
from synthetic_text.variants import calibrate_variants, list_variant_rates

MESSAGES_A_TYPIST = 200
_WORD_INSIDE = re.compile(r"(?<=[\w,] )[^\W\d_]+(?:['’][^\W\d_]+)*")
_MIN_DISPLAY_COUNT = 3
_MIN_DISPLAY_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Source:
    """Messages of one pool.

    Attributes:
        messages: intended words of each message, as `split_words` gives them.
        typed: what the simulated thumb left in their place, word for word.
        human: whether people wrote the text, converted or not, or an LLM.
        strata: cell that each message was written for; "" throughout where a pool knows none.
        repeats: for each message, whether it is a near-duplicate of an earlier one of the synthetic mix.
    """

    messages: list[list[str]]
    typed: list[list[str]]
    human: bool
    strata: list[str]
    repeats: list[bool]

    def words(self) -> int:
        """Number of words, punctuation not counted."""
        return sum(map(count_words, self.messages))


@dataclasses.dataclass(frozen=True)
class PoolTexts:
    """Pools by name, how words are displayed, and counts for the report.

    The pools: `web`, all public text; `web_news`, the news in it; `web_filtered`, its sentences that sound most like
    chat; `web_converted`, these as phone messages; `llm`, chats and single messages by a language model;
    `llm_everyday`, its everyday chats.
    """

    pools: dict[str, Source]
    display: dict[str, str]
    counts: dict[str, dict[str, int]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an arm reads.

    Attributes:
        shares: of each pool in the words of every batch; None: by the pools' sizes.
        typing: whether the context is what the simulator typed.
        deduplicate: whether near-duplicates are left out.
        human_floor: least share of human-written words in every batch.
        adapted: whether the pools are resampled towards the devices' DP histogram.
    """

    shares: Mapping[str, float | None]
    typing: bool = False
    deduplicate: bool = False
    human_floor: float = 0.0
    adapted: bool = False


def list_recipes(config: TextConfig) -> dict[str, Recipe]:
    """The recipes of a run, `web` and `synthetic`, and those of a study, which leave out one thing each."""
    human = {"web_converted": 1 - config.llm_share}
    llm = {"llm": 1 - config.everyday_share, "llm_everyday": config.everyday_share}
    shares = human | {name: config.llm_share * share for name, share in llm.items()}
    mix = Recipe(
        _leave_out_zeros(shares), config.typing_noise, config.deduplicate, config.human_floor
    )
    change = dataclasses.replace
    no_everyday = _leave_out_zeros(human | {"llm": config.llm_share})
    return {
        "web": Recipe({"web": 1.0}),
        "web_news": Recipe({"web_news": 1.0}),
        "filtered": Recipe({"web_filtered": 1.0}),
        "converted": change(mix, shares={"web_converted": 1.0}),
        "generated": change(mix, shares=_leave_out_zeros(llm), human_floor=0.0),
        "synthetic": mix,
        "synthetic_no_everyday": change(mix, shares=no_everyday),
        f"synthetic_{'no' if mix.typing else 'with'}_typing": change(mix, typing=not mix.typing),
        f"synthetic_{'no' if mix.deduplicate else 'with'}_dedup": change(
            mix, deduplicate=not mix.deduplicate
        ),
        "synthetic_no_floor": change(mix, shares=dict.fromkeys(mix.shares, None), human_floor=0.0),
        "synthetic_adapted": change(mix, adapted=True),
    }


def _leave_out_zeros(shares: Mapping[str, float]) -> dict[str, float | None]:
    return {name: share for name, share in shares.items() if share > 0}


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


BUILD_STEPS = 7


def build_pools(
    config: TextConfig, seed: int, on_step: Callable[[int, str], object] = lambda *_: None
) -> PoolTexts:
    """All pools from public sources and the committed LLM text. Reads nothing private.

    The register model of the LLM chats against a general model of as many web words picks the web sentences that sound
    most like a chat (Moore & Lewis 2010); rules convert them; simulated typists type what the synthetic arm reads.

    Args:
        config: what to read, and how much.
        seed: of samples, conversion and typing.
        on_step: told, before each of BUILD_STEPS steps, how many are done and what comes.

    Raises:
        ValueError: a source is missing or malformed.
    """
    on_step(0, "public text")
    corpora: dict[str, Corpus] = {name: load_public_source(name) for name in config.public}
    corpora |= {str(path): load_corpus(path) for path in config.files}
    rng = np.random.default_rng([seed, 0])
    sentences, counts = _merge(corpora)
    shuffled = [sentences[i] for i in rng.permutation(len(sentences))]
    pools = {"web": _as_written(_take_words(shuffled, config.words))}
    if "news" in corpora and len(corpora) > 1:
        news = corpora["news"].sentences
        chosen = [news[i] for i in rng.permutation(len(news))]
        pools["web_news"] = _as_written(_take_words(chosen, config.words))

    on_step(1, "register")
    written = _sample(load_llm_chats(), config.llm_words, rng)
    chats = calibrate_variants([m.text for m in written], list_variant_rates(), seed)
    register = RegisterModel.fit(chats)
    general_words = sum(count_words(split_words(text)) for text in chats)
    general_text = [" ".join(words) for words in _take_words(shuffled[::-1], general_words)]
    general = RegisterModel.fit(general_text, vocabulary=register.vocabulary)
    selected = select_by_register(sentences, register, general, config.register_words)
    pools["web_filtered"] = _as_written([split_words(text) for text in selected])
    on_step(2, "conversion")
    converted, repeated = drop_duplicates(convert_all(selected, seed))
    on_step(3, "filters")
    filters = [*HEURISTIC_FILTERS, language_filter(), personal_data_filter(), toxicity_filter()]
    passed = apply_filters(converted, filters)
    kept = [converted[i] for i in passed.kept]

    on_step(4, "near-duplicates")
    repeats = find_near_duplicates([*chats, *kept], seed=seed).tolist()
    on_step(5, "typing")
    for i, name in enumerate(("llm", "llm_everyday"), start=1):
        everyday = name == "llm_everyday"
        own = [k for k, message in enumerate(written) if (message.family == "everyday") == everyday]
        pools[name] = _type_source(
            [chats[k] for k in own],
            [written[k].stratum for k in own],
            [repeats[k] for k in own],
            False,
            config,
            seed + i,
        )
    pools["web_converted"] = _type_source(
        kept, [""] * len(kept), repeats[len(chats) :], True, config, seed
    )
    on_step(6, "counts")
    typed = pools["llm"], pools["llm_everyday"], pools["web_converted"]
    counts["synthetic"] = {
        "web_sentences_kept_by_register": len(selected),
        "converted_messages": len(converted),
        "converted_duplicates_dropped": repeated,
        **{f"converted_rejected_{reason}": n for reason, n in passed.counts.items()},
        "messages_the_layout_cannot_type": len(kept)
        + len(chats)
        - sum(len(source.messages) for source in typed),
        "near_duplicates": sum(sum(source.repeats) for source in typed),
        "converted_words": pools["web_converted"].words(),
        "llm_messages": len(chats),
        "llm_words": pools["llm"].words() + pools["llm_everyday"].words(),
        "words_mistyped": sum(map(_count_mistyped, typed)),
    }
    counts["web"]["training_words"] = pools["web"].words()
    return PoolTexts(pools, find_display_forms([*sentences, *chats]), counts)


def _sample(messages: list[Message], words: int | None, rng: np.random.Generator) -> list[Message]:
    """Messages drawn until they hold `words` words, in the order of the corpus."""
    if words is None:
        return messages
    order = rng.permutation(len(messages))
    totals = np.cumsum([count_words(split_words(messages[i].text)) for i in order])
    return [messages[i] for i in np.sort(order[: np.searchsorted(totals, words) + 1])]


def _merge(corpora: Mapping[str, Corpus]) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Sentences of all corpora, those of two once, and the sum of what was read and dropped."""
    sentences = dict.fromkeys(text for corpus in corpora.values() for text in corpus.sentences)
    counts: Counter[str] = Counter()
    for corpus in corpora.values():
        counts.update(corpus.counts)
    return list(sentences), {"web": dict(counts)}


def _as_written(messages: list[list[str]]) -> Source:
    return Source(messages, messages, True, [""] * len(messages), [False] * len(messages))


def _take_words(texts: Sequence[str], words: int) -> list[list[str]]:
    taken, total = [], 0
    for text in texts:
        if total >= words:
            break
        tokens = split_words(text)
        taken.append(tokens)
        total += count_words(tokens)
    return taken


def _type_source(
    texts: Sequence[str],
    strata: Sequence[str],
    repeats: Sequence[bool],
    human: bool,
    config: TextConfig,
    seed: int,
) -> Source:
    """Messages as typed by simulated users, each of whom types `MESSAGES_A_TYPIST` of them.

    What the layout has no keys for is left out, with or without typing noise, so the switch changes nothing else.
    """
    layout = load_layout(config.layout)
    kept = [
        (words, stratum, repeat)
        for text, stratum, repeat in zip(texts, strata, repeats, strict=True)
        if (words := split_words(text)) and layout.can_type(text)
    ]
    messages = [words for words, _, _ in kept]
    rng = np.random.default_rng([seed, 1])
    typed: list[list[str]] = []
    for start in range(0, len(messages), MESSAGES_A_TYPIST):
        block = messages[start : start + MESSAGES_A_TYPIST]
        forms = iter(
            Typist.sample(layout, rng).type_words([word for words in block for word in words], rng)
        )
        typed += [[next(forms) for _ in words] for words in block]
    return Source(messages, typed, human, [s for _, s, _ in kept], [r for _, _, r in kept])


def _count_mistyped(source: Source) -> int:
    pairs = zip(source.messages, source.typed, strict=True)
    return sum(a != b for words, forms in pairs for a, b in zip(words, forms, strict=True))

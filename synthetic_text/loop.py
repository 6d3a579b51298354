"""Generate, judge, mix, train, evaluate, repeat: generations of text, each learned from the one before it.

A generator that learns from its own output loses first the tails and then most of what it was trained on ("model
collapse", Shumailov et al. 2024, Nature 631); enough human text in every generation prevents it (Gerstgrasser et al.
2024, Bertrand et al. 2024). So every generation's text is measured, held against the first one's, and the loop stops
where it has shrunk too much.

Generation 0 is what the first generator learns from; nothing is written for it. Generation g >= 1 is written by a
generator that has learned from the pool of g - 1, judged, mixed with human text, trained on and evaluated.
"""

import dataclasses
import functools
import gzip
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from device_runtime.words import is_word, split_words
from synthetic_text.diversity import Diversity, measure_diversity
from synthetic_text.duplicates import find_near_duplicates
from synthetic_text.filters import Filter, apply_filters

STEPS_A_GENERATION = 3


class Write(Protocol):
    """A generator: new messages of about `words` words in all, by what it learns from, or is shown of, `examples`."""

    def __call__(self, examples: Sequence[str], words: int, seed: int) -> list[str]: ...


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """The filter against what nearly repeats an earlier text; the shortest messages may come again."""

    seed: int
    reason: str = "near-duplicate"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return find_near_duplicates(texts, seed=self.seed)


@dataclasses.dataclass(frozen=True)
class GenerationScore:
    """What a model trained on one generation's pool is worth, and its cost.

    Attributes:
        top1: next-word accuracy, in [0, 1].
        seconds: of training and evaluation.
        words: that training read, repeats counted.
    """

    top1: float
    seconds: float
    words: int


@dataclasses.dataclass(frozen=True)
class TextPool:
    """Messages to learn from: those a generator wrote and that passed, and human-written ones."""

    written: list[str]
    human: list[str]

    @property
    def texts(self) -> list[str]:
        return [*self.written, *self.human]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """What decides a loop's result, beside its generator and its texts.

    Attributes:
        generations: to write, >= 1.
        words: of every pool, human-written ones included; what the filters reject is not replaced.
        human_floor: least share of human-written words in every pool, in [0, 1).
        sample_words: that diversity is measured on, <= (1 - human_floor) * words.
        seed: of writing, samples and the choice of human text.
    """

    generations: int
    words: int
    human_floor: float
    sample_words: int
    seed: int = 1

    def __post_init__(self) -> None:
        if self.generations < 1 or self.words < 1:
            raise ValueError(
                f"generations {self.generations}, words {self.words}: give at least 1 of each"
            )
        if not 0 <= self.human_floor < 1:
            raise ValueError(f"human_floor {self.human_floor}: give 0 or more, and less than 1")
        if not 1 <= self.sample_words <= self.words_to_write:
            raise ValueError(
                f"sample_words {self.sample_words}: give 1 to the {self.words_to_write} words of a generation"
            )

    @property
    def words_to_write(self) -> int:
        """Words asked of the generator in each generation."""
        return math.floor((1 - self.human_floor) * self.words)


@dataclasses.dataclass(frozen=True)
class Limit:
    """How far a monitor may go, times its value in generation 1: not below a `ratio` under 1, not above one over 1."""

    monitor: str
    ratio: float


LIMITS = (
    Limit("vocabulary", 0.9),
    Limit("distinct_2", 0.9),
    Limit("distinct_3", 0.92),
    Limit("word_entropy", 0.975),
    Limit("tail_coverage", 0.85),
    Limit("self_similarity", 1.1),
    Limit("kept_share", 0.8),
    Limit("human_share", 0.95),
)
"""Tuned on models that learn from themselves. Vocabulary in generations 2 and 3, over the first one's: bigram models,
20,000 words each, 0.88 and 0.79, with 30 % human text 1.04 and 1.08 (distinct_3, the worst, is 0.94 in generation 5);
keyboard models, 8,000 words, 0.91 and 0.86, with human text 1.01 and 1.04. Chosen: `kept_share`, `human_share`.
distinct_1 has no limit: over a fixed number of words it is the vocabulary."""


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A monitor beyond its limit."""

    monitor: str
    value: float
    limit: float


@dataclasses.dataclass(frozen=True)
class GenerationRecord:
    """One generation's text, health and worth.

    Attributes:
        generation: 0 is the start.
        written_words: what the generator wrote; in generation 0, what of the pool a generator wrote.
        kept_words: of these, what no filter rejected.
        human_words: what people wrote of the pool.
        rejected: messages by the first filter against them.
        diversity: of what was written, before any filter could tidy it up; of the pool in generation 0. Its
            `human_share` is that of the pool.
        write_seconds: of writing and judging.
        score: None where nothing passed.
    """

    generation: int
    written_words: int
    kept_words: int
    human_words: int
    rejected: dict[str, int]
    diversity: Diversity
    write_seconds: float
    score: GenerationScore | None

    @property
    def monitors(self) -> dict[str, float]:
        """What a limit may name: the figures of diversity, and `kept_share`, kept words over written ones."""
        kept_share = self.kept_words / max(1, self.written_words)
        return dataclasses.asdict(self.diversity) | {"kept_share": kept_share}


@dataclasses.dataclass(frozen=True)
class PointCost:
    """What percentage points of top-1 cost; None where there are none.

    Attributes:
        seconds, words: of one generation alone (writing to evaluation; words that training read), over all its points:
            a model that says nothing has none.
        seconds_gained, words_gained: of generations 1 to this one (words that were written), over the points that this
            one has beyond generation 0: what the loop paid for what it brought.
    """

    seconds: float | None
    words: float | None
    seconds_gained: float | None
    words_gained: float | None


@dataclasses.dataclass(frozen=True)
class LoopRecord:
    """All generations, from 0, and why there are no more: `crossed` is empty where all were run."""

    config: LoopConfig
    limits: tuple[Limit, ...]
    generations: tuple[GenerationRecord, ...]
    crossed: tuple[Crossing, ...]

    def cost(self, generation: int) -> PointCost:
        """Seconds and words per point of top-1 of a generation."""
        start, record = self.generations[0].score, self.generations[generation]
        spent = [each for each in self.generations[1 : generation + 1] if each.score]
        if record.score is None or start is None:
            return PointCost(None, None, None, None)
        points, gained = 100 * record.score.top1, 100 * (record.score.top1 - start.top1)
        seconds = sum(each.write_seconds + each.score.seconds for each in spent if each.score)
        return PointCost(
            _over(record.write_seconds + record.score.seconds, points),
            _over(record.score.words, points),
            _over(seconds, gained),
            _over(sum(each.written_words for each in spent), gained),
        )

    def as_json(self) -> dict[str, Any]:
        """A JSON object for the report; holds no text."""
        facts = dataclasses.asdict(self)
        for record, fact in zip(self.generations, facts["generations"], strict=True):
            fact["kept_share"] = record.monitors["kept_share"]
            fact["cost_per_point"] = dataclasses.asdict(self.cost(record.generation))
        return facts


def run_loop(
    out: Path,
    write: Write,
    train_and_evaluate: Callable[[TextPool, int], GenerationScore],
    start: TextPool,
    human: Sequence[str],
    config: LoopConfig,
    filters: Sequence[Filter] = (),
    limits: Sequence[Limit] = LIMITS,
    on_step: Callable[[int, str], object] = lambda *_: None,
) -> LoopRecord:
    """Runs the generations that `out` does not hold yet, until all are done or a monitor crosses its limit.

    What a step has made is on disk before the next one begins, so that a killed loop goes on with the step it was in.
    The generation that crosses a limit is still trained on and scored, for the record, if anything of it passed.

    Args:
        out: folder of this loop alone; made if missing. The record is its loop.json.
        write: the generator.
        train_and_evaluate: a model's score from a pool and its generation's number.
        start: pool of generation 0.
        human: messages that the human share of later pools is drawn from, anew each time.
        config: sizes, floor and seed.
        filters: judges of what was written, near-duplicates among them, in order.
        limits: of monitors.
        on_step: told, before each of STEPS_A_GENERATION * (generations + 1) steps, how many are done and what comes.

    Raises:
        ValueError: `out` belongs to another loop, texts are too few, or nothing passes the filters.
    """
    _claim_folder(out, start, human, config, filters, limits)

    def tell(generation: int, step: int, what: str) -> None:
        on_step(STEPS_A_GENERATION * generation + step, f"generation {generation}: {what}")

    def score_pool(pool: TextPool, generation: int) -> GenerationScore:
        tell(generation, 2, "training")
        path = out / f"generation-{generation}" / "score.json.gz"
        made, _ = _keep(path, lambda: dataclasses.asdict(train_and_evaluate(pool, generation)))
        return GenerationScore(**made)

    pool, crossed = start, tuple[Crossing, ...]()
    counts, diversity = _measure(start.texts, start, config)
    score: GenerationScore | None = score_pool(start, 0)
    records = [GenerationRecord(0, counts[0], *counts, {}, diversity, 0.0, score)]
    for generation in range(1, config.generations + 1):
        folder = out / f"generation-{generation}"
        tell(generation, 0, "writing")
        seed = int(np.random.SeedSequence([config.seed, generation]).generate_state(1)[0])
        ask = functools.partial(write, pool.texts, config.words_to_write, seed)
        written, seconds = _keep(folder / "written.json.gz", ask)
        tell(generation, 1, "judging")
        judge = functools.partial(_make_pool, written, filters, human, config.human_floor, seed)
        (kept, drawn, rejected), judge_seconds = _keep(folder / "pool.json.gz", judge)
        pool = TextPool(kept, drawn)
        counts, diversity = _measure(written, pool, config)
        score = score_pool(pool, generation) if kept else None
        records.append(
            GenerationRecord(
                generation,
                count_words(written),
                *counts,
                rejected,
                diversity,
                seconds + judge_seconds,
                score,
            )
        )
        crossed = find_crossed(records[-1].monitors, records[1].monitors, limits)
        if not kept and not crossed:
            raise ValueError(
                f"generation {generation}: none of {len(written)} messages passed {rejected}: mend the filters"
            )
        record = LoopRecord(config, tuple(limits), tuple(records), crossed)
        _write_whole(out / "loop.json", json.dumps(record.as_json(), indent=1).encode())
        if crossed:
            break
    on_step(STEPS_A_GENERATION * (config.generations + 1), "done")
    return record


def find_crossed(
    monitors: Mapping[str, float], first: Mapping[str, float], limits: Sequence[Limit]
) -> tuple[Crossing, ...]:
    """The monitors beyond their limits, in the order of `limits`; `first` are those of generation 1."""
    crossed = []
    for limit in limits:
        value, bound = monitors[limit.monitor], limit.ratio * first[limit.monitor]
        if value < bound if limit.ratio < 1 else value > bound:
            crossed.append(Crossing(limit.monitor, value, bound))
    return tuple(crossed)


def count_words(texts: Sequence[str]) -> int:
    """Words of all texts, punctuation not counted."""
    return sum(is_word(word) for text in texts for word in split_words(text))


def _make_pool(
    written: Sequence[str], filters: Sequence[Filter], human: Sequence[str], floor: float, seed: int
) -> tuple[list[str], list[str], dict[str, int]]:
    """What passes of a generation, the human text beside it, and the count of the rest by reason."""
    result = apply_filters(written, filters)
    kept = [written[place] for place in result.kept]
    needed = math.ceil(floor / (1 - floor) * count_words(kept))
    drawn: list[str] = []
    words = 0
    for place in np.random.default_rng(seed).permutation(len(human)):
        if words >= needed:
            break
        drawn.append(human[place])
        words += count_words([human[place]])
    if words < needed:
        raise ValueError(
            f"human text has {words} words where human_floor {floor} takes {needed}: give more of it, or lower `words`"
        )
    return kept, drawn, result.counts


def _measure(
    texts: Sequence[str], pool: TextPool, config: LoopConfig
) -> tuple[tuple[int, int], Diversity]:
    """Words of a pool that generators and people wrote, and the diversity of `texts`."""
    written, human = count_words(pool.written), count_words(pool.human)
    messages = [split_words(text) for text in texts]
    human_share = human / max(1, written + human)
    return (written, human), measure_diversity(messages, human_share, config.sample_words)


def _over(amount: float, points: float) -> float | None:
    return amount / points if points > 0 else None


def _claim_folder(
    out: Path,
    start: TextPool,
    human: Sequence[str],
    config: LoopConfig,
    filters: Sequence[Filter],
    limits: Sequence[Limit],
) -> None:
    """Marks a new folder as this loop's; refuses one that another loop has begun."""
    texts = json.dumps([start.written, start.human, list(human)]).encode()
    facts = {
        "config": dataclasses.asdict(config),
        "limits": [dataclasses.asdict(limit) for limit in limits],
        "filters": [one.reason for one in filters],
        "texts_sha256": hashlib.sha256(texts).hexdigest(),
    }
    path = out / "settings.json"
    if not path.exists():
        _write_whole(path, json.dumps(facts, indent=1).encode())
    elif json.loads(path.read_text("utf-8")) != facts:
        raise ValueError(
            f"{path}: this loop was begun with other settings or texts: start in another folder"
        )


def _keep(path: Path, make: Callable[[], Any]) -> tuple[Any, float]:
    """What `make` gives, as JSON, and the seconds it took; made once, then read from `path`."""
    if not path.exists():
        started = time.monotonic()
        made = make()
        content = {"made": made, "seconds": time.monotonic() - started}
        _write_whole(path, gzip.compress(json.dumps(content).encode(), mtime=0))
    content = json.loads(gzip.decompress(path.read_bytes()))
    return content["made"], content["seconds"]


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)

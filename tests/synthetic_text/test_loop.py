"""The loop with generators whose collapse is known beforehand, and with kills at every moment."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthetic_text.diversity import measure_diversity
from synthetic_text.filters import LineFilter
from synthetic_text.loop import (
    LIMITS,
    STEPS_A_GENERATION,
    Crossing,
    GenerationScore,
    Limit,
    LoopConfig,
    LoopRecord,
    NearDuplicates,
    TextPool,
    count_words,
    find_crossed,
    run_loop,
)

ROOT = Path(__file__).parents[2]
FORMS = 2_000
CONFIG = LoopConfig(generations=4, words=4_000, human_floor=0.0, sample_words=2_000)
MESSAGE_WORDS = 8


def make_messages(forms: Sequence[str], words: int, seed: int) -> list[str]:
    shape = (-(-words // MESSAGE_WORDS), MESSAGE_WORDS)
    return [" ".join(row) for row in np.random.default_rng(seed).choice(forms, shape)]


ENGLISH = [f"word{number}" for number in range(FORMS)]
START = TextPool(make_messages(ENGLISH, 4_000, 10), [])
HUMAN = make_messages([f"human{number}" for number in range(FORMS)], 8_000, 11)


def write_steadily(examples: Sequence[str], words: int, seed: int) -> list[str]:
    """Uniform over all forms, whatever it has learned from."""
    return make_messages(ENGLISH, words, seed)


def write_from_examples(examples: Sequence[str], words: int, seed: int) -> list[str]:
    """A unigram model of its examples: each generation has only words that the one before had."""
    forms = [word for text in examples for word in text.split()]
    return make_messages(forms, words, seed)


@dataclasses.dataclass
class ShrinksFrom:
    """Writes steadily, and from call `fatal` on with a tenth of the words."""

    fatal: int
    calls: int = 0

    def __call__(self, examples: Sequence[str], words: int, seed: int) -> list[str]:
        self.calls += 1
        forms = ENGLISH if self.calls < self.fatal else ENGLISH[: FORMS // 10]
        return make_messages(forms, words, seed)


@dataclasses.dataclass
class RepeatsFrom:
    """Writes steadily, and from call `fatal` on the same twenty messages again and again."""

    fatal: int
    calls: int = 0

    def __call__(self, examples: Sequence[str], words: int, seed: int) -> list[str]:
        self.calls += 1
        messages = make_messages(ENGLISH, words, seed)
        return (
            messages
            if self.calls < self.fatal
            else (messages[:20] * len(messages))[: len(messages)]
        )


def score_by_generation(pool: TextPool, generation: int) -> GenerationScore:
    return GenerationScore(top1=0.10 + 0.02 * generation, seconds=30.0, words=1_000)


def run(out: Path, write: Callable[..., list[str]], **changes: Any) -> LoopRecord:
    arguments: dict[str, Any] = {
        "train_and_evaluate": score_by_generation,
        "start": START,
        "human": HUMAN,
        "config": CONFIG,
        "filters": [NearDuplicates(seed=1)],
    }
    return run_loop(out, write, **(arguments | changes))


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    """The record but for what a clock measured."""
    record = json.loads(json.dumps(record))
    for generation in record["generations"]:
        del generation["write_seconds"]
        for name in ("seconds", "seconds_gained"):
            del generation["cost_per_point"][name]
    return record


def test_a_steady_generator_is_never_stopped(tmp_path: Path) -> None:
    record = run(tmp_path, write_steadily)
    assert record.crossed == ()
    assert [each.generation for each in record.generations] == [0, 1, 2, 3, 4]
    assert json.loads((tmp_path / "loop.json").read_text()) == json.loads(
        json.dumps(record.as_json())
    )


@pytest.mark.parametrize("fatal", [2, 3])
def test_a_generator_that_loses_its_words_is_stopped_then_and_by_name(
    tmp_path: Path, fatal: int
) -> None:
    record = run(tmp_path, ShrinksFrom(fatal))
    assert len(record.generations) == fatal + 1
    crossed = {each.monitor: each for each in record.crossed}
    assert {"vocabulary", "word_entropy"} <= set(crossed) <= {limit.monitor for limit in LIMITS}
    assert "kept_share" not in crossed and "human_share" not in crossed
    first = record.generations[1].diversity
    assert crossed["vocabulary"].value == FORMS // 10
    assert crossed["vocabulary"].limit == pytest.approx(0.9 * first.vocabulary)


def test_a_generator_that_repeats_itself_is_stopped_even_if_no_word_is_lost_to_the_filters(
    tmp_path: Path,
) -> None:
    """Near-duplicates gone, what is left would look healthy: so what was written is measured, and what was dropped."""
    record = run(tmp_path, RepeatsFrom(3))
    assert len(record.generations) == 4
    crossed = {each.monitor for each in record.crossed}
    assert {"kept_share", "self_similarity", "distinct_3"} <= crossed
    last = record.generations[3]
    assert last.kept_words == 20 * MESSAGE_WORDS
    assert last.rejected == {"near-duplicate": last.written_words // MESSAGE_WORDS - 20}
    assert last.score == GenerationScore(0.16, 30.0, 1_000)


def test_recursion_dies_out_as_theory_says_and_the_human_floor_prevents_it(tmp_path: Path) -> None:
    """Words that a unigram generator draws at random from its own output die out (Wright & Fisher's drift)."""
    start = TextPool([], HUMAN[:500])

    def repeat(floor: float) -> LoopRecord:
        config = dataclasses.replace(CONFIG, generations=6, human_floor=floor)
        out = tmp_path / str(floor)
        return run(out, write_from_examples, config=config, start=start, filters=[])

    alone, floored = repeat(0.0), repeat(0.5)
    sizes = [each.diversity.vocabulary for each in alone.generations]
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert "vocabulary" in {each.monitor for each in alone.crossed}
    assert floored.crossed == () and len(floored.generations) == 7


def test_every_pool_has_its_share_of_human_words(tmp_path: Path) -> None:
    pools: list[TextPool] = []

    def keep_pool(pool: TextPool, generation: int) -> GenerationScore:
        pools.append(pool)
        return score_by_generation(pool, generation)

    filters = [LineFilter("word7", lambda text: "word7 " in text), NearDuplicates(1)]
    config = dataclasses.replace(CONFIG, human_floor=0.3)
    record = run(
        tmp_path, write_steadily, config=config, train_and_evaluate=keep_pool, filters=filters
    )
    assert pools[0] == START
    for pool, generation in zip(pools[1:], record.generations[1:], strict=True):
        written, human = (count_words(texts) for texts in (pool.written, pool.human))
        assert (written, human) == (generation.kept_words, generation.human_words)
        assert 0.3 <= human / (written + human) < 0.3 + MESSAGE_WORDS / (written + human)
        assert generation.diversity.human_share == human / (written + human)
        assert written + human <= CONFIG.words + MESSAGE_WORDS
        assert set(pool.human) <= set(HUMAN) and not any("word7 " in t for t in pool.written)
    assert sum(each.rejected.get("word7", 0) for each in record.generations) > 0
    assert pools[1].human != pools[2].human


def test_the_next_generator_learns_from_what_survived_and_the_human_text(tmp_path: Path) -> None:
    shown: list[list[str]] = []
    pools: list[TextPool] = []

    def note(examples: Sequence[str], words: int, seed: int) -> list[str]:
        shown.append(list(examples))
        return write_steadily(examples, words, seed)

    def keep_pool(pool: TextPool, generation: int) -> GenerationScore:
        pools.append(pool)
        return score_by_generation(pool, generation)

    config = dataclasses.replace(CONFIG, human_floor=0.3)
    run(tmp_path, note, config=config, train_and_evaluate=keep_pool)
    assert shown == [[*pool.written, *pool.human] for pool in pools[:-1]]


def test_diversity_is_that_of_what_was_written(tmp_path: Path) -> None:
    record = run(tmp_path, RepeatsFrom(1), config=dataclasses.replace(CONFIG, generations=1))
    assert record.generations[0].diversity == measure_diversity(
        [text.split() for text in START.texts], 0.0, CONFIG.sample_words
    )
    assert record.generations[1].diversity.vocabulary <= 20 * MESSAGE_WORDS


def test_costs_per_point_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Top-1 of 10, 12, 14 ... %; 30 s and 1,000 words of training each, 4,000 words written a generation."""
    record = run(tmp_path, write_steadily)
    writing = [each.write_seconds for each in record.generations]
    start, third = record.cost(0), record.cost(3)
    assert (start.seconds, start.words) == pytest.approx((30 / 10, 1_000 / 10))
    assert (start.seconds_gained, start.words_gained) == (None, None)
    assert third.seconds == pytest.approx((30 + writing[3]) / 16)
    assert third.words == pytest.approx(1_000 / 16)
    assert third.seconds_gained == pytest.approx((90 + sum(writing[1:4])) / 6)
    assert third.words_gained == pytest.approx(3 * 4_000 / 6)


def test_a_monitor_crosses_on_the_side_its_ratio_says() -> None:
    limits = [Limit("vocabulary", 0.85), Limit("self_similarity", 1.1)]
    first = {"vocabulary": 100.0, "self_similarity": 2.0}
    at_limit = {"vocabulary": 85.0, "self_similarity": 2.2}
    assert find_crossed(at_limit, first, limits) == ()
    beyond = {"vocabulary": 84.9, "self_similarity": 2.21}
    assert find_crossed(beyond, first, limits) == (
        Crossing("vocabulary", 84.9, 85.0),
        Crossing("self_similarity", 2.21, 1.1 * 2.0),
    )
    better = {"vocabulary": 200.0, "self_similarity": 1.0}
    assert find_crossed(better, first, limits) == ()
    healthy = measure_diversity([["a", "b"]], 0.3, 2)
    poorer = dataclasses.replace(healthy, human_share=0.2)
    value, first = (dataclasses.asdict(each) | {"kept_share": 1.0} for each in (poorer, healthy))
    assert [each.monitor for each in find_crossed(value, first, LIMITS)] == ["human_share"]


# A kill may fall on any rename: of the settings, of what was written, judged and scored, and of the record.
_DOOMED = """
import os, signal, sys
from pathlib import Path
left = int(sys.argv[2])
def watch(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
from tests.synthetic_text.test_loop import run_recursion
sys.addaudithook(watch)
run_recursion(Path(sys.argv[1]))
"""


def run_recursion(out: Path) -> LoopRecord:
    config = dataclasses.replace(CONFIG, generations=2, human_floor=0.3)
    return run(out, write_from_examples, config=config)


def test_a_loop_killed_at_any_moment_gives_the_same_record(tmp_path: Path) -> None:
    whole = run_recursion(tmp_path / "whole").as_json()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = tmp_path / "killed"
    for moment in (2, 1, 3):  # each time from where the one before was killed
        command = [sys.executable, "-c", _DOOMED, str(killed), str(moment)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert without_seconds(run_recursion(killed).as_json()) == without_seconds(whole)


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    done: list[str] = []

    def write(examples: Sequence[str], words: int, seed: int) -> list[str]:
        done.append("write")
        return write_steadily(examples, words, seed)

    def train(pool: TextPool, generation: int) -> GenerationScore:
        done.append(f"train {generation}")
        if done == ["train 0", "write", "train 1"]:
            raise Killed
        return score_by_generation(pool, generation)

    config = dataclasses.replace(CONFIG, generations=2)
    with pytest.raises(Killed):
        run(tmp_path, write, train_and_evaluate=train, config=config)
    run(tmp_path, write, train_and_evaluate=train, config=config)
    expected = ["train 0", "write", "train 1", "train 1", "write", "train 2"]
    assert done == expected
    run(tmp_path, write, train_and_evaluate=train, config=config)
    assert done == expected


def test_progress_counts_every_step(tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    run(
        tmp_path,
        write_steadily,
        config=dataclasses.replace(CONFIG, generations=2),
        on_step=lambda done, note: told.append((done, note)),
    )
    assert [done for done, _ in told] == [2, 3, 4, 5, 6, 7, 8, 3 * STEPS_A_GENERATION]
    assert told[1][1] == "generation 1: writing"


def test_no_text_is_in_the_record(tmp_path: Path) -> None:
    run(tmp_path, write_steadily, config=dataclasses.replace(CONFIG, human_floor=0.3))
    text = (tmp_path / "loop.json").read_text() + (tmp_path / "settings.json").read_text()
    assert "word1" not in text and "human1" not in text


def test_another_loops_folder_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, generations=1)
    run(tmp_path, write_steadily, config=config)
    changes: list[dict[str, Any]] = [
        {"config": dataclasses.replace(config, words=4_001)},
        {"human": HUMAN[1:]},
        {"filters": []},
        {"limits": LIMITS[1:]},
        {"start": TextPool([], START.written)},
    ]
    for change in changes:
        with pytest.raises(ValueError, match="begun with other settings or texts"):
            run(tmp_path, write_steadily, **({"config": config} | change))


def test_what_cannot_run_is_refused(tmp_path: Path) -> None:
    floor = dataclasses.replace(CONFIG, human_floor=0.5)
    with pytest.raises(
        ValueError, match=r"human text has 80 words where human_floor 0.5 takes 2000"
    ):
        run(tmp_path / "a", write_steadily, config=floor, human=HUMAN[:10])
    with pytest.raises(ValueError, match=r"generation 1: none of 500 messages passed {'all': 500}"):
        run(tmp_path / "b", write_steadily, filters=[LineFilter("all", lambda text: True)])
    with pytest.raises(ValueError, match="8 words are fewer than sample_words 2000"):
        run(
            tmp_path / "c",
            lambda examples, words, seed: ["one two three four five six seven eight"],
        )
    for changes, message in (
        ({"generations": 0}, "generations 0"),
        ({"words": 0}, "words 0"),
        ({"human_floor": 1.0}, "human_floor 1.0"),
        ({"sample_words": 0}, "sample_words 0"),
        ({"human_floor": 0.6, "sample_words": 1_601}, "1 to the 1600 words"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **changes)

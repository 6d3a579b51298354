"""The loop on the real network, tokenizer, TFLite file and validation users, all of them tiny."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from device_runtime.words import split_words
from model.tokenizer import train_tokenizer
from scripts.config import PopulationConfig, load_config
from scripts.loop import FewShotWriter, loop_stage
from scripts.pipeline import Run
from synthetic_text.corpora import load_corpus
from synthetic_text.llm import EndpointError
from synthetic_text.loop import LoopConfig, count_words
from tests.sources import SECRET_WORD, write_population, write_web_text

LOOP = LoopConfig(generations=2, words=1_000, human_floor=0.3, sample_words=600)


class ValidationOnly(Run):
    """A run that has no test users to look at, nor any to train on."""

    def split_population(self) -> tuple[dict[str, dict[str, list[str]]], dict[str, int]]:
        split, counts = super().split_population()
        return {"validation": split["validation"]}, counts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose text and tokenizer are there."""
    out = tmp_path_factory.mktemp("run")
    config = load_config("test")
    population = write_population(out / "population.jsonl", users=60, messages=8)
    text = config.text.model_copy(update={"words": 3_000})
    config = config.model_copy(
        update={"text": text, "population": PopulationConfig(messages=population)}
    )
    texts = load_corpus(write_web_text(out / "web.jsonl", articles=40)).sentences
    half = len(texts) // 2
    for folder in ("text", "tokenizer"):
        (out / folder).mkdir()
    for name, part in (("llm", texts[:half]), ("web_converted", texts[half:])):
        with gzip.open(out / "text" / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"words": split_words(t)}) + "\n" for t in part)
    (out / "text" / "display.json").write_text("{}")
    (out / "tokenizer" / "tokenizer.model").write_bytes(train_tokenizer(texts, config.tokenizer))
    words = dict.fromkeys(word for t in texts for word in split_words(t) if word.isalpha())
    (out / "tokenizer" / "vocabulary.txt").write_text("".join(f"{word}\n" for word in words))
    return ValidationOnly(out, config, "test")


def read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))["made"]


def test_the_network_writes_what_the_next_one_learns_from(run: Run, tmp_path: Path) -> None:
    stage = loop_stage(run, LOOP)
    stage.build(tmp_path)
    record = json.loads((tmp_path / "loop.json").read_text())
    generations = record["generations"]
    assert len(generations) == 3 or record["crossed"]
    lines = gzip.decompress((run.out / "text" / "web_converted.jsonl.gz").read_bytes()).splitlines()
    human = {" ".join(json.loads(line)["words"]) for line in lines}
    for number, generation in enumerate(generations[1:], start=1):
        kept, people, _ = read(tmp_path / f"generation-{number}" / "pool.json.gz")
        assert set(people) <= human and not set(kept) & human
        assert 0.3 <= count_words(people) / count_words([*kept, *people]) < 0.35
        assert generation["diversity"]["human_share"] >= 0.3
        assert generation["written_words"] >= LOOP.words_to_write
        assert 0 <= generation["score"]["top1"] < 0.5
        assert generation["score"]["words"] == 3_000
    assert len(list((tmp_path / "models").iterdir())) == len(generations)  # none trained twice

    # Killed before the last score was on disk: the same again, from the models that are there.
    last = generations[-1]["generation"]
    (tmp_path / f"generation-{last}" / "score.json.gz").unlink()
    (tmp_path / "loop.json").unlink()
    stage.build(tmp_path)
    again = json.loads((tmp_path / "loop.json").read_text())
    for other, generation in zip(again["generations"], generations, strict=True):
        assert other["diversity"] == generation["diversity"]
        assert other["score"]["top1"] == generation["score"]["top1"]
    secret = SECRET_WORD.encode()
    for path in tmp_path.rglob("*.json*"):
        content = path.read_bytes()
        assert secret not in (gzip.decompress(content) if path.suffix == ".gz" else content)


def test_loops_of_other_settings_are_other_stages(run: Run, tmp_path: Path) -> None:
    stage = loop_stage(run, LOOP)
    no_floor = LoopConfig(generations=2, words=1_000, human_floor=0.0, sample_words=600)
    assert loop_stage(run, no_floor).name != stage.name
    longer = LoopConfig(generations=3, words=1_000, human_floor=0.3, sample_words=600)
    assert loop_stage(run, longer).name == stage.name
    other = Run(run.out, run.config.model_copy(update={"seed": 9}), "test")
    assert stage.settings not in (
        loop_stage(run, longer).settings,
        loop_stage(other, LOOP).settings,
    )
    json.dumps(stage.settings)


EXAMPLES = [f"message {number} of the pool, long enough to be a copy" for number in range(100)]


class Model:
    """Answers by its seed alone: a message of its own and a copy of one it was shown; dies after `lives` answers."""

    def __init__(self, lives: int = 10**6) -> None:
        self.lives = lives
        self.asked: list[int] = []

    def __call__(self, prompt: str, /, **sampling: Any) -> str:
        seed = sampling["seed"]
        if len(self.asked) >= self.lives:
            raise EndpointError("gone")
        self.asked.append(seed)
        shown = prompt.splitlines()[2:]
        assert set(shown) <= set(EXAMPLES) and len(set(shown)) == 24
        return f"{shown[seed % 24]}\n\nnew words from seed {seed}\n"


def test_a_language_model_goes_on_from_examples_and_after_its_death(tmp_path: Path) -> None:
    model = Model()
    whole = FewShotWriter(model, tmp_path / "whole")(EXAMPLES, 500, seed=3)
    assert len(set(whole)) == len(whole) >= 100  # five words each
    assert set(whole) <= {f"new words from seed {seed}" for seed in model.asked}
    assert FewShotWriter(Model(), tmp_path / "other")(EXAMPLES, 500, seed=4) != whole

    dying, heir = Model(lives=40), Model()
    with pytest.raises(EndpointError, match="gone"):
        FewShotWriter(dying, tmp_path / "killed")(EXAMPLES, 500, seed=3)
    assert FewShotWriter(heir, tmp_path / "killed")(EXAMPLES, 500, seed=3) == whole
    assert len(heir.asked) <= len(model.asked) - 32  # two rounds of 16 were logged


def test_a_language_model_that_only_copies_is_an_error(tmp_path: Path) -> None:
    def copy(prompt: str, /, **sampling: Any) -> str:
        return prompt.splitlines()[-1]

    with pytest.raises(EndpointError, match="192 answers in a row held nothing new"):
        FewShotWriter(copy, tmp_path)(EXAMPLES, 500, seed=3)

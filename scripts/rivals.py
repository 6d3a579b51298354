"""Models put beside a run's arms, each in a stage of its own: what it scores, and the bytes it takes."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_runtime.keyboard import Keyboard
from eval.benchmark import FLOAT, Ngrams
from eval.targets import EvaluationVocabulary
from scripts.pipeline import Run
from scripts.progress import show_progress
from scripts.stages import Stage
from scripts.training import quieten_tensorflow

if TYPE_CHECKING:
    from eval.next_word import WordPredictor

FOLDER = "benchmark"
"""Below a run's folder, of the rivals and of the table."""
_SCORING = ("eval/next_word.py", "eval/targets.py", "device_runtime", "scripts/rivals.py")


@dataclasses.dataclass(frozen=True)
class NgramRival:
    """An n-gram model of what an arm reads, each message once and as it was meant.

    Attributes:
        run: whose text, vocabulary and test users it has.
        text: the arm.
        spec: which model.
    """

    run: Run
    text: str
    spec: Ngrams

    @property
    def title(self) -> str:
        """For people."""
        order, cutoffs = self.spec.order, self.spec.cutoffs
        kind = f"KenLM {order}-gram" if cutoffs else f"stupid back-off {order}-gram"
        if order == 1:
            kind = "words by frequency"
        cut = f" cut {' '.join(map(str, cutoffs))}" if cutoffs and any(cutoffs) else ""
        return f"{kind}{cut}, {self.text} text"

    def stage(self, name: str) -> Stage:
        """Its counts in `scores.npz` and its bytes in `size.json`."""
        run = self.run
        settings = run.settings("evaluation", "population") | run.population_facts()
        settings |= {"recipe": dataclasses.asdict(run.recipe(self.text))}
        settings |= {"ngrams": self.spec.model_dump(mode="json")}
        rooms = ("eval/kneser_ney.py", "eval/kenlm_model.py", "eval/baselines.py", *_SCORING)
        needs = (run.contamination, run.tokenizer)
        return Stage(f"{FOLDER}/{name}", settings, rooms, needs, self._build)

    def open(self, folder: Path) -> "WordPredictor":
        """The model that `_build` put there, or, without a file of its own, counted anew."""
        from eval.baselines import NgramModel
        from eval.kenlm_model import KenlmModel

        vocabulary = EvaluationVocabulary.load(self.run.vocabulary)
        if self.spec.cutoffs is None:
            return NgramModel(map(" ".join, self._read()), vocabulary, self.spec.order)
        return KenlmModel(folder / "model.arpa", vocabulary)

    def _build(self, folder: Path) -> None:
        from eval.baselines import replace_unknown
        from eval.kneser_ney import estimate_kneser_ney, write_arpa

        if self.spec.cutoffs is not None:
            vocabulary = EvaluationVocabulary.load(self.run.vocabulary)
            messages = (replace_unknown(words, vocabulary) for words in self._read())
            table = estimate_kneser_ney(messages, self.spec.order, self.spec.cutoffs)
            write_arpa(table, folder / "model.arpa")
            del table
        model: Any = self.open(folder)
        _score(self.run, self.title, model, model.size_bytes, folder)

    def _read(self) -> list[list[str]]:
        from scripts.pool_files import read_pool

        recipe = self.run.recipe(self.text)
        return [
            message.words
            for pool in recipe.shares
            for message in read_pool(self.run.out / "text" / f"{pool}.jsonl.gz")
            if not (recipe.deduplicate and message.repeat)
        ]


def float_stage(run: Run) -> Stage:
    """The same of the float network of our arm after federated learning."""

    def build(folder: Path) -> None:
        quieten_tensorflow()
        from device_runtime.bundle import MODEL
        from eval.parity import FloatModel
        from model.checkpoint import load_weights

        weights = load_weights(run.out / run.federated("synthetic").name / "weights.npz")
        bundle = run.out / run.exported("synthetic", "federated").name / "bundle"
        size = measure_bundle_bytes(bundle) - (bundle / MODEL).stat().st_size
        size += sum(weight.nbytes for weight in weights)
        _score(run, FLOAT, FloatModel(weights, run.load_tokenizer()), size, folder)

    settings = run.settings("evaluation", "population") | run.population_facts()
    rooms = ("eval/parity.py", "model/network.py", *_SCORING)
    needs = (run.contamination, run.exported("synthetic", "federated"))
    return Stage(f"{FOLDER}/{FLOAT}", settings, rooms, needs, build)


def bundle_stage(run: Run, name: str, bundle: Path) -> Stage:
    """The same of another keyboard bundle."""
    from device_runtime.bundle import MANIFEST

    Keyboard.open(bundle)  # a fault of the bundle is told here
    settings = run.settings("evaluation", "population") | run.population_facts()
    settings["bundle"] = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()

    def build(folder: Path) -> None:
        _score(run, name, Keyboard.open(bundle), measure_bundle_bytes(bundle), folder)

    return Stage(f"{FOLDER}/bundle", settings, _SCORING, (run.contamination, run.tokenizer), build)


def _score(run: Run, title: str, model: "WordPredictor", size_bytes: int, folder: Path) -> None:
    import numpy as np

    from eval.next_word import score_users

    users = list(run.split_population()[0]["test"].values())
    vocabulary = EvaluationVocabulary.load(run.vocabulary)
    with show_progress(title, len(users)) as advance:
        limit = run.config.evaluation.max_targets or None
        scores = score_users(lambda: model, users, vocabulary, limit, on_user=advance)
    np.savez(folder / "scores.npz", **vars(scores))
    (folder / "size.json").write_text(json.dumps({"bytes": size_bytes}), "utf-8")


def measure_bundle_bytes(bundle: Path) -> int:
    """Bytes of all files of a bundle."""
    return sum(path.stat().st_size for path in bundle.iterdir())

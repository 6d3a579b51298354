"""Folders of runs as a comparison reads them: results, scores of made-up users, vocabulary, certificate."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from eval.comparison import compare_scores
from eval.next_word import CLASSES, WordScores
from tests.eval.test_report import RESULTS

USERS = 60
SHARES = {
    ("web", "pretrained"): 0.11,
    ("web", "federated"): 0.15,
    ("synthetic", "pretrained"): 0.16,
    ("synthetic", "federated"): 0.18,
}


def make_scores(share: float, seed: int, targets: int = 100) -> WordScores:
    """Of users who are asked the same words whatever the share and the seed."""
    asked = np.random.default_rng(7).integers(targets // 2, targets, USERS)
    known = asked - 5
    rng = np.random.default_rng([seed, int(share * 1e6)])
    first = rng.binomial(known, share)
    among = first + rng.binomial(known - first, share / 2)
    by_class = np.zeros((USERS, len(CLASSES), 3), np.int64)
    return WordScores(asked, known, first, among, first, among, by_class)


def write_run(
    folder: Path,
    seed: int = 1,
    targets: int = 100,
    gain: float = 0.0,
    vocabulary: str = "the\nyou\n",
    test: str = "f0" * 32,
) -> Path:
    """A run whose synthetic arm after federated learning is right `gain` more often than SHARES say."""
    scores = {
        (arm, step): make_scores(share + gain * ((arm, step) == ("synthetic", "federated")), seed, targets)
        for (arm, step), share in SHARES.items()
    }  # fmt: skip
    results = json.loads(json.dumps(RESULTS))
    for (arm, step), score in scores.items():
        path = folder / "evaluated" / f"{arm}-{step}"
        path.mkdir(parents=True)
        fields = dataclasses.fields(score)
        np.savez(
            path / "scores.npz", **{field.name: getattr(score, field.name) for field in fields}
        )
        results["arms"][arm][step] = {
            name: dataclasses.asdict(interval) for name, interval in score.intervals(1).items()
        }
    for step in ("pretrained", "federated"):
        lift = compare_scores([scores["web", step]], [scores["synthetic", step]], 1).relative
        results["lift"][step] = {"relative": lift.value, "low": lift.low, "high": lift.high}
    results["config"]["federated"]["rounds"] = 100 + seed
    (folder / "results.json").write_text(json.dumps(results), "utf-8")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocabulary.txt").write_text(vocabulary, "utf-8")
    (folder / "contamination").mkdir()
    sets = [{"name": "validation", "sha256": "0"}, {"name": "test", "sha256": test}]
    (folder / "contamination" / "certificate.json").write_text(json.dumps({"sets": sets}), "utf-8")
    return folder

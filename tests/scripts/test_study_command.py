"""A study of two seeds on small files: equal words and vocabulary for all arms, figures from the runs' own scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.config import load_config
from tests.scripts.command import run_keyfed
from tests.scripts.conftest import FinishedRun

ARMS = {
    "web_all",
    "synthetic",
    "synthetic_adapted",
    "real_chat",
}  # news alone is not among the sources


@pytest.fixture(scope="module")
def study(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    second = out.with_name("second.jsonl")
    lines = [{"user": f"u{i}", "text": "i will see you at home later"} for i in range(5)]
    second.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    done = run_keyfed(
        *("study", "--preset", finished.preset, "--seeds", "2", "--ablation-seeds", "0"),
        *("--second-test", second, "--out", out),
    )
    assert done.returncode == 0, done.stderr
    return out


def test_every_arm_of_both_seeds_is_in_the_study_and_read_the_same(
    study: Path, finished: FinishedRun
) -> None:
    results = json.loads((study / "study.json").read_text("utf-8"))
    assert set(results["test"]["arms"]) == set(results["second_test"]["arms"]) == ARMS
    words = load_config(str(finished.preset)).text.words
    for arm in results["test"]["arms"].values():
        assert set(arm["top1_by_seed"]) == {"1", "2"}
        assert arm["words_read"] == pytest.approx(words, rel=0.2)
    assert results["second_test"]["users"] == 5
    assert results["contamination"]["passed"] is True
    assert results["adaptation"]["epsilon"] == pytest.approx(8, rel=1e-3)
    assert (study / "study.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_pooled_figure_is_that_of_all_seeds_counts(study: Path) -> None:
    results = json.loads((study / "study.json").read_text("utf-8"))
    hits = targets = 0
    for seed in (1, 2):
        with np.load(study / f"seed-{seed}/evaluated/synthetic-pretrained/scores.npz") as scores:
            hits += scores["top1_in"].sum()
            targets += scores["in_vocab"].sum()
    assert results["test"]["arms"]["synthetic"]["top1"]["value"] == pytest.approx(hits / targets)

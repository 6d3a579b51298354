"""`keyfed benchmark` on a finished run: its table, its resumption, and the runs that its protocol refuses."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from device_runtime.words import is_word, split_words
from eval.benchmark import Protocol
from eval.targets import EvaluationVocabulary
from scripts.benchmark import check_settings, check_vocabulary, read_benchmark
from scripts.config import load_config
from scripts.keyfed import app
from scripts.pipeline import Run
from scripts.pool_files import read_pool
from tests.scripts.command import assert_refused, run_keyfed
from tests.scripts.conftest import FinishedRun
from tests.sources import SECRET_USER, SECRET_WORD


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A copy of the finished run, and a protocol that fits it."""

    run: Run
    protocol: Path
    table: dict
    stderr: str

    def command(self, *more: str | Path) -> list[str | Path]:
        return [
            *("benchmark", "--run", self.run.out, "--preset", self.run.preset),
            *("--protocol", self.protocol, "--without", "kenlm", "--json", *more),
        ]


@pytest.fixture(scope="module")
def measured(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("benchmark") / "run"
    shutil.copytree(finished.out, out)
    config = load_config(str(finished.preset))
    words = EvaluationVocabulary.load(out / "tokenizer" / "vocabulary.txt")
    asked = json.loads((out / "results.json").read_text("utf-8"))["evaluation"]
    file = hashlib.sha256(finished.population.read_bytes()).hexdigest()
    split = {"rotation": 0, "max_messages": 10, "train_share": 0.7, "validation_share": 0.1}
    budget = {"words": 24_000, "steps": 240, "private_adaptation": False}
    protocol = {
        "version": 7,
        "facts": {
            "population": {"source": "a file", "sha256": file, "store": False},
            "split": split,
            "test": {"users": asked["users"], "targets": asked["targets"]},
            "metric": {"max_targets": 0},
            "vocabulary": {"words": len(words), "sha256": words.sha256},
            "budget": budget | {"rounds": 3, "cohort": 6, "noise_multiplier": 0.1},
            "seeds": {"run": config.seed},
        },
        "figures": ["top1", "top3", "top1_all", "top3_all"],
        "bootstrap_seed": 1,
        "ngrams": {
            "kenlm": {"order": 3, "cutoffs": [0, 0, 1]},
            "backoff": {"order": 2},
            "unigram": {"order": 1},
        },
        "latency_repeats": 1,
    }
    path = out.parent / "protocol.json"
    path.write_text(json.dumps(protocol), "utf-8")
    bench = Benchmark(Run(out, config, str(finished.preset)), path, {}, "")
    done = run_keyfed(*bench.command("--bundle", finished.bundle, "--name", "again"))
    assert done.returncode == 0, done.stderr
    return dataclasses.replace(bench, table=json.loads(done.stdout), stderr=done.stderr)


def test_the_table_has_every_row_and_says_that_kenlm_is_missing(measured: Benchmark) -> None:
    table = measured.table
    assert not table["complete"] and table["left_out"] == ["kenlm_web", "kenlm_synthetic"]
    rows = {row["name"]: row for row in table["rows"]}
    rivals = {f"{name}_{text}" for name in ("backoff", "unigram") for text in ("web", "synthetic")}
    arms = {f"{arm}_{step}" for arm in ("web", "synthetic") for step in ("pretrained", "federated")}
    assert set(rows) == {*arms, *rivals, "float", "again"}
    results = measured.run.read_json("results.json")
    for name in arms:
        arm, step = name.split("_")
        figures = results["arms"][arm][step]
        assert {key: rows[name][key] for key in ("top1", "top1_all")} == {
            key: figures[key] for key in ("top1", "top1_all")
        }
    assert rows["synthetic_federated"]["bytes"] == results["device"]["bytes"]
    assert rows["again"]["top3"] == rows["synthetic_federated"]["top3"]  # the same bundle
    assert set(rows["again"]["difference"].values()) == {0}
    assert rows["float"]["bytes"] > rows["synthetic_federated"]["bytes"]
    assert rows["float"]["p50_ms"] is None
    assert all(row["p50_ms"] > 0 for name, row in rows.items() if name != "float")
    assert table["protocol"]["sha256"] == Protocol.load(measured.protocol).sha256
    assert json.loads((measured.run.out / "benchmark.json").read_text("utf-8")) == table


def test_rows_by_frequency_are_the_most_frequent_words(measured: Benchmark) -> None:
    """Its first suggestion is right as often as people write the word that its text has most."""
    vocabulary = EvaluationVocabulary.load(measured.run.vocabulary)
    counts = Counter(
        word
        for pool in measured.run.recipe("synthetic").shares
        for message in read_pool(measured.run.out / "text" / f"{pool}.jsonl.gz")
        for word in message.words
        if word in vocabulary
    )
    first = min(counts, key=lambda word: (-counts[word], word))
    asked = [
        word
        for messages in measured.run.split_population()[0]["test"].values()
        for text in messages
        for word in split_words(text)
        if is_word(word) and word in vocabulary
    ]
    [row] = [row for row in measured.table["rows"] if row["name"] == "unigram_synthetic"]
    assert row["top1"]["value"] == pytest.approx(asked.count(first) / len(asked))
    with np.load(measured.run.out / "benchmark" / "unigram_synthetic" / "scores.npz") as scores:
        assert scores["in_vocab"].sum() == len(asked)


def test_it_goes_on_where_it_was_and_the_report_can_take_it(measured: Benchmark) -> None:
    assert "benchmark/backoff_web ..." in measured.stderr
    shutil.rmtree(measured.run.out / "benchmark" / "table")
    done = run_keyfed(*measured.command())
    assert done.returncode == 0, done.stderr
    assert "benchmark/table ..." in done.stderr and "backoff" not in done.stderr
    table = json.loads(done.stdout)
    without = [row for row in measured.table["rows"] if row["name"] != "again"]
    for row, before in zip(table["rows"], without, strict=True):
        assert row["top3"] == before["top3"] and row["bytes"] == before["bytes"]
    assert read_benchmark(measured.run) == table
    other = measured.run.config.model_copy(update={"seed": 2})
    assert read_benchmark(dataclasses.replace(measured.run, config=other)) is None
    assert read_benchmark(dataclasses.replace(measured.run, out=measured.protocol.parent)) is None


def test_nothing_private_is_in_what_it_wrote(measured: Benchmark) -> None:
    # A model holds public text alone; its scores hold counts.
    folders = measured.run.out / "benchmark"
    content = b"".join(path.read_bytes() for path in folders.rglob("*") if path.is_file())
    assert content and SECRET_WORD.encode() not in content and SECRET_USER.encode() not in content
    assert SECRET_WORD not in measured.stderr and SECRET_USER not in measured.stderr


def test_other_runs_are_refused_by_the_field(measured: Benchmark) -> None:
    protocol = Protocol.load(measured.protocol)
    check_settings(measured.run, protocol)
    check_vocabulary(measured.run, protocol)
    config = measured.run.config
    for section, update, said in (
        ("population", {"rotation": 1}, "split.rotation is 0 there and 1"),
        ("evaluation", {"max_targets": 9}, "metric.max_targets is 0 there and 9"),
        ("text", {"words": 30_000}, "budget.words is 24000 there and 30000"),
        ("federated", {"rounds": 4}, "budget.rounds is 3 there and 4"),
        ("adaptation", {"enabled": True}, "budget.private_adaptation is False there and True"),
        ("population", {"messages": None}, "population.source is a file there"),
    ):
        changed = getattr(config, section).model_copy(update=update)
        run = dataclasses.replace(measured.run, config=config.model_copy(update={section: changed}))
        with pytest.raises(ValueError, match=said):
            check_settings(run, protocol)
    facts = protocol.facts | {"vocabulary": {"words": 1_000, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match=r"vocabulary\.sha256 is 0000"):
        check_vocabulary(measured.run, protocol.model_copy(update={"facts": facts}))


def test_what_it_cannot_do_is_one_line(measured: Benchmark) -> None:
    out = str(measured.run.out)
    own = ("--run", out, "--preset", measured.run.preset)
    assert_refused(
        run_keyfed("benchmark", *own, "--without", "kenlm"),  # by eval/protocol.json
        f"protocol {Protocol.load().version}: population.source is chitchat-dataset 0.9.0 there and a file",
    )
    for more, said in (
        (("--submit", "mine"), "only a complete table"),
        (("--without", "web"), "web: only kenlm can be left out"),
        (("--name", "float"), "is a row of the protocol"),
        (("--protocol", out), "cannot be read"),
    ):
        refused = CliRunner().invoke(app, list(map(str, measured.command(*more))))
        assert isinstance(refused.exception, ValueError) and said in str(refused.exception)
    for name, said in (("keyfed quick", "in the leaderboard already"), ("a/b", "letters, digits")):
        refused = CliRunner().invoke(app, ["benchmark", "--run", out, "--submit", name])
        assert isinstance(refused.exception, ValueError) and said in str(refused.exception)
    hidden = Path(out).parent / "hidden"
    (hidden / "kenlm").mkdir(parents=True)
    (hidden / "kenlm" / "__init__.py").write_text("raise ModuleNotFoundError('kenlm')")
    places = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    assert_refused(
        run_keyfed("benchmark", *own, environment={"PYTHONPATH": places}),
        "kenlm is missing: run ./scripts/setup bench",
        "--without kenlm",
    )

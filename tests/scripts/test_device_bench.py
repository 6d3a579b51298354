"""`keyfed bench device` and `keyfed bench quantisation`: their figures, and the rival they race."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from device_runtime.decoder import Interpreter
from model.quantisation import QUANTISATIONS
from scripts.fused_model import CONTEXT_TOKENS, export_fused, race_fused
from tests.scripts.command import run_keyfed
from tests.scripts.conftest import FinishedRun


def test_bench_device_prints_one_object(finished: FinishedRun) -> None:
    arguments = ("--bundle", finished.bundle, "--keystrokes", "20", "--warm-up", "0", "--json")
    done = run_keyfed("bench", "device", *arguments)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["bundle_bytes"] == sum(file.stat().st_size for file in finished.bundle.iterdir())
    assert figures["keystroke_p95_ms"] >= figures["keystroke_p50_ms"] > 0
    assert figures["environment"]["threads"] == 1
    assert figures["environment"]["interpreter"].startswith("tflite-runtime 2.14")


def test_bench_device_needs_a_bundle(tmp_path: Path) -> None:
    done = run_keyfed("bench", "device", "--bundle", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("keyfed: manifest.json: missing")


def test_a_day_is_typed_from_the_committed_chats(finished: FinishedRun) -> None:
    arguments = ("--bundle", finished.bundle, "--day", "--keystrokes", "60", "--json")
    done = run_keyfed("bench", "device", *arguments)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["keystrokes"] == 60 and len(figures["resident_bytes"]) == 10
    done = run_keyfed("bench", "device", *arguments, "--against-fused")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--day or --against-fused" in done.stderr


def test_a_kind_that_is_none_is_refused(tmp_path: Path) -> None:
    done = run_keyfed("export", "--out", tmp_path / "run", "--quantisation", "int4")
    assert done.returncode == 2
    assert "'int4': give one of mixed, dynamic, float16, int8" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_fused_rival_reads_all_of_its_context_in_one_operation() -> None:
    model = export_fused(vocabulary=300, width=16, units=48)
    interpreter = Interpreter(model_content=model)
    operations = Counter(details["op_name"] for details in interpreter._get_ops_details())
    assert operations["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert operations["FULLY_CONNECTED"] == 2  # the projection and the pieces
    read = interpreter.get_signature_runner("read")

    def logits(tokens: list[int]) -> np.ndarray:
        return read(tokens=np.array([tokens], np.int32))["logits"][0]

    tokens = list(range(7, 7 + CONTEXT_TOKENS))
    whole = logits(tokens)
    assert whole.shape == (300,)
    for place in range(CONTEXT_TOKENS):
        assert np.abs(logits([*tokens[:place], 250, *tokens[place + 1 :]]) - whole).max() > 0


def test_the_race_says_how_many_times_faster(finished: FinishedRun) -> None:
    race = race_fused(finished.bundle, words=10)
    assert race["fused_ratio"] == pytest.approx(race["fused_p50_ms"] / race["ours_p50_ms"])


@pytest.mark.slow
def test_bench_quantisation_compares_every_kind(finished: FinishedRun) -> None:
    arguments = ("--out", finished.out, "--preset", finished.preset, "--positions", "60", "--json")
    done = run_keyfed("bench", "quantisation", *arguments)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["positions"] == 60
    for kind in QUANTISATIONS:
        measured = figures[kind]
        lost = 100 * (figures["float_top1"] - measured["top1"])
        assert measured["top1_lost"] == pytest.approx(lost)
        assert measured["step_p50_ms"] > 0
    assert figures["float16"]["top3_agreement"] >= 0.95
    assert figures["mixed"]["top3_agreement"] >= 0.95
    sizes = {kind: figures[kind]["model_bytes"] for kind in QUANTISATIONS}
    assert sizes["dynamic"] < sizes["float16"]

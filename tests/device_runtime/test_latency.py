import json
from pathlib import Path

import pytest

from device_runtime.bundle import BundleError
from device_runtime.latency import describe_board, measure_latency
from device_runtime.typed_text import MESSAGES
from device_runtime.words import split_words


def test_measures_a_bundle(bundle_path: Path) -> None:
    report = measure_latency(bundle_path, keystrokes=60, warm_up=2)
    for times in (report.step, report.word, report.suggest, report.keystroke):
        assert 0 < times.p50_ms <= times.p95_ms <= times.p99_ms
    # Starting Python and reading the model alone takes longer than one step of a tiny model.
    assert report.cold_start_ms > report.step.p50_ms
    assert report.files_bytes == {file.name: file.stat().st_size for file in bundle_path.iterdir()}
    assert report.bundle_bytes == sum(report.files_bytes.values())
    # A process with TensorFlow, such as this one, has several times as much.
    assert 10 * 2**20 < report.peak_rss_bytes < 150 * 2**20


def test_figures_are_those_of_the_design(bundle_path: Path) -> None:
    figures = measure_latency(bundle_path, keystrokes=5, warm_up=0).figures()
    assert json.loads(json.dumps(figures)) == figures
    assert {
        "step_p50_ms",
        "step_p99_ms",
        "suggest_p95_ms",
        "cold_start_ms",
        "peak_rss_bytes",
        "bundle_bytes",
    } <= figures.keys()
    assert figures["environment"] == describe_board() | {"threads": 1}


def test_typed_text_is_words_as_the_runtime_has_them() -> None:
    for message in MESSAGES:
        assert split_words(message) == message.split()


def test_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^manifest\.json: missing"):
        measure_latency(tmp_path, keystrokes=1, warm_up=0)
    with pytest.raises(ValueError, match="keystrokes 0 and threads 1 must be >= 1, warm_up -1"):
        measure_latency(tmp_path, keystrokes=0, warm_up=-1)

import json
from pathlib import Path

import pytest

from device_runtime.bundle import BundleError
from device_runtime.latency import measure_latency


def test_measures_a_bundle(bundle_path: Path) -> None:
    report = measure_latency(bundle_path, calls=20, warm_up=2)
    assert 0 < report.step_p50_ms <= report.step_p99_ms
    assert 0 < report.suggest_p50_ms <= report.suggest_p95_ms
    # Starting Python and reading the model alone takes longer than one step of a tiny model.
    assert report.cold_start_ms > report.step_p50_ms
    assert report.bundle_bytes == sum(file.stat().st_size for file in bundle_path.iterdir())
    # A process with TensorFlow, such as this one, has several times as much.
    assert 10 * 2**20 < report.peak_rss_bytes < 150 * 2**20
    assert json.loads(report.to_json())["bundle_bytes"] == report.bundle_bytes


def test_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^manifest\.json: missing"):
        measure_latency(tmp_path, calls=1, warm_up=0)

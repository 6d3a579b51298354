"""`keyfed bench noise` measures every mechanism, and goes on where it was killed."""

import json

import numpy as np
import pytest

from federated.strategies import MECHANISMS
from scripts import plan
from scripts.config import load_config
from scripts.pipeline import Run
from scripts.plan import PointLog


@pytest.fixture
def measured(finished, tmp_path, monkeypatch):
    """Points of the test preset's run at next to no noise and at far too much, twice: whole, and after a kill."""
    monkeypatch.setattr(plan, "RATIOS", (1e-6, 10.0))
    run = Run(finished.out, load_config(str(finished.preset)), str(finished.preset))
    whole = plan.measure_points(run, "synthetic", tmp_path / "noise")
    log = tmp_path / "noise" / "points.jsonl"
    lines = log.read_text("utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:-2]) + lines[-2][:20], "utf-8")
    return whole, plan.measure_points(run, "synthetic", tmp_path / "noise"), lines


def test_every_mechanism_is_measured_and_noise_costs_accuracy(measured):
    whole, resumed, _ = measured
    points = {(p["mechanism"], p["noise_to_cohort"]): p for p in whole["points"]}
    assert set(points) == {(m, r) for m in MECHANISMS for r in (1e-6, 10.0)}
    quiet = [points[m, 1e-6]["top1"] for m in MECHANISMS]
    assert np.ptp(quiet) < 0.01  # without noise all mechanisms are the same training
    assert all(points[m, 10.0]["top1"] < points[m, 1e-6]["top1"] for m in MECHANISMS)
    assert resumed == whole


def test_points_of_other_settings_are_not_used(tmp_path):
    path = tmp_path / "points.jsonl"
    PointLog(path, {"rounds": 3}).append({"mechanism": "tree", "top1": 0.1})
    assert PointLog(path, {"rounds": 4}).points == []
    assert path.read_text("utf-8") == ""
    PointLog(path, {"rounds": 4}).append({"mechanism": "blt", "top1": 0.2})
    again = PointLog(path, {"rounds": 4})
    assert again.find({"mechanism": "blt"}) == {"mechanism": "blt", "top1": 0.2}
    assert again.find({"mechanism": "tree"}) is None
    assert len(list(map(json.loads, path.read_text("utf-8").splitlines()))) == 1

"""The race of `keyfed bench simulate`: all contestants do the same work, and what is measured is what they used."""

import os
import subprocess
import sys
import uuid

import numpy as np
import psutil
import pytest
import tensorflow as tf

from federated.engines import create_engine
from federated.local_training import LocalTraining
from model.network import run_rows
from scripts import simulation_contestants
from scripts.simulation_contestants import Workload, build_plain_loop, cpu_seconds
from scripts.simulation_speed import Turn, measure_simulation, start_contestant, summarise

TINY = Workload(devices=3, batches=2, rows=2, tokens=5, vocabulary=40, embedding=8, units=12)


@pytest.mark.parametrize("clip_norm", [5e-3, 1e3])
def test_the_plain_loop_computes_what_ours_does(monkeypatch, clip_norm) -> None:
    monkeypatch.setattr(simulation_contestants, "_CLIP_NORM", clip_norm)
    devices = TINY.draw_devices(3)
    engine = create_engine("local", LocalTraining(simulation_contestants._LEARNING_RATE, clip_norm))
    sums, metrics = engine.run_round(
        TINY.initial_weights(), [(devices, np.full(3, TINY.batches, np.int32))]
    )
    assert metrics[3] == (3 if clip_norm < 1 else 0)
    for plain, ours in zip(build_plain_loop(TINY)(devices), sums, strict=True):
        np.testing.assert_allclose(plain, ours, atol=1e-6)
        assert np.abs(ours).max() > 1e-4


def test_operations_are_those_of_the_graphs_products() -> None:
    """Forward by TensorFlow's graph; each product has two more of its size in the gradient."""
    tokens = tf.TensorSpec([TINY.rows, TINY.tokens], tf.int32)
    weights = [tf.TensorSpec(w.shape, tf.float32) for w in TINY.initial_weights()]

    @tf.function(input_signature=[weights, tokens])
    def predict(weights, tokens):
        return tf.matmul(run_rows(weights, tokens)[0], weights[0], transpose_b=True)

    forward = 0
    for op in predict.get_concrete_function().graph.get_operations():
        if op.type.endswith(("MatMul", "MatMulV2")):
            inner = op.inputs[0].shape[-1]
            forward += 2 * inner * op.outputs[0].shape.num_elements()
    assert 3 * forward * 3 * TINY.batches == TINY.flops(3)


def test_every_row_is_full() -> None:
    """Else contestants that skip nothing would do more."""
    devices = TINY.draw_devices(4)
    assert devices.shape == (4, 2, 2, 2, 5) and devices.dtype == np.int32
    assert (devices > 0).all() and devices.max() < TINY.vocabulary
    assert np.array_equal(TINY.draw_devices(2), TINY.draw_devices(2))


def test_cpu_seconds_count_running_and_ended_child_processes() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = cpu_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = cpu_seconds()
        child.communicate("\n")
    assert running - before >= 0.28  # they come in steps of 10 ms
    assert cpu_seconds() - before >= 0.28


def test_figures_follow_from_the_turns() -> None:
    """The second repeat fell into a slow minute of the machine, which no ratio shows."""
    ours = {"keyfed": (2.0, 1.0), "keyfed_one_worker": (3.6, 1.0), "keyfed_local": (3.5, 0.8)}
    theirs = {
        "stock_tff": (10.0, 6.0),
        "stock_tff_same_network": (8.0, 5.0),
        "plain_loop": (4.0, 3.0),
        "matmul_peak": (1.1, 0.4),
    }
    turns = {
        name: [Turn(slow * wall, slow * cpu) for slow in (1, 7, 1.5)]
        for name, (wall, cpu) in (ours | theirs).items()
    }
    figures = summarise(turns, {20: [Turn(4.0, 8.0)] * 3, 200: [Turn(40.0, 60.0)] * 3})
    expected = {
        "keyfed_s_per_round": 3.0,
        "keyfed_cpu_s_per_round": 1.5,
        "stock_tff_s_per_round": 15.0,
        "plain_loop_s_per_round": 6.0,
        "plain_loop_cpu_s_per_round": 4.5,
        "ratio_stock_tff": 5.0,
        "ratio_plain_loop": 2.0,
        "ratio_plain_loop_cpu": 3.0,
        "two_workers_speedup": 1.8,
        "matmul_peak_share": 0.4,
        "matmul_peak_share_local": 0.5,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["device_wall_s"] == pytest.approx({"20": 0.2, "200": 0.2})
    assert figures["device_cpu_s"] == pytest.approx({"20": 0.4, "200": 0.3})


def test_a_race_of_all_leaves_no_process_behind(monkeypatch) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("KEYFED_RACE", mark)
    figures = measure_simulation(TINY, 1, (3, 6))
    for name in ("stock_tff", "plain_loop"):
        ratio = figures[f"{name}_cpu_s_per_round"] / figures["keyfed_cpu_s_per_round"]
        assert figures[f"ratio_{name}_cpu"] == pytest.approx(ratio)
    assert figures["device_wall_s"].keys() == {"3", "6"}
    assert not [p.pid for p in psutil.process_iter() if _has_mark(p, mark)]


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("KEYFED_RACE") == mark
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_a_contestant_that_ends_is_named() -> None:
    with (
        start_contestant("nobody", TINY) as contestant,
        pytest.raises(RuntimeError, match=r"bench simulate: nobody ended \(1\)"),
    ):
        contestant.run(1)

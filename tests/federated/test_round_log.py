"""The log of a killed and resumed run is the undisturbed run's, in both files, and nobody's text is in it."""

import csv
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from federated.round_log import RoundLog, measure_signal_to_noise


def row(number: int) -> dict[str, float | None]:
    accuracy = number / 7 if number % 2 else None
    return {
        "round": number,
        "loss": 5 / number,
        "selected_rows_small": number,
        "accuracy": accuracy,
    }


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "rounds.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard itself reads them."""
    accumulator = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags}


def write(folder: Path, rounds: range) -> None:
    log = RoundLog(folder)
    for number in rounds:
        log.append(row(number))
    log.close()


def test_a_row_is_a_line_and_an_event(tmp_path) -> None:
    write(tmp_path, range(1, 5))
    assert (tmp_path / "rounds.csv").read_text("utf-8") == (
        "round,loss,selected_rows_small,accuracy\n"
        "1,5,1,0.14285714\n2,2.5,2,\n3,1.6666667,3,0.42857143\n4,1.25,4,\n"
    )
    events = read_events(tmp_path)
    assert events.keys() == {"round/loss", "selected/rows_small", "round/accuracy"}
    assert [step for step, _ in events["round/loss"]] == [1, 2, 3, 4]
    assert [value for _, value in events["round/loss"]] == pytest.approx([5, 2.5, 5 / 3, 1.25])
    assert events["round/accuracy"] == [(1, pytest.approx(1 / 7)), (3, pytest.approx(3 / 7))]


@pytest.mark.parametrize("logged", [1, 3, 5])
@pytest.mark.parametrize("torn", [b"", b"6", b"6,0.83", b"6,0.83333333,6,"])
def test_a_resumed_log_is_the_undisturbed_one(tmp_path, logged, torn) -> None:
    """Rounds up to 5 were logged, a line was torn, and the last checkpoint was that of an earlier round."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    write(whole, range(1, 9))
    write(resumed, range(1, 6))
    with (resumed / "rounds.csv").open("ab") as file:
        file.write(torn)
    events = next((resumed / "tensorboard").iterdir())
    events.write_bytes(events.read_bytes()[:-5])
    write(resumed, range(logged + 1, 9))
    assert (resumed / "rounds.csv").read_bytes() == (whole / "rounds.csv").read_bytes()
    assert read_events(resumed).keys() == read_events(whole).keys()
    for tag, points in read_events(whole).items():
        assert read_events(resumed)[tag] == [(step, pytest.approx(v)) for step, v in points]
    assert [path.name for path in resumed.iterdir() if path.name.startswith(".")] == []


def test_a_row_is_on_disk_when_append_returns(tmp_path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from federated.round_log import RoundLog\n"
        "log = RoundLog(Path(sys.argv[1]))\n"
        "for i in range(1, 4): log.append({'round': i, 'loss': i / 2})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=False, env=environment
    )
    assert done.returncode == -9
    assert [(line["round"], line["loss"]) for line in read_csv(tmp_path)] == [
        ("1", "0.5"),
        ("2", "1"),
        ("3", "1.5"),
    ]
    assert read_events(tmp_path) == {"round/loss": [(1, 0.5), (2, 1.0), (3, 1.5)]}


def test_other_columns_are_refused(tmp_path) -> None:
    write(tmp_path, range(1, 3))
    fault = re.escape(f"{tmp_path}/rounds.csv: has other columns than this run: remove it")
    with pytest.raises(ValueError, match=fault):
        RoundLog(tmp_path).append({"round": 3, "loss": 1.0})
    log = RoundLog(tmp_path)
    log.append(row(3))
    with pytest.raises(ValueError, match="has other columns"):
        log.append({"round": 4, "loss": 1.0})
    log.close()
    assert [line["round"] for line in read_csv(tmp_path)] == ["1", "2", "3"]


def test_signal_to_noise_is_what_the_noise_was_drawn_with() -> None:
    """Noise of deviation 3 on 20,000 values has norm 3 * sqrt(20,000), within a percent."""
    random = np.random.default_rng(0)
    sums = [random.normal(size=(100, 150)).astype(np.float32), np.ones(5_000, np.float32)]
    noised = [s + random.normal(0, 3, s.shape) for s in sums]
    signal = math.sqrt((sums[0].astype(np.float64) ** 2).sum() + 5_000)
    expected = signal / (3 * math.sqrt(20_000))
    assert measure_signal_to_noise(sums, noised) == pytest.approx(expected, rel=0.02)
    assert measure_signal_to_noise(sums, sums) == math.inf

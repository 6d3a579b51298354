"""What a run is seen by: a line in `rounds.csv` and an event for TensorBoard after each round.

The log is a simulation's. It holds no text, no id and no update, and only a part of it is differentially private; a
deployment has to leave out the rest, or to release it under a guarantee of its own. What the columns can reveal:

* `round`, `rho`, `bytes_down_per_device`, `bytes_up_per_device`, `seconds`: nothing of anybody.
* `accuracy`: nothing more than the weights do, which the mechanism protects; it is measured on people who do not train.
* `available`, `selected`, `reported`, `devices`, `dropped`, `late`, `simulated_seconds`, `abandoned` (rounds that came
  to nothing since the one before): how many took part and how long it took. Beside another run's figures that can tell
  whether a certain device was there.
* `pieces`, `loss`, `clipped`, `zeroed`, `update_norm`, `signal_to_noise`: exact means over the cohort, without noise.
  One device with strange text shifts them, and the smaller the cohort, the more.
* `selected_*`, `reported_*`: the cohort by amount of data, speed and time zone. A class of one tells that it came.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

Row = Mapping[str, float | None]

_EVENTS = "events.out.tfevents.0000000000.keyfed"  # one file, so no time or host in its name


def measure_signal_to_noise(sums: Sequence[np.ndarray], noised: Sequence[np.ndarray]) -> float:
    """Norm of the round's summed updates over the norm of the noise that was added to them; infinite without noise.

    Of d values, the norm of the noise lies within about 1 / sqrt(2 d) of its expectation.
    """
    noise = _norm([n - s for n, s in zip(noised, sums, strict=True)])
    return _norm(sums) / noise if noise else math.inf


def _norm(arrays: Sequence[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays))


class RoundLog:
    """Appends rounds to `rounds.csv` and to the event file in `tensorboard/`, below a folder.

    A run that was killed repeats rounds that it had logged and not yet saved. So the first row that is appended takes
    the place of its own round's and of all later ones.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rounds.csv"
        self._event_path = folder / "tensorboard" / _EVENTS
        self._columns: list[str] = []
        self._csv: IO[str] | None = None
        self._events: RecordWriter | None = None

    def append(self, row: Row) -> None:
        """Adds a round; both files hold it when this returns.

        Args:
            row: `round`, and the same columns for every round; None where nothing was measured.

        Raises:
            ValueError: the log has other columns.
        """
        if self._csv is None:
            self._columns = list(row)
            self._open(int(row["round"] or 0))
        if list(row) != self._columns:
            raise ValueError(f"{self._path}: has other columns than this run: remove it")
        assert self._csv is not None and self._events is not None
        fields = ["" if value is None else f"{value:.8g}" for value in row.values()]
        self._csv.write(",".join(fields) + "\n")
        self._csv.flush()
        self._write_event(row)

    def close(self) -> None:
        """Closes the files."""
        if self._csv is not None and self._events is not None:
            self._csv.close()
            self._events.close()

    def _open(self, first_round: int) -> None:
        lines = self._read_lines(first_round)
        temporary = self._path.with_name(".rounds.csv")
        temporary.write_text("".join(",".join(fields) + "\n" for fields in [self._columns, *lines]))
        temporary.rename(self._path)
        self._csv = self._path.open("a", encoding="utf-8")
        self._event_path.parent.mkdir(exist_ok=True)
        self._events = RecordWriter(self._event_path.open("wb"))
        version = Event(wall_time=time.time(), file_version="brain.Event:2")
        self._events.write(version.SerializeToString())
        for fields in lines:
            values = [float(field) if field else None for field in fields]
            self._write_event(dict(zip(self._columns, values, strict=True)))

    def _read_lines(self, first_round: int) -> list[list[str]]:
        """Fields of the lines of earlier rounds; a line without an end was cut off when the run was killed."""
        if not self._path.exists():
            return []
        lines = [line.split(",") for line in self._path.read_text("utf-8").split("\n")[:-1]]
        if lines[:1] != [self._columns]:
            raise ValueError(f"{self._path}: has other columns than this run: remove it")
        return [fields for fields in lines[1:] if int(fields[0]) < first_round]

    def _write_event(self, row: Row) -> None:
        assert self._events is not None
        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in row.items()
            if value is not None and name != "round"
        ]
        event = Event(wall_time=time.time(), step=int(row["round"] or 0))
        event.summary.CopyFrom(Summary(value=values))
        self._events.write(event.SerializeToString())
        self._events.flush()


def _tag(column: str) -> str:
    """TensorBoard shows tags of one prefix together."""
    group, _, rest = column.partition("_")
    return f"{group}/{rest}" if group in ("selected", "reported") and rest else f"round/{column}"

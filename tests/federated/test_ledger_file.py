"""A ledger that is appended to on disk reads as the one in memory, whenever the run was killed."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.ledger import Ledger, LedgerError, Promise
from federated.ledger_file import LedgerFile
from federated.round_records import RoundRecords, decode_rounds
from federated.strategies import Blt, Gaussian, Tree

PROMISE = Promise(Tree(), 7.0, 0.5, min_separation=1)

rounds_of_devices = st.lists(
    st.dictionaries(st.integers(0, 2**31 - 1), st.booleans(), max_size=20), max_size=8
)


def fill(ledger: Ledger, rounds: int) -> Ledger:
    for index in range(len(ledger.rounds), len(ledger.rounds) + rounds):
        ledger.record(index, [index, 900, 904, index + 1000], [index + 1000, 904])
    return ledger


@given(rounds_of_devices)
@settings(deadline=None)
def test_records_are_what_went_in(rounds) -> None:
    """Each as a plain tuple, and on disk bit by bit."""
    records, expected, content = RoundRecords(), [], b""
    for devices in rounds:
        selected = sorted(devices)
        reported = [device for device in selected if devices[device]]
        records.append(np.array(selected, np.int64), np.array(reported, np.int64))
        expected.append((tuple(selected), tuple(reported)))
        bits = "".join("01"[devices[device]] for device in selected)
        padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
        content += struct.pack(f"<{len(selected) + 1}I", len(selected), *selected)
        content += bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))
    assert [(record.selected, record.reported) for record in records] == expected
    assert [(r.selected, r.reported) for r in records[1:]] == expected[1:]
    assert records.encoded(0) == content
    decoded = [(tuple(s.tolist()), tuple(r.tolist())) for s, r in decode_rounds(content)]
    assert decoded == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
@settings(deadline=None)
def test_a_ledger_survives_kills_at_any_moment(tmp_path_factory, rounds) -> None:
    """Each round is appended; then the run goes on, or is killed with the round marked or not, and reads its file."""
    path = tmp_path_factory.mktemp("ledger") / "checkpoint.ledger"
    file, ledger, whole = LedgerFile(path), Ledger(PROMISE), Ledger(PROMISE)
    mark = file.append(ledger)
    for is_killed, is_marked in rounds:
        marked = file.append(fill(ledger, 1))
        if is_marked or not is_killed:
            fill(whole, 1)
            mark = marked
        if is_killed:
            file = LedgerFile(path)
            ledger = file.read(mark)
        assert ledger.to_json() == whole.to_json()
        assert ledger.measured_participations == whole.measured_participations
    undisturbed = LedgerFile(path.with_name("whole.ledger"))
    assert undisturbed.append(whole) == mark
    assert path.read_bytes()[: mark["bytes"]] == undisturbed.path.read_bytes()


def test_a_round_is_appended_and_the_rest_left_alone(tmp_path: Path) -> None:
    """Four devices in a round: 5 numbers and a byte of bits, in the same file."""
    file, ledger = LedgerFile(tmp_path / "l"), fill(Ledger(PROMISE), 300)
    before = file.append(ledger)
    node = file.path.stat().st_ino
    after = file.append(fill(ledger, 1))
    assert (before["rounds"], after["rounds"]) == (300, 301)
    assert after["bytes"] - before["bytes"] == file.path.stat().st_size - before["bytes"] == 21
    assert file.path.stat().st_ino == node
    assert file.append(ledger) == after


def test_earlier_ledgers_and_coefficients_are_kept(tmp_path: Path) -> None:
    ledger = Ledger(Promise(Blt((0.9, 0.1 + 0.2), (0.2, 1 / 3)), 7.0, 0.5, 2, 3))
    ledger.record(0, [5], [5])
    file = LedgerFile(tmp_path / "l")
    file.append(ledger)
    ledger.earlier = (Ledger(Promise(Gaussian(), 2.0, 1.0, 1, 1)),)
    ledger.earlier[0].record(0, [3, 4], [3])
    ledger.record(1, [6], [6])
    read = LedgerFile(file.path).read(file.append(ledger))
    assert read.to_json() == ledger.to_json()
    assert read.promise == ledger.promise
    assert read.total(1e-6) == ledger.total(1e-6)
    with pytest.raises(LedgerError, match="device 6 reported in round 1"):
        read.record(2, [6], [6])


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("damage", [flip, lambda content: content[:-1], lambda content: b"", None])
def test_a_ledger_that_is_not_the_checkpoints_is_refused(tmp_path: Path, damage) -> None:
    file = LedgerFile(tmp_path / "checkpoint.ledger")
    mark = file.append(fill(Ledger(PROMISE), 5))
    if damage is None:
        file.path.unlink()
    else:
        file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint.ledger: is not the ledger .*: remove both"):
        LedgerFile(file.path).read(mark)


def test_every_round_is_checked_anew(tmp_path: Path) -> None:
    file, ledger = LedgerFile(tmp_path / "l"), fill(Ledger(PROMISE), 2)
    ledger.promise = Promise(Tree(), 7.0, 0.5, min_separation=2)
    mark = file.append(ledger)
    with pytest.raises(
        LedgerError, match="device 904 reported in round 0, and the promised min_sep"
    ):
        LedgerFile(file.path).read(mark)

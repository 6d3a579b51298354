"""Stores in memory and on disk give the same shards; what is unfinished, damaged or another's is refused."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from federated.store import DeviceStore, Split, StoreFacts, write_store

VOCABULARY = 50


def random_blocks(counts=(0, 1, 2, 3, 7, 4)) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(1, VOCABULARY, (n, 2, 5)).astype(np.int32) for n in counts]


def write(folder: Path, blocks: list[np.ndarray]) -> None:
    """Two devices at a time, as the builders append several."""
    with write_store(folder, 5, VOCABULARY) as writer:
        for start in range(0, len(blocks), 2):
            pair = blocks[start : start + 2]
            writer.append(np.concatenate(pair), [len(rows) for rows in pair])


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path) -> DeviceStore:
    if request.param == "memory":
        return DeviceStore.build(random_blocks())
    write(tmp_path / "store", random_blocks())
    return DeviceStore.open(tmp_path / "store", VOCABULARY)


def test_shards_hold_their_devices_rows(store) -> None:
    blocks = random_blocks()
    assert len(store) == 6
    assert store.count_rows(np.array([4, 0, 2])).tolist() == [7, 0, 2]
    batches, steps = store.shard([4, 0, 2, 3], batch_rows=2, max_batches=3)
    assert batches.shape == (4, 3, 2, 2, 5) and batches.dtype == np.int32
    assert steps.tolist() == [3, 0, 1, 2] and steps.dtype == np.int32
    for place, device in enumerate([4, 0, 2, 3]):
        rows = batches[place].reshape(-1, 2, 5)
        used = blocks[device][:6]
        assert np.array_equal(rows[: len(used)], used)
        assert not rows[len(used) :].any()
        alone = store.device_batches(device, 2, 3)
        assert np.array_equal(alone, batches[place, : steps[place]])


@pytest.mark.parametrize("devices", [[], [0], [0, 0]])
def test_a_shard_without_rows_has_a_shape_all_the_same(store, devices) -> None:
    batches, steps = store.shard(devices, batch_rows=2, max_batches=3)
    assert batches.shape == (len(devices), 1, 2, 2, 5) and not batches.any()
    assert steps.tolist() == [0] * len(devices)
    assert store.device_batches(0, 2, 3).shape == (0, 2, 2, 5)


def test_the_store_shows_no_rows_of_anybody() -> None:
    assert "rows" not in repr(DeviceStore.build([np.ones((3, 2, 5), np.int32)]))


def test_a_store_on_disk_is_its_owners_alone(tmp_path) -> None:
    write(tmp_path / "store", random_blocks())
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    facts = StoreFacts.read(tmp_path / "store")
    assert facts == StoreFacts(devices=6, rows=17, row_tokens=5, vocabulary=VOCABULARY)
    assert (tmp_path / "store" / "rows.bin").stat().st_size == 17 * 2 * 5 * 2


@pytest.mark.parametrize("split", [None, Split(2, 0.7, 0.1)])
def test_a_store_says_whose_it_is(tmp_path, split) -> None:
    with write_store(tmp_path / "store", 5, VOCABULARY, "0af3", split) as writer:
        writer.append(random_blocks([3])[0], [3])
    assert StoreFacts.read(tmp_path / "store") == StoreFacts(1, 3, 5, VOCABULARY, "0af3", split)


def test_what_a_killed_build_leaves_is_no_store_and_goes_with_the_next(tmp_path) -> None:
    program = (
        "import os, sys, numpy as np; from pathlib import Path; from federated.store import write_store\n"
        "with write_store(Path(sys.argv[1]), 5, 50) as writer:\n"
        "  writer.append(np.ones((9, 2, 5), np.int32), [4, 5]); os.kill(os.getpid(), 9)\n"
    )
    folder = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".store.partial"]
    with pytest.raises(ValueError, match="store: no device store"):
        DeviceStore.open(folder, VOCABULARY)
    with pytest.raises(ValueError, match=r"store\.partial: no device store"):
        DeviceStore.open(tmp_path / ".store.partial", VOCABULARY)
    write(folder, random_blocks())
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert len(DeviceStore.open(folder, VOCABULARY)) == 6


def test_a_build_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyError), write_store(tmp_path / "store", 5, VOCABULARY) as writer:
        writer.append(np.ones((1, 2, 5), np.int32), [1])
        raise KeyError
    with pytest.raises(ValueError, match="no device has any rows"):
        write(tmp_path / "store", random_blocks([0, 0]))
    assert not list(tmp_path.iterdir())


def test_two_builds_of_one_store_do_not_mix(tmp_path) -> None:
    (tmp_path / ".store.partial").mkdir()
    other = os.open(tmp_path / ".store.partial", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="store: another build is at work: wait for it"):
        write(tmp_path / "store", random_blocks())
    os.close(other)
    write(tmp_path / "store", random_blocks())
    with pytest.raises(ValueError, match="store: exists: remove it, or give another folder"):
        write(tmp_path / "store", random_blocks())


@pytest.mark.parametrize(
    ("rows", "counts", "fault"),
    [
        (np.full((2, 2, 5), VOCABULARY), [2], "a piece lies outside the vocabulary of 50 pieces"),
        (np.full((2, 2, 5), -1), [2], "a piece lies outside the vocabulary of 50 pieces"),
        (np.ones((2, 2, 5), np.int32), [1], r"give \[1, 2, 5\]"),
        (np.ones((2, 2, 4), np.int32), [2], r"give \[2, 2, 5\]"),
    ],
)
def test_rows_that_no_network_could_read_are_not_written(tmp_path, rows, counts, fault) -> None:
    with (
        pytest.raises(ValueError, match=fault),
        write_store(tmp_path / "store", 5, VOCABULARY) as writer,
    ):
        writer.append(rows, counts)


@pytest.mark.parametrize("vocabulary", [0, 65_537])
def test_a_vocabulary_that_the_rows_cannot_hold_is_refused(tmp_path, vocabulary) -> None:
    with (
        pytest.raises(ValueError, match=f"vocabulary is {vocabulary}, must be 1 to 65536"),
        write_store(tmp_path / "store", 5, vocabulary),
    ):
        pass


def test_a_store_for_another_vocabulary_is_refused(tmp_path) -> None:
    write(tmp_path / "store", random_blocks())
    with pytest.raises(ValueError, match="a tokenizer of 50 pieces, and the network has 60"):
        DeviceStore.open(tmp_path / "store", 60)


def shorten(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def edit(path: Path, field: str, value: object = None) -> None:
    """Replaces a field of store.json, or takes it away."""
    content = json.loads(path.read_text("utf-8"))
    del content[field]
    path.write_text(json.dumps(content | ({field: value} if value else {})), "utf-8")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: shorten(folder / "rows.bin", 1), "rows or offsets are damaged"),
        (lambda folder: shorten(folder / "offsets.npy", 8), "rows or offsets are damaged"),
        (lambda folder: np.save(folder / "offsets.npy", [0, 17]), "offsets are damaged"),
        (lambda folder: (folder / "store.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "store.json").write_text("[]"), "schema is not"),
        (
            lambda folder: (folder / "store.json").write_text('{"schema": "keyfed-devices/2"}'),
            "`devices` is missing or no positive integer",
        ),
        (
            lambda folder: (folder / "store.json").write_text('{"schema": "keyfed-devices/1"}'),
            "schema is not 'keyfed-devices/2'",
        ),
        (
            lambda folder: edit(folder / "store.json", "split", {"rotation": 1}),
            "`tokenizer` or `split` is missing or wrong",
        ),
        (
            lambda folder: edit(folder / "store.json", "tokenizer"),
            "`tokenizer` or `split` is missing or wrong",
        ),
        (lambda folder: (folder / "store.json").unlink(), "no device store"),
    ],
)
def test_a_damaged_store_is_refused(tmp_path, damage, fault) -> None:
    folder = tmp_path / "store"
    write(folder, random_blocks())
    damage(folder)
    with pytest.raises(ValueError, match=fault):
        DeviceStore.open(folder, VOCABULARY)


def test_memory_follows_the_cohort_not_the_store(tmp_path) -> None:
    """160 MB of rows, all read in cohorts of a 50th: the most memory ever held grows by a few cohorts."""
    devices_each, rows_each = 400, 100
    with write_store(tmp_path / "store", 8, VOCABULARY) as writer:
        rows = np.ones((devices_each * rows_each, 2, 8), np.int32)
        for _ in range(125):
            writer.append(rows, [rows_each] * devices_each)
    program = (
        "import json, sys, numpy as np; from pathlib import Path; from resource import *\n"
        "from federated.store import DeviceStore\n"
        "def most(): return getrusage(RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = most()\n"
        "store = DeviceStore.open(Path(sys.argv[1]), 50)\n"
        "for start in range(50):\n"
        "  batches, steps = store.shard(range(start, 50_000, 50), 10, 10)\n"
        "print(json.dumps([most() - before, batches.nbytes, int(steps.sum())]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        capture_output=True,
        check=True,
        text=True,
    )
    grown, cohort_bytes, batches = json.loads(done.stdout)
    assert cohort_bytes == 1000 * 100 * 2 * 8 * 4 and batches == 10_000
    assert (tmp_path / "store" / "rows.bin").stat().st_size == 160_000_000
    assert grown < 6 * cohort_bytes

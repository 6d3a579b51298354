"""The store built on disk is the one that the split in memory gives, device for device; no text is left on the way."""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tokenizer import BOS, EOS
from federated.population import Message, mask_pii, split_population
from federated.store import DeviceStore
from federated.store_builder import build_store
from model.rows import pack_rows
from tests.federated.test_population import FRACTIONS, SECRET, fill_sides, populations

ROW_TOKENS, VOCABULARY = 6, 40


def encode(text: str) -> np.ndarray:
    """A letter is a piece; what the tokenizer does is no matter here."""
    pieces = [4 + ord(letter) % (VOCABULARY - 4) for letter in text[:20]]
    return np.array([[BOS, *pieces], [*pieces, EOS]], np.int32)


def build(folder: Path, messages, rotation=0, cap=500) -> tuple[DeviceStore, dict[str, int]]:
    counts = build_store(messages, encode, folder, ROW_TOKENS, VOCABULARY, rotation, cap, FRACTIONS)
    return DeviceStore.open(folder, VOCABULARY), counts


@given(populations(), st.integers(0, 100), st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_the_store_equals_the_split_in_memory(messages, rotation, cap) -> None:
    split, expected_counts = split_population(messages, rotation, cap, FRACTIONS)
    expected = DeviceStore.build(
        [pack_rows(map(encode, texts), ROW_TOKENS) for texts in split["train"].values()]
    )
    with tempfile.TemporaryDirectory() as folder:
        store, counts = build(Path(folder, "store"), messages, rotation, cap)
        assert np.array_equal(store.rows, expected.rows)
        assert np.array_equal(store.offsets, expected.offsets)
    assert {n: c for n, c in counts.items() if c} == {n: c for n, c in expected_counts.items() if c}


def test_lines_may_be_scattered_over_the_file(tmp_path) -> None:
    """The order of lines decides nothing but that of messages of one user at one time."""
    messages = [
        Message(f"user {u}", f"conversation {u // 3}" if u % 2 else "", str(t), f"{u}:{t}")
        for u in range(90)
        for t in range(10, 14)
    ]
    first, counts = build(tmp_path / "first", messages)
    random.Random(1).shuffle(messages)
    second, again = build(tmp_path / "second", messages)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.offsets, second.offsets)
    assert counts == again and counts["train_lost_to_shared_conversations"] > 0


def test_masked_text_is_what_is_encoded(tmp_path) -> None:
    messages = [*fill_sides(), *(Message(f"u{i}", "", "", "to a@b.com") for i in range(20))]
    store, counts = build(tmp_path / "store", messages)
    assert counts["masked"] == 20
    masked = pack_rows([encode(mask_pii("to a@b.com"))], ROW_TOKENS)
    devices = range(len(store))
    held = [store.device_batches(device, 1, 9)[:, 0].tolist() for device in devices]
    assert masked.tolist() in held
    assert pack_rows([encode("to a@b.com")], ROW_TOKENS).tolist() not in held


def test_a_side_without_users_is_refused_and_nothing_is_left(tmp_path) -> None:
    with pytest.raises(ValueError, match="population: no user falls on side") as caught:
        build(tmp_path / "store", [Message("anna", "", "", SECRET)])
    assert SECRET not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_text_and_no_named_file_of_it_survives_a_kill(tmp_path) -> None:
    """Killed after 2,000 messages: the folder of unfinished rows is all there is, and it holds no text."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from federated.population import Message; from federated.store_builder import build_store\n"
        "from tests.federated.test_store_builder import encode\n"
        "def messages():\n"
        "  for i in range(2000): yield Message(f'user {i % 99}', f'c{i % 7}', '', sys.argv[2])\n"
        "  names = [f'/proc/self/fd/{name}' for name in os.listdir('/proc/self/fd')]\n"
        "  links = [os.readlink(name) for name in names if os.path.lexists(name)]\n"
        "  print(sum('(deleted)' in link for link in links), flush=True)\n"
        "  os.kill(os.getpid(), 9)\n"
        "build_store(messages(), encode, Path(sys.argv[1]), 6, 40)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store"), SECRET],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.returncode == -9
    assert int(done.stdout) >= 300  # the buckets were there, without a name
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["rows.bin"]
    assert not any(SECRET.encode() in path.read_bytes() for path in files)


def test_memory_does_not_follow_the_messages(tmp_path) -> None:
    """Eight times as many messages, of eight times as many users: in memory they would take 70 MB more."""
    program = (
        "import sys; from pathlib import Path; from resource import *\n"
        "from federated.population import Message; from federated.store_builder import build_store\n"
        "from tests.federated.test_store_builder import encode\n"
        "count = int(sys.argv[2])\n"
        "messages = (\n"
        "  Message(f'user {i * 7919 % (count // 20)}', f'c{i % 5000}' if i % 3 else '', '', 'a' * 60 + str(i))\n"
        "  for i in range(count)\n"
        ")\n"
        "build_store(messages, encode, Path(sys.argv[1]), 6, 40)\n"
        "print(getrusage(RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", program, str(tmp_path / str(count)), str(count)],
                capture_output=True,
                check=True,
                text=True,
                env={**os.environ, "PYTHONPATH": "."},
            ).stdout
        )
        for count in (12_000, 96_000)
    ]
    assert peaks[1] - peaks[0] < 15_000  # kB

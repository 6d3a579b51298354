"""Synthetic typists: sizes of the published distribution, rows of the pool, the same for the same seed."""

import numpy as np
import pytest
from scipy import stats

from device_runtime.tokenizer import BOS, PAD
from federated.store import DeviceStore
from federated.synthetic_devices import (
    LOG_MESSAGES_MEAN,
    LOG_MESSAGES_STDDEV,
    draw_zipf_rows,
    synthesize_store,
)

VOCABULARY = 60


@pytest.fixture(scope="module")
def pool() -> np.ndarray:
    return draw_zipf_rows(VOCABULARY, 24, 3_000, seed=1)


def test_pieces_follow_zipf(pool) -> None:
    targets = pool[:, 1]
    counts = np.bincount(targets[targets > 3], minlength=VOCABULARY)[4:]
    shares = 1 / np.arange(1, VOCABULARY - 3)
    expected = counts.sum() * shares / shares.sum()
    assert stats.chisquare(counts, expected).pvalue > 0.001
    assert pool.max() < VOCABULARY and set(pool[:, 0, 0]) <= {BOS, *range(4, VOCABULARY)}


def test_devices_draw_their_rows_from_the_pool(tmp_path, pool) -> None:
    synthesize_store(tmp_path / "store", 12_345, pool, VOCABULARY, 32, seed=3)
    store = DeviceStore.open(tmp_path / "store", VOCABULARY)
    assert len(store) == 12_345
    known = {row.tobytes() for row in pool.astype(np.uint16)}
    for device in (0, 9_999, 10_000, 12_344):
        rows = store.rows[store.offsets[device] : store.offsets[device + 1]]
        assert all(row.tobytes() in known for row in rows)
    sizes = np.diff(store.offsets)
    assert sizes.min() == 1 and sizes.max() == 32
    per_row = (pool[:, 0] == BOS).sum() / len(pool)
    # P(rows <= r) is the log-normal's at r * per_row messages, since rows are rounded up
    for rows in (1, 4, 16):
        expected = stats.norm.cdf(
            (np.log(rows * per_row) - LOG_MESSAGES_MEAN) / LOG_MESSAGES_STDDEV
        )
        assert np.mean(sizes <= rows) == pytest.approx(expected, abs=0.02)
    assert (store.rows[:, 0] == PAD).mean() == pytest.approx((pool[:, 0] == PAD).mean(), abs=0.01)


def test_a_smaller_fleet_is_the_start_of_a_larger_one(tmp_path, pool) -> None:
    stores = []
    for name, devices, seed in (("a", 300, 3), ("b", 700, 3), ("c", 300, 4)):
        synthesize_store(tmp_path / name, devices, pool, VOCABULARY, 8, seed)
        stores.append(DeviceStore.open(tmp_path / name, VOCABULARY))
    small, large, other = stores
    assert np.array_equal(small.rows, large.rows[: len(small.rows)])
    assert not np.array_equal(small.offsets, other.offsets)


@pytest.mark.parametrize(("devices", "max_rows"), [(0, 8), (5, 0)])
def test_sizes_out_of_range_are_refused(tmp_path, pool, devices, max_rows) -> None:
    with pytest.raises(ValueError, match="is 0, must be at least 1"):
        synthesize_store(tmp_path / "store", devices, pool, VOCABULARY, max_rows, 1)

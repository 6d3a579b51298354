"""A cohort's cut into shards: nobody lost, about equally long, bounded, and decided by the configuration alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import federated.shards
from federated.shards import cut_cohort, deal_longest_first
from tests.federated.tiny_devices import build_store

MESSAGES = [0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 14, 0, 16, 20, 30, 3]


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 7))
def test_the_deal_is_longest_first_to_the_least_loaded(costs, shards) -> None:
    """Every place once; each one went to a shard that had least then; so no shard is longer than mean and longest."""
    dealt = deal_longest_first(costs, shards)
    assert sorted(place for part in dealt for place in part) == list(range(len(costs)))
    owner = {place: shard for shard, part in enumerate(dealt) for place in part}
    loads = [0] * shards
    for place in sorted(range(len(costs)), key=lambda p: (-costs[p], p)):
        assert loads[owner[place]] == min(loads)
        loads[owner[place]] += costs[place]
    assert max(loads) <= sum(costs) / shards + max(costs, default=0)


@pytest.mark.parametrize("shards", [1, 3, 7, 99])
def test_shards_hold_each_device_of_the_cohort_once(shards) -> None:
    store, cohort = build_store(MESSAGES), np.array([1, 2, 5, 9, 15, 17, 18, 19])
    cut = cut_cohort(store, cohort, shards, 3, 2)
    assert len(cut) == min(shards, len(cohort))
    rows = []
    for index in range(len(cut)):
        batches, steps = cut[index]
        assert batches.shape[0] == len(steps) and steps.max(initial=0) <= 2
        rows += [
            batches[device][batches[device].any(axis=(-1, -2))] for device in range(len(steps))
        ]
    expected = [store.rows[store.offsets[d] : store.offsets[d + 1]][: 3 * 2] for d in cohort]
    assert sorted(part.tobytes() for part in rows) == sorted(part.tobytes() for part in expected)


def test_devices_that_send_a_message_each_come_with_their_ids_and_few_at_a_time() -> None:
    store, cohort = build_store(MESSAGES), np.array([3, 1, 9, 15, *range(16, 20), 5, 6, 7, 8])
    plain, cut = cut_cohort(store, cohort, 1, 3, 2), cut_cohort(store, cohort, 1, 3, 2, True)
    assert (len(plain), len(cut), len(plain[0])) == (1, 2, 2)
    seen = []
    for batches, steps, ids in (cut[index] for index in range(len(cut))):
        expected = store.shard(ids.tolist(), 3, 2)
        np.testing.assert_array_equal(batches, expected[0])
        np.testing.assert_array_equal(steps, expected[1])
        seen += ids.tolist()
    assert sorted(seen) == sorted(cohort.tolist())


def test_a_large_cohort_is_cut_into_shards_of_bounded_size(monkeypatch) -> None:
    """Ten times the devices, ten times the shards; a shard is read when it is asked for, and again the same."""
    monkeypatch.setattr(federated.shards, "_SHARD_BYTES", 2_000)
    store = build_store(MESSAGES * 10)
    counts = []
    for devices in (20, 200):
        cut = cut_cohort(store, np.arange(devices), 2, 3, 2)
        counts.append(len(cut))
        sizes = [cut[index][0].nbytes for index in range(len(cut))]
        assert max(sizes) <= 2 * 2_000
        assert np.array_equal(cut[0][0], cut[0][0])
    assert counts == [2, 20]


def test_an_empty_cohort_has_no_shards() -> None:
    assert len(cut_cohort(build_store(MESSAGES), np.array([], np.int64), 4, 3, 2)) == 0

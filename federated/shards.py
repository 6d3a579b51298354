"""A cohort cut into shards: by the configuration alone, so that neither workers, engine nor timing change the sum."""

import dataclasses
import heapq
import math
from collections.abc import Sequence

import numpy as np

from federated.engines import Shard
from federated.store import DeviceStore

# Padded bytes of a shard on average. A shard stands a dozen times in a worker's and its sender's memory: with 8 MiB, a
# round of 10,000 devices took 420 MB more than one of 100 (`keyfed bench memory`).
_SHARD_BYTES = 2**20
_SHARD_MESSAGES = 8
_PIECE_BYTES = np.dtype(np.int32).itemsize  # of a shard's batches, whatever the store holds


def deal_longest_first(costs: Sequence[int], shards: int) -> list[list[int]]:
    """Places in `costs` for each shard: the costliest first, each to the shard with the least so far (Graham 1969).

    Equal costs keep their order and equal shards the lowest number, so the deal is a function of its arguments.
    """
    dealt: list[list[int]] = [[] for _ in range(shards)]
    loads = [(0, shard) for shard in range(shards)]
    for place in np.argsort(-np.asarray(costs), kind="stable").tolist():
        load, shard = heapq.heappop(loads)
        dealt[shard].append(place)
        heapq.heappush(loads, (load + int(costs[place]), shard))
    return dealt


@dataclasses.dataclass(frozen=True, repr=False)
class CohortShards:
    """Shards of a cohort, each read from the devices' storage when it is asked for."""

    store: DeviceStore
    devices: Sequence[Sequence[int]]
    batch_rows: int
    max_batches: int
    with_ids: bool = False

    def __len__(self) -> int:
        return len(self.devices)

    def __getitem__(self, index: int) -> Shard:
        shard = self.store.shard(self.devices[index], self.batch_rows, self.max_batches)
        return (*shard, np.array(self.devices[index], np.int64)) if self.with_ids else shard


def cut_cohort(
    store: DeviceStore,
    cohort: np.ndarray,
    shards: int,
    batch_rows: int,
    max_batches: int,
    with_ids: bool = False,
) -> CohortShards:
    """A cohort in at least `shards` parts that take about equally long, and in more where they would grow large.

    Args:
        store: the devices' storage.
        cohort: ids of devices.
        shards: least number of parts, as long as there are as many devices.
        batch_rows: rows of a local batch.
        max_batches: local batches a device.
        with_ids: for devices that send a message each. Shards are of few then, for TFF holds all messages of a shard.
    """
    rows = store.count_rows(cohort)
    batches = np.minimum(-(-rows // batch_rows), max_batches)
    device_bytes = max_batches * batch_rows * math.prod(store.rows.shape[1:]) * _PIECE_BYTES
    count = min(len(cohort), max(shards, -(-len(cohort) * device_bytes // _SHARD_BYTES)))
    if with_ids:
        count = max(count, -(-len(cohort) // _SHARD_MESSAGES))
    # Clipping and adding an update takes about as long as one batch.
    dealt = deal_longest_first((1 + batches).tolist(), count)
    devices = [cohort[places].tolist() for places in dealt]
    return CohortShards(store, devices, batch_rows, max_batches, with_ids)

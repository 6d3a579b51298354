"""Devices with random messages and a network small enough to train in a moment."""

from collections.abc import Sequence

import numpy as np

from device_runtime.tokenizer import BOS, EOS
from federated.store import DeviceStore
from model.network import NetworkShape
from model.rows import pack_rows

SHAPE = NetworkShape(vocabulary=24, embedding=8, units=8)
ROW_TOKENS = 4


def random_weights(seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0, 0.3, s).astype(np.float32) for s in SHAPE.weight_shapes()]


def random_messages(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Messages int32 [2, n + 1], each device with a taste of its own for some pieces."""
    taste = random.dirichlet(np.full(SHAPE.vocabulary - 4, 0.3))
    messages = []
    for length in random.integers(1, 9, count):
        pieces = 4 + random.choice(len(taste), length, p=taste)
        messages.append(np.array([[BOS, *pieces], [*pieces, EOS]], np.int32))
    return messages


def build_store(messages: Sequence[int], seed: int = 0) -> DeviceStore:
    """Devices with these numbers of messages."""
    random = np.random.default_rng([seed, 7])
    return DeviceStore.build(
        [pack_rows(random_messages(count, random), ROW_TOKENS) for count in messages]
    )

"""Synthetic typists for scale tests: stores of any size, with as much on a device as people have, and nobody's text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from device_runtime.tokenizer import BOS, EOS, UNK
from federated.store import write_store
from model.rows import pack_rows

# Messages of the 1,315 users of chitchat-dataset 0.9.0: mean and standard deviation of the logarithm; its median is 17.
LOG_MESSAGES_MEAN, LOG_MESSAGES_STDDEV = 2.97, 1.95
MAX_MESSAGES = 500  # the cap of the private population
_ZIPF_EXPONENT = 1.0  # Zipf's law
_MESSAGE_PIECES = (
    10.0  # mean, of geometric lengths; chosen: most phone messages have at most 10 words
)
_BLOCK = 10_000


def draw_zipf_rows(vocabulary: int, row_tokens: int, messages: int, seed: int) -> np.ndarray:
    """Packed rows int32 [R, 2, T] of messages of pieces drawn one by one, the n-th most frequent 1/n as often."""
    random = np.random.default_rng(seed)
    weights = np.arange(1, vocabulary - UNK) ** -_ZIPF_EXPONENT
    lengths = random.geometric(1 / _MESSAGE_PIECES, messages)
    pieces = UNK + 1 + random.choice(len(weights), lengths.sum(), p=weights / weights.sum())
    parts = np.split(pieces, np.cumsum(lengths)[:-1])
    return pack_rows(
        (np.array([[BOS, *part], [*part, EOS]], np.int32) for part in parts), row_tokens
    )


def synthesize_store(
    folder: Path,
    devices: int,
    pool: np.ndarray,
    vocabulary: int,
    max_rows: int,
    seed: int,
    on_block: Callable[[int], None] = lambda done: None,
    tokenizer: str | None = None,
) -> None:
    """Writes a store of devices that draw their rows from a pool, with log-normal numbers of messages.

    Devices share rows and have no taste of their own: the store shows what scale costs, not what own data is worth.
    A device's rows depend on (seed, block of 10,000 ids) alone.

    Args:
        folder: of the store; must not exist.
        devices: >= 1.
        pool: int32 [P, 2, T], packed rows.
        vocabulary: number of pieces.
        max_rows: of a device, >= 1; a round reads at most batch_rows * max_batches of them.
        seed: >= 0.
        on_block: sees how many devices are written.
        tokenizer: SHA-256 of what made the pool's pieces, for the store's facts.

    Raises:
        ValueError: an argument is out of its range, or as `write_store`.
    """
    for name, value in (("devices", devices), ("max_rows", max_rows)):
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")
    messages_a_row = max(1.0, float((pool[:, 0] == BOS).sum()) / len(pool))
    with write_store(folder, pool.shape[2], vocabulary, tokenizer) as writer:
        for start in range(0, devices, _BLOCK):
            random = np.random.default_rng([seed, start])
            logs = random.normal(LOG_MESSAGES_MEAN, LOG_MESSAGES_STDDEV, _BLOCK)
            messages = np.clip(np.exp(logs), 1, MAX_MESSAGES)
            counts = np.ceil(messages / messages_a_row).astype(np.int64).clip(1, max_rows)
            counts = counts[: devices - start]
            writer.append(pool[random.integers(len(pool), size=counts.sum())], counts)
            on_block(min(start + _BLOCK, devices))

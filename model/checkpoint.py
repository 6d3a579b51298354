"""Arrays on disk: written whole or not at all."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz under a temporary name, syncs it and renames it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **dict(arrays))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def number_arrays(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A flat list under names that `numbered_arrays` finds again."""
    return {f"{name}_{index}": array for index, array in enumerate(arrays)}


def numbered_arrays(arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The flat list that was stored as `name`."""
    count = sum(key.rpartition("_")[0] == name for key in arrays)
    return [arrays[f"{name}_{index}"] for index in range(count)]


def save_weights(path: Path, weights: Sequence[np.ndarray]) -> None:
    """Writes the network's flat list of weights."""
    save_arrays(path, number_arrays("weight", weights))


def load_weights(path: Path) -> list[np.ndarray]:
    """The network's flat list of weights, float32."""
    with np.load(path) as arrays:
        return numbered_arrays(arrays, "weight")

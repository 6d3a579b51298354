"""How the network's matrices are stored in the TFLite file.

Four kinds, of which `mixed` is what a bundle holds unless told otherwise:

* `mixed`: float16, and int8 with a scale a row for the embeddings of rare pieces; computed in float32.
* `dynamic`: TFLite's dynamic-range int8, one scale a matrix, and the kernels round their inputs to int8 too.
* `float16`: all of it, computed in float32.
* `int8`: TFLite's full int8, all values between the kernels too, their ranges seen on public text.

`keyfed bench quantisation` measures what each of them keeps of the float model's answers.
"""

from typing import Literal, get_args

import numpy as np

Quantisation = Literal["mixed", "dynamic", "float16", "int8"]
QUANTISATIONS: tuple[Quantisation, ...] = get_args(Quantisation)

DESCRIPTIONS: dict[Quantisation, str] = {
    "mixed": "float16, int8 for rare pieces",
    "dynamic": "dynamic-range int8",
    "float16": "float16",
    "int8": "full int8",
}
"""What a bundle's manifest says."""

FREQUENT_PIECES = 3_000
"""Pieces, most frequent first, whose embeddings `mixed` keeps in float16."""
_LEVELS = 127


def check_quantisation(name: str) -> Quantisation:
    """The kind of that name.

    Raises:
        ValueError: there is none.
    """
    for quantisation in QUANTISATIONS:
        if quantisation == name:
            return quantisation
    raise ValueError(f"quantisation {name!r}: give one of {', '.join(QUANTISATIONS)}")


def round_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [N, M] in [-127, 127] and scale float32 [N] > 0, whose product is the matrix to half a scale."""
    scale = np.abs(matrix).max(axis=1) / _LEVELS
    scale[scale == 0] = 1
    rounded = np.rint(matrix / scale[:, np.newaxis])
    return rounded.astype(np.int8), scale.astype(np.float32)

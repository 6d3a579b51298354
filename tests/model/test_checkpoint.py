"""Arrays come back as they were, and a failed write leaves the file that was there."""

import numpy as np
import pytest

from model.checkpoint import (
    load_weights,
    number_arrays,
    numbered_arrays,
    save_arrays,
    save_weights,
)


def test_weights_come_back_bit_for_bit(tmp_path) -> None:
    random = np.random.default_rng(0)
    weights = [random.normal(size=(n, 2)).astype(np.float32) for n in range(12)]
    save_weights(tmp_path / "weights.npz", weights)
    loaded = load_weights(tmp_path / "weights.npz")
    assert [w.dtype for w in loaded] == [np.dtype(np.float32)] * 12
    assert all(np.array_equal(a, b) for a, b in zip(weights, loaded, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]


def test_lists_in_one_file_stay_apart(tmp_path) -> None:
    lists = {"a": [np.array([1])], "a_b": [np.array([2]), np.array([3])], "b": []}
    arrays = {"other": np.array(7)}
    for name, values in lists.items():
        arrays |= number_arrays(name, values)
    save_arrays(tmp_path / "file.npz", arrays)
    with np.load(tmp_path / "file.npz") as loaded:
        for name, values in lists.items():
            assert [a.tolist() for a in numbered_arrays(loaded, name)] == [
                v.tolist() for v in values
            ]
        assert loaded["other"] == 7


class Unwritable:
    """An array that fails when it is its turn to be written."""

    def __array__(self, dtype=None) -> np.ndarray:
        raise OSError("no space left")


# numpy leaves its half-written zip to the garbage collector, which complains
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failed_write_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "weights.npz"
    save_weights(path, [np.ones(3, np.float32)])
    with pytest.raises(OSError, match="no space left"):
        save_arrays(path, {"weight_0": np.zeros(3), "weight_1": Unwritable()})  # type: ignore[dict-item]
    assert load_weights(path)[0].tolist() == [1, 1, 1]
    save_weights(path, [np.full(2, 5, np.float32)])
    assert load_weights(path)[0].tolist() == [5, 5]

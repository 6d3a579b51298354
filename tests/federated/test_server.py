"""Server optimizers against TensorFlow Federated's, the cool-down, and their state."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from hypothesis import given
from hypothesis import strategies as st

from federated.server import LearningRate, create_server_optimizer

SHAPES: list[tuple[int, ...]] = [(4, 3), (5,)]


def random_arrays(random: np.random.Generator) -> list[np.ndarray]:
    return [random.normal(size=shape).astype(np.float32) for shape in SHAPES]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sgd", tff.learning.optimizers.build_sgdm(0.3, momentum=0.9)),
        ("adam", tff.learning.optimizers.build_adam(0.3, beta_1=0.9, beta_2=0.99, epsilon=1e-8)),
    ],
)
def test_steps_are_tensorflow_federateds(name: str, reference) -> None:
    """Its optimizers take gradients, which point up, and Adam's epsilon has another place there: next to none."""
    random = np.random.default_rng(0)
    weights = random_arrays(random)
    optimizer = create_server_optimizer(name, weights, momentum=0.9, epsilon=1e-8)
    expected = [tf.constant(w) for w in weights]
    state = reference.initialize([tf.TensorSpec(shape) for shape in SHAPES])
    for _ in range(6):
        update = random_arrays(random)
        optimizer.step(weights, update, 0.3)
        state, expected = reference.next(state, expected, [tf.constant(-u) for u in update])
        for ours, theirs in zip(weights, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_adams_first_step_is_the_rate_where_updates_outweigh_epsilon() -> None:
    """Corrected moments are u and u**2 then, so the step is rate u / (|u| + epsilon)."""
    update = [np.array([2.0, -0.5, 0.01, 0.0], np.float32)]
    weights = [np.zeros(4, np.float32)]
    create_server_optimizer("adam", weights, 0.9, 0.01).step(weights, update, 0.3)
    np.testing.assert_allclose(weights[0], 0.3 * update[0] / (np.abs(update[0]) + 0.01), rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_restored_optimizer_goes_on_bit_for_bit(name: str, tmp_path) -> None:
    random = np.random.default_rng(1)
    weights, updates = random_arrays(random), [random_arrays(random) for _ in range(6)]
    whole, resumed = (create_server_optimizer(name, weights, 0.9, 1e-3) for _ in range(2))
    for update in updates[:3]:
        whole.step(weights, update, 0.1)
    np.savez(tmp_path / "state.npz", *whole.state())
    copies = [w.copy() for w in weights]
    with np.load(tmp_path / "state.npz") as arrays:
        resumed.restore([arrays[key] for key in arrays])
    for update in updates[3:]:
        whole.step(weights, update, 0.1)
        resumed.step(copies, update, 0.1)
    assert all(np.array_equal(a, b) for a, b in zip(weights, copies, strict=True))
    assert all(w.dtype == np.float32 for w in weights)


def test_restoring_takes_a_copy() -> None:
    weights = random_arrays(np.random.default_rng(1))
    optimizer = create_server_optimizer("sgd", weights, 0.9, 1e-3)
    state = [np.ones_like(w) for w in weights]
    optimizer.restore(state)
    optimizer.step(weights, state, 0.1)
    assert all((part == 1).all() for part in state)


def test_the_rate_falls_linearly_in_the_last_rounds() -> None:
    rate = LearningRate(2.0, rounds=10, cooldown_rounds=4, final_share=0.2)
    expected = [2.0] * 6 + [1.6, 1.2, 0.8, 0.4] + [0.4] * 3
    assert [rate.at(r) for r in range(13)] == pytest.approx(expected)
    constant = LearningRate(2.0, rounds=10)
    assert [constant.at(r) for r in range(13)] == [2.0] * 13


@given(st.integers(1, 50), st.data(), st.floats(0.01, 1))
def test_the_rate_never_rises_and_ends_at_its_share(rounds: int, data, share: float) -> None:
    cooldown = data.draw(st.integers(0, rounds))
    rate = LearningRate(0.7, rounds, cooldown, share)
    rates = [rate.at(r) for r in range(rounds)]
    assert all(b <= a for a, b in itertools.pairwise(rates))
    assert rates[: rounds - cooldown] == [0.7] * (rounds - cooldown)
    if cooldown:
        assert rates[-1] == pytest.approx(0.7 * share)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 5), "peak is 0.0"),
        ((1.0, 5, 6), "cooldown_rounds is 6, must be 0 to rounds, 5"),
        ((1.0, 5, 2, 0.0), "final_share is 0.0"),
    ],
)
def test_a_rate_out_of_range_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearningRate(*arguments)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="server optimizer 'lamb': give one of sgd, adam"):
        create_server_optimizer("lamb", [], 0.9, 1e-3)

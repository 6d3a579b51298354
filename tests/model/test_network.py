"""The network equals its equations, computed once more in plain numpy."""

import numpy as np
import pytest
import tensorflow as tf

from device_runtime.tokenizer import BOS, EOS, PAD
from model.network import NetworkShape, initial_weights, loss_sums, mean_loss, run_rows, step
from tests.model import numpy_network

SHAPE = NetworkShape(vocabulary=30, embedding=8, units=12)


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    """Random, the biases too: at their start they are constant."""
    random = np.random.default_rng(5)
    return [random.normal(0, 0.5, s).astype(np.float32) for s in SHAPE.weight_shapes()]


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows int32 [6, 2, 9] in which BOS and PAD fall anywhere."""
    return (
        np.random.default_rng(6).choice([PAD, BOS, EOS, *range(3, 30)], (6, 2, 9)).astype("int32")
    )


def test_states_equal_the_equations(weights, rows) -> None:
    assert (rows[:, 0, 1:] == BOS).any()
    states, outputs = (t.numpy() for t in run_rows(weights, rows[:, 0]))
    expected = [numpy_network.run_row(weights, tokens)[0] for tokens in rows[:, 0]]
    np.testing.assert_allclose(states, np.swapaxes(expected, 0, 1), atol=2e-6)
    np.testing.assert_allclose(outputs @ weights[3], states, atol=2e-6)


def test_loss_equals_the_equations(weights, rows) -> None:
    assert (rows[:, 1] == PAD).any()
    total, count = loss_sums(weights, rows)
    expected_total, expected_count = numpy_network.sum_losses(weights, rows)
    assert float(count) == expected_count
    assert float(total) == pytest.approx(expected_total, rel=1e-5)
    assert float(mean_loss(weights, rows)) == pytest.approx(expected_total / expected_count, 1e-5)


def test_steps_equal_the_equations(weights) -> None:
    h, c = np.zeros((1, 8), np.float32), np.zeros((1, 12), np.float32)
    exact_h, exact_c = h[0], c[0]
    for token in [BOS, 7, 7, 29, 3, EOS]:
        logits, h, c = step(weights, tf.constant([token]), h, c)
        exact_logits, exact_h, exact_c = numpy_network.run_step(weights, token, exact_h, exact_c)
        np.testing.assert_allclose(logits[0], exact_logits, atol=2e-6)
        np.testing.assert_allclose(h[0], exact_h, atol=2e-6)
        np.testing.assert_allclose(c[0], exact_c, atol=2e-6)


def test_gradient_equals_finite_differences(weights, rows) -> None:
    """Along random directions through all weights, against the numpy loss in float64."""
    random = np.random.default_rng(7)
    variables = [tf.Variable(w) for w in weights]
    with tf.GradientTape() as tape:
        total, _ = loss_sums(variables, rows)
    gradients = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(total, variables)]
    for _ in range(3):
        direction = [random.normal(size=w.shape) for w in weights]
        ahead, behind = (
            numpy_network.sum_losses(
                [w + sign * 1e-5 * d for w, d in zip(weights, direction, strict=True)], rows
            )[0]
            for sign in (1, -1)
        )
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-2)


def differentiate_automatically(
    weights: list[tf.Variable], rows: np.ndarray
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Loss and gradients by TensorFlow's own differentiation of the forward run."""
    with tf.GradientTape() as tape:
        states, _ = run_rows(weights, rows[:, 0])
        logits = tf.einsum("tbp,vp->btv", states, weights[0]) + weights[4]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(rows[:, 1], logits)
        loss = tf.reduce_sum(tf.boolean_mask(losses, rows[:, 1] != PAD))
    return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]


@pytest.mark.parametrize("count", [0, 1, 6])
def test_gradient_equals_automatic_differentiation(weights, rows, count) -> None:
    """Also through a graph that knows no number of rows, times a factor, and for no row at all."""
    variables = [tf.Variable(w) for w in weights]
    loss, gradients = differentiate_automatically(variables, rows[:count])

    @tf.function(input_signature=[tf.TensorSpec([None, 2, rows.shape[2]], tf.int32)])
    def differentiate(rows):
        with tf.GradientTape() as tape:
            total, _ = loss_sums(variables, rows)
            third = total / 3
        return total, tape.gradient(third, variables)

    total, thirds = differentiate(rows[:count])
    np.testing.assert_allclose(total, loss, rtol=1e-6)
    for gradient, third in zip(gradients, thirds, strict=True):
        np.testing.assert_allclose(3 * third, gradient, atol=2e-5, rtol=1e-4)


def test_an_impossible_piece_costs_the_smallest_probability(weights, rows) -> None:
    """Its true cost of 10,000 nats would make the other pieces' vanish; the gradient is the true one."""
    sure = [*weights[:4], weights[4].copy()]
    sure[4][7] = 1e4
    row = np.array([[[BOS, 9, 9], [7, 8, 7]]], np.int32)
    variables = [tf.Variable(w) for w in sure]
    with tf.GradientTape() as tape:
        loss, _ = loss_sums(variables, row)
    assert float(loss) == pytest.approx(-np.log(np.finfo(np.float32).tiny))
    _, expected = differentiate_automatically(variables, row)
    for gradient, own in zip(expected, tape.gradient(loss, variables), strict=True):
        np.testing.assert_allclose(own, gradient, atol=1e-6)


def test_a_packed_row_equals_its_messages_apart(weights) -> None:
    first, second, third = [BOS, 9, 4], [BOS, 5], [BOS, 9, 8, 4]
    packed = run_rows(weights, np.array([first + second + third], np.int32))[0].numpy()[:, 0]
    apart = [
        run_rows(weights, np.array([message], np.int32))[0].numpy()[:, 0]
        for message in (first, second, third)
    ]
    np.testing.assert_allclose(packed, np.concatenate(apart), atol=1e-6)


def test_pad_targets_contribute_nothing(weights, rows) -> None:
    nothing = rows.copy()
    nothing[:, 1] = PAD
    variables = [tf.Variable(w) for w in weights]
    with tf.GradientTape() as tape:
        loss = mean_loss(variables, nothing)
    assert float(loss) == 0
    assert not any(np.any(tf.convert_to_tensor(g)) for g in tape.gradient(loss, variables))
    alone, with_padding = (
        loss_sums(weights, some) for some in (rows, np.concatenate([rows, nothing]))
    )
    np.testing.assert_allclose(with_padding, alone, rtol=1e-6)


def test_published_size() -> None:
    """Hard et al. 2018 report 1.4 M parameters."""
    shape = NetworkShape(vocabulary=10_000, embedding=96, units=670)
    assert shape.parameters() == 1_422_250
    assert shape.parameters() == sum(w.size for w in initial_weights(shape, seed=0))


def test_first_weights_follow_from_the_seed() -> None:
    first, again, other = (initial_weights(SHAPE, seed) for seed in (1, 1, 2))
    assert [w.shape for w in first] == SHAPE.weight_shapes()
    assert all(w.dtype == np.float32 for w in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(first[i], other[i]) for i in (0, 1, 3))
    forget, output, candidate = np.split(first[2], 3)
    assert np.all(forget == 1) and not output.any() and not candidate.any()

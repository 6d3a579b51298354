"""The noise is the tree's: its variance over rounds, its seed, its state."""

import numpy as np
import pytest

from federated.mechanisms import create_mechanism

# Variance of the noise in the sum of rounds 1 to t for unit noise, Honaker's estimate: each set bit d of t adds
# 1 / (2 - 2^-d). Values of an independent implementation that was checked against TensorFlow Privacy's.
HONAKER_VARIANCES = [
    1.0,
    0.6666666666666666,
    1.6666666666666665,
    0.5714285714285714,
    1.5714285714285714,
    1.2380952380952381,
    2.238095238095238,
    0.5333333333333333,
    1.5333333333333332,
    1.2,
    2.1999999999999997,
    1.1047619047619048,
    2.104761904761905,
    1.7714285714285714,
    2.7714285714285714,
    0.5161290322580645,
]
SHAPES: list[tuple[int, ...]] = [(40, 3), (7,)]


def run(mechanism, sums) -> list[list[np.ndarray]]:
    return [mechanism.add_noise(s) for s in sums]


def random_sums(rounds: int, seed: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(seed)
    return [[random.normal(size=s).astype(np.float32) for s in SHAPES] for _ in range(rounds)]


def test_variance_of_prefix_sums_is_the_trees() -> None:
    """Over 100,000 values a variance is exact to 0.45 %, one sigma; clip norm and multiplier scale it."""
    size, clip_norm, multiplier = 100_000, 0.5, 3.0
    mechanism = create_mechanism("tree", [(size,)], clip_norm, multiplier, seed=1)
    zero = [np.zeros(size, np.float32)]
    prefix = np.zeros(size)
    for expected in HONAKER_VARIANCES:
        prefix += mechanism.add_noise(zero)[0]
        assert np.var(prefix) / (clip_norm * multiplier) ** 2 == pytest.approx(expected, rel=0.02)
        assert abs(prefix.mean()) < 5 * prefix.std() / size**0.5


def test_variances_follow_the_formula() -> None:
    for t, expected in enumerate(HONAKER_VARIANCES, 1):
        bits = [d for d in range(6) if t >> d & 1]
        assert expected == pytest.approx(sum(1 / (2 - 2.0**-d) for d in bits), rel=1e-12)


def test_noise_of_different_weights_and_rounds_is_independent() -> None:
    """At odd rounds a fresh leaf is added whole; no two such draws correlate, in no weight (5 sigma)."""
    size = 20_000
    mechanism = create_mechanism("tree", [(size,), (size,)], 1.0, 1.0, seed=1)
    zero = [np.zeros(size, np.float32)] * 2
    drawn = [noise for t in range(1, 10) for noise in mechanism.add_noise(zero) if t % 2]
    correlations = np.corrcoef(drawn) - np.eye(len(drawn))
    # each odd residual from round 3 on is its leaf alone, since the prefix before it stays in the sum
    assert np.abs(correlations).max() < 5 / size**0.5


def test_noised_sums_telescope() -> None:
    """What the noise adds up to depends on no data: only the sums of the updates differ."""
    first, second = random_sums(8, seed=1), random_sums(8, seed=2)
    noised = [
        run(create_mechanism("tree", SHAPES, 0.5, 2.0, seed=4), sums) for sums in (first, second)
    ]
    for rounds in range(1, 9):
        for weight in range(len(SHAPES)):
            noise = [
                sum(round_[weight].astype(np.float64) for round_ in after[:rounds])
                - sum(round_[weight].astype(np.float64) for round_ in before[:rounds])
                for before, after in ((first, noised[0]), (second, noised[1]))
            ]
            np.testing.assert_allclose(noise[0], noise[1], atol=2e-5)


def test_no_noise_gives_the_sums_back() -> None:
    sums = random_sums(5, seed=1)
    for before, after in zip(
        sums, run(create_mechanism("tree", SHAPES, 0.5, 0.0, 4), sums), strict=True
    ):
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_seed_decides_the_noise() -> None:
    zero = [[np.zeros(s, np.float32) for s in SHAPES]] * 4
    first, again, other = (
        run(create_mechanism("tree", SHAPES, 0.5, 2.0, seed), zero) for seed in (7, 7, 8)
    )
    for a, b, c in zip(first, again, other, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert not any(np.array_equal(x, y) for x, y in zip(a, c, strict=True))


def test_a_restored_mechanism_goes_on_bit_for_bit(tmp_path) -> None:
    """From every shape the tree's buffer takes, through a file."""
    sums = random_sums(9, seed=1)
    whole, restored = (create_mechanism("tree", SHAPES, 0.5, 2.0, seed) for seed in (7, 99))
    expected = []
    for index, round_sums in enumerate(sums):
        np.savez(tmp_path / f"{index}.npz", *whole.state())
        expected.append(whole.add_noise(round_sums))
    for stop in reversed(range(9)):
        with np.load(tmp_path / f"{stop}.npz") as arrays:
            restored.restore([arrays[name] for name in arrays])
        for a, b in zip(expected[stop:], run(restored, sums[stop:]), strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_unknown_mechanism_is_refused() -> None:
    with pytest.raises(ValueError, match="mechanism 'laplace': give one of tree"):
        create_mechanism("laplace", SHAPES, 1.0, 1.0, 0)

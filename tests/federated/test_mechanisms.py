"""The mechanisms: one contract for all, each noise against the matrix that the accountant assumes."""

import math
from collections.abc import Callable

import dp_accounting
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
import tensorflow_privacy as tfp
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import effective_noise_multiplier
from federated.factorisation import optimise_blt
from federated.mechanisms import AdaptiveClipping, Mechanism, create_mechanism
from federated.mechanisms.adaptive import AdaptiveClipSumQuery
from federated.mechanisms.blt import BltSumQuery
from federated.mechanisms.gaussian import GaussianSumQuery
from federated.mechanisms.toeplitz import BandedToeplitzSumQuery
from federated.mechanisms.tree import build_tree_query
from federated.strategies import BandedToeplitz, Blt, Gaussian, Strategy, Tree
from tests.federated.participation import toeplitz_matrix

SHAPES: list[tuple[int, ...]] = [(40, 3), (7,)]
BANDED = BandedToeplitz((0.8, 0.4, 0.3))
BLT = Blt((0.95, 0.5), (0.2, 0.25))
STRATEGIES: list[Strategy] = [Gaussian(), Tree(), Tree(restart_every=3), BANDED, BLT]
ADAPTIVE = AdaptiveClipping(target_quantile=0.6, learning_rate=0.3, count_stddev=0.7, cohort=8)


def create(strategy: Strategy, shapes=SHAPES, clip_norm=0.5, noise=2.0, seed=7) -> Mechanism:
    return create_mechanism(strategy, shapes, clip_norm, noise, seed)


def create_adaptive(shapes=SHAPES, clip_norm=0.5, noise=2.0, seed=7) -> Mechanism:
    strategy = Gaussian(count_stddev=ADAPTIVE.count_stddev)
    return create_mechanism(strategy, shapes, clip_norm, noise, seed, ADAPTIVE)


CREATORS: dict[str, Callable[..., Mechanism]] = {
    repr(s): lambda s=s, **settings: create(s, **settings)  # type: ignore[misc]
    for s in STRATEGIES
} | {"adaptive": create_adaptive}


@pytest.fixture(params=CREATORS)
def make(request) -> Callable[..., Mechanism]:
    """Creates the mechanism; every contract holds for each of them."""
    return CREATORS[request.param]


def random_sums(mechanism: Mechanism, rounds: int, seed: int) -> list[list[np.ndarray]]:
    """Sums of updates, and of what devices send for what is broadcast beside the weights."""
    random = np.random.default_rng(seed)
    shapes = [*SHAPES, *(b.shape for b in mechanism.broadcast())]
    return [[np.array(random.normal(size=s), np.float32) for s in shapes] for _ in range(rounds)]


def zero_sums(mechanism: Mechanism, shapes=SHAPES) -> list[np.ndarray]:
    shapes = [*shapes, *(b.shape for b in mechanism.broadcast())]
    return [np.zeros(s, np.float32) for s in shapes]


def test_a_restored_mechanism_goes_on_bit_for_bit(make, tmp_path) -> None:
    """From every round of it, through a file, though the other was created with another seed."""
    whole, restored = make(), make(seed=99)
    sums, expected, norms = random_sums(whole, 9, seed=1), [], []
    for index, round_sums in enumerate(sums):
        np.savez(tmp_path / f"{index}.npz", *whole.state())
        norms.append(whole.clip_norm)
        expected.append(whole.add_noise(round_sums))
    for stop in reversed(range(9)):
        with np.load(tmp_path / f"{stop}.npz") as arrays:
            restored.restore([arrays[name] for name in arrays])
        for round_index in range(stop, 9):
            assert restored.clip_norm == norms[round_index]
            noised = restored.add_noise(sums[round_index])
            for a, b in zip(expected[round_index], noised, strict=True):
                assert a.dtype == b.dtype and np.array_equal(a, b)


def test_the_seed_decides_the_noise(make) -> None:
    mechanisms = [make(seed=seed) for seed in (7, 7, 8)]
    for _ in range(4):
        first, again, other = (m.add_noise(zero_sums(m)) for m in mechanisms)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_no_noise_gives_the_sums_back(make) -> None:
    mechanism = make(noise=0.0)
    for sums in random_sums(mechanism, 5, seed=1):
        noised = mechanism.add_noise(sums)
        assert len(noised) == len(SHAPES)
        assert all(np.array_equal(a, b) for a, b in zip(sums, noised, strict=False))


def test_the_noise_does_not_depend_on_the_data(make) -> None:
    """But for its size, where the clip norm adapts to them."""
    mechanisms = [make(), make()]
    runs = [random_sums(m, 6, seed) for seed, m in enumerate(mechanisms)]
    for sums in zip(*runs, strict=True):
        norms = [m.clip_norm for m in mechanisms]
        noised = [m.add_noise(s) for m, s in zip(mechanisms, sums, strict=True)]
        noises = [
            [(n - s) / norm for n, s in zip(after, before, strict=False)]
            for after, before, norm in zip(noised, sums, norms, strict=True)
        ]
        for a, b in zip(*noises, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_variances_of_prefix_sums_are_the_strategys(strategy: Strategy) -> None:
    """Over 60,000 values a variance is exact to 0.6 %, one sigma; clip norm and multiplier scale it."""
    shape, rounds = (60_000,), 9
    mechanism = create(strategy, [shape], 0.5, 3.0, seed=1)
    prefix = np.zeros(shape)
    for expected in strategy.prefix_variances(rounds):
        prefix += mechanism.add_noise(zero_sums(mechanism, [shape]))[0]
        assert np.var(prefix) / 1.5**2 == pytest.approx(expected, rel=0.03)
        assert abs(prefix.mean()) < 5 * prefix.std() / math.sqrt(len(prefix))


@pytest.mark.parametrize("strategy", [BANDED, BLT, BandedToeplitz((2.0,))], ids=repr)
def test_the_stream_is_the_inverse_matrix_times_independent_noise(strategy) -> None:
    """z is what the Gaussian mechanism draws with the same seed; C x = z in every coordinate."""
    rounds = 12
    independent, correlated = create(Gaussian()), create(strategy)
    matrix = toeplitz_matrix(strategy.first_column(rounds), rounds)
    z, x = ([m.add_noise(zero_sums(m)) for _ in range(rounds)] for m in (independent, correlated))
    for weight in range(len(SHAPES)):
        drawn = np.array([r[weight].ravel() for r in z], np.float64)
        noise = np.array([r[weight].ravel() for r in x], np.float64)
        np.testing.assert_allclose(matrix @ noise, drawn, atol=1e-5)


def test_a_blt_streams_its_matrix_for_200_rounds_in_float32() -> None:
    """Optimised parameters, decays next to 1: rounding does not build up."""
    strategy, rounds = optimise_blt(200, 40, 5, 4), 200
    z, x = (
        np.array([m.add_noise(zero_sums(m, [(5,)]))[0] for _ in range(rounds)], np.float64)
        for m in (create(Gaussian(), [(5,)]), create(strategy, [(5,)]))
    )
    np.testing.assert_allclose(
        toeplitz_matrix(strategy.first_column(rounds), rounds) @ x, z, atol=2e-5
    )


@pytest.mark.parametrize("strategy", [Gaussian(), Tree(), Tree(restart_every=2)], ids=repr)
def test_draws_of_different_weights_and_rounds_are_independent(strategy: Strategy) -> None:
    """At odd rounds a tree adds a fresh leaf whole; no two such draws correlate, in no weight (5 sigma)."""
    size = 20_000
    mechanism = create(strategy, [(size,), (size,)], 1.0, 1.0, seed=1)
    zero = zero_sums(mechanism, [(size,), (size,)])
    drawn = [noise for t in range(1, 10) for noise in mechanism.add_noise(zero) if t % 2]
    correlations = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlations).max() < 5 / size**0.5


def test_restarts_leave_the_noise_so_far_in_the_sum() -> None:
    """With the same seed, the first tree is that of a run without restarts; the next is drawn anew."""
    plain, restarted = create(Tree()), create(Tree(restart_every=3))
    for round_index in range(3):
        a, b = plain.add_noise(zero_sums(plain)), restarted.add_noise(zero_sums(restarted))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)), round_index
    leaf = create(Tree()).add_noise(zero_sums(plain))[0]
    again = restarted.add_noise(zero_sums(restarted))[
        0
    ]  # a single leaf, since nothing is taken back
    assert again.std() == pytest.approx(leaf.std(), rel=0.3)
    assert not np.array_equal(again, leaf)


# Queries on their own, as TensorFlow Privacy and TensorFlow Federated use them.

SPECS = [tf.TensorSpec([3]), tf.TensorSpec([])]
QUERIES: dict[str, Callable[[float], tfp.SumAggregationDPQuery]] = {
    "gaussian": lambda noise: GaussianSumQuery(SPECS, 1.0, noise, 3),
    "tree": lambda noise: build_tree_query(SPECS, 1.0, noise, 3, Tree()),
    "restarted tree": lambda noise: build_tree_query(SPECS, 1.0, noise, 3, Tree(2)),
    "toeplitz": lambda noise: BandedToeplitzSumQuery(SPECS, 1.0, noise, 3, BANDED),
    "blt": lambda noise: BltSumQuery(SPECS, 1.0, noise, 3, BLT),
    "adaptive": lambda noise: AdaptiveClipSumQuery(SPECS, 1.0, noise, 3, ADAPTIVE),
}
RECORDS = [([3.0, 0.0, 0.0], 4.0), ([0.1, 0.2, 0.2], 0.0), ([math.nan, 0.0, 0.0], 1.0)]
RECORDS += [([1e30, 0.0, 0.0], 0.0), ([0.0, math.inf, 0.0], 0.0)]


@pytest.mark.parametrize("name", QUERIES)
def test_records_are_clipped_and_broken_ones_count_as_zero(name: str) -> None:
    query = QUERIES[name](0.0)
    state = query.initial_global_state()
    params = query.derive_sample_params(state)
    sample = query.initial_sample_state([tf.zeros(s.shape) for s in SPECS])
    for record in RECORDS:
        tensors = [tf.constant(part, tf.float32) for part in record]
        sample = query.accumulate_record(params, sample, tensors)
    total, _, _ = query.get_noised_result(sample, state)
    np.testing.assert_allclose(total[0], [0.6 + 0.1, 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(total[1], 0.8, atol=1e-6)
    if name == "adaptive":  # one of five within the clip norm, the broken ones count as beyond it
        assert sample.centred_count.numpy() == pytest.approx(0.5 - 4 * 0.5)


@given(
    st.lists(st.lists(st.floats(width=32), min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(0.015625, 128, width=32),
)
@settings(deadline=None, max_examples=60)
def test_no_record_adds_more_than_the_clip_norm(records, clip_norm: float) -> None:
    query = GaussianSumQuery([tf.TensorSpec([4])], clip_norm, 0.0, 0)
    params = query.derive_sample_params(query.initial_global_state())
    for record in records:
        (clipped,) = query.preprocess_record(params, [tf.constant(record, tf.float32)])
        assert np.linalg.norm(clipped.numpy().astype(np.float64)) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("name", QUERIES)
def test_queries_fit_tensorflow_federateds_aggregators(name: str) -> None:
    """Its factory puts every function of the query in a graph and checks that the state's type stays the same."""
    query = QUERIES[name](0.5)
    value_type = tff.to_type([tff.TensorType(np.float32, s.shape) for s in SPECS])
    process = tff.aggregators.DifferentiallyPrivateFactory(query).create(value_type)
    assert process.next.type_signature.result.result.member == value_type


@pytest.mark.parametrize("name", QUERIES)
def test_a_graph_draws_the_same_noise(name: str) -> None:
    query = QUERIES[name](0.5)
    compiled = tf.function(lambda sample, state: query.get_noised_result(sample, state)[:2])
    eager_state = graph_state = query.initial_global_state()
    sample = query.initial_sample_state([tf.zeros(s.shape) for s in SPECS])
    for _ in range(5):
        expected, eager_state, _ = query.get_noised_result(sample, eager_state)
        found, graph_state = compiled(sample, graph_state)
        for a, b in zip(expected, found, strict=True):
            assert a.numpy().any()
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_clip_norms_and_events_are_those_of_tensorflow_privacys_adaptive_query() -> None:
    """Without noise; theirs draws from an unseeded generator."""
    quiet = AdaptiveClipping(0.6, 0.3, 1e-9, 8)
    ours = AdaptiveClipSumQuery(SPECS, 1.0, 0.0, 3, quiet)
    theirs = tfp.QuantileAdaptiveClipSumQuery(1.0, 0.0, 0.6, 0.3, 1e-9, 8, geometric_update=True)
    states = [ours.initial_global_state(), theirs.initial_global_state()]
    random = np.random.default_rng(0)
    for _ in range(12):
        records = [
            [tf.constant(random.normal(size=3), tf.float32), tf.constant(scale, tf.float32)]
            for scale in random.exponential(size=6)
        ]
        clips = []
        for i, query in enumerate((ours, theirs)):
            params = query.derive_sample_params(states[i])
            sample = query.initial_sample_state([tf.zeros(s.shape) for s in SPECS])
            for record in records:
                sample = query.accumulate_record(params, sample, record)
            _, states[i], _ = query.get_noised_result(sample, states[i])
            clips.append(next(iter(query.derive_metrics(states[i]).values())).numpy())
        assert clips[0] == pytest.approx(clips[1], rel=1e-5)
    assert clips[0] != pytest.approx(1.0, rel=0.05)


def test_the_clip_norm_settles_at_the_quantile() -> None:
    """Norms 0.1 to 1 in equal steps, 70 % to stay unclipped: between the 7th and the 8th; with noise, about there."""
    clipping = AdaptiveClipping(target_quantile=0.7, learning_rate=0.2, count_stddev=0.5, cohort=10)
    strategy = Gaussian(count_stddev=0.5)
    mechanism = create_mechanism(strategy, [(2,)], 5.0, 0.01, 1, clipping)
    norms, later = np.linspace(0.1, 1, 10), []
    for round_index in range(200):
        unclipped = int((norms <= mechanism.clip_norm).sum())
        centred = np.array(unclipped / 2 - (10 - unclipped) / 2, np.float32)
        mechanism.add_noise([np.zeros(2, np.float32), centred])
        if round_index >= 100:
            later.append(mechanism.clip_norm)
    assert 0.65 < np.mean(later) < 0.85


def test_the_adaptive_event_is_what_the_accountant_charges() -> None:
    query = AdaptiveClipSumQuery(SPECS, 1.0, 1.3, 3, ADAPTIVE)
    state = query.initial_global_state()
    sample = query.initial_sample_state([tf.zeros(s.shape) for s in SPECS])
    _, _, event = query.get_noised_result(sample, state)
    accountant = dp_accounting.pld.PLDAccountant()
    accountant.compose(event)
    effective = effective_noise_multiplier(1.3, ADAPTIVE.count_stddev)
    single = dp_accounting.pld.PLDAccountant()
    single.compose(dp_accounting.GaussianDpEvent(effective))
    assert accountant.get_epsilon(1e-5) == pytest.approx(single.get_epsilon(1e-5), abs=1e-3)


def test_the_noise_drawn_on_the_count_is_the_one_accounted_for() -> None:
    for strategy, clipping in (
        (Gaussian(), ADAPTIVE),
        (Gaussian(count_stddev=0.8), ADAPTIVE),
        (Gaussian(count_stddev=0.7), None),
        (Tree(), ADAPTIVE),
    ):
        with pytest.raises(ValueError, match="must draw the noise that the strategy accounts for"):
            create_mechanism(strategy, SHAPES, 1.0, 1.0, 0, clipping)


@pytest.mark.parametrize(
    "change",
    [{"target_quantile": 1.1}, {"learning_rate": 0.0}, {"count_stddev": -1.0}, {"cohort": 0}],
)
def test_adaptive_clipping_names_the_field_at_fault(change: dict) -> None:
    settings = {"target_quantile": 0.5, "learning_rate": 0.2, "count_stddev": 1.0, "cohort": 5}
    with pytest.raises(ValueError, match=f"{next(iter(change))} is"):
        AdaptiveClipping(**settings | change)

"""Messages of whole numbers: their sum is the plain sum, with the noise promised, whatever devices send."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import tensorflow as tf

from federated.canaries import Canaries
from federated.config import FederatedConfig
from federated.engines.local import LocalEngine
from federated.fleet_config import FleetConfig
from federated.local_training import METRICS, LocalTraining
from federated.mechanisms import Mechanism, create_mechanism
from federated.mechanisms.skellam import (
    SkellamSumQuery,
    derive_key,
    rotate,
    rotate_back,
    round_within,
)
from federated.skellam import rounded_norm
from federated.strategies import DeviceNoise, Skellam
from federated.training import FederatedTraining, train_federated
from tests.federated.tiny_devices import build_store, random_weights

CLIP, NO_NOISE = 0.4, 1e-9
MESSAGES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 2, 0, 3, 5, 9]
DEVICES = len(MESSAGES)
WEIGHTS = random_weights(1)
SHAPES = [w.shape for w in WEIGHTS]
PARAMETERS = sum(w.size for w in WEIGHTS)
KEY = tf.constant([7, 0], tf.int64)


@pytest.fixture(scope="module")
def store():
    return build_store(MESSAGES)


def lay_out(noise_multiplier: float, bits: int = 20, cohort: int = DEVICES, **settings) -> Skellam:
    return Skellam.lay_out(
        bits, PARAMETERS, cohort, settings.get("min_reports", cohort), noise_multiplier
    )


def build_query(strategy: Skellam, noise_multiplier: float, seed: int = 7) -> SkellamSumQuery:
    specs = [tf.TensorSpec(shape) for shape in SHAPES]
    return SkellamSumQuery(specs, CLIP, noise_multiplier, seed, strategy)


def build_engine(strategy: Skellam, noise_multiplier: float, rate: float = 0.5) -> LocalEngine:
    return LocalEngine(LocalTraining(rate, CLIP, noise=DeviceNoise(strategy, noise_multiplier)))


def cut(store, *deal: list[int]):
    return [(*store.shard(ids, 2, 2), np.array(ids, np.int64)) for ids in deal]


def create(strategy: Skellam, noise_multiplier: float) -> Mechanism:
    return create_mechanism(strategy, SHAPES, CLIP, noise_multiplier, 7)


def norm(arrays) -> float:
    return float(np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in arrays)))


@pytest.mark.parametrize("size", [1, 2, 32, 64, 1024])
def test_the_rotation_is_signs_and_a_hadamard_matrix(size) -> None:
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32)
    rotated = rotate(tf.constant(vector), KEY).numpy()
    signs = rotate(tf.eye(size)[0], KEY).numpy()[0] * size**0.5
    assert abs(signs) == pytest.approx(1)
    back = scipy.linalg.hadamard(size) @ rotated / size**0.5  # Sylvester's matrix undoes itself
    np.testing.assert_allclose(np.abs(back), np.abs(vector), atol=1e-5)
    np.testing.assert_allclose(
        rotate_back(tf.constant(rotated), KEY).numpy(), vector, rtol=0, atol=1e-5
    )


def test_each_round_is_rotated_anew_and_a_spike_is_spread() -> None:
    spike = tf.constant([1.0] + [0.0] * 255)
    first, again, second = (rotate(spike + 0.01, [7, r]).numpy() for r in (0, 0, 1))
    assert (first == again).all() and (first != second).any()
    assert np.abs(rotate(spike, [7, 0]).numpy()).max() == pytest.approx(1 / 16)


def test_rounding_is_unbiased_and_never_too_long() -> None:
    values = tf.constant(np.random.default_rng(1).normal(0, 1.5, 64).astype(np.float32))
    scale = norm([values])
    draw = tf.function(lambda i: round_within(values, rounded_norm(scale, 64), derive_key(KEY, i)))
    rounded = np.array([draw(tf.constant(i)) for i in range(2000)])
    assert (np.abs(rounded - values.numpy()) < 1).all()
    assert np.square(rounded).sum(axis=1).max() <= rounded_norm(scale, 64) ** 2
    fraction = values.numpy() % 1
    deviation = np.sqrt(fraction * (1 - fraction) / len(rounded))
    assert (np.abs(rounded.mean(axis=0) - values.numpy()) < 4.5 * deviation + 0.02).all()


def test_what_cannot_be_rounded_in_time_is_cut_and_what_is_too_long_is_nothing() -> None:
    values = tf.constant([2.6, -2.6, 0.4, -0.4])
    assert round_within(values, 8**0.5, KEY).numpy().tolist() == [2, -2, 0, 0]
    assert round_within(values, 2.0, KEY).numpy().tolist() == [0, 0, 0, 0]


def test_without_noise_the_sum_is_the_plain_sum_to_a_grid_step(store) -> None:
    """A device's rounding moves its vector by less than sqrt(d) steps, typically by sqrt(d / 6)."""
    strategy = lay_out(NO_NOISE)
    plain, metrics = LocalEngine(LocalTraining(0.5, CLIP)).run_round(
        WEIGHTS, [s[:2] for s in cut(store, [*range(DEVICES)])]
    )
    mechanism = create(strategy, NO_NOISE)
    sums, secure_metrics = build_engine(strategy, NO_NOISE).run_round(
        [*WEIGHTS, *mechanism.broadcast()], cut(store, [*range(DEVICES)])
    )
    total = mechanism.add_noise(sums)
    assert [t.shape for t in total] == SHAPES
    error = norm([t - p for t, p in zip(total, plain, strict=True)])
    step = CLIP / strategy.scale
    assert error < 1.5 * step * (DEVICES * strategy.dimension / 6) ** 0.5
    assert 0.05 * step < error < 1e-3 * norm(plain)
    np.testing.assert_array_equal(metrics, secure_metrics)


def test_no_deal_of_the_devices_changes_a_bit_of_the_sum(store) -> None:
    strategy = lay_out(1.0)
    sent, engine = [*WEIGHTS, KEY.numpy()], build_engine(strategy, 1.0)
    one = engine.run_round(sent, cut(store, [*range(DEVICES)]))[0][0]
    four = engine.run_round(sent, cut(store, [14], [3, 1, 2], [0, 5, 4, 6, 7], [*range(8, 14)]))[0]
    np.testing.assert_array_equal(one, four[0])
    assert one.dtype == np.int32 and one.min() >= 0 and one.max() < 2**strategy.bits
    other_round = engine.run_round([*WEIGHTS, np.array([7, 1])], cut(store, [*range(DEVICES)]))
    assert (one != other_round[0][0]).mean() > 0.9


def test_the_sum_holds_the_noise_promised() -> None:
    """Devices without data send noise alone; z clip norms is what min_reports of them make, and more make more."""
    z, min_reports = 2.0, 6
    strategy = lay_out(z, cohort=12, min_reports=min_reports)
    store, engine = build_store([0] * 12), build_engine(strategy, z)
    for reports in (6, 9, 12):
        mechanism = create(strategy, z)
        sent = [*WEIGHTS, *mechanism.broadcast()]
        sums, _ = engine.run_round(sent, cut(store, [*range(reports)]))
        noise = np.concatenate([t.ravel() for t in mechanism.add_noise(sums)])
        expected = (z * CLIP) ** 2 * reports / min_reports
        low, high = scipy.stats.chi2.ppf([1e-4, 1 - 1e-4], PARAMETERS) / PARAMETERS
        assert low < noise.var() / expected < high
        assert abs(noise.mean()) < 4 * (expected / PARAMETERS) ** 0.5


def test_a_message_of_nothing_is_skellam_noise_of_the_devices_share() -> None:
    """Each value's frequency against SciPy's probabilities; in few bits, so that modular clipping shows."""
    strategy = Skellam(bits=3, scale=4.0, dimension=2**14, cohort=4, min_reports=4)
    query = SkellamSumQuery([tf.TensorSpec([2**14])], CLIP, 1.0, 7, strategy)
    message = query.preprocess_record(KEY, ([tf.zeros([2**14])], derive_key(KEY, 0, 5))).numpy()
    assert message.dtype == np.int32 and message.min() == 0 and message.max() == 7
    values = np.arange(-40, 40)
    shares = np.bincount(values % 8, scipy.stats.skellam.pmf(values, 2.0, 2.0))
    counts = np.bincount(message, minlength=8)
    assert scipy.stats.chisquare(counts, shares * len(message)).pvalue > 1e-3


def test_devices_and_rounds_draw_noise_of_their_own() -> None:
    query = build_query(lay_out(1.0), 1.0)
    nothing = [tf.zeros(shape) for shape in SHAPES]

    def draw(*places: int) -> np.ndarray:
        message = query.preprocess_record(KEY, (nothing, derive_key(KEY, *places))).numpy()
        return (message + 2**19) % 2**20 - 2**19

    one, again, other = draw(0, 5), draw(0, 5), draw(0, 6)
    assert (one == again).all()
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / len(one) ** 0.5


def test_a_full_cohort_of_equal_updates_does_not_wrap_around() -> None:
    """The largest sum there can be, in all 30 rounds; with a bit less, it does."""
    z, cohort = 0.5, 40
    update = [np.full(shape, CLIP / PARAMETERS**0.5, np.float32) for shape in SHAPES]

    def worst_error(strategy: Skellam) -> float:
        query = build_query(strategy, z)

        @tf.function
        def add(round_key):
            total = query.initial_sample_state()
            for device in tf.range(cohort):
                record = update, derive_key(round_key, 0, device)
                total = query.accumulate_preprocessed_record(
                    total, query.preprocess_record(round_key, record)
                )
            return total

        errors = []
        for step in range(30):
            state = query.initial_global_state()._replace(step=tf.constant(step, tf.int64))
            result, _, _ = query.get_noised_result(add(query.derive_sample_params(state)), state)
            errors.append(
                norm([r.numpy() - cohort * u for r, u in zip(result, update, strict=True)])
            )
        return max(errors)

    strategy = lay_out(z, bits=16, cohort=cohort)
    expected = z * CLIP * PARAMETERS**0.5
    assert worst_error(strategy) < 1.2 * expected
    coarse = Skellam(14, strategy.scale, strategy.dimension, cohort, cohort)
    assert worst_error(coarse) > 2 * expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.nan, 0), (np.inf, 0), (-np.inf, 0), (1e30, 0), (-1e38, 0), (1e15, CLIP), (0.1, 0.1)],
)
def test_a_hostile_update_is_zeroed_or_clipped_before_it_is_rounded(value, expected) -> None:
    """A norm that is none of float32's numbers counts as zero; any other is cut to the clip norm."""
    query, key = build_query(lay_out(NO_NOISE), NO_NOISE), derive_key(KEY, 0, 5)
    update = [np.zeros(shape, np.float32) for shape in SHAPES]
    update[0][1, 1] = value
    message = query.preprocess_record(KEY, (update, key)).numpy()
    assert message.min() >= 0 and message.max() < 2**20
    total, _, _ = query.get_noised_result(message, query.initial_global_state())
    assert norm(total) == pytest.approx(expected, abs=1e-3 * CLIP)


def test_a_device_that_learns_infinity_adds_nothing_but_its_noise(store) -> None:
    strategy = lay_out(NO_NOISE)
    mechanism = create(strategy, NO_NOISE)
    sent = [*WEIGHTS, *mechanism.broadcast()]
    engine = build_engine(strategy, NO_NOISE, rate=1e30)
    sums, metrics = engine.run_round(sent, cut(store, [14]))
    assert metrics[METRICS.index("zeroed")] == 1
    assert not any(t.any() for t in mechanism.add_noise(sums))


CONFIG = FederatedConfig(
    engine="local",
    rounds=5,
    cohort=4,
    min_separation=3,
    batch_rows=2,
    row_tokens=4,
    max_batches=2,
    local_learning_rate=0.5,
    clip_norm=CLIP,
    mechanism="skellam",
    noise_multiplier=0.4,
    bits=20,
    production_cohort=100,
    production_population=10_000,
)


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(LocalTraining(0.5, CLIP, noise=CONFIG.device_noise(PARAMETERS)))


def start(store, engine, seed: int = 11, **settings) -> FederatedTraining:
    config = CONFIG.model_copy(update=settings)
    return FederatedTraining(WEIGHTS, store, engine, config, seed)


def saved(path: Path) -> dict[str, bytes]:
    with np.load(path) as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


def test_a_killed_run_goes_on_bit_for_bit(store, engine, tmp_path) -> None:
    def stop(training: FederatedTraining) -> None:
        if training.round == 3:
            raise KeyboardInterrupt

    whole, parted = tmp_path / "whole.npz", tmp_path / "parted.npz"
    train_federated(start(store, engine), 5, whole, lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        train_federated(start(store, engine), 5, parted, stop)
    train_federated(start(store, engine), 5, parted, lambda _: None)
    assert saved(whole) == saved(parted)
    train_federated(start(store, engine, seed=12), 5, tmp_path / "other.npz", lambda _: None)
    assert saved(whole) != saved(tmp_path / "other.npz")


def test_the_round_is_the_plain_one_with_noise_of_the_size_promised(store, engine) -> None:
    """Against the mechanism gaussian on the same cohort: the steps differ by both noises, and by no more."""
    gaussian = start(
        store,
        LocalEngine(LocalTraining(0.5, CLIP)),
        mechanism="gaussian",
        bits=None,
        noise_multiplier=1e-6,
    )
    secure = start(store, engine)
    gaussian.run_round()
    figures = secure.run_round()
    differences = [s - g for s, g in zip(secure.weights, gaussian.weights, strict=True)]
    expected = 0.4 * CLIP / CONFIG.cohort * PARAMETERS**0.5
    assert norm(differences) == pytest.approx(expected, rel=0.1)
    assert figures["bytes_up_per_device"] == 1024 * 20 / 8 < figures["bytes_down_per_device"]
    assert "signal_to_noise" not in figures
    strategy = secure.ledger.promise.strategy
    assert isinstance(strategy, Skellam) and strategy.min_reports == 4
    assert secure.ledger.guarantee(1e-6).epsilon > 0


def test_no_sum_of_too_few_reports_is_opened(store, engine) -> None:
    """They hold too little noise: such rounds are abandoned, and every round that is kept is full."""
    fleet = FleetConfig(drop_out=0.2, over_selection=1.0, daytime=1.0, newcomers=0, leaving_a_day=0)
    training = start(store, engine, fleet=fleet, rounds=12, min_separation=1)
    figures = [training.run_round() for _ in range(12)]
    assert [figure["reported"] for figure in figures] == [4] * 12
    assert sum(figure["abandoned"] for figure in figures) > 0
    assert all(len(record.reported) == 4 for record in training.ledger.rounds)


def test_what_cannot_be_secure_is_refused(store, engine) -> None:
    with pytest.raises(ValueError, match="canaries send no messages"):
        FederatedTraining(WEIGHTS, store, engine, CONFIG, 1, Canaries(3, SHAPES, CLIP, 1))
    less = DeviceNoise(lay_out(0.2, cohort=4), 0.2)
    for noise in (None, less):
        with pytest.raises(ValueError, match=r"create the engine with LocalTraining\(noise"):
            start(store, LocalEngine(LocalTraining(0.5, CLIP, noise=noise)))
    with pytest.raises(ValueError, match="create the engine with"):
        start(store, engine, mechanism="tree", bits=None)
    with pytest.raises(ValueError, match="needs a fixed clip_norm"):
        LocalTraining(0.5, None, noise=CONFIG.device_noise(PARAMETERS))
    with pytest.raises(ValueError, match="dimension is 16, too few"):
        build_query(Skellam(20, 10.0, 16, 4, 4), 1.0)

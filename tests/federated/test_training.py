"""The round loop: bit for bit the same after a kill, the same noise for the same seed, a fixed divisor."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from federated import factorisation
from federated.accounting import account
from federated.config import AdaptiveClippingConfig, FederatedConfig
from federated.engines.local import LocalEngine
from federated.factorisation import optimise_blt
from federated.fleet_config import FleetConfig
from federated.local_training import LocalTraining
from federated.round_log import RoundLog
from federated.training import FederatedTraining, train_federated
from model.checkpoint import load_weights
from tests.federated.tiny_devices import build_store, random_weights

CONFIG = FederatedConfig(
    engine="local",
    rounds=5,
    cohort=4,
    min_separation=3,
    batch_rows=2,
    row_tokens=4,
    max_batches=2,
    local_learning_rate=0.5,
    clip_norm=0.4,
    noise_multiplier=0.4,
    server_learning_rate=0.8,
    server_momentum=0.9,
)
MESSAGES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 2, 0, 3, 5, 9]


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def store():
    return build_store(MESSAGES)


@pytest.fixture(scope="module")
def start(store, local_engine):
    """Makes a fresh run on the devices, with some settings replaced."""

    def make(seed: int = 11, weights_seed: int = 1, **settings) -> FederatedTraining:
        config = CONFIG.model_copy(update=settings)
        return FederatedTraining(random_weights(weights_seed), store, local_engine, config, seed)

    return make


@pytest.fixture(scope="module")
def adaptive_engine() -> LocalEngine:
    """Its devices learn each round's clip norm from the server."""
    return LocalEngine(LocalTraining(learning_rate=0.5, clip_norm=None))


def saved_arrays(training: FederatedTraining, path: Path) -> dict[str, np.ndarray]:
    """Everything the run's checkpoint holds, its ledger included."""
    training.save(path)
    ledger = np.frombuffer(path.with_suffix(".ledger").read_bytes(), np.uint8)
    with np.load(path) as arrays:
        return dict(arrays) | {"ledger_0": ledger}


@pytest.fixture(scope="module")
def whole(start) -> FederatedTraining:
    """An uninterrupted run."""
    run = start()
    for _ in range(CONFIG.rounds):
        run.run_round()
    return run


@pytest.mark.parametrize("killed_in", [2, 4])
def test_a_killed_run_goes_on_bit_for_bit(start, whole, tmp_path, killed_in) -> None:
    """Weights, optimizer, noise, selector, ledger and history; the killed round is run again."""

    def die(training: FederatedTraining) -> None:
        if training.round == killed_in:
            raise Killed

    checkpoint = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        train_federated(start(), CONFIG.rounds, checkpoint, die)
    resumed, seen = start(), list[int]()
    train_federated(resumed, CONFIG.rounds, checkpoint, lambda run: seen.append(run.round))
    assert seen == list(range(killed_in, CONFIG.rounds + 1))

    expected = saved_arrays(whole, tmp_path / "whole.npz")
    actual = saved_arrays(resumed, tmp_path / "resumed.npz")
    assert {name.rpartition("_")[0] for name in expected} >= {
        "weight",
        "optimizer",
        "noise",
        "ledger",
    }
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        assert array.dtype == actual[name].dtype and np.array_equal(array, actual[name]), name
    assert resumed.history == whole.history
    assert resumed.ledger.to_json() == whole.ledger.to_json()
    assert all(np.array_equal(a, b) for a, b in zip(whole.weights, resumed.weights, strict=True))


def test_a_finished_run_is_not_run_again(start, tmp_path) -> None:
    checkpoint, seen = tmp_path / "checkpoint.npz", list[int]()
    first, again = start(), start()
    train_federated(first, 2, checkpoint, lambda run: seen.append(run.round))
    train_federated(again, 2, checkpoint, lambda run: seen.append(run.round))
    assert seen == [1, 2]
    assert all(
        np.array_equal(a, b) for a, b in zip(first.weights, load_weights(checkpoint), strict=True)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, again.weights, strict=True))


@pytest.mark.parametrize(
    "setting",
    [
        {"noise_multiplier": 0.5},
        {"clip_norm": 0.3},
        {"min_separation": 2},
        {"max_participations": 2},
        {"rounds": 6},
        {"restart_every": 2},
        {"mechanism": "gaussian"},
    ],
)
def test_another_promise_is_refused_and_nothing_is_restored(
    start, whole, tmp_path, setting
) -> None:
    checkpoint = tmp_path / "checkpoint.npz"
    whole.save(checkpoint)
    other = start(**setting)
    before = saved_arrays(other, tmp_path / "before.npz")
    with pytest.raises(ValueError, match=r"checkpoint.npz: was written under Promise.*: remove it"):
        other.restore(checkpoint)
    after = saved_arrays(other, tmp_path / "after.npz")
    assert all(np.array_equal(after[name], array) for name, array in before.items())


@pytest.mark.parametrize("name", ["toeplitz", "blt"])
def test_a_run_goes_on_with_its_own_coefficients_on_a_machine_that_finds_others(
    start, tmp_path, monkeypatch, name: str
) -> None:
    """An optimiser that stops early stands for one that rounds differently: noise and charge are the first one's."""
    settings = MECHANISMS[name] | {"rounds": 8}
    whole, first, checkpoint = start(**settings), start(**settings), tmp_path / "checkpoint.npz"
    for _ in range(8):
        whole.run_round()
    train_federated(first, 4, checkpoint, lambda run: None)
    monkeypatch.setattr(factorisation, "_MOST_STEPS", 3)
    second, strategy = start(**settings), whole.ledger.promise.strategy
    assert second.ledger.promise.strategy != strategy
    train_federated(second, 8, checkpoint, lambda run: None)
    expected = saved_arrays(whole, tmp_path / "whole.npz")
    for key, array in saved_arrays(second, tmp_path / "second.npz").items():
        assert np.array_equal(array, expected[key]), key
    k = whole.ledger.measured_participations
    assert second.ledger.guarantee(1e-6) == account(strategy, 0.4, 8, 3, k, 1e-6)


@pytest.mark.parametrize("setting", [{"buffers": 3}, {"buffers": None}, {"rounds": 4}])
def test_other_coefficients_by_choice_are_refused(start, tmp_path, setting) -> None:
    """Also where the default would choose as many: what was asked for is another thing."""
    first = start(mechanism="blt", buffers=4 if setting == {"buffers": None} else 2)
    first.save(tmp_path / "checkpoint.npz")
    other = start(**{"mechanism": "blt", "buffers": 2} | setting)
    with pytest.raises(ValueError, match=r"checkpoint.npz: was written under .*: remove it"):
        other.restore(tmp_path / "checkpoint.npz")


def test_other_devices_and_another_ledger_are_refused(start, local_engine, whole, tmp_path) -> None:
    checkpoint = tmp_path / "checkpoint.npz"
    whole.save(checkpoint)
    store = build_store([*MESSAGES, 3])
    other = FederatedTraining(random_weights(1), store, local_engine, CONFIG, 11)
    with pytest.raises(ValueError, match=r"was written for 15 devices, not 16: remove it"):
        other.restore(checkpoint)
    start(seed=12).save(tmp_path / "other.npz")
    (tmp_path / "other.ledger").rename(tmp_path / "checkpoint.ledger")
    with pytest.raises(ValueError, match=r"checkpoint.ledger: is not the ledger"):
        start().restore(checkpoint)


def test_the_ledger_holds_the_promise_and_every_cohort(whole) -> None:
    assert [len(record.reported) for record in whole.ledger.rounds] == [
        CONFIG.cohort
    ] * CONFIG.rounds
    for i, early in enumerate(whole.ledger.rounds):
        for late in whole.ledger.rounds[i + 1 : i + CONFIG.min_separation]:
            assert not set(early.reported) & set(late.reported)
    promise = whole.ledger.promise
    assert (promise.noise_multiplier, promise.clip_norm, promise.min_separation) == (0.4, 0.4, 3)


def noise_by_round(
    run: FederatedTraining, engine: LocalEngine, store, rounds: int, cohort: int = CONFIG.cohort
) -> list[list[np.ndarray]]:
    """The noise in each round's sum: what the server did, less what the cohort's devices sent."""
    noise = []
    for _ in range(rounds):
        before = [w.astype(np.float64) for w in run.weights]
        run.run_round()
        devices = run.ledger.rounds[-1].reported
        sums, _ = engine.run_round(
            [w.astype(np.float32) for w in before],
            [store.shard(devices, CONFIG.batch_rows, CONFIG.max_batches)],
        )
        steps = [(w - b) * cohort for w, b in zip(run.weights, before, strict=True)]
        noise.append([step - s for step, s in zip(steps, sums, strict=True)])
    return noise


def test_arms_share_cohorts_and_noise(start, local_engine, store) -> None:
    """The two arms start from different weights and must differ in nothing else."""
    plain = {"server_momentum": 0.0, "server_learning_rate": 1.0}
    runs = [start(weights_seed=seed, **plain) for seed in (1, 2)]
    noises = [noise_by_round(run, local_engine, store, 2) for run in runs]
    assert runs[0].ledger.rounds == runs[1].ledger.rounds
    for first, second in zip(*noises, strict=True):
        assert max(np.abs(n).max() for n in first) > 0.3  # noise of 0.16 a value, a thousand values
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_another_seed_gives_other_cohorts_and_noise(start, local_engine, store) -> None:
    plain = {"server_momentum": 0.0, "server_learning_rate": 1.0}
    runs = [start(seed=seed, **plain) for seed in (1, 2)]
    first, second = (noise_by_round(run, local_engine, store, 1)[0] for run in runs)
    assert runs[0].ledger.rounds != runs[1].ledger.rounds
    assert max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) > 0.3


def test_the_mean_divides_by_the_cohort_of_the_config(local_engine) -> None:
    """Three of the five devices have nothing to say, and the divisor is five all the same."""
    store = build_store([0, 5, 0, 8, 0])
    config = CONFIG.model_copy(
        update={
            "cohort": 5,
            "min_separation": 1,
            "noise_multiplier": 1e-9,
            "server_learning_rate": 1.0,
        }
    )
    weights = random_weights(1)
    run = FederatedTraining(weights, store, local_engine, config, 3)
    metrics = run.run_round()
    sums, raw = local_engine.run_round(weights, [store.shard([1, 3], 2, 2)])
    for before, after, update in zip(weights, run.weights, sums, strict=True):
        np.testing.assert_allclose(after, before + update / 5, atol=1e-6)
    assert metrics["devices"] == 5
    assert metrics["pieces"] == raw[1]
    assert metrics["loss"] == pytest.approx(raw[2] / raw[1])
    assert metrics["clipped"] == pytest.approx(raw[3] / 5)


def test_server_momentum_and_rate_follow_the_formula(start, local_engine, store) -> None:
    """v <- 0.9 v + u, w <- w + 0.8 v, on the means u of a run whose noise is next to nothing."""
    run = start(noise_multiplier=1e-9)
    velocity = [np.zeros(w.shape) for w in run.weights]
    for _ in range(3):
        before = [w.copy() for w in run.weights]
        run.run_round()
        cohort = run.ledger.rounds[-1].reported
        sums, _ = local_engine.run_round(before, [store.shard(cohort, 2, 2)])
        velocity = [0.9 * v + s / CONFIG.cohort for v, s in zip(velocity, sums, strict=True)]
        for weight, old, v in zip(run.weights, before, velocity, strict=True):
            np.testing.assert_allclose(weight, old + 0.8 * v, atol=1e-6)


MECHANISMS = {
    "gaussian": {"mechanism": "gaussian"},
    "adaptive": {
        "mechanism": "gaussian",
        "adaptive_clipping": AdaptiveClippingConfig(count_stddev=0.5, learning_rate=1.0),
    },
    "restarts": {"restart_every": 2},
    "toeplitz": {"mechanism": "toeplitz", "bands": 3},
    "blt": {"mechanism": "blt", "buffers": 2},
}


@pytest.mark.parametrize(
    ("name", "optimizer"), zip(MECHANISMS, itertools.cycle(["adam", "sgd"]), strict=False)
)
def test_every_mechanism_and_optimizer_goes_on_bit_for_bit(
    start, adaptive_engine, store, tmp_path, name: str, optimizer: str
) -> None:
    """Stopped after every round, each time into a new run; with a cool-down in the last two."""
    settings = MECHANISMS[name] | {"server_optimizer": optimizer, "cooldown_rounds": 2}
    config = CONFIG.model_copy(update=settings)
    engine = adaptive_engine if name == "adaptive" else None

    def begin() -> FederatedTraining:
        if engine is None:
            return start(**settings)
        return FederatedTraining(random_weights(1), store, engine, config, 11)

    whole = begin()
    for stop in range(1, CONFIG.rounds + 1):
        whole.run_round()
        train_federated(begin(), stop, tmp_path / "checkpoint.npz", lambda run: None)
    resumed = begin()
    resumed.restore(tmp_path / "checkpoint.npz")
    expected = saved_arrays(whole, tmp_path / "whole.npz")
    actual = saved_arrays(resumed, tmp_path / "resumed.npz")
    assert expected.keys() == actual.keys()
    for key, array in expected.items():
        assert array.dtype == actual[key].dtype and np.array_equal(array, actual[key]), key
    norms = [round_["clip_norm"] for round_ in whole.history]
    assert (len(set(norms)) > 1) == (name == "adaptive")
    assert whole.ledger.guarantee(1e-6).strategy == whole.ledger.promise.strategy


def test_the_clip_norm_of_the_round_is_the_devices(adaptive_engine) -> None:
    """It grows tenfold a round while all are clipped and none should be; so does the step of the server."""
    clipping = AdaptiveClippingConfig(
        target_quantile=1, learning_rate=float(np.log(10)), count_stddev=1e-6
    )
    config = CONFIG.model_copy(
        update={
            "mechanism": "gaussian",
            "noise_multiplier": 1e-6,
            "server_momentum": 0.0,
            "server_learning_rate": 1.0,
            "clip_norm": 1e-4,
            "adaptive_clipping": clipping,
            "cohort": 2,
        }
    )
    store = build_store([3, 4, 5, 6, 7, 8])
    run = FederatedTraining(random_weights(1), store, adaptive_engine, config, 3)
    for clip_norm in (1e-4, 1e-3, 1e-2):
        before = [w.astype(np.float64) for w in run.weights]
        metrics = run.run_round()
        assert metrics["clip_norm"] == pytest.approx(clip_norm, rel=1e-4)
        assert metrics["clipped"] == 1
        step = [w - b for w, b in zip(run.weights, before, strict=True)]
        norm = np.sqrt(sum((s**2).sum() for s in step))
        assert clip_norm / 10 < norm <= clip_norm * (1 + 1e-2)


def test_a_run_is_charged_for_its_own_mechanism(start) -> None:
    run = start(mechanism="blt", buffers=2, noise_multiplier=3.0)
    for _ in range(4):
        run.run_round()
    guarantee = run.ledger.guarantee(1e-6)
    strategy = optimise_blt(CONFIG.rounds, CONFIG.min_separation, 2, 2)
    k = run.ledger.measured_participations
    assert guarantee == account(strategy, 3.0, 4, CONFIG.min_separation, k, 1e-6)
    assert guarantee.mechanism == "blt"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mechanism": "laplace"}, "mechanism is 'laplace'"),
        ({"bands": 2}, "bands is 2, and mechanism tree has none"),
        ({"mechanism": "toeplitz", "bands": 4}, "bands is 4, must be at most rounds and min_sep"),
        ({"adaptive_clipping": {"count_stddev": 1.0}}, "count_stddev is 1.0, and mechanism tree"),
        ({"fleet": {}, "min_reports": 5}, "min_reports is 5, must be at most cohort, 4"),
        ({"cooldown_rounds": 6}, "cooldown_rounds is 6, must be at most rounds, 5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FederatedConfig(**CONFIG.model_dump() | settings)


def test_the_number_of_shards_changes_nothing(start, whole) -> None:
    """Nine of them for four devices; floating-point sums differ in their last digits."""
    run = start(shards=9)
    for expected in whole.history[:3]:
        assert run.run_round() == pytest.approx(expected, rel=1e-4)


# Runs of a fleet, and their log

FLEET = {"fleet": FleetConfig(daytime=0.6), "cohort": 3, "min_separation": 2, "sampling": "poisson"}
SPARSE = FLEET | {"fleet": FleetConfig(daytime=0.3), "min_reports": 3}


def run_logged(training: FederatedTraining, folder: Path, killed_in: int | None = None) -> None:
    """As the federated stage does: a round is logged before its checkpoint is written."""
    log = RoundLog(folder)

    def after_round(training: FederatedTraining) -> None:
        rho = training.ledger.guarantee(1e-6).rho
        log.append({"round": training.round} | training.history[-1] | {"rho": rho})
        if training.round == killed_in:
            raise Killed

    try:
        train_federated(training, CONFIG.rounds, folder / "checkpoint.npz", after_round)
    finally:
        log.close()


@pytest.mark.parametrize("settings", [FLEET, SPARSE], ids=["all", "some abandoned"])
@pytest.mark.parametrize("killed_in", [1, 4])
def test_the_log_of_a_resumed_run_is_the_undisturbed_runs(
    start, tmp_path, killed_in, settings
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    undisturbed, last = start(**settings), start(**settings)
    run_logged(undisturbed, whole)
    with pytest.raises(Killed):
        run_logged(start(**settings), resumed, killed_in)
    run_logged(last, resumed)
    abandoned = [figures["abandoned"] for figures in undisturbed.history]
    assert (sum(abandoned[killed_in:]) > 0) == (settings is SPARSE)
    lines = (whole / "rounds.csv").read_text("utf-8").splitlines()
    assert (resumed / "rounds.csv").read_text("utf-8").splitlines() == lines
    assert [line.split(",")[0] for line in lines] == ["round", "1", "2", "3", "4", "5"]
    assert last.ledger.to_json() == undisturbed.ledger.to_json()
    assert all(np.array_equal(a, b) for a, b in zip(undisturbed.weights, last.weights, strict=True))


def test_only_reports_are_summed_and_charged(start, local_engine, store) -> None:
    """The ledger has both; the sum and the divisor are those of a run of the devices that reported."""
    run = start(noise_multiplier=1e-9, server_momentum=0.0, server_learning_rate=1.0, **FLEET)
    fewer = 0
    for _ in range(4):
        before = [w.copy() for w in run.weights]
        figures = run.run_round()
        record = run.ledger.rounds[-1]
        assert (figures["selected"], figures["reported"]) == tuple(
            len(ids) for ids in (record.selected, record.reported)
        )
        assert figures["devices"] == len(record.reported)
        fewer += len(record.reported) < len(record.selected)
        expected = before
        if record.reported:
            sums, _ = local_engine.run_round(before, [store.shard(record.reported, 2, 2)])
            expected = [b + s / 3 for b, s in zip(before, sums, strict=True)]
        for weight, value in zip(run.weights, expected, strict=True):
            np.testing.assert_allclose(weight, value, atol=1e-6)
    assert fewer


def test_abandoned_rounds_leave_weights_noise_and_ledger_alone(start, local_engine, store) -> None:
    """Their noise is that of a run without any, round for round, and only what was kept is charged."""
    plain = {"server_momentum": 0.0, "server_learning_rate": 1.0, "cohort": 3, "min_separation": 2}
    runs = [start(**plain), start(**SPARSE | plain)]
    noises = [noise_by_round(run, local_engine, store, 4, cohort=3) for run in runs]
    for expected, actual in zip(*noises, strict=True):
        for a, b in zip(expected, actual, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert sum(figures["abandoned"] for figures in runs[1].history) > 2
    assert len(runs[1].ledger.rounds) == runs[1].ledger.guarantee(1e-6).rounds == 4
    assert all(len(record.reported) == 3 for record in runs[1].ledger.rounds)


def test_a_round_without_reports_is_noised_all_the_same(start) -> None:
    run = start(**FLEET | {"fleet": FleetConfig(daytime=0, home_wifi=0)})
    before = [w.copy() for w in run.weights]
    figures = run.run_round()
    assert figures["devices"] == figures["selected"] == figures["signal_to_noise"] == 0
    assert run.ledger.rounds[0].selected == () and run.round == 1
    assert all((a != b).any() for a, b in zip(run.weights, before, strict=True))


def test_no_device_takes_part_too_often(start) -> None:
    run = start(max_participations=1)
    for _ in range(3):
        run.run_round()
    assert run.ledger.promise.max_participations == 1
    with pytest.raises(ValueError, match="round 3 needs 4 devices, and 3 of 15 may take part"):
        run.run_round()

"""Engines give what a plain loop over devices gives; TFF's also what TFF's own federated averaging gives."""

import json
import subprocess
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import federated.engines.tff as tff_module
from federated.engines import Engine, create_engine
from federated.engines.tff import TffEngine, TffWorker
from federated.local_training import METRICS, LocalTraining
from federated.store import DeviceStore
from model.network import loss_sums, run_rows
from tests.federated.tiny_devices import ROW_TOKENS, build_store, random_weights
from tests.federated.tiny_run import TRAINING, run_tiny

BATCH_ROWS, MAX_BATCHES = 3, 2
# Messages of the 20 devices: two have none, some have less than a batch, some more than is used.
MESSAGES = [0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 14, 0, 16, 20, 30, 3]


@pytest.fixture(scope="module")
def store() -> DeviceStore:
    return build_store(MESSAGES)


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    return random_weights(1)


def device_rows(store: DeviceStore, device: int) -> list[np.ndarray]:
    """The device's batches as they are, without any padding."""
    rows = store.rows[store.offsets[device] : store.offsets[device + 1]]
    return [rows[i : i + BATCH_ROWS] for i in range(0, len(rows), BATCH_ROWS)][:MAX_BATCHES]


def sum_by_hand(
    weights: Sequence[np.ndarray],
    store: DeviceStore,
    devices: Sequence[int],
    training: LocalTraining,
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Local SGD device by device, eagerly, with clipping and sums in float64 numpy."""
    sums = [np.zeros(w.shape) for w in weights]
    metrics = dict.fromkeys(METRICS, 0.0)
    for device in devices:
        local = [tf.Variable(w) for w in weights]
        for rows in device_rows(store, device):
            with tf.GradientTape() as tape:
                loss, pieces = loss_sums(local, rows)
                mean = loss / pieces
            gradients = tape.gradient(mean, local)
            for variable, gradient in zip(local, gradients, strict=True):
                variable.assign_sub(training.learning_rate * tf.convert_to_tensor(gradient))
            metrics["loss"] += float(loss)
            metrics["pieces"] += float(pieces)
        update = [v.numpy().astype(np.float64) - w for v, w in zip(local, weights, strict=True)]
        norm = float(np.sqrt(sum((u**2).sum() for u in update)))
        scale = min(1.0, training.clip_norm / norm) if norm else 1.0
        sums = [s + scale * u for s, u in zip(sums, update, strict=True)]
        metrics["devices"] += 1
        metrics["weight"] += 1
        metrics["clipped"] += norm > training.clip_norm
        metrics["update_norm"] += norm
    return sums, metrics


def assert_close(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], limit: float
) -> None:
    assert [a.shape for a in actual] == [e.shape for e in expected]
    assert max(np.abs(a - e).max() for a, e in zip(actual, expected, strict=True)) < limit


class EngineContract:
    """What every engine promises; a subclass gives the fixture `engine`."""

    def run(
        self,
        engine: Engine,
        weights: list[np.ndarray],
        store: DeviceStore,
        deal: Sequence[Sequence[int]],
    ) -> tuple[list[np.ndarray], dict[str, float]]:
        shards = [store.shard(devices, BATCH_ROWS, MAX_BATCHES) for devices in deal]
        sums, metrics = engine.run_round(weights, shards)
        assert all(s.dtype == np.float32 for s in sums) and metrics.shape == (len(METRICS),)
        return sums, dict(zip(METRICS, map(float, metrics), strict=True))

    def test_sums_equal_a_plain_loop(self, engine, training, weights, store) -> None:
        sums, metrics = self.run(engine, weights, store, [range(0, 20, 2), range(1, 20, 2)])
        expected, expected_metrics = sum_by_hand(weights, store, range(20), training)
        assert_close(sums, expected, 1e-5)
        assert metrics == pytest.approx(expected_metrics, rel=1e-5)
        assert 0 < metrics["clipped"] < 18  # else clipping would not be tested

    def test_one_shard_equals_four(self, engine, weights, store) -> None:
        one, one_metrics = self.run(engine, weights, store, [range(20)])
        four, four_metrics = self.run(
            engine, weights, store, [[18], [0, 5, 9], [1, 2, 3, 4, 6, 7, 8, 19], range(10, 18)]
        )
        assert_close(one, four, 1e-6)
        assert one_metrics == pytest.approx(four_metrics, rel=1e-5)

    def test_devices_without_data_add_nothing(self, engine, weights, store) -> None:
        sums, metrics = self.run(engine, weights, store, [[0], [15]])
        assert all(not s.any() for s in sums)
        assert metrics == dict.fromkeys(METRICS, 0.0) | {"devices": 2.0, "weight": 2.0}

    def test_a_device_counts_the_same_beside_larger_ones(self, engine, weights, store) -> None:
        """Batches are padded to the largest device of a shard: that must not be trained on."""
        alone, _ = self.run(engine, weights, store, [[1]])
        larger, _ = self.run(engine, weights, store, [[18]])
        both, _ = self.run(engine, weights, store, [[1, 18]])
        assert_close(both, [a + b for a, b in zip(alone, larger, strict=True)], 1e-6)

    def test_no_shards_give_zeros(self, engine, weights) -> None:
        sums, metrics = engine.run_round(weights, [])
        assert all(s.shape == w.shape and not s.any() for s, w in zip(sums, weights, strict=True))
        assert not metrics.any()
        assert not engine.sum_histograms([], 9, 5.0).any()

    def test_rounds_do_not_remember(self, engine, weights, store) -> None:
        first, _ = self.run(engine, weights, store, [[3, 4], [5]])
        self.run(engine, random_weights(2), store, [[6]])
        again, _ = self.run(engine, weights, store, [[3, 4], [5]])
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))

    def test_histograms_are_clipped_and_summed_like_a_plain_loop(self, engine) -> None:
        random = np.random.default_rng(8)
        devices = [random.integers(0, 9, size) for size in (0, 1, 3, 200, 0, 40, 7, 2)]
        counts = np.array([np.bincount(device, minlength=9) for device in devices], float)
        norms = np.linalg.norm(counts, axis=1)
        clip_norm = 5.0
        assert (norms > clip_norm).sum() == 2  # else clipping would not be tested
        expected = (counts * np.minimum(1, clip_norm / np.maximum(norms, 1e-9))[:, None]).sum(0)
        for deal in ([range(8)], [[0], [3, 4], [7, 1, 2], [6, 5]]):
            shards = [
                (
                    np.concatenate([devices[i] for i in part]).astype(np.int32),
                    np.cumsum([0, *(len(devices[i]) for i in part)]).astype(np.int32),
                )
                for part in deal
            ]
            total = engine.sum_histograms(shards, 9, clip_norm)
            assert total.dtype == np.float64
            np.testing.assert_allclose(total, expected, rtol=1e-12)


class TestLocalEngine(EngineContract):
    @pytest.fixture
    def engine(self, local_engine) -> Engine:
        return local_engine


class TestTffEngine(EngineContract):
    @pytest.fixture
    def engine(self, tff_engine) -> Engine:
        return tff_engine


class TestRayEngine(EngineContract):
    @pytest.fixture
    def engine(self, ray_engine) -> Engine:
        return ray_engine


def average_with_stock_tff(
    worker: TffWorker,
    weights: list[np.ndarray],
    clients: list[tf.data.Dataset],
    training: LocalTraining,
) -> list[np.ndarray]:
    """Weights after a round of `tff.learning.algorithms.build_unweighted_fed_avg`, on one of the engine's workers."""
    stub = tff.framework.RemoteExecutorGrpcStub(worker.channel)

    def create_executor(cardinalities):
        executor = tff.framework.RemoteExecutor(stub)
        executor.set_cardinalities({tff.CLIENTS: 0, **cardinalities})
        return executor

    context = tff.framework.SyncExecutionContext(
        executor_fn=tff.framework.ResourceManagingExecutorFactory(create_executor),
        compiler_fn=tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )

    @tf.function
    def predict(model_weights, tokens, training):
        trainable, _ = model_weights
        hidden = tf.transpose(run_rows(trainable, tokens)[0], [1, 0, 2])
        return tf.tensordot(hidden, tf.transpose(trainable[0]), 1) + trainable[4]

    def mean_cross_entropy(logits, targets, sample_weight=None):
        losses = tf.keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return tf.reduce_mean(tf.boolean_mask(losses, targets > 0))

    row = tf.TensorSpec([None, ROW_TOKENS], tf.int32)
    model = tff.learning.models.FunctionalModel(
        initial_weights=(tuple(weights), ()),
        predict_on_batch_fn=predict,
        loss_fn=mean_cross_entropy,
        input_spec=(row, row),
    )
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(training.learning_rate),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
        model_aggregator=tff.aggregators.clipping_factory(
            training.clip_norm, tff.aggregators.UnweightedMeanFactory()
        ),
    )
    with tff.framework.get_context_stack().install(context):
        state = process.next(process.initialize(), clients).state
        return [np.asarray(w) for w in process.get_model_weights(state).trainable]


def test_a_round_equals_stock_federated_averaging(tff_engine, training, weights, store) -> None:
    """20 devices in three shards against 20 TFF clients, same clipping, no noise."""
    shards = [store.shard(range(i, 20, 3), BATCH_ROWS, MAX_BATCHES) for i in range(3)]
    sums, metrics = tff_engine.run_round(weights, shards)
    ours = [w + s / 20 for w, s in zip(weights, sums, strict=True)]

    def batches_of(device: int) -> tf.data.Dataset:
        rows = np.concatenate([*device_rows(store, device), np.zeros((0, 2, ROW_TOKENS), np.int32)])
        return tf.data.Dataset.from_tensor_slices((rows[:, 0], rows[:, 1])).batch(BATCH_ROWS)

    clients = [batches_of(device) for device in range(20)]
    worker = tff_engine._pool._workers[0]
    stock = average_with_stock_tff(worker, weights, clients, training)
    assert 0 < metrics[METRICS.index("clipped")] < 18
    assert max(np.abs(s - w).max() for s, w in zip(stock, weights, strict=True)) > 1e-2
    assert_close(ours, stock, 1e-5)


def test_unknown_engine_is_refused(training) -> None:
    with pytest.raises(ValueError, match="engine 'spark': give one of local, tff, ray"):
        create_engine("spark", training)


def test_without_ray_the_engine_says_how_to_get_it(training, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"Ray is not installed: run ./scripts/setup fleet"):
        create_engine("ray", training)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:port"])
def test_where_no_cluster_is_the_engine_says_how_to_start_one(
    training, ray_engine, address
) -> None:
    with pytest.raises(ValueError, match=f"engine_address '{address}': no Ray cluster .*ray start"):
        create_engine("ray", training, address=address)


def test_ray_that_was_imported_before_is_refused(training, ray_engine, monkeypatch) -> None:
    """It has read its settings then: it would start without the token, or wait for minutes."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ValueError, match=r"engine ray: Ray was imported before .*engine_address"):
        create_engine("ray", training)


@pytest.fixture(scope="module")
def reference(local_engine, tmp_path_factory) -> dict[str, np.ndarray]:
    """Ten rounds with noise on the reference engine."""
    return run_tiny(local_engine, tmp_path_factory.mktemp("local") / "checkpoint.npz")


@pytest.fixture(scope="module")
def tff_runs(tff_engine, tmp_path_factory) -> list[dict[str, np.ndarray]]:
    """The same on TFF with 1, 2 and 3 workers."""
    folder, runs = tmp_path_factory.mktemp("tff"), []
    for workers in (1, 2, 3):
        engine = tff_engine if workers == 2 else TffEngine(TRAINING, workers)
        runs.append(run_tiny(engine, folder / f"{workers}.npz"))
        if engine is not tff_engine:
            engine.close()
    return runs


def assert_same_run(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Weights to 1e-5, and in them more than noise; the same devices in the ledger."""
    names = [name for name in expected if name.startswith("weight")]
    assert names and actual.keys() == expected.keys()
    assert_close([actual[n] for n in names], [expected[n] for n in names], 1e-5)
    ledgers = [json.loads(run["facts"].tobytes())["ledger"] for run in (actual, expected)]
    assert ledgers[0] == ledgers[1]


def test_tff_gives_the_same_run_with_any_number_of_workers(reference, tff_runs) -> None:
    for run in tff_runs:
        assert_same_run(run, reference)
        assert all(np.array_equal(run[name], tff_runs[0][name]) for name in run)


def test_ray_gives_the_same_run(reference, ray_engine, tmp_path) -> None:
    """With two workers; `test_engines_faults.py` adds one and three, bit for bit."""
    assert_same_run(run_tiny(ray_engine, tmp_path / "checkpoint.npz"), reference)


def test_a_worker_that_crashes_at_its_start_is_replaced(monkeypatch) -> None:
    started: list[subprocess.Popen] = []
    launch = tff_module._launch_worker

    def launch_badly():
        worker, channel = launch()
        started.append(worker)
        if len(started) == 1:
            worker.kill()
        return worker, channel

    monkeypatch.setattr(tff_module, "_launch_worker", launch_badly)
    worker, channel = tff_module._start_worker()
    assert worker is started[1] and worker.poll() is None
    channel.close()
    worker.kill()
    worker.wait()


def test_workers_that_never_start_are_one_clear_error(
    training, monkeypatch, weights, store
) -> None:
    launch = tff_module._launch_worker

    def launch_badly():
        worker, channel = launch()
        worker.kill()
        return worker, channel

    monkeypatch.setattr(tff_module, "_launch_worker", launch_badly)
    engine = TffEngine(training)
    with pytest.raises(RuntimeError, match="exit code -9"):
        engine.run_round(weights, [store.shard([1], BATCH_ROWS, MAX_BATCHES)])
    engine.close()

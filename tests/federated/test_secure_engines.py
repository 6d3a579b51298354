"""TensorFlow Federated's own aggregators give the local engine's secure sum, from one client a device."""

from importlib.util import find_spec

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from federated.engines import create_engine
from federated.engines.tff import TffEngine, TffWorker, _compile, build_secure_round
from federated.local_training import LocalTraining
from federated.mechanisms.skellam import SkellamSumQuery, derive_key
from federated.strategies import DeviceNoise, Skellam
from tests.federated.tiny_devices import ROW_TOKENS, build_store, random_weights

MESSAGES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 9]
DEVICES, CLIP, NOISE = len(MESSAGES), 0.4, 0.5
WEIGHTS = random_weights(1)
STRATEGY = Skellam.lay_out(16, sum(w.size for w in WEIGHTS), DEVICES, DEVICES, NOISE)
TRAINING = LocalTraining(0.5, CLIP, noise=DeviceNoise(STRATEGY, NOISE))
SENT = [*WEIGHTS, np.array([7, 3])]


@pytest.fixture(scope="module")
def store():
    return build_store(MESSAGES)


def cut(store, *deal):
    return [(*store.shard(list(ids), 2, 2), np.array(list(ids), np.int64)) for ids in deal]


def run(name: str, *deals) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sum and metrics of the round for each deal of the devices, by two workers."""
    engine = create_engine(name, TRAINING, 2)
    try:
        rounds = [engine.run_round(SENT, deal) for deal in deals]
    finally:
        engine.close()
    return [(total, metrics) for [total], metrics in rounds]


def centre(total: np.ndarray) -> np.ndarray:
    return (total + 2 ** (STRATEGY.bits - 1)) % 2**STRATEGY.bits


@pytest.mark.parametrize("name", ["tff", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_engine_gives_the_local_sum_for_any_deal(store, name) -> None:
    """Integers add up the same in any order; floats differ in the last bit, so some values round otherwise."""
    if name == "ray" and find_spec("ray") is None:
        pytest.skip("./scripts/setup fleet")
    whole = cut(store, range(DEVICES))
    [(local, metrics)] = run("local", whole)
    (one, one_metrics), (two, _) = run(name, whole, cut(store, [10, 1], [0, 2, 9], range(3, 9)))
    np.testing.assert_array_equal(one, two)
    assert one.dtype == np.int32 and one.min() >= 0 and one.max() < 2**STRATEGY.bits
    difference = np.abs(centre(one) - centre(local))
    assert difference.max() <= 2 and (difference > 0).mean() < 0.05
    np.testing.assert_allclose(one_metrics, metrics, rtol=1e-5)


def test_a_round_is_one_client_a_device_and_tff_s_modular_sum() -> None:
    computation = build_secure_round(tuple(s.shape for s in SENT), (2, 2, ROW_TOKENS), TRAINING)
    assert str(computation.type_signature.parameter[1]).endswith("@CLIENTS")
    assert str(computation.type_signature.result[0]) == f"<int32[{STRATEGY.dimension}]@SERVER>"
    assert "federated_secure_modular_sum" in str(computation.to_building_block())


def test_the_query_works_in_stock_tff() -> None:
    """In TFF's `DifferentiallyPrivateFactory` over its secure modular sum, as anyone would use it."""
    shapes = [(3, 4), (5,)]
    strategy = Skellam.lay_out(18, 17, 6, 6, 0.5)
    query = SkellamSumQuery([tf.TensorSpec(s) for s in shapes], 1.0, 0.5, 11, strategy)
    factory = tff.aggregators.DifferentiallyPrivateFactory(
        query, tff.aggregators.SecureModularSumFactory(2**strategy.bits)
    )
    update_type = [tff.TensorType(np.float32, shape) for shape in shapes]
    process = factory.create(tff.to_type((update_type, tff.TensorType(np.int64, [2]))))
    random = np.random.default_rng(0)
    updates = [[random.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(6)]
    updates[1][0][0, 0] = np.nan
    keys = [np.array([5, device]) for device in range(6)]

    @tff.federated_computation(process.next.type_signature.parameter[1])
    def sum_twice(records):
        first = process.next(process.initialize(), records)
        return first.result, process.next(first.state, records).result

    worker = TffWorker()
    try:
        records = list(zip(updates, keys, strict=True))
        outputs = worker.call(_compile(sum_twice, is_secure=True), 60, records)
    finally:
        worker.end()
    global_state = query.initial_global_state()
    for output in outputs:
        params = query.derive_sample_params(global_state)
        total = query.initial_sample_state()
        for update, key in zip(updates, keys, strict=True):
            message = query.preprocess_record(params, (update, tf.constant(key)))
            total = query.accumulate_preprocessed_record(total, message)
        expected, global_state, _ = query.get_noised_result(total, global_state)
        step = 1 / strategy.scale
        for ours, theirs in zip(expected, output, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=3 * step)
    clipped = [
        [u / max(1, np.sqrt(sum(np.square(v).sum() for v in update))) for u in update]
        for update in updates
        if np.isfinite(update[0]).all()
    ]
    error = [r - sum(c[i] for c in clipped) for i, r in enumerate(outputs[0])]
    assert np.sqrt(sum(np.square(e).sum() for e in error)) < 3 * 0.5 * 17**0.5


def test_no_device_s_key_comes_from_the_clock() -> None:
    """Rounds' and devices' keys are functions of the run's seed, the round and the id."""
    keys = {
        tuple(derive_key(tf.constant([seed, step]), 0, device).numpy().tolist())
        for seed in (1, 2)
        for step in (0, 1)
        for device in (0, 1, 2**40)
    }
    assert len(keys) == 12
    again = derive_key(tf.constant([1, 0]), 0, 2**40).numpy().tolist()
    assert tuple(again) in keys


def test_an_empty_round_is_a_sum_of_nothing() -> None:
    engine = TffEngine(TRAINING, 1)
    [total], metrics = engine.run_round(SENT, [])
    engine.close()
    assert total.shape == (STRATEGY.dimension,) and not total.any() and not metrics.any()

"""The released histogram: its noise, its sensitivity, its price, and that nothing else of the devices is in it."""

from pathlib import Path

import numpy as np
import pytest

from device_runtime.features import DpHistogram, FeatureSpace
from federated.accounting import noise_multiplier_for, project
from federated.histogram import release_histogram

SPACE = FeatureSpace(300, 200, np.eye(4, 300, dtype=np.float32))
CLIP_NORM = 6.0
SECRET = "zyqqorb"


def build_devices(count: int, seed: int = 1) -> list[list[str]]:
    """Devices of 0 to 30 messages in words w0 to w99."""
    random = np.random.default_rng(seed)
    return [
        [" ".join(f"w{i}" for i in random.integers(0, 100, 5)) for _ in range(random.integers(31))]
        for _ in range(count)
    ]


def release(engine, devices, noise_multiplier=2.0, seed=5, shards=2) -> DpHistogram:
    return release_histogram(devices, SPACE, engine, shards, CLIP_NORM, noise_multiplier, seed)[0]


def sum_by_hand(devices) -> np.ndarray:
    total = np.zeros(SPACE.buckets)
    for messages in devices:
        counts = np.zeros(SPACE.buckets)
        for message in messages:
            for i in SPACE.extract([message]).ids:
                counts[i] += 1
        total += counts / max(1, float((counts**2).sum()) ** 0.5 / CLIP_NORM)
    return total


def test_noise_is_gaussian_of_the_declared_size(local_engine) -> None:
    """Two releases of 20,000 buckets each: the standard deviation is exact to 0.4 %, one sigma."""
    space = FeatureSpace(20_000, 0, np.zeros((0, 20_000), np.float32))
    devices = build_devices(3)
    counts = [np.bincount(space.extract(messages).ids, minlength=20_000) for messages in devices]
    total = sum(c / max(1, np.linalg.norm(c) / CLIP_NORM) for c in counts)
    first, second = (
        release_histogram(devices, space, local_engine, 1, CLIP_NORM, 2.0, seed)[0].counts - total
        for seed in (1, 2)
    )
    sigma = 2.0 * CLIP_NORM
    noise = np.concatenate([first, second])
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean()) < 5 * sigma / noise.size**0.5
    assert (np.abs(noise) < sigma).mean() == pytest.approx(0.6827, abs=0.012)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 20_000**0.5


def test_the_seed_decides_the_noise(local_engine) -> None:
    devices = build_devices(3)
    first, again, other = (release(local_engine, devices, seed=seed).counts for seed in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_smallest_noise_shows_the_sum(local_engine) -> None:
    devices = build_devices(12)
    released = release(local_engine, devices, noise_multiplier=1e-6)
    np.testing.assert_allclose(released.counts, sum_by_hand(devices), atol=5e-5)


def test_engines_and_shards_release_the_same(local_engine, tff_engine) -> None:
    devices = build_devices(9)
    one = release(local_engine, devices, shards=1)
    for engine, shards in ((local_engine, 4), (tff_engine, 3), (local_engine, 99)):
        np.testing.assert_allclose(release(engine, devices, shards=shards).counts, one.counts, 1e-9)


def test_one_device_changes_the_sum_by_at_most_the_clip_norm(local_engine) -> None:
    """Same noise, so what is left of the difference is the device; the largest reach the bound."""
    devices = [*build_devices(3), ["spam " * 400] * 50, []]
    whole = release(local_engine, devices).counts
    changes = []
    for place in range(len(devices)):
        without = [[] if i == place else messages for i, messages in enumerate(devices)]
        changes.append(np.linalg.norm(whole - release(local_engine, without).counts))
    assert max(changes) == pytest.approx(CLIP_NORM)
    assert max(changes) <= CLIP_NORM * (1 + 1e-9)
    assert changes[-1] == 0


def test_the_price_of_a_target_epsilon(local_engine) -> None:
    """Golden: epsilon 1 at delta 1e-6 takes noise of 4.2247 sensitivities, rho 0.028014."""
    z = noise_multiplier_for(1.0, 1e-6, 1)
    histogram, ledger = release_histogram(build_devices(7), SPACE, local_engine, 2, CLIP_NORM, z, 1)
    assert histogram.noise_multiplier == pytest.approx(4.224678889326773, rel=1e-6)
    assert histogram.rho == pytest.approx(0.028014481912631166, rel=1e-6)
    assert (histogram.devices, histogram.clip_norm) == (7, CLIP_NORM)
    assert histogram.features == SPACE.version
    total = ledger.total(1e-6)
    assert total.rho == pytest.approx(histogram.rho)
    assert total.epsilon == pytest.approx(1.0, rel=1e-6)
    assert ledger.rounds[0].reported == tuple(range(7))
    assert ledger.promise.clip_norm == CLIP_NORM


def test_projection_scales_the_noise_with_the_fleet(local_engine) -> None:
    """As many times the devices, as many times the noise at equal utility: rho falls with the square."""
    _, ledger = release_histogram(build_devices(7), SPACE, local_engine, 2, CLIP_NORM, 0.5, 1)
    projected = project(ledger.guarantee(1e-6), 7, 7_000, 7_000).guarantee
    assert projected.rho == pytest.approx(ledger.total(1e-6).rho / 1e6)


def test_the_file_holds_no_word_of_anybody(local_engine, tmp_path: Path) -> None:
    devices = [[f"my locker opens with {SECRET}"]] * 3
    histogram, ledger = release_histogram(devices, SPACE, local_engine, 1, CLIP_NORM, 1.0, 1)
    histogram.save(tmp_path / "histogram.npz")
    with np.load(tmp_path / "histogram.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "counts": (SPACE.buckets,),
            "facts": arrays["facts"].shape,
        }
        assert SECRET not in arrays["facts"].tobytes().decode()
    assert SECRET not in ledger.to_json() and SECRET not in repr(histogram)


@pytest.mark.parametrize("noise_multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_no_release_without_noise(local_engine, noise_multiplier: float) -> None:
    with pytest.raises(ValueError, match="noise_multiplier is"):
        release(local_engine, build_devices(2), noise_multiplier)


def test_no_release_without_devices(local_engine) -> None:
    with pytest.raises(ValueError, match="no devices"):
        release(local_engine, [])

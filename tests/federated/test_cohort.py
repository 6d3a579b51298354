"""Cohorts keep the participation promise, whatever the sizes, and survive a restart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.cohort import CohortSelector

sizes = {
    "cohort_size": st.integers(1, 6),
    "min_separation": st.integers(1, 6),
    "spare_devices": st.integers(0, 10),
    "seed": st.integers(0, 2**32),
}


@given(**sizes)
@settings(deadline=None, max_examples=50)
def test_participations_stay_apart(cohort_size, min_separation, spare_devices, seed) -> None:
    population_size = cohort_size * min_separation + spare_devices
    selector = CohortSelector(population_size, cohort_size, min_separation, seed)
    cohorts = [selector.select(round_index) for round_index in range(20)]
    for cohort in cohorts:
        assert cohort.dtype == np.int64 and cohort.shape == (cohort_size,)
        assert np.all(np.diff(cohort) > 0) and cohort[0] >= 0 and cohort[-1] < population_size
    for device in range(population_size):
        rounds = [i for i, cohort in enumerate(cohorts) if device in cohort]
        assert all(np.diff(rounds) >= min_separation)


@given(**sizes, stop=st.integers(0, 20))
@settings(deadline=None, max_examples=50)
def test_restored_selector_goes_on(cohort_size, min_separation, spare_devices, seed, stop) -> None:
    """Also one that has drawn other rounds before."""
    arguments = (cohort_size * min_separation + spare_devices, cohort_size, min_separation, seed)
    selector, restored = CohortSelector(*arguments), CohortSelector(*arguments)
    cohorts = [selector.select(round_index) for round_index in range(stop)]
    restored.select(3)
    restored.restore(cohorts)
    for round_index in range(stop, 20):
        assert restored.select(round_index).tolist() == selector.select(round_index).tolist()


@given(**sizes, given_back=st.lists(st.booleans(), max_size=12))
@settings(deadline=None, max_examples=50)
def test_a_round_that_is_given_back_leaves_no_trace(
    cohort_size, min_separation, spare_devices, seed, given_back
) -> None:
    """Draws that are kept are those of a selector that knows of no others."""
    arguments = (cohort_size * min_separation + spare_devices, cohort_size, min_separation, seed)
    selector, kept = CohortSelector(*arguments), list[np.ndarray]()
    for draw, is_given_back in enumerate(given_back):
        fresh = CohortSelector(*arguments)
        fresh.restore(kept)
        cohort = selector.select(len(kept), draw=draw)
        assert cohort.tolist() == fresh.select(len(kept), draw=draw).tolist()
        if is_given_back:
            selector.give_back()
            with pytest.raises(ValueError, match="no round was drawn"):
                selector.give_back()
        else:
            kept.append(cohort)


def test_seed_and_round_decide_the_draw() -> None:
    draws = {
        seed: [CohortSelector(1000, 20, 1, seed).select(i).tolist() for i in (0, 1)]
        for seed in (1, 2)
    }
    assert CohortSelector(1000, 20, 1, seed=1).select(0).tolist() == draws[1][0]
    assert len({tuple(draw) for pair in draws.values() for draw in pair}) == 4


def test_devices_are_drawn_evenly() -> None:
    selector = CohortSelector(50, 10, 2, seed=3)
    drawn = np.concatenate([selector.select(round_index) for round_index in range(1000)])
    counts = np.bincount(drawn, minlength=50)
    assert counts.sum() == 10_000 and counts.min() > 160 and counts.max() < 240


def test_devices_are_drawn_independently_of_their_neighbours() -> None:
    """In the first round every pair of 6 devices is equally likely: 1 / 15, 5 sigma wide."""
    pairs = [tuple(CohortSelector(6, 2, 1, seed).select(0)) for seed in range(3000)]
    counts = [pairs.count(pair) for pair in set(pairs)]
    assert len(counts) == 15 and all(abs(count - 200) < 70 for count in counts)


def test_max_participations_ends_a_run() -> None:
    selector = CohortSelector(10, 5, 2, seed=0, max_participations=2)
    for round_index in range(4):
        selector.select(round_index)
    with pytest.raises(ValueError, match="round 4 needs 5 devices, and 0 of 10 may take part"):
        selector.select(4)


def test_a_round_is_drawn_once() -> None:
    selector = CohortSelector(10, 2, 2, seed=0)
    selector.select(3)
    with pytest.raises(ValueError, match="round 3 was drawn or passed, the next is 4"):
        selector.select(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((19, 5, 4, 0), "population_size is 19, must be at least cohort_size"),
        ((10, 0, 1, 0), "cohort_size is 0, must be at least 1"),
        ((10, 1, 0, 0), "min_separation is 0, must be at least 1"),
        ((10, 1, 1, -1), "seed is -1, must be at least 0"),
        ((10, 1, 1, 0, 0), "max_participations is 0, must be at least 1"),
    ],
)
def test_selector_names_the_argument_at_fault(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CohortSelector(*arguments)


@pytest.mark.parametrize("device", [-1, 10])
def test_cohorts_of_another_population_are_refused_and_nothing_is_restored(device: int) -> None:
    selector, fresh = CohortSelector(10, 2, 2, seed=0), CohortSelector(10, 2, 2, seed=0)
    with pytest.raises(ValueError, match="round 1: a device is not in 0 to 9, the population"):
        selector.restore([np.array([0, 1]), np.array([device])])
    assert selector.select(0).tolist() == fresh.select(0).tolist()


# Poisson rounds, and fleets of which only a part can be reached


@given(**sizes, sampling=st.sampled_from(["fixed", "poisson"]), most=st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_the_promise_holds_for_whoever_can_be_reached(
    cohort_size, min_separation, spare_devices, seed, sampling, most
) -> None:
    population_size = cohort_size * min_separation + spare_devices
    random = np.random.default_rng(seed)
    selector = CohortSelector(population_size, cohort_size, min_separation, seed, most, sampling)
    participations: list[list[int]] = [[] for _ in range(population_size)]
    for round_index in range(20):
        available = random.random(population_size) < 0.5
        may = [
            len(past) < most and (not past or round_index - past[-1] >= min_separation)
            for past in participations
        ]
        candidates = np.flatnonzero(available & np.array(may))
        cohort = selector.select(round_index, available)
        assert np.all(np.diff(cohort) > 0) and np.isin(cohort, candidates).all()
        if len(candidates) <= cohort_size:
            assert cohort.tolist() == candidates.tolist()
        elif sampling == "fixed":
            assert len(cohort) == cohort_size
        for device in cohort:
            participations[device].append(round_index)


def test_poisson_rounds_have_the_sizes_of_independent_draws() -> None:
    """Binomial with the expected cohort, and every device equally often; in the first rounds, where all may."""
    drawn = [CohortSelector(500, 50, 1, seed, sampling="poisson").select(0) for seed in range(2000)]
    lengths = np.array([len(cohort) for cohort in drawn])
    assert lengths.mean() == pytest.approx(50, abs=5 * (45 / 2000) ** 0.5)
    assert lengths.var() == pytest.approx(45, rel=0.2)
    counts = np.bincount(np.concatenate(drawn), minlength=500)
    assert abs(counts - 200).max() < 5 * 180**0.5
    together = np.mean([np.isin([3, 4], cohort).all() for cohort in drawn])
    assert together == pytest.approx(0.01, abs=5 * (0.01 / 2000) ** 0.5)


def test_a_million_devices_are_drawn_from_alike() -> None:
    available = np.arange(1_000_000) % 3 == 0
    selector = CohortSelector(1_000_000, 6_500, 2, seed=1, max_participations=1)
    first, second = selector.select(0, available), selector.select(1, available)
    assert len(first) == len(second) == 6_500 and not np.intersect1d(first, second).size
    assert not (first % 3).any()
    assert first.mean() == pytest.approx(500_000, abs=5 * 1e6 / 12**0.5 / 6_500**0.5)


def test_another_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match="sampling is 'uniform', must be fixed or poisson"):
        CohortSelector(10, 2, 2, 0, sampling="uniform")

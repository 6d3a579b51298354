"""Who is asked, who counts, and that the figures of a round say just that."""

import numpy as np
import pytest

from federated.cohort import CohortSelector
from federated.config import FederatedConfig
from federated.fleet import Fleet
from federated.fleet_config import FleetConfig
from federated.participation import Participation

CONFIG = FederatedConfig(
    rounds=5,
    cohort=40,
    min_separation=2,
    batch_rows=4,
    max_batches=3,
    local_learning_rate=0.5,
    clip_norm=0.4,
    noise_multiplier=0.4,
)
ROWS = np.random.default_rng(1).integers(0, 20, 600)
UPDATE_BYTES = 5_600_000


def start(**settings) -> Participation:
    return Participation(ROWS, CONFIG.model_copy(update=settings), 7, UPDATE_BYTES)


def count_by_hand(devices: np.ndarray, fleet: Fleet | None) -> dict[str, int]:
    """One device after the other."""
    counts = dict.fromkeys(("rows_small", "rows_medium", "rows_large"), 0)
    for device in devices:
        rows = ROWS[device]
        size = "small" if rows < 4 else "large" if rows >= 12 else "medium"
        counts[f"rows_{size}"] += 1
        if fleet:
            speed = fleet.config.speed_classes[fleet.speed_class[device]].name
            hours = fleet.config.time_zones[fleet.time_zone[device]].utc_offset_hours
            for name in (f"speed_{speed}", f"zone_utc{hours:+g}"):
                counts[name] = counts.get(name, 0) + 1
    return counts


def test_without_a_fleet_all_selected_devices_report() -> None:
    participation = start()
    for round_index in range(5):
        devices = participation.gather(round_index)
        assert len(devices.selected) == 40
        assert np.array_equal(devices.selected, devices.reported)
        made_up = count_by_hand(devices.selected, None)
        assert devices.figures == {
            "bytes_down_per_device": UPDATE_BYTES,
            "bytes_up_per_device": UPDATE_BYTES,
            "selected": 40,
            "reported": 40,
            **{f"selected_{name}": count for name, count in made_up.items()},
            **{f"reported_{name}": count for name, count in made_up.items()},
        }


@pytest.mark.parametrize("sampling", ["fixed", "poisson"])
def test_a_round_of_a_fleet(sampling) -> None:
    fleet = Fleet(FleetConfig(), 600, 7)
    participation = start(fleet=FleetConfig(), sampling=sampling)
    asked = []
    for round_index in range(30, 35):
        devices = participation.gather(round_index)
        available, figures = fleet.is_available(round_index), devices.figures
        assert available[devices.selected].all() and figures["available"] == available.sum()
        assert np.isin(devices.reported, devices.selected).all()
        assert len(devices.reported) <= 40
        batches = [min(-(-int(ROWS[device]) // 4), 3) for device in devices.selected]
        played = fleet.run_round(
            round_index, devices.selected, np.array(batches), UPDATE_BYTES, wanted=40
        )
        assert devices.reported.tolist() == played.reported.tolist()
        assert figures["simulated_seconds"] == played.seconds
        for name, ids in (("selected", devices.selected), ("reported", devices.reported)):
            assert figures[name] == len(ids)
            made_up = count_by_hand(ids, fleet)
            own = {k.removeprefix(f"{name}_"): n for k, n in figures.items() if f"{name}_" in k}
            assert {k: n for k, n in own.items() if n} == {k: n for k, n in made_up.items() if n}
        lost = figures["dropped"] + figures["late"]
        assert len(devices.selected) - lost == len(devices.reported)
        asked.append(len(devices.selected))
    if sampling == "fixed":
        assert asked == [52] * 5  # 1.3 times the cohort
    else:
        assert len(set(asked)) > 1 and 52 * 0.7 < np.mean(asked) < 52 * 1.3


def test_a_round_goes_on_with_whoever_is_there() -> None:
    """Nobody charges in the first days here but for a night owl or two."""
    config = FleetConfig(daytime=0.02, home_wifi=0.05)
    participation = start(fleet=config)
    devices = [participation.gather(round_index) for round_index in range(6)]
    assert all(0 < len(d.selected) < 40 for d in devices)
    assert all(d.figures["simulated_seconds"] == config.report_deadline_s for d in devices)
    nobody = start(fleet=FleetConfig(daytime=0, home_wifi=0)).gather(0)
    assert not len(nobody.selected) and not len(nobody.reported)


def test_a_restored_run_goes_on() -> None:
    settings = {"fleet": FleetConfig(), "sampling": "poisson", "max_participations": 2}
    whole, first, second = (start(**settings) for _ in range(3))
    for round_index in range(6):
        whole.gather(round_index)
    second.restore([first.gather(round_index).selected for round_index in range(3)], 0)
    for round_index in range(3, 6):
        second.gather(round_index)
    expected, actual = whole.gather(6), second.gather(6)
    assert expected.figures == actual.figures
    assert np.array_equal(expected.selected, actual.selected)


ENOUGH = FleetConfig(daytime=0.06, home_wifi=0.5, minutes_between_rounds=60)


@pytest.mark.parametrize("sampling", ["fixed", "poisson"])
def test_rounds_with_too_few_reports_are_abandoned_and_tried_anew(sampling) -> None:
    """Hour by hour; the selector that is compared is made anew from the rounds that were kept."""
    settings = {"min_separation": 5, "max_participations": 3, "sampling": sampling}
    participation, fleet = start(fleet=ENOUGH, min_reports=25, **settings), Fleet(ENOUGH, 600, 7)
    kept: list[np.ndarray] = []
    hour = abandoned = 0
    while len(kept) < 30:
        selector = CohortSelector(600, 52, 5, 7, 3, sampling)
        selector.restore(kept)
        selected = selector.select(len(kept), fleet.is_available(hour), hour)
        batches = np.array([min(-(-int(rows) // 4), 3) for rows in ROWS[selected]], int)
        played = fleet.run_round(hour, selected, batches, UPDATE_BYTES, 40)
        hour += 1
        if len(played.reported) < 25:
            abandoned += 1
            continue
        devices = participation.gather(len(kept))
        assert devices.selected.tolist() == selected.tolist()
        assert devices.reported.tolist() == played.reported.tolist()
        assert devices.figures["abandoned"] == abandoned
        kept.append(selected)
        abandoned = 0
    assert participation.abandoned == hour - 30 > 5
    for device in range(600):
        rounds = [index for index, cohort in enumerate(kept) if device in cohort]
        assert len(rounds) <= 3 and all(np.diff(rounds) >= 5)


def test_a_fleet_that_never_has_enough_is_refused_after_a_week() -> None:
    nobody = start(fleet=FleetConfig(daytime=0, home_wifi=0), min_reports=1)
    with pytest.raises(ValueError, match=r"round 0: fewer than min_reports 1 devices report, 7"):
        nobody.gather(0)
    assert nobody.abandoned == 7 * 24 * 6


def test_the_population_must_do_for_those_asked_as_well() -> None:
    with pytest.raises(ValueError, match=r"must be at least cohort_size \* .* = 52 \* 12"):
        start(fleet=FleetConfig(), min_separation=12)
    start(min_separation=12)

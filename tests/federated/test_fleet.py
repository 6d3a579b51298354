"""The fleet equals its rules applied device by device, keeps to the published figures, and repeats itself."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from federated.fleet import Fleet, draw_uniform
from federated.fleet_config import FleetConfig, TimeZone

MASK = 2**64 - 1


def mix(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


class OneDevice:
    """A device by the rules as FleetConfig words them, in whole numbers and scalars."""

    def __init__(self, config: FleetConfig, seed: int, device: int) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.zone = self.pick([zone.share for zone in config.time_zones], self.draw("zone"))
        self.speed = self.pick([speed.share for speed in config.speed_classes], self.draw("speed"))
        joins = self.draw("joins")
        late = joins < config.newcomers
        self.joins_day = joins / config.newcomers * config.joining_days if late else 0.0
        days = math.log(self.draw("leaves")) / math.log(1 - config.leaving_a_day)
        self.leaves_day = self.joins_day + days

    @staticmethod
    def pick(shares: list[float], number: float) -> int:
        return next(i for i in range(len(shares)) if number < sum(shares[: i + 1]) + 1e-12)

    def draw(self, purpose: str, slot: int = 0) -> float:
        key = np.random.SeedSequence([self.seed, *purpose.encode()]).generate_state(1, np.uint64)
        golden = 0x9E3779B97F4A7C15
        state = mix((int(key[0]) + golden * (self.device + 1)) & MASK)
        return ((mix((state + golden * slot) & MASK) >> 11) + 0.5) / 2**53

    def is_available(self, hours: float) -> bool:
        config, normal = self.config, NormalDist(0, self.config.plugged_in_spread_hours / 2**0.5)
        if not self.joins_day <= hours / 24 < self.leaves_day:
            return False
        local = config.start_hour + config.time_zones[self.zone].utc_offset_hours + hours
        if self.draw("daytime", math.floor(local + self.draw("phase"))) < config.daytime:
            return True
        night = math.floor((local - 12) / 24)  # begins at noon
        plugged_in = config.plugged_in_hour + normal.inv_cdf(self.draw("habit"))
        plugged_in += normal.inv_cdf(self.draw("night", night))
        low, high = config.nights_charging
        return (
            self.draw("wifi") < config.home_wifi
            and self.draw("tonight", night) < low + (high - low) * self.draw("nights")
            and 0 <= local - 24 * night - plugged_in < config.charging_hours
        )

    def seconds(self, round_index: int, batches: int, update_bytes: int) -> float:
        config = self.config

        def vary(purpose: str) -> float:
            return math.exp(config.spread * NormalDist().inv_cdf(self.draw(purpose, round_index)))

        training = batches * config.speed_classes[self.speed].seconds_per_batch
        bits = 8e-6 * update_bytes * (1 / config.download_mbit_s + 1 / config.upload_mbit_s)
        return config.overhead_s + training * vary("training") + bits * vary("transfer")


CONFIGS = [
    FleetConfig(newcomers=0.3, joining_days=2, leaving_a_day=0.2),
    FleetConfig(
        time_zones=(
            TimeZone(utc_offset_hours=5.5, share=0.5),
            TimeZone(utc_offset_hours=-9, share=0.5),
        ),
        start_hour=13.25,
        plugged_in_spread_hours=4,
        report_deadline_s=20,
        drop_out=0.2,
        newcomers=0.5,
        joining_days=5,
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_availability_equals_the_rules_for_one_device(config) -> None:
    fleet, devices = Fleet(config, 60, seed=4), [OneDevice(config, 4, d) for d in range(60)]
    assert fleet.time_zone.tolist() == [device.zone for device in devices]
    assert fleet.speed_class.tolist() == [device.speed for device in devices]
    seen = set()
    for round_index in [*range(0, 500, 7), 10_000]:
        hours = round_index * config.minutes_between_rounds / 60
        expected = [device.is_available(hours) for device in devices]
        assert fleet.is_available(round_index).tolist() == expected
        seen |= set(expected)
    assert seen == {True, False}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_round_equals_the_rules_for_one_device(config) -> None:
    devices, update_bytes, wanted = 400, 5_600_000, 100
    fleet = Fleet(config, devices, seed=9)
    for round_index in (0, 33, 40):
        selected = np.flatnonzero(fleet.is_available(round_index))
        batches = 1 + selected % 4
        start = round_index * config.minutes_between_rounds / 60
        arrived, dropped = [], 0
        for device_id, count in zip(selected.tolist(), batches.tolist(), strict=True):
            device = OneDevice(config, 9, device_id)
            seconds = device.seconds(round_index, count, update_bytes)
            last = min(seconds, config.report_deadline_s)
            fails = device.draw("fails", round_index) < config.drop_out
            if fails or not device.is_available(start + last / 3600):
                dropped += 1
            elif seconds <= config.report_deadline_s:
                arrived.append((seconds, device_id))
        counted = sorted(arrived)[:wanted]
        played = fleet.run_round(round_index, selected, batches, update_bytes, wanted)
        assert played.reported.tolist() == sorted(device_id for _, device_id in counted)
        assert played.dropped == dropped > 0
        assert played.late == len(selected) - dropped - len(counted)
        expected = counted[-1][0] if len(counted) == wanted else config.report_deadline_s
        assert played.seconds == pytest.approx(expected)


def test_nobody_was_asked_and_nobody_reports() -> None:
    played = Fleet(FleetConfig(), 10, 1).run_round(0, np.array([], np.int64), np.array([]), 1, 5)
    assert (played.reported.tolist(), played.dropped, played.late) == ([], 0, 0)
    assert played.seconds == FleetConfig().report_deadline_s


def test_devices_do_not_depend_on_one_another() -> None:
    small, large = (Fleet(FleetConfig(), devices, seed=3) for devices in (500, 2000))
    assert np.array_equal(small.is_available(77), large.is_available(77)[:500])
    asked, batches = np.arange(0, 500, 3), np.full(167, 4)
    early = small.run_round(77, asked, batches, 1, 500).reported
    more = np.arange(0, 2000, 3)
    both = large.run_round(77, more, np.full(len(more), 4), 1, 2000).reported
    assert np.array_equal(early, both[both < 500])
    assert not np.array_equal(Fleet(FleetConfig(), 500, 4).is_available(77), small.is_available(77))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(FleetConfig(), 50_000, seed=1)


def test_four_times_as_many_at_the_best_hour_as_at_the_worst(fleet) -> None:
    """Bonawitz et al. 2019, section 9, of a fleet in the United States; the peak is at night there."""
    available = [fleet.is_available(6 * hour).sum() for hour in range(24)]
    assert max(available) / min(available) == pytest.approx(4, abs=0.3)
    assert 6 <= int(np.argmax(available)) <= 11  # 1 to 5 o'clock in New York is 6 to 10 UTC
    second_day = [fleet.is_available(6 * hour + 144).sum() for hour in range(0, 24, 6)]
    assert second_day == pytest.approx(available[::6], rel=0.05)


def test_six_to_ten_percent_drop_out_and_over_selection_makes_up_for_it(fleet) -> None:
    """The same section: 130 % are asked, so that enough report."""
    for round_index in (0, 24, 60, 120):
        available = np.flatnonzero(fleet.is_available(round_index))
        selected = np.random.default_rng(round_index).choice(available, 5_200, replace=False)
        played = fleet.run_round(
            round_index, np.sort(selected), np.full(5_200, 4), 5_600_000, 4_000
        )
        assert 0.06 < played.dropped / 5_200 < 0.10
        assert len(played.reported) == 4_000
        assert played.seconds < FleetConfig().report_deadline_s


def test_the_slow_are_late_more_often(fleet) -> None:
    selected = np.flatnonzero(fleet.is_available(50))
    wanted = len(selected) * 3 // 4
    played = fleet.run_round(50, selected, np.full(len(selected), 4), 5_600_000, wanted)
    share = [
        np.isin(selected[fleet.speed_class[selected] == speed], played.reported).mean()
        for speed in range(3)
    ]
    assert share[0] > share[1] > share[2] + 0.1


def test_shares_and_flow_of_devices(fleet) -> None:
    for places, parts in (
        (fleet.time_zone, fleet.config.time_zones),
        (fleet.speed_class, fleet.config.speed_classes),
    ):
        expected = [part.share * 50_000 for part in parts]
        assert stats.chisquare(np.bincount(places), expected).pvalue > 0.001
    config = FleetConfig(
        newcomers=0.2, joining_days=10, leaving_a_day=0.01, daytime=1, minutes_between_rounds=1440
    )
    passing = Fleet(config, 100_000, 2)
    for day in (0, 5, 10, 20):  # of those who came on day t, 0.99 ** (day - t) are left
        joined = np.linspace(0, min(day, 10), 2001)
        left = np.mean(0.99 ** (day - joined)) if day else 0.0
        expected = 80_000 * 0.99**day + 20_000 * min(day, 10) / 10 * left
        assert passing.is_available(day).sum() == pytest.approx(expected, rel=0.01)


def test_draws_are_uniform_and_independent() -> None:
    key, ids = np.random.SeedSequence([1, 2]), np.arange(20_000)
    first, second = (draw_uniform(key, ids, np.asarray(slot)) for slot in (7, 8))
    other = draw_uniform(np.random.SeedSequence([1, 3]), ids, np.asarray(7))
    pvalues = [
        stats.kstest(draw_uniform(np.random.SeedSequence([seed]), ids, np.asarray(slot)), "uniform")
        for seed in range(20)
        for slot in (-1, 0, 7)
    ]
    assert stats.kstest([test.pvalue for test in pvalues], "uniform").pvalue > 0.001
    for a, b in ((first, second), (first, other), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(20_000)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            {"time_zones": [{"utc_offset_hours": 0, "share": 0.9}]},
            "time_zones: shares sum to 0.9, must sum to 1",
        ),
        (
            {"speed_classes": [{"name": "a", "share": 0.5, "seconds_per_batch": 1}] * 2},
            "an offset or a name comes twice",
        ),
        ({"nights_charging": (0.8, 0.2)}, "give the smaller share first"),
        (
            {"report_deadline_s": 601},
            r"report_deadline_s is 601, must be at most minutes_between_rounds \* 60 = 600",
        ),
        ({"over_selection": 0.9}, "greater than or equal to 1"),
        ({"drop_out": 1}, "less than 1"),
        ({"deadline": 1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_fleet_are_refused(settings, fault) -> None:
    with pytest.raises(ValueError, match=fault):
        FleetConfig(**settings)

"""A fleet of simulated devices: who is available when, who reports in time, and how long a round takes.

What a device is and does follows from (run seed, round, device id) alone: neither the number of devices nor a restart
changes it. Everything is arrays over devices: a round of a million takes a fraction of a second.
"""

import dataclasses

import numpy as np
from scipy.special import ndtri

from federated.fleet_config import FleetConfig

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HOURS = 24.0


def draw_uniform(key: np.random.SeedSequence, ids: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Uniform numbers in (0, 1), one for each pair of a device and a slot of time, the same in any order and company.

    SplitMix64 (Steele, Lea and Flood 2014): its output function over the key's state advanced by the id, and once more
    over that advanced by the slot.

    Args:
        key: names the draw.
        ids: device ids, integers >= 0.
        slots: integers, one for all or one each.
    """
    state = key.generate_state(1, np.uint64)[0] + _GOLDEN * (ids.astype(np.uint64) + np.uint64(1))
    bits = _mix(_mix(state) + _GOLDEN * slots.astype(np.int64).astype(np.uint64))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@dataclasses.dataclass(frozen=True)
class FleetRound:
    """What became of the devices that were asked.

    Attributes:
        reported: ids of those whose reports count, ascending.
        dropped: number whose training failed, or that were unplugged or offline before they reported.
        late: number turned away: past the deadline, or when enough had reported.
        seconds: from the round's start to its last report that counts, or to the deadline when too few came.
    """

    reported: np.ndarray
    dropped: int
    late: int
    seconds: float


class Fleet:
    """Devices with ids 0 to `devices` - 1.

    Attributes:
        config: what they are like.
        time_zone, speed_class: of each device, its place in the config, int8 [devices].
    """

    def __init__(self, config: FleetConfig, devices: int, seed: int) -> None:
        self.config = config
        self._seed = seed
        self._ids = np.arange(devices)
        self.time_zone = _pick([zone.share for zone in config.time_zones], self._draw("zone"))
        self.speed_class = _pick([s.share for s in config.speed_classes], self._draw("speed"))
        offsets = np.array([zone.utc_offset_hours for zone in config.time_zones])
        self._local_hour = (config.start_hour + offsets)[self.time_zone]
        low, high = config.nights_charging
        self._nights = low + (high - low) * self._draw("nights")
        # half of the variance is between devices, half between the nights of one
        self._plugged_in = config.plugged_in_hour + self._spread * ndtri(self._draw("habit"))
        self._has_wifi = self._draw("wifi") < config.home_wifi
        self._phase = self._draw("phase")
        joins = config.joining_days * (self._draw("joins") / max(config.newcomers, 1e-300))
        self._joins_day = np.where(joins < config.joining_days, joins, 0.0)
        stay = -np.log1p(-config.leaving_a_day)
        lifetimes = -np.log(self._draw("leaves")) / stay if stay else np.inf
        self._leaves_day = self._joins_day + lifetimes

    @property
    def _spread(self) -> float:
        return self.config.plugged_in_spread_hours / 2**0.5

    def _draw(self, purpose: str, ids: np.ndarray | None = None, slots=0) -> np.ndarray:
        key = np.random.SeedSequence([self._seed, *purpose.encode()])
        return draw_uniform(key, self._ids if ids is None else ids, np.asarray(slots))

    def is_available(self, round_index: int) -> np.ndarray:
        """Whether each device could be asked when the round starts, bool [devices]."""
        return self._is_available(self._ids, self._start_hours(round_index))

    def _start_hours(self, round_index: int) -> float:
        return round_index * self.config.minutes_between_rounds / 60

    def _is_available(self, ids: np.ndarray, hours: np.ndarray | float) -> np.ndarray:
        """Whether devices charge on Wi-Fi `hours` after the start of round 0."""
        config = self.config
        day = hours / _HOURS
        present = (self._joins_day[ids] <= day) & (day < self._leaves_day[ids])
        local = self._local_hour[ids] + hours
        # nights are counted from noon to noon, so that midnight, their hour 24, does not cut them
        night = np.floor((local - 12) / _HOURS)
        hour = local - _HOURS * night
        plugged_in = self._plugged_in[ids] + self._spread * ndtri(self._draw("night", ids, night))
        charging = (plugged_in <= hour) & (hour < plugged_in + config.charging_hours)
        charging &= self._draw("tonight", ids, night) < self._nights[ids]
        # an hour of one's own, so that not everybody is unplugged on the hour
        slot = np.floor(local + self._phase[ids])
        by_day = self._draw("daytime", ids, slot) < config.daytime
        return present & (charging & self._has_wifi[ids] | by_day)

    def run_round(
        self,
        round_index: int,
        selected: np.ndarray,
        batches: np.ndarray,
        update_bytes: int,
        wanted: int,
    ) -> FleetRound:
        """Plays a round.

        Args:
            round_index: >= 0.
            selected: ids of the devices that are asked.
            batches: local batches of each of them.
            update_bytes: of the model on its way down, and of the update on its way up.
            wanted: reports that the server waits for.
        """
        config = self.config
        seconds = self._report_seconds(round_index, selected, batches, update_bytes)
        end = np.minimum(seconds, config.report_deadline_s)
        fails = self._draw("fails", selected, round_index) < config.drop_out
        leaves = ~self._is_available(selected, self._start_hours(round_index) + end / 3600)
        arrives = ~fails & ~leaves & (seconds <= config.report_deadline_s)
        order = np.flatnonzero(arrives)
        order = order[np.argsort(seconds[order], kind="stable")][:wanted]
        dropped = int((fails | leaves).sum())
        duration = seconds[order[-1]] if len(order) == wanted else config.report_deadline_s
        return FleetRound(
            np.sort(selected[order]),
            dropped,
            len(selected) - dropped - len(order),
            float(duration),
        )

    def _report_seconds(
        self, round_index: int, selected: np.ndarray, batches: np.ndarray, update_bytes: int
    ) -> np.ndarray:
        config = self.config
        pace = np.array([speed.seconds_per_batch for speed in config.speed_classes])
        megabits = 8e-6 * update_bytes
        transfer = megabits / config.download_mbit_s + megabits / config.upload_mbit_s

        def vary(purpose: str) -> np.ndarray:
            return np.exp(config.spread * ndtri(self._draw(purpose, selected, round_index)))

        training = batches * pace[self.speed_class[selected]]
        return config.overhead_s + training * vary("training") + transfer * vary("transfer")


def _pick(shares: list[float], uniform: np.ndarray) -> np.ndarray:
    """Index of the share that each uniform number falls on, int8."""
    bounds = np.cumsum(shares)[:-1]
    return np.searchsorted(bounds, uniform, "right").astype(np.int8)

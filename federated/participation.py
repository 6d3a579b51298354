"""Who takes part in each round: drawn among the devices that may, and that can be reached; those in time report."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from federated.cohort import CohortSelector
from federated.config import FederatedConfig
from federated.fleet import Fleet

_PATIENCE_DAYS = 7


@dataclasses.dataclass(frozen=True)
class Participants:
    """The devices of a round.

    Attributes:
        selected: ids of the devices that were asked, ascending.
        reported: ids of those whose updates are summed, ascending.
        figures: of the round for its log: numbers of devices, simulated seconds, bytes, rounds abandoned just before.
    """

    selected: np.ndarray
    reported: np.ndarray
    figures: dict[str, float]


class Participation:
    """Selects the devices of each round and plays it with the fleet, if the config has one.

    Without a fleet every device can be reached, and all that are selected report. In a fleet more are asked than the
    cohort wants (`over_selection`), among those available when the round starts; the first `cohort` reports count. A
    round goes on with fewer where fewer come, down to `min_reports`.

    A round with fewer still is abandoned, and tried anew when the next one starts: the fleet's time goes on, the count
    of rounds does not. What its devices sent is thrown away. So they are not charged and may be drawn again, no noise
    is used up, and min separation counts the rounds that were kept, which are the mechanism's steps. All that gets out
    is that a round was abandoned. Neighbouring runs differ in what a device sends, which may be zero, and not in
    whether it reports: that costs nothing as long as who reports does not depend on what was typed. Here it depends on
    chance and on the number of rows, for more of them take longer; where text decides who drops out, it is not covered.

    Attributes:
        abandoned: rounds that were abandoned so far.

    Args:
        rows: number of training rows of each device.
        config: of the run.
        seed: of the run.
        update_bytes: of the model on its way down, and of an update on its way up.
        message_bytes: of what goes up where that is no update, for the log; a fleet's clocks take it for one.

    Raises:
        ValueError: as `CohortSelector`.
    """

    def __init__(
        self,
        rows: np.ndarray,
        config: FederatedConfig,
        seed: int,
        update_bytes: int,
        message_bytes: int | None = None,
    ) -> None:
        self._rows, self._config, self._update_bytes = rows, config, update_bytes
        self._message_bytes = update_bytes if message_bytes is None else message_bytes
        self.abandoned = 0
        self._fleet = None if config.fleet is None else Fleet(config.fleet, len(rows), seed)
        self._selector = CohortSelector(
            len(rows),
            config.asked,
            config.min_separation,
            seed,
            config.max_participations,
            config.sampling,
        )

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self._rows)

    def gather(self, round_index: int) -> Participants:
        """The devices of the round, after those that were abandoned before it. Rounds are gathered in order.

        Raises:
            ValueError: as `CohortSelector.select`, or a simulated week of rounds in a row was abandoned.
        """
        fleet, earlier = self._config.fleet, self.abandoned
        if fleet is None:
            selected = self._selector.select(round_index)
            return self._describe(selected, selected, {})
        patience = math.ceil(_PATIENCE_DAYS * 24 * 60 / fleet.minutes_between_rounds)
        while self.abandoned - earlier < patience:
            selected, reported, figures = self._play(round_index, round_index + self.abandoned)
            if len(reported) >= self._config.least_reports:
                figures["abandoned"] = self.abandoned - earlier
                return self._describe(selected, reported, figures)
            self._selector.give_back()
            self.abandoned += 1
        raise ValueError(
            f"round {round_index}: fewer than min_reports {self._config.least_reports} devices report,"
            f" {_PATIENCE_DAYS} days long: lower it or min_separation, raise over_selection, or take more devices"
        )

    def _play(self, round_index: int, slot: int) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Selected and reported devices of a round tried in the fleet's `slot`th round, and its figures."""
        config, fleet = self._config, self._fleet
        assert fleet is not None
        available = fleet.is_available(slot)
        selected = self._selector.select(round_index, available, slot)
        batches = -(-self._rows[selected] // config.batch_rows)
        outcome = fleet.run_round(
            slot,
            selected,
            np.minimum(batches, config.max_batches),
            self._update_bytes,
            config.cohort,
        )
        figures = {
            "available": int(available.sum()),
            "dropped": outcome.dropped,
            "late": outcome.late,
            "simulated_seconds": outcome.seconds,
        }
        return selected, outcome.reported, figures

    def _describe(
        self, selected: np.ndarray, reported: np.ndarray, figures: dict[str, float]
    ) -> Participants:
        """The round with the rest of its figures."""
        figures |= {
            "bytes_down_per_device": self._update_bytes,
            "bytes_up_per_device": self._message_bytes,
        }
        for name, devices in (("selected", selected), ("reported", reported)):
            figures[name] = len(devices)
            figures |= {f"{name}_{k}": n for k, n in self._count_make_up(devices).items()}
        return Participants(selected, reported, figures)

    def _count_make_up(self, devices: np.ndarray) -> dict[str, int]:
        """Devices by what they have to train on, and in a fleet by speed class and time zone.

        `large` devices fill as many local batches as are used, `small` ones not even one.
        """
        batch, most = self._config.batch_rows, self._config.batch_rows * self._config.max_batches
        rows = self._rows[devices]
        counts = {
            "rows_small": int((rows < batch).sum()),
            "rows_medium": int(((rows >= batch) & (rows < most)).sum()),
            "rows_large": int((rows >= most).sum()),
        }
        if self._fleet is not None:
            fleet, config = self._fleet, self._fleet.config
            speeds = np.bincount(fleet.speed_class[devices], minlength=len(config.speed_classes))
            zones = np.bincount(fleet.time_zone[devices], minlength=len(config.time_zones))
            for speed, count in zip(config.speed_classes, speeds, strict=True):
                counts[f"speed_{speed.name}"] = int(count)
            for zone, count in zip(config.time_zones, zones, strict=True):
                counts[f"zone_utc{zone.utc_offset_hours:+g}"] = int(count)
        return counts

    def restore(self, cohorts: Iterable[np.ndarray], abandoned: int) -> None:
        """Goes on after rounds in which these devices were selected, and so many that were abandoned.

        Raises:
            ValueError: as `CohortSelector.restore`.
        """
        self._selector.restore(cohorts)
        self.abandoned = abandoned

"""What a simulated fleet is like: its constants, each with where it comes from."""

from typing import Annotated

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


class TimeZone(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A share of the devices, and how far their clocks are ahead of UTC."""

    utc_offset_hours: Annotated[float, pydantic.Field(ge=-12, le=14)]
    share: Share


class SpeedClass(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A share of the devices, and how long they train on one local batch, in the median."""

    name: Annotated[str, pydantic.Field(pattern="^[a-z0-9]+$")]
    share: Share
    seconds_per_batch: Positive


class FleetConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Devices that come and go. `chosen` marks what no source was found for.

    A device may be asked while it charges on Wi-Fi (Bonawitz et al. 2019, "Towards federated learning at scale: system
    design", section 2): in nights on which it is plugged in at a home with Wi-Fi, and now and then by day.

    Attributes:
        time_zones: default: the four of the contiguous United States by population, rounded; daylight saving is left
            out.
        speed_classes: default: shares and seconds chosen.
        start_hour: UTC hour of day at which round 0 starts.
        minutes_between_rounds: starts of rounds are that far apart (chosen).
        nights_charging: between which shares of nights a device is plugged in, uniform over devices (chosen).
        plugged_in_hour, plugged_in_spread_hours: local hour at which that happens, in the mean, and its standard
            deviation over devices and over nights together (chosen).
        charging_hours: how long it stays plugged in (chosen).
        home_wifi: share of devices with Wi-Fi at home (chosen).
        daytime: share of hours in which a device charges on Wi-Fi besides. Chosen so that four times as many devices
            of the default fleet are available at the best hour as at the worst, as Bonawitz et al. report (section 9).
        newcomers: share of devices that join during the first `joining_days`, the rest being there from the start
            (chosen).
        joining_days: see newcomers.
        leaving_a_day: share of the devices present that leave for good each day (chosen: 0.1 %, one in three a year).
        over_selection: devices asked for every one whose report is wanted; 1.3 in Bonawitz et al., section 9.
        min_reports: a round in which fewer devices report is abandoned (Bonawitz et al., section 2.2: the minimal goal
            count), see Participation; 0 for never.
        drop_out: share of devices asked whose training fails; 6 to 10 % in Bonawitz et al., section 9.
        report_deadline_s: reports after that many seconds are turned away (chosen).
        overhead_s: from being asked to the start of the download (chosen).
        download_mbit_s, upload_mbit_s: in the median (chosen).
        spread: standard deviation of the logarithm of a device's training and transfer times (chosen).
    """

    time_zones: tuple[TimeZone, ...] = (
        TimeZone(utc_offset_hours=-5, share=0.47),
        TimeZone(utc_offset_hours=-6, share=0.29),
        TimeZone(utc_offset_hours=-7, share=0.07),
        TimeZone(utc_offset_hours=-8, share=0.17),
    )
    speed_classes: tuple[SpeedClass, ...] = (
        SpeedClass(name="fast", share=0.25, seconds_per_batch=0.2),
        SpeedClass(name="medium", share=0.5, seconds_per_batch=0.6),
        SpeedClass(name="slow", share=0.25, seconds_per_batch=2.0),
    )
    start_hour: Annotated[float, pydantic.Field(ge=0, lt=24)] = 0.0
    minutes_between_rounds: Positive = 10.0
    nights_charging: tuple[Share, Share] = (0.4, 1.0)
    plugged_in_hour: Annotated[float, pydantic.Field(ge=18, lt=30)] = 23.0
    plugged_in_spread_hours: NotNegative = 1.5
    charging_hours: Annotated[float, pydantic.Field(gt=0, le=12)] = 7.5
    home_wifi: Share = 0.8
    daytime: Share = 0.155
    newcomers: Share = 0.05
    joining_days: Positive = 30.0
    leaving_a_day: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.001
    over_selection: Annotated[float, pydantic.Field(ge=1, le=10)] = 1.3
    min_reports: Annotated[int, pydantic.Field(ge=0)] = 0
    drop_out: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.08
    report_deadline_s: Positive = 60.0
    overhead_s: NotNegative = 5.0
    download_mbit_s: Positive = 20.0
    upload_mbit_s: Positive = 5.0
    spread: NotNegative = 0.8

    @pydantic.model_validator(mode="after")
    def _check(self) -> "FleetConfig":
        for name in ("time_zones", "speed_classes"):
            total = sum(part.share for part in getattr(self, name))
            if abs(total - 1) > 1e-6:
                raise ValueError(f"{name}: shares sum to {total:g}, must sum to 1")
        offsets = [zone.utc_offset_hours for zone in self.time_zones]
        names = [speed.name for speed in self.speed_classes]
        if len(set(offsets)) < len(offsets) or len(set(names)) < len(names):
            raise ValueError("time_zones and speed_classes: an offset or a name comes twice")
        if self.nights_charging[0] > self.nights_charging[1]:
            raise ValueError(
                f"nights_charging is {self.nights_charging}: give the smaller share first"
            )
        if self.report_deadline_s > 60 * self.minutes_between_rounds:
            raise ValueError(
                f"report_deadline_s is {self.report_deadline_s:g}, must be at most minutes_between_rounds *"
                f" 60 = {60 * self.minutes_between_rounds:g}: a round ends before the next one starts"
            )
        return self

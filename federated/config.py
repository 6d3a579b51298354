"""Settings of a federated run, checked where they come in."""

import dataclasses
import math
from typing import Annotated, Any, Literal, Self

import pydantic

from federated.fleet_config import FleetConfig
from federated.mechanism_choice import MechanismChoice
from federated.sensitivity import most_participations
from federated.skellam import MOST_BITS
from federated.strategies import DeviceNoise, Skellam, Strategy

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, pydantic.Field(ge=1)]

# Settings of FederatedConfig that say where a run happens and cannot change what comes out.
PLACEMENT = frozenset({"workers", "shard_timeout_s", "engine_address"})


class AdaptiveClippingConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A clip norm that follows a quantile of the devices' update norms, from `clip_norm` on (Andrew et al. 2021).

    Attributes:
        target_quantile: share of the devices whose update is to stay unclipped.
        learning_rate: the clip norm changes by a factor of at most exp(learning_rate) a round.
        count_stddev: noise on the count of unclipped devices, which costs privacy too; the paper takes cohort / 20.
    """

    target_quantile: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.5
    learning_rate: Positive = 0.2
    count_stddev: Positive


class FederatedConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One federated run.

    Attributes:
        engine: where shards run.
        workers: processes of `tff` and `ray`, one thread each.
        shards: parts a round is cut into, at the least; they fix the order of its sum. Take a multiple of the workers.
        shard_timeout_s: a worker that takes longer for a shard is replaced; None derives it from the shards before.
        engine_address: Ray cluster to join, host:port; None starts Ray on this machine.
        rounds: server steps.
        cohort: devices a round.
        min_separation: b, two rounds of one device are at least b apart (|i - j| >= b).
        max_participations: k, rounds of one device at the most; None for no limit.
        sampling: whether cohorts have a fixed size or devices are drawn one by one.
        fleet: availability, speed and faults of the devices; None if all are there and report.
        batch_rows: rows of a local batch.
        row_tokens: pieces of a row.
        max_batches: local batches a device, its remaining rows unused.
        local_learning_rate, clip_norm, proximal, full_weight_pieces: of the devices, see `LocalTraining`.
        adaptive_clipping: with the gaussian mechanism only; None for a fixed clip norm.
        server_optimizer, server_learning_rate: step on the noised mean update.
        server_momentum: of `sgd`, and Adam's beta_1.
        server_epsilon: of `adam`; Reddi et al. 2021 take 1e-3.
        cooldown_rounds, cooldown_share: in these last rounds the server's rate falls linearly to this share of it.
        mechanism, noise_multiplier: DP mechanism, one of strategies.MECHANISMS or skellam, and its z in clip norms.
        restart_every: rounds of each tree, None for one tree.
        bands, buffers: of `toeplitz` and `blt`, see MechanismChoice.
        bits: of `skellam`, where devices add the noise themselves: of a value of their messages.
        min_reports: a round in which fewer devices report is abandoned (Bonawitz et al. 2019, section 2.2: the minimal
            goal count), see Participation; None for never. With `skellam` they alone make the noise promised, and None
            is the cohort.
        delta: of the reported (epsilon, delta).
        production_cohort, production_population: what the projected epsilon is stated for.
        evaluate_every: rounds between accuracy measurements.
    """

    engine: Literal["tff", "local", "ray"] = "tff"
    workers: Count = 2
    shards: Count = 6
    shard_timeout_s: Positive | None = None
    engine_address: str | None = None
    rounds: Count
    cohort: Count
    min_separation: Count
    max_participations: Count | None = None
    sampling: Literal["fixed", "poisson"] = "fixed"
    fleet: FleetConfig | None = None
    batch_rows: Count = 8
    row_tokens: Annotated[int, pydantic.Field(ge=4, le=256)] = 24
    max_batches: Count = 4
    local_learning_rate: Positive
    clip_norm: Positive
    proximal: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 0.0
    full_weight_pieces: Count | None = None
    adaptive_clipping: AdaptiveClippingConfig | None = None
    server_optimizer: Literal["sgd", "adam"] = "sgd"
    server_learning_rate: Positive = 1.0
    server_momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.9
    server_epsilon: Positive = 1e-3
    cooldown_rounds: Annotated[int, pydantic.Field(ge=0)] = 0
    cooldown_share: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.05
    mechanism: str = "tree"
    noise_multiplier: Positive
    restart_every: Count | None = None
    bands: Count | None = None
    buffers: Count | None = None
    bits: Annotated[int, pydantic.Field(ge=8, le=MOST_BITS)] | None = None
    min_reports: Count | None = None
    delta: Annotated[float, pydantic.Field(gt=0, lt=1)] = 1e-10
    production_cohort: Count = 6_500
    production_population: Count = 3_000_000
    evaluate_every: Count = 5

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        self._check_skellam()
        if self.bands is not None and self.bands > min(self.rounds, self.min_separation):
            raise ValueError(
                f"bands is {self.bands}, must be at most rounds and min_separation,"
                f" {self.rounds} and {self.min_separation}"
            )
        if self.cooldown_rounds > self.rounds:
            raise ValueError(
                f"cooldown_rounds is {self.cooldown_rounds}, must be at most rounds, {self.rounds}"
            )
        if self.least_reports > self.cohort:
            raise ValueError(
                f"min_reports is {self.min_reports}, must be at most cohort, {self.cohort}: no more reports are taken"
            )
        if self.min_reports and self.fleet is None and self.mechanism != Skellam.name:
            raise ValueError(
                f"min_reports is {self.min_reports}, and without a fleet all devices report: leave it out"
            )
        if self.engine_address is not None and self.engine != "ray":
            raise ValueError(
                f"engine_address {self.engine_address!r} is for engine ray, not {self.engine}: change one of them"
            )
        return self

    def _check_skellam(self) -> None:
        """Raises ValueError if an option is another mechanism's; of other mechanisms, MechanismChoice knows them."""
        if self.mechanism != Skellam.name:
            if self.bits is not None:
                raise ValueError(
                    f"bits is for mechanism skellam, not {self.mechanism}: leave it out"
                )
            self.mechanism_choice()
            return
        for option in ("restart_every", "bands", "buffers", "adaptive_clipping"):
            if getattr(self, option) is not None:
                raise ValueError(f"mechanism skellam has no {option}: leave it out")
        if self.bits is None:
            raise ValueError("mechanism skellam needs bits, such as 20")
        if self.sampling != "fixed":
            raise ValueError(
                f"sampling is {self.sampling}, must be fixed with mechanism skellam: the sum has room for the cohort"
            )

    def strategy(self, parameters: int) -> Strategy:
        """What noise the run adds to a model of that many parameters.

        Raises:
            ValueError: the bits are too few for it, or at the production's cohort.
        """
        if self.mechanism == Skellam.name:
            assert self.bits is not None
            noise, least = self.noise_multiplier, self.least_reports
            strategy = Skellam.lay_out(self.bits, parameters, self.cohort, least, noise)
            # the projection at the run's end needs a grid too
            strategy.for_cohort(
                self.production_cohort, noise * self.production_cohort / self.cohort
            )
            return strategy
        limit = self.max_participations or self.rounds
        participations = most_participations(self.rounds, self.min_separation, limit)
        return self.mechanism_choice().build(self.rounds, self.min_separation, participations)

    def device_noise(self, parameters: int) -> DeviceNoise | None:
        """What the devices add themselves; None where the server adds all the noise."""
        strategy = self.strategy(parameters) if self.mechanism == Skellam.name else None
        if not isinstance(strategy, Skellam):
            return None
        return DeviceNoise(strategy, self.noise_multiplier)

    def mechanism_choice(self) -> MechanismChoice:
        """A mechanism of the server's, with its options."""
        clipping = self.adaptive_clipping
        return MechanismChoice(
            self.mechanism,
            restart_every=self.restart_every,
            bands=self.bands,
            buffers=self.buffers,
            count_stddev=None if clipping is None else clipping.count_stddev,
        )

    def mechanism_facts(self) -> dict[str, Any]:
        """What a run's checkpoint says of its mechanism, so that it goes on under no other."""
        if self.mechanism == Skellam.name:
            return {"name": self.mechanism, "bits": self.bits, "min_reports": self.least_reports}
        return dataclasses.asdict(self.mechanism_choice())

    @property
    def least_reports(self) -> int:
        """Reports without which a round is abandoned."""
        return self.min_reports or (self.cohort if self.mechanism == Skellam.name else 0)

    @property
    def asked(self) -> int:
        """Devices asked in a round: more than the cohort in a fleet, where not all of them report."""
        return math.ceil(self.cohort * (self.fleet.over_selection if self.fleet else 1))

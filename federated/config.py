"""Settings of a federated run, checked where they come in."""

from typing import Annotated, Literal

import pydantic

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, pydantic.Field(ge=1)]

# Settings of FederatedConfig that say where a run happens and cannot change what comes out.
PLACEMENT = frozenset({"workers", "shard_timeout_s", "engine_address"})


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
        batch_rows: rows of a local batch.
        row_tokens: pieces of a row.
        max_batches: local batches a device, its remaining rows unused.
        local_learning_rate, clip_norm, proximal, full_weight_pieces: of the devices, see `LocalTraining`.
        server_learning_rate, server_momentum: SGD with momentum on the noised mean update.
        mechanism, noise_multiplier: DP mechanism and its z in clip norms.
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
    batch_rows: Count = 8
    row_tokens: Annotated[int, pydantic.Field(ge=4, le=256)] = 24
    max_batches: Count = 4
    local_learning_rate: Positive
    clip_norm: Positive
    proximal: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 0.0
    full_weight_pieces: Count | None = None
    server_learning_rate: Positive = 1.0
    server_momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.9
    mechanism: Literal["tree"] = "tree"
    noise_multiplier: Positive
    delta: Annotated[float, pydantic.Field(gt=0, lt=1)] = 1e-10
    production_cohort: Count = 6_500
    production_population: Count = 3_000_000
    evaluate_every: Count = 5

    @pydantic.model_validator(mode="after")
    def _check_address(self) -> "FederatedConfig":
        if self.engine_address is not None and self.engine != "ray":
            raise ValueError(
                f"engine_address {self.engine_address!r} is for engine ray, not {self.engine}: change one of them"
            )
        return self

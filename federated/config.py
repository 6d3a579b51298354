"""Settings of a federated run, checked where they come in."""

from typing import Annotated, Literal

import pydantic

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, pydantic.Field(ge=1)]


class FederatedConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One federated run.

    Attributes:
        engine: where shards run.
        shards: TFF clients a round is cut into; two use both cores.
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

    engine: Literal["tff", "local"] = "tff"
    shards: Count = 2
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

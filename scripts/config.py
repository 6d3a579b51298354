"""One configuration for a whole run, read from a preset or a user's file."""

import os
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from federated.config import FederatedConfig
from model.config import NetworkConfig, PretrainingConfig, TokenizerConfig
from synthetic_text.config import TextConfig

PRESETS = Path(__file__).parent / "presets"
Count = Annotated[int, pydantic.Field(ge=1)]


class PopulationConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The private population: `messages`, a user's own JSONL or Parquet, or the chitchat package; cap a user; split.

    `rotation` picks which users are tested (`keyfed ... --eval-rotation`). With `store`, a folder of `keyfed fleet
    build` or `synthesize`, its devices train in place of the training users; validation and test users stay.
    """

    messages: Path | None = None
    store: Path | None = None
    rotation: Annotated[int, pydantic.Field(ge=0)] = 0
    max_messages: Count = 500
    train_share: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.7
    validation_share: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.1

    @pydantic.model_validator(mode="after")
    def _check_shares(self) -> "PopulationConfig":
        if self.train_share + self.validation_share >= 1:
            raise ValueError(
                f"train_share {self.train_share} and validation_share {self.validation_share} leave nobody to test on:"
                " lower one of them"
            )
        return self


class EvaluationConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What is measured: vocabulary size, targets a user (0: all), users on the round curve, parity checks."""

    vocabulary: Count = 10_000
    max_targets: Annotated[int, pydantic.Field(ge=0)] = 0
    curve_users: Count = 40
    curve_max_targets: Count = 50
    parity_positions: Count = 2_000


class AdaptationConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Private domain adaptation: devices' DP histogram of hashed words, word pairs and topics picks synthetic messages.

    Attributes:
        enabled: whether a run's synthetic arm is adapted; a study always trains an adapted arm beside the others.
        epsilon: of the one release, at federated.delta.
        clip_norm: largest L2 norm of a device's histogram, in counts.
        keep: share of each pool's messages that is kept.
    """

    enabled: bool = False
    epsilon: Annotated[float, pydantic.Field(gt=0)] = 8.0
    word_buckets: Count = 4_096
    pair_buckets: Annotated[int, pydantic.Field(ge=0)] = 4_096
    topics: Count = 32
    clip_norm: Annotated[float, pydantic.Field(gt=0)] = 1.0
    keep: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.5


class RunConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Everything that decides a run's result."""

    seed: Annotated[int, pydantic.Field(ge=0)] = 1
    text: TextConfig
    population: PopulationConfig = PopulationConfig()
    tokenizer: TokenizerConfig
    network: NetworkConfig
    pretraining: PretrainingConfig
    federated: FederatedConfig
    adaptation: AdaptationConfig = AdaptationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def load_config(preset: str) -> RunConfig:
    """The preset of that name, or the YAML file at that path.

    Raises:
        ValueError: names the file, the field and what it may be.
    """
    presets = {path.stem: path for path in PRESETS.glob("*.yaml")}
    path = presets.get(preset, Path(preset))
    if not os.path.isfile(path):  # unlike Path.is_file, no error for a name too long
        names = ", ".join(sorted(presets))
        raise ValueError(f"preset {preset!r}: neither one of {names} nor an existing file")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply to be a configuration") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    try:
        return RunConfig.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(
            f"{path}: {field}: {first['msg']} (given: {str(first['input'])[:60]})"
        ) from None

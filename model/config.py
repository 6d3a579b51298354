"""Settings of tokenizer, network and pre-training, checked where they come in."""

from typing import Annotated, Literal

import pydantic


class TokenizerConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """SentencePiece tokenizer: `unigram` pieces or whole words of the `word` model, `size` pieces in all."""

    kind: Literal["unigram", "word"] = "unigram"
    size: Annotated[int, pydantic.Field(ge=200, le=64_000)]


class NetworkConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """CIFG-LSTM sizes: embedding (and projection) width, LSTM units."""

    embedding: Annotated[int, pydantic.Field(ge=8, le=1_024)]
    units: Annotated[int, pydantic.Field(ge=8, le=4_096)]


class PretrainingConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Pre-training: Adam with a linear warm-up and a cosine decay to zero.

    Attributes:
        row_tokens: pieces of a row.
        learning_rate: peak step size.
        warmup_steps: steps to the peak.
        max_gradient_norm: gradients are clipped to this global norm.
    """

    row_tokens: Annotated[int, pydantic.Field(ge=4, le=256)] = 24
    learning_rate: Annotated[float, pydantic.Field(gt=0, le=1)] = 3e-3
    warmup_steps: Annotated[int, pydantic.Field(ge=0)] = 50
    max_gradient_norm: Annotated[float, pydantic.Field(gt=0)] = 1.0

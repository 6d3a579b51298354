"""Settings of the training text of all arms, checked where they come in."""

from pathlib import Path
from typing import Annotated, Literal

import pydantic

PublicSource = Literal["news", "tweets", "speeches", "snippets"]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Words = Annotated[int, pydantic.Field(ge=1_000)]


class TextConfig(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What the arms read.

    Attributes:
        public: public web text by name; all but news need locks/corpora.lock.
        files: public corpora of the user's own, see `corpora.load_corpus`.
        words: words that each arm's training reads, repeats counted.
        batch_words: words of an optimizer step, so every arm takes words // batch_words steps.
        llm_share: share of LLM-written words in every batch of the synthetic arm.
        everyday_share: share of everyday chats (`chat_prompts`) among these LLM-written words.
        human_floor: least share of human-written words in every batch of the synthetic arm.
        llm_words: LLM-written words to take at most, whole messages of all families in the same shares; None takes all.
        register_words: web words kept by register and converted; the best of the corpus, not a sample.
        layout: keyboard layout of the typing simulator.
        typing_noise: whether the synthetic arm's context is typed by the simulator; off, as that shows no gain.
        deduplicate: whether near-duplicates within the synthetic arm's mix are left out; off, as that shows no gain.
        temperature: over strata of LLM text: 1 as they come, larger lifts the rare ones.
    """

    public: tuple[PublicSource, ...] = ("news",)
    files: tuple[Path, ...] = ()
    words: Words
    batch_words: Annotated[int, pydantic.Field(ge=50)]
    llm_share: Share = 0.5
    everyday_share: Share = 0.5
    human_floor: Share = 0.3
    llm_words: Words | None = None
    register_words: Words
    layout: str = "qwerty"
    typing_noise: bool = False
    deduplicate: bool = False
    temperature: Annotated[float, pydantic.Field(ge=1)] = 1.0

    @pydantic.model_validator(mode="after")
    def _check(self) -> "TextConfig":
        if self.llm_share + self.human_floor > 1:
            raise ValueError(
                f"llm_share {self.llm_share} leaves less than the human_floor {self.human_floor}: lower one of them"
            )
        if not self.public and not self.files:
            raise ValueError("no public text: name a source under public, or give files")
        return self

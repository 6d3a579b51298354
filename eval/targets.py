"""What is asked of a keyboard: the target words, and the fixed vocabulary they are counted by."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from device_runtime.words import is_word, split_words


def find_targets(words: Sequence[str]) -> list[int]:
    """Positions in `split_words(message)` to be suggested: of every word, the first included."""
    return [position for position, word in enumerate(words) if is_word(word)]


def take_targets(
    messages: Iterable[list[str]], max_targets: int | None
) -> Iterator[tuple[list[str], list[int]]]:
    """Messages (as `split_words` gives them) with their targets' positions, without those that have none.

    Ends after `max_targets` targets; None takes all.

    Raises:
        ValueError: `max_targets` is below 1.
    """
    if max_targets is not None and max_targets < 1:
        raise ValueError(f"max_targets is {max_targets}, must be at least 1 or None")
    taken = 0
    for words in messages:
        targeted = find_targets(words)
        if max_targets is not None:
            targeted = targeted[: max_targets - taken]
        if targeted:
            yield words, targeted
        taken += len(targeted)
        if taken == max_targets:
            return


def find_sentence_starts(words: Sequence[str]) -> list[bool]:
    """For each of `split_words(message)` whether no word stands before it in its sentence."""
    starts, at_start = [], True
    for word in words:
        starts.append(at_start)
        at_start = word.endswith((".", "!", "?", "…")) or (at_start and not is_word(word))
    return starts


@dataclass(frozen=True)
class EvaluationVocabulary:
    """The words that count as in-vocab: fixed, and the same for all arms, tokenizers and models.

    Attributes:
        words: lower-case words as `split_words` gives them, each once, most frequent first.
    """

    words: tuple[str, ...]

    @classmethod
    def build(cls, texts: Iterable[str], size: int) -> "EvaluationVocabulary":
        """The `size` most frequent words of public texts (or all of them); ties alphabetical."""
        if size < 1:
            raise ValueError(f"size is {size}, must be at least 1")
        counts = Counter(word for text in texts for word in split_words(text) if is_word(word))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(ranked[:size]))

    @classmethod
    def load(cls, path: Path) -> "EvaluationVocabulary":
        """Read a UTF-8 file of one lower-case word a line.

        Raises:
            ValueError: not UTF-8, or a line that is no single lower-case word or repeats one.
        """
        try:
            lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
        first_line: dict[str, int] = {}
        for number, word in enumerate(lines, start=1):
            if split_words(word) != [word] or not is_word(word):
                raise ValueError(
                    f"{path}:{number}: not one lower-case word; correct or remove the line"
                )
            if word in first_line:
                raise ValueError(
                    f"{path}:{number}: same word as line {first_line[word]}; remove one"
                )
            first_line[word] = number
        return cls(tuple(lines))

    def save(self, path: Path) -> None:
        """Write the file that `load` reads, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(self._file)
        temporary.replace(path)

    @property
    def sha256(self) -> str:
        """Hex digest of the saved file: two results are comparable only if it is equal."""
        return hashlib.sha256(self._file).hexdigest()

    @property
    def _file(self) -> bytes:
        return "".join(f"{word}\n" for word in self.words).encode()

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {word: rank for rank, word in enumerate(self.words, start=1)}

    def rank(self, word: str) -> int | None:
        """Place of a word, 1 for the most frequent; None outside."""
        return self._ranks.get(word)

    def __contains__(self, word: str) -> bool:
        return word in self._ranks

    def __len__(self) -> int:
        return len(self.words)

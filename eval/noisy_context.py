"""What a keyboard suggests when the words before are as they were left in the message, wrong ones among them.

What is asked for stays the word that was meant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_runtime.words import split_words
from eval.next_word import Suggested, WordPredictor

Writer = Callable[[Sequence[str]], Sequence[str]]
"""What stands in the message for each intended word, one to one."""


@dataclass(frozen=True)
class NoisyContext:
    """A `WordPredictor` whose keyboard reads what `write` left.

    Attributes:
        keyboard: is asked.
        write: writes the message.
    """

    keyboard: WordPredictor
    write: Writer

    def predict_words(
        self, words: list[str], at: list[bool], count: int = 3
    ) -> Sequence[Sequence[Suggested]]:
        written, asked, starts = list[str](), list[bool](), list[int]()
        for word, form, wanted in zip(words, self.write(words), at, strict=True):
            parts = split_words(form) or [word]  # a word typed twice is two
            starts.append(len(written))
            written += parts
            asked += [wanted, *[False] * (len(parts) - 1)]
        predicted = self.keyboard.predict_words(written, asked, count)
        return [predicted[start] for start in starts]

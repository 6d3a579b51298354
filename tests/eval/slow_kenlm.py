"""What the tests need of the package kenlm, from the ARPA file's definition: for machines that do not have it."""

import types
from pathlib import Path


class State:
    words: tuple[str, ...] = ()


class Model:
    """log10 p(w | context): what is listed, or the context's backoff and p behind the context's rest."""

    def __init__(self, path: str, config: object) -> None:
        self._probs: dict[tuple[str, ...], float] = {}
        self._backoffs: dict[tuple[str, ...], float] = {}
        for line in Path(path).read_text("utf-8").splitlines():
            if "\t" in line:
                log_prob, words, *backoff = line.split("\t")
                self._probs[tuple(words.split())] = float(log_prob)
                self._backoffs[tuple(words.split())] = float(backoff[0]) if backoff else 0.0
        if not self._probs:
            raise OSError("no n-grams")
        self.order = max(map(len, self._probs))

    def BeginSentenceWrite(self, state: State) -> None:
        state.words = ("<s>",)

    def BaseScore(self, state: State, word: str, after: State) -> float:
        word = word if (word,) in self._probs else "<unk>"
        context, score = state.words, 0.0
        after.words = (*context, word)[-self.order + 1 :]
        while (*context, word) not in self._probs:
            score += self._backoffs.get(context, 0.0)
            context = context[1:]
        return score + self._probs[(*context, word)]


def make_package() -> types.ModuleType:
    package = types.ModuleType("kenlm")
    levels = types.SimpleNamespace(NONE=0)
    parts = {
        "Model": Model,
        "State": State,
        "Config": types.SimpleNamespace,
        "ARPALoadComplain": levels,
    }
    for name, part in parts.items():
        setattr(package, name, part)
    return package

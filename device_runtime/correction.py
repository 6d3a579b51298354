"""Completion and correction of the word being typed: what is expected here, and what the fingers did.

A word's score is log P(word | context) + log P(typed | word): Bayes' rule, with the language model as the prior and
the touches as the likelihood. The model speaks in pieces. A word of one piece costs no model step; of a longer one the
first piece is known, and the rest is guessed from the words' frequencies until steps are spent on it, best words first.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from device_runtime.decoder import DecoderState, PieceModel
from device_runtime.layouts import Layout
from device_runtime.lexicon import Lexicon
from device_runtime.tokenizer import UNK, Tokenizer, is_one_word
from device_runtime.touch import MOST_LETTERS, Touches, WordTouches
from device_runtime.words import normalize

# A typed word is replaced if another one is e^margin times as probable. Tuned on validation users of a quick run: of
# right words about 1 in 200 is changed, of those that are known 1 in 1,000.
KNOWN_MARGIN = 6.0
UNKNOWN_MARGIN = 3.0

_NEXT_PIECE = -5.0  # log-probability of a further piece of what is no word; a guess, chosen
_POOL = 48  # words whose scores are looked at more closely


@dataclass
class _Candidate:
    """A word, its pieces, log P(typed | word) and its score; the score is a guess until it is exact."""

    word: str
    pieces: Sequence[int]
    likelihood: float
    score: float
    is_exact: bool


class Corrector:
    """Finds the words that may be meant by letters typed after a context.

    Candidates are the words of the lexicon, those that are one piece of the tokenizer, and the letters as typed.

    Args:
        decoder: the model.
        tokenizer: its tokenizer.
        lexicon: words with their frequencies.
        layout: the keyboard that is typed on.
        blocked: words never to put in or suggest.
    """

    def __init__(
        self,
        decoder: PieceModel,
        tokenizer: Tokenizer,
        lexicon: Lexicon,
        layout: Layout,
        blocked: Collection[str] = frozenset(),
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._layout = layout
        self._blocked = frozenset(blocked)
        ends = np.flatnonzero(tokenizer.ends_word & tokenizer.can_suggest).tolist()
        known = set(lexicon.words)
        known.update(
            surface
            for surface in {tokenizer.surfaces[i] for i in ends} - known
            if any(map(str.isalpha, surface)) and is_one_word(surface)
        )
        known -= self._blocked
        self._touches = WordTouches([word for word in known if len(word) <= MOST_LETTERS], layout)
        self._index = {word: i for i, word in enumerate(self._touches.words)}
        self._pieces = tokenizer.encode_each_word(self._touches.words)
        self._first_piece = np.array([pieces[0] for pieces in self._pieces], np.intp)
        self._rest = self._guess_rest(lexicon)

    def complete(
        self,
        state: DecoderState,
        typed: str,
        count: int,
        touches_mm: Touches | None = None,
        max_steps: int = 4,
    ) -> list[tuple[str, float]]:
        """The `count` words most probably begun with the letters typed so far; ties by text.

        Args:
            state: state at the beginning of the word.
            typed: the letters, mistyped or not, at least one.
            count: length of the list, >= 1; it is shorter if fewer words are found.
            touches_mm: of each letter; None where none is known.
            max_steps: model steps to spend, >= 0; more than 4 found no further word on validation users.

        Returns:
            Lower-case words with the natural log-probability of the word and the touches; of the touches without a
            term that is the same for all words.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, not {count}")
        letters = normalize(typed)
        if not 1 <= len(letters) <= MOST_LETTERS:
            return []
        touches_mm = _matching(letters, touches_mm)
        ids, likelihoods = self._touches.beginning(letters, touches_mm)
        candidates = self._best(state, ids, likelihoods, max(count, _POOL))
        known = letters in self._index or letters in self._blocked
        if not known and is_one_word(letters):
            candidates.append(self._as_typed(state, letters, touches_mm))
        ranked = self._refine(state, candidates, count, max_steps, {})
        return [(candidate.word, candidate.score) for candidate in ranked]

    def correct(
        self,
        state: DecoderState,
        typed: str,
        touches_mm: Touches | None = None,
        max_steps: int = 8,
    ) -> str:
        """The word to put in for a finished one: itself in lower case, unless another was surely meant.

        Args:
            state: state at the beginning of the word.
            typed: the whole word.
            touches_mm: of each letter; None where none is known.
            max_steps: model steps to spend, >= 0.
        """
        letters = normalize(typed)
        if len(letters) > MOST_LETTERS or letters in self._blocked or not self._has_keys(letters):
            return letters
        touches_mm = _matching(letters, touches_mm)
        ids, likelihoods = self._touches.whole(letters, touches_mm)
        own = self._index.get(letters, -1)
        others = self._best(state, ids[ids != own], likelihoods[ids != own], _POOL)
        after: dict[tuple[int, ...], DecoderState] = {}
        itself = self._as_typed(state, letters, touches_mm)
        if self._steps(itself, after) > max_steps:
            return letters
        self._make_exact(state, itself, after)
        best = self._refine(state, others, 1, max_steps, after)
        margin = UNKNOWN_MARGIN if own < 0 else KNOWN_MARGIN
        return best[0].word if best and best[0].score > itself.score + margin else letters

    def _guess_rest(self, lexicon: Lexicon) -> np.ndarray:
        """float32 [words], log P(word | its first piece) among words of several pieces; 0 for words of one."""
        longer = np.array([len(pieces) > 1 for pieces in self._pieces], bool)
        index = {word: i for i, word in enumerate(lexicon.words)}
        # Words of several pieces are all of the lexicon.
        found = np.array([index.get(word, -1) for word in self._touches.words], np.intp)[longer]
        shares = np.exp(lexicon.log_probs[found].astype(np.float64))
        firsts = self._first_piece[longer]
        rest = np.zeros(len(longer), np.float32)
        rest[longer] = np.log(shares / np.bincount(firsts, shares, self._tokenizer.size)[firsts])
        return rest

    def _has_keys(self, letters: str) -> bool:
        """Whether it is a word of letters on the page that is typed on, and apostrophes."""
        return is_one_word(letters) and all(
            character == "'" or self._layout.key_index(character) >= 0 for character in letters
        )

    def _best(
        self, state: DecoderState, ids: np.ndarray, likelihoods: np.ndarray, count: int
    ) -> list[_Candidate]:
        """The `count` words with the highest scores as far as they can be guessed without a step."""
        scores = state.log_probs[self._first_piece[ids]] + self._rest[ids] + likelihoods
        if len(scores) > count:
            kept = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
            ids, likelihoods, scores = ids[kept], likelihoods[kept], scores[kept]
        return [
            _Candidate(
                self._touches.words[i],
                self._pieces[i],
                likelihood,
                score,
                len(self._pieces[i]) == 1,
            )
            for i, likelihood, score in zip(
                ids.tolist(), likelihoods.tolist(), scores.tolist(), strict=True
            )
        ]

    def _as_typed(
        self, state: DecoderState, letters: str, touches_mm: Touches | None
    ) -> _Candidate:
        """The letters as a word of their own."""
        [pieces] = self._tokenizer.encode_each_word([letters])
        likelihood = self._touches.as_typed(letters, touches_mm)
        # An unknown piece stands for as many words as are known.
        likelihood -= math.log(max(len(self._index), 1)) * pieces.count(UNK)
        score = float(state.log_probs[pieces[0]]) + likelihood + _NEXT_PIECE * (len(pieces) - 1)
        return _Candidate(letters, pieces, likelihood, score, len(pieces) == 1)

    def _refine(
        self,
        state: DecoderState,
        candidates: list[_Candidate],
        count: int,
        max_steps: int,
        after: dict[tuple[int, ...], DecoderState],
    ) -> list[_Candidate]:
        """The best `count`, after steps were spent on those of them whose scores are guesses."""
        while True:
            candidates.sort(key=lambda candidate: (-candidate.score, candidate.word))
            for candidate in candidates[:count]:
                needed = self._steps(candidate, after)
                if not candidate.is_exact and len(after) + needed <= max_steps:
                    self._make_exact(state, candidate, after)
                    break
            else:
                return candidates[:count]

    def _steps(self, candidate: _Candidate, after: dict[tuple[int, ...], DecoderState]) -> int:
        """Model steps that its exact score costs."""
        pieces = tuple(candidate.pieces)
        return sum(pieces[:n] not in after for n in range(1, len(pieces)))

    def _make_exact(
        self,
        state: DecoderState,
        candidate: _Candidate,
        after: dict[tuple[int, ...], DecoderState],
    ) -> None:
        """Replaces the guess by the model's word; `after` keeps the states after a word's first pieces."""
        pieces, log_prob = tuple(candidate.pieces), 0.0
        for n, piece in enumerate(pieces):
            if n:
                if pieces[:n] not in after:
                    after[pieces[:n]] = self._decoder.step(pieces[n - 1], state)
                state = after[pieces[:n]]
            log_prob += float(state.log_probs[piece])
        candidate.score = log_prob + candidate.likelihood
        candidate.is_exact = True


def _matching(letters: str, touches_mm: Touches | None) -> Touches | None:
    """The touches, if there is one for each letter."""
    return touches_mm if touches_mm is not None and len(touches_mm) == len(letters) else None

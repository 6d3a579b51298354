"""The user's own words among what the model expects."""

import heapq
import math
from collections.abc import Callable, Sequence

import numpy as np

from device_runtime.layouts import Layout
from device_runtime.personal import PersonalHistory
from device_runtime.touch import MOST_LETTERS, Touches, WordTouches

# Share of what is typed that the user's own words explain. Tuned on validation users of a quick run, 25 of them with up
# to 200 messages each: right in the list of three 26.9 % without own words, 27.4 % with them.
_SHARE = 0.2
_LOG_SHARE, _LOG_OTHERS = math.log(_SHARE), math.log1p(-_SHARE)
_POOL = 24  # own words whose letters fit best, looked at more closely
# A word that nobody else knows is replaced by an own one if that is e^margin times as probable.
_MARGIN = 4.0

Found = Sequence[tuple[str, float]]


class OwnWords:
    """Mixes a user's history with words that were found otherwise: P = 0.8 P(found) + 0.2 P(own).

    Args:
        history: what the user writes.
        layout: the keyboard that is typed on.
        blocked: words never to return.
    """

    def __init__(self, history: PersonalHistory, layout: Layout, blocked: frozenset[str]) -> None:
        self._history = history
        self._layout = layout
        self._blocked = blocked
        self._version = -1
        self._touches: WordTouches | None = None

    def next_words(
        self,
        previous: str | None,
        found: Found,
        count: int,
        model_log_prob: Callable[[str], float],
    ) -> list[tuple[str, float]]:
        """The `count` best of `found` and the own words likely after `previous`; ties by text.

        `model_log_prob` tells of a word what the model says, -inf if that is not known.
        """
        scores = dict(found)
        for word in self._history.likely_words(previous):
            if word not in scores and word not in self._blocked:
                scores[word] = model_log_prob(word)
        return self._mix(previous, scores, dict.fromkeys(scores, 0.0), count)

    def complete(
        self,
        previous: str | None,
        letters: str,
        touches_mm: Touches | None,
        found: Found,
        count: int,
    ) -> list[tuple[str, float]]:
        """The `count` best of `found` and the own words that may be begun with `letters`; ties by text.

        `letters` and `found` are as for and from `Corrector.complete`.
        """
        likelihoods = self._fitting(letters, touches_mm, whole=False)
        scores = dict.fromkeys(likelihoods, -math.inf) | dict(found)
        return self._mix(previous, scores, likelihoods, count)

    def correct(
        self,
        previous: str | None,
        letters: str,
        touches_mm: Touches | None,
        model_log_prob: Callable[[str], float],
    ) -> str:
        """An own word, if that was surely meant by `letters`, which are no known word; else `letters`."""
        likelihoods = self._fitting(letters, touches_mm, whole=True)
        best = self._mix(previous, dict.fromkeys(likelihoods, -math.inf), likelihoods, 1)
        if not best or self._touches is None:
            return letters
        as_typed = model_log_prob(letters) + self._touches.as_typed(letters, touches_mm)
        return best[0][0] if best[0][1] > as_typed + _MARGIN else letters

    def _fitting(self, letters: str, touches_mm: Touches | None, whole: bool) -> dict[str, float]:
        """Own words that may be meant, with log P(letters | word) as `WordTouches` has it."""
        history = self._history
        if self._version != history.version:
            self._version = history.version
            words = [
                word
                for word in history.learnt_words()
                if len(word) <= MOST_LETTERS and word not in self._blocked
            ]
            self._touches = WordTouches(words, self._layout) if words else None
        if self._touches is None:
            return {}
        if touches_mm is not None and len(touches_mm) != len(letters):
            touches_mm = None
        fit = self._touches.whole if whole else self._touches.beginning
        ids, likelihoods = fit(letters, touches_mm)
        if len(ids) > _POOL:
            kept = np.argpartition(-likelihoods, _POOL - 1)[:_POOL]
            ids, likelihoods = ids[kept], likelihoods[kept]
        words_by_id = self._touches.words
        return {
            words_by_id[i]: value
            for i, value in zip(ids.tolist(), likelihoods.tolist(), strict=True)
        }

    def _mix(
        self,
        previous: str | None,
        scores: dict[str, float],
        likelihoods: dict[str, float],
        count: int,
    ) -> list[tuple[str, float]]:
        """The best `count`; a word without a likelihood is no own one that fits."""
        mixed, shares = [], self._history.shares(likelihoods, previous)
        for word, score in scores.items():
            share = shares.get(word, 0.0)
            own = _LOG_SHARE + math.log(share) + likelihoods[word] if share else -math.inf
            mixed.append((word, float(np.logaddexp(_LOG_OTHERS + score, own))))
        possible = [pair for pair in mixed if pair[1] > -math.inf]
        return heapq.nsmallest(count, possible, key=lambda pair: (-pair[1], pair[0]))

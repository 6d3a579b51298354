"""Completion and correction of the word being typed: what the model expects, and what the touches say.

A word's score is log P(word | context) + log P(typed | word), Bayes' rule with the language model as the prior and the
channel of `touch` as the likelihood. The model speaks in pieces: a word of one piece costs nothing, of a longer one the
first piece is known and the rest is guessed from the words' frequencies, until model steps are spent on it.
"""

from collections.abc import Collection

import numpy as np

from device_runtime.decoder import DecoderState, PieceModel
from device_runtime.layouts import Layout
from device_runtime.lexicon import Lexicon
from device_runtime.tokenizer import Tokenizer, is_one_word
from device_runtime.touch import MOST_LETTERS, Touches, WordTouches

KNOWN_MARGIN = 6.0
UNKNOWN_MARGIN = 2.0


class Corrector:
    """Finds what was meant by letters typed after a context.

    Candidates are the words of the lexicon, those that are one piece of the tokenizer, and the letters as typed.

    Args:
        decoder: the model.
        tokenizer: its tokenizer.
        lexicon: words to find, with their frequencies.
        layout: the keyboard that is typed on.
        blocked: words never to return, unless they were typed.
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
        self._blocked = frozenset(blocked)
        ends = np.flatnonzero(tokenizer.ends_word & tokenizer.can_suggest).tolist()
        pieces = {tokenizer.surfaces[i] for i in ends}
        words = [
            word
            for word in pieces.union(lexicon.words) - self._blocked
            if len(word) <= MOST_LETTERS and is_one_word(word) and any(map(str.isalpha, word))
        ]
        self._touches = WordTouches(words, layout)
        self._layout = layout
        self._words = self._touches.words
        self._index = {word: i for i, word in enumerate(self._words)}
        tokens = tokenizer.encode_each_word(self._words)
        self._tokens = tokens
        self._first = np.array([ids[0] for ids in tokens], np.intp)
        rest = np.zeros(len(tokens), np.float32)
        longer = np.array([len(ids) > 1 for ids in tokens], bool)
        at = np.array([lexicon.find(word) for word in self._words], np.intp)
        shares = np.where(at >= 0, np.exp(lexicon.log_probs[at]), np.exp(lexicon.log_probs.min()))
        by_first = np.bincount(self._first[longer], shares[longer], tokenizer.size)
        rest[longer] = np.log(shares[longer] / by_first[self._first[longer]])
        self._rest = rest
        self._is_longer = longer

    def complete(
        self,
        state: DecoderState,
        typed: str,
        count: int,
        touches_mm: Touches | None = None,
        max_steps: int = 16,
    ) -> list[tuple[str, float]]:
        if not typed or len(typed) > MOST_LETTERS:
            return []
        near, likely = self._touches.beginning(typed, touches_mm)
        return self._best(state, near, likely, count, max_steps)

    def _best(self, state, near, likely, count, max_steps):
        ids = np.arange(near.start, near.stop)
        prior = state.log_probs[self._first[ids]] + self._rest[ids]
        scores = prior + likely
        pool = min(len(ids), 64)
        top = np.argpartition(-scores, pool - 1)[:pool]
        cand = {int(ids[i]): (float(scores[i]), float(likely[i]), not self._is_longer[ids[i]]) for i in top}
        steps = 0
        states = {}
        while True:
            order = sorted(cand.items(), key=lambda x: (-x[1][0], self._words[x[0]]))[:count]
            todo = [(i, v) for i, v in order if not v[2]]
            done = True
            for i, v in todo:
                cost = len(self._tokens[i]) - 1
                need = sum(tuple(self._tokens[i][:k]) not in states for k in range(1, len(self._tokens[i])))
                if steps + need > max_steps:
                    continue
                lp = self.exact(state, self._tokens[i], states)
                steps += need
                cand[i] = (lp + v[1], v[1], True)
                done = False
                break
            if done:
                return [(self._words[i], v[0]) for i, v in order]

    def exact(self, state, tokens, states):
        lp = float(state.log_probs[tokens[0]])
        s = state
        for k in range(1, len(tokens)):
            key = tuple(tokens[:k])
            if key not in states:
                states[key] = self._decoder.step(tokens[k - 1], s)
            s = states[key]
            lp += float(s.log_probs[tokens[k]])
        return lp

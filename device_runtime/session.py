"""One message being typed: what was committed, what comes next, what was meant."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_runtime.context import ContextIndex, Place, segments
from device_runtime.decoder import DecoderState
from device_runtime.display import ends_sentence, follow_case
from device_runtime.fallback import Turn
from device_runtime.learnable import learnable_forms
from device_runtime.own_words import OwnWords
from device_runtime.personal import PersonalHistory, Sight, Sights
from device_runtime.tokenizer import begins_word, is_one_word
from device_runtime.touch import MOST_LETTERS, Touches
from device_runtime.trail import RECENT, Trail
from device_runtime.words import normalize, split_words

if TYPE_CHECKING:
    from device_runtime.keyboard import Keyboard

# Model steps of a completion. After two letters 67.5 % of validation users' words were in the list of three with 4
# steps and with 16 (quick run), with none 67.2 %.
_COMPLETION_STEPS = 4
_CORRECTION_STEPS = 8
# Nats by which a punctuation mark must be likelier than the best word to be shown, then as the first of the list. On
# validation users of a quick run one was shown before 8 % of all words, and was right in 27 % of these cases; the word
# that it took the place of would have been right in 3 %.
_MARK_MARGIN = math.log(4)
_SETTLED_AT_ONCE = (
    64  # words of an endless message learnt together, as each time the file is written
)


@dataclass(frozen=True)
class Suggestion:
    """A whole word as it would be typed, an emoji or a mark, and its natural log-probability."""

    text: str
    log_prob: float


class Session:
    """One message being typed; made by `Keyboard.session`. Any thread may call it.

    Holds the message as tokens with the model's memories of them, and, for a personal history that learns from it, its
    last words as they were written. It writes nothing itself.
    """

    def __init__(
        self, keyboard: "Keyboard", personal: PersonalHistory | None, private: bool
    ) -> None:
        self._keyboard = keyboard
        self._lock = threading.RLock()
        self._corrector = keyboard.corrector  # made by now, and not in the time of the first letter
        self._trail = Trail(keyboard.decoder, keyboard.start)
        self._context = ContextIndex()
        self._starts_sentence = True
        self._personal = personal
        self._own: OwnWords | None = None
        self._sights: Sights | None = None
        if personal is not None:
            self._own = OwnWords(personal, keyboard.layout, keyboard.blocked)
            self._sights = None if private else personal.begin_message()

    def reset(self) -> None:
        """Ends this message, of which a personal history learns what stands in it now, and starts the next one."""
        with self._lock:
            sights, self._sights = self._sights, None
            length = len(self._trail)
            self._drop_after(0)
            self._starts_sentence = True
            if sights is not None and self._personal is not None:
                sights.settle(length)
                self._sights = self._personal.begin_message()

    def commit(self, text: str) -> None:
        """Takes `text` as typed for good: all its words are complete, the last one too.

        Any Unicode is accepted. Committing a text word by word is the same as committing it whole. With a budget, what
        the model had no time to read is read by later calls.
        """
        words = split_words(text)
        tokens = self._keyboard.tokenizer.encode_each_word(words)
        with self._lock:
            if self._sights is not None:
                self._see(self._sights, text, tokens)
            self._trail.append([token for word in tokens for token in word])
            if words:
                self._starts_sentence = ends_sentence(words[-1])
            self._read()

    def set_context(self, text: str) -> None:
        """Takes `text` as all that stands before the caret, after it moved or something was deleted.

        The result is that of a fresh session that committed `text`; of what both begin with nothing is computed again
        but a few model steps. A personal history learns nothing from words that appear or vanish so.
        """
        with self._lock:
            known = self._context.find(text)
            tokens, starts_sentence = list[int](), known.starts_sentence
            places = []
            for first, last in segments(text, known.at):
                words = split_words(text[first:last])
                tokens += self._keyboard.tokenizer.encode_words(words)
                if words:
                    starts_sentence = ends_sentence(words[-1])
                places.append(Place(last, known.tokens + len(tokens), starts_sentence))
            common = self._trail.common_beginning(tokens, known.tokens)
            self._drop_after(common)
            self._trail.append(tokens[common - known.tokens :])
            for place in places[:-1]:  # the last is no place between two words
                self._context.add(text, place)
            self._starts_sentence = starts_sentence
            self._read()

    def suggest(
        self, prefix: str = "", count: int = 3, touches_mm: Touches | None = None
    ) -> list[Suggestion]:
        """The `count` best suggestions, best first; fewer if no more are found.

        Before a word these are next words, among them emoji, and first of all a punctuation mark where one is clearly
        likelier than any word. Within a word they are completions and corrections of the letters typed so far. Blocked
        words are never among them. When the model misses its budget, the bundle's lexicon answers.

        Args:
            prefix: the first letters of the word, already typed but not committed.
            count: length of the list, >= 1.
            touches_mm: where each character of `prefix` was touched, in the layout's millimetres; None for one that was
                not touched, or if nothing is known of any.

        Raises:
            ValueError: `count` is below 1, or `touches_mm` is not one a character.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, not {count}")
        _check_touches(prefix, touches_mm)
        letters = normalize(prefix)
        if letters and (len(letters) > MOST_LETTERS or not begins_word(letters)):
            return []
        with self._lock:
            previous = self._previous_word()
            turn = self._keyboard.pacer.begin()
            state = self._trail.read(turn.in_time)
            if state is None:
                found = self._keyboard.fallback.next_words(previous, count, letters)
            elif letters:
                found = self._complete(state, previous, letters, count, touches_mm, turn)
            else:
                found = self._next_words(state, previous, count, turn)
            turn.end(answered=state is not None)
            starts = self._starts_sentence
            return [Suggestion(self._shown(word, prefix, starts), lp) for word, lp in found]

    def autocorrect(self, typed: str, touches_mm: Touches | None = None) -> str:
        """What the space bar puts in for the letters `typed`: these themselves or their correction.

        A correction has the capitals that were typed, or those it is always written with. Left alone is what is no
        single word, the words of the personal history, and everything when the model misses its budget.

        Args:
            typed: the word as typed.
            touches_mm: as in `suggest`.

        Raises:
            ValueError: `touches_mm` is not one a character.
        """
        _check_touches(typed, touches_mm)
        letters = normalize(typed)
        if len(letters) > MOST_LETTERS or not is_one_word(letters):
            return typed
        with self._lock:
            if self._personal is not None and self._personal.is_learnt(letters):
                return typed
            turn = self._keyboard.pacer.begin()
            state = self._trail.read(turn.in_time)
            word = letters
            if state is not None:
                word = self._correct(state, letters, touches_mm, turn)
            turn.end(answered=state is not None)
            if word == letters:
                return _always_capital(typed)
            return self._shown(word, typed, starts_sentence=False)

    def _drop_after(self, length: int) -> None:
        """Only the first `length` tokens stand there still."""
        if self._sights is not None:
            self._sights.drop(length)
        self._context.drop(length)
        self._trail.rewind(length)

    def _read(self) -> None:
        """Lets the model read what was committed, as far as there is time."""
        turn = self._keyboard.pacer.begin()
        turn.end(answered=self._trail.read(turn.in_time) is not None)

    def _next_words(
        self, state: DecoderState, previous: str | None, count: int, turn: Turn
    ) -> list[tuple[str, float]]:
        keyboard = self._keyboard
        found = keyboard.search.next_words(state, count, in_time=turn.in_time)
        if self._own is not None:
            found = self._own.next_words(
                previous, found, count, lambda word: keyboard.one_piece_log_prob(state, word)
            )
        mark = keyboard.likeliest_mark(state)
        if mark is not None and (not found or mark[1] > found[0][1] + _MARK_MARGIN):
            found = [mark, *found][:count]
        return found

    def _complete(
        self,
        state: DecoderState,
        previous: str | None,
        letters: str,
        count: int,
        touches_mm: Touches | None,
        turn: Turn,
    ) -> list[tuple[str, float]]:
        steps = turn.steps_left(_COMPLETION_STEPS)
        found = self._corrector.complete(state, letters, count, touches_mm, steps)
        if self._own is not None:
            found = self._own.complete(previous, letters, touches_mm, found, count)
        return found

    def _correct(
        self, state: DecoderState, letters: str, touches_mm: Touches | None, turn: Turn
    ) -> str:
        keyboard = self._keyboard
        steps = turn.steps_left(_CORRECTION_STEPS)
        word = self._corrector.correct(state, letters, touches_mm, steps)
        if word == letters and self._own is not None and not keyboard.knows(letters):
            return self._own.correct(
                self._previous_word(),
                letters,
                touches_mm,
                lambda word: keyboard.word_log_prob(state, word, turn.in_time),
            )
        return word

    def _shown(self, word: str, typed: str, starts_sentence: bool) -> str:
        own = self._personal.form(word) if self._personal is not None else None
        return follow_case(self._keyboard.display.show(word, starts_sentence, own), typed)

    def _previous_word(self) -> str | None:
        """The last word of the message; None at its beginning, and a word that nobody knows if it cannot be told."""
        tokens = self._trail.last(MOST_LETTERS)
        if not tokens:
            return None
        ends = self._keyboard.tokenizer.ends_word
        first = max((i + 1 for i, token in enumerate(tokens[:-1]) if ends[token]), default=0)
        return self._keyboard.tokenizer.text(tokens[first:])

    def _see(self, sights: Sights, text: str, tokens: Sequence[Sequence[int]]) -> None:
        """Notes the words of `text`, about to be committed, for the personal history."""
        end, previous = len(self._trail), sights.last_word(len(self._trail))
        starts_sentence = self._starts_sentence
        for (word, form), ids in zip(
            learnable_forms(text, self._keyboard.blocked), tokens, strict=True
        ):
            end += len(ids)
            if form is None:
                previous = None
            else:
                default = self._personal.form(word) if self._personal is not None else None
                display = self._keyboard.display
                if starts_sentence and form == display.show(word, True, default):
                    form = display.show(word, False, default)  # the capital says nothing
                sights.add(Sight(end, word, form, previous))
                previous = word
            starts_sentence = ends_sentence(word)
        # What has gone out of reach of the caret for long is not waited for.
        sights.settle(len(self._trail) - RECENT, at_least=_SETTLED_AT_ONCE)


def _check_touches(typed: str, touches_mm: Touches | None) -> None:
    if touches_mm is not None and len(touches_mm) != len(typed):
        raise ValueError(
            f"touches_mm must have one entry for each of {len(typed)} characters, not {len(touches_mm)}"
        )


def _always_capital(typed: str) -> str:
    """What was typed, but for I, which nobody writes small on purpose."""
    return "I" + typed[1:] if typed == "i" or typed.startswith("i'") else typed

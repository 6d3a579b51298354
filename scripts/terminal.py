"""`keyfed type`: the keyboard in a terminal, for a board over ssh. What is typed stays in memory."""

import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Footer, Input, Static

from device_runtime.keyboard import Keyboard
from device_runtime.personal import PersonalHistory
from device_runtime.words import is_mark, split_words

_SUGGESTIONS = 3
_APOSTROPHES = "'’"


def word_before(text: str) -> str:
    """The word at the end of `text`, as `words.split_words` would cut it; "" after a blank or mark."""
    start = len(text)
    while start and _belongs_to_word(text[start - 1]):
        start -= 1
    return text[start:].lstrip(_APOSTROPHES)


def _belongs_to_word(character: str) -> bool:
    return (
        character.isalnum()
        or character in _APOSTROPHES
        or unicodedata.category(character).startswith("M")
    )


@dataclass(frozen=True)
class _Correction:
    """What was typed at `start` before it was corrected; `after` is the line and caret since then."""

    start: int
    typed: str
    after: tuple[str, int]


class MessageLine(Input):
    """The message being typed. Ending a word corrects it; Backspace right after takes that back.

    Args:
        correct: what to put in, given the text before a word and the word.
    """

    def __init__(self, correct: Callable[[str, str], str]) -> None:
        super().__init__(placeholder="Message", id="message", select_on_focus=False)
        self._correct = correct
        self._correction: _Correction | None = None
        self._kept: tuple[int, str] | None = None

    @property
    def word(self) -> tuple[str, str]:
        """The text before the word being typed, and the word's letters up to the caret."""
        before = self.value[: self.cursor_position]
        typed = word_before(before)
        return before[: len(before) - len(typed)], typed

    async def _on_key(self, event: events.Key) -> None:
        character = event.character
        if (
            character
            and event.is_printable
            and self.selection.is_empty
            and not _belongs_to_word(character)
        ):
            self._end_word(character)
            event.stop()
            event.prevent_default()
        else:
            await super()._on_key(event)

    def _end_word(self, mark: str) -> None:
        context, typed = self.word
        start, caret = len(context), self.cursor_position
        replacement = typed
        if typed and self._kept != (start, typed) and self._end_of_word() == caret:
            replacement = self._correct(context, typed)
        self.replace(replacement + mark, start, caret)
        if replacement != typed:
            self._correction = _Correction(start, typed, (self.value, self.cursor_position))

    def _end_of_word(self) -> int:
        end = self.cursor_position
        while end < len(self.value) and _belongs_to_word(self.value[end]):
            end += 1
        return end

    def take(self, suggestion: str) -> None:
        """Puts a suggestion and a blank in the place of the word at the caret; no blank stands before a mark."""
        context, typed = self.word
        start = len(context)
        if not typed and is_mark(suggestion) and context.endswith(" "):
            start -= 1
        self.replace(suggestion + " ", start, self._end_of_word())

    def action_delete_left(self) -> None:
        """Deletes a character, or takes the correction back that was just made."""
        last, self._correction = self._correction, None
        if last and last.after == (self.value, self.cursor_position):
            self.replace(last.typed, last.start, self.cursor_position)
            self._kept = (last.start, last.typed)
        else:
            super().action_delete_left()

    def finish(self) -> str:
        """Corrects the last word, empties the line and returns what stood there."""
        self.cursor_position = len(self.value)
        self._end_word("")
        text = self.value
        self.clear()
        self._correction = self._kept = None
        return text


class _Arm:
    """A model, its session, and what it said last."""

    def __init__(self, name: str, keyboard: Keyboard, personal: PersonalHistory | None) -> None:
        self.name, self._keyboard, self._personal = name, keyboard, personal
        self.suggestions: list[str] = []
        self.took_ms = 0.0
        self.open(private=False)

    def open(self, private: bool) -> None:
        """A new session. What the old one has not learnt yet it never will."""
        self._session = self._keyboard.session(self._personal, private)
        self._context = ""

    def look(self, context: str, typed: str) -> None:
        """Suggestions for what stands before the caret."""
        start = time.perf_counter()
        self._move(context)
        found = self._session.suggest(typed, _SUGGESTIONS)
        self.took_ms = (time.perf_counter() - start) * 1000
        self.suggestions = [suggestion.text for suggestion in found]

    def correct(self, context: str, typed: str) -> str:
        """What ends the word in its place."""
        self._move(context)
        return self._session.autocorrect(typed)

    def finish(self, text: str) -> None:
        """The message was sent as `text`."""
        self._move(text)
        self._session.reset()
        self._context = ""

    def _move(self, context: str) -> None:
        """Words typed at the end are committed, so that a personal history sees them; all else is a moved caret."""
        before, added = self._context, context[len(self._context) :]
        whole = split_words(before) + split_words(added)
        if context.startswith(before) and split_words(context) == whole:
            self._session.commit(added)
        else:
            self._session.set_context(context)
        self._context = context


class TypingApp(App[None]):
    """A message line, each model's suggestions above it and how long they took, and what was sent.

    Args:
        keyboards: one or more by name; the first is the one in use at first.
        personal: the user's own words; None for a keyboard that learns nothing.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #sent { height: 1fr; padding: 0 2; }
    #sent Static { margin-top: 1; padding: 0 2; border-left: thick $primary; }
    .arm { height: 1; padding: 0 2; color: $text-muted; }
    .arm.used { color: $text; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(f"f{n},alt+{n}", f"take({n - 1})", show=False, priority=True)
            for n in range(1, _SUGGESTIONS + 1)
        ),
        Binding("tab", "take(0)", "first suggestion", priority=True),
        Binding("f4", "next_arm", "other model"),
        Binding("f5", "toggle_private", "private"),
        Binding("ctrl+c,ctrl+q", "quit", "end", key_display="^C", priority=True),
    ]

    def __init__(
        self, keyboards: Mapping[str, Keyboard], personal: PersonalHistory | None = None
    ) -> None:
        super().__init__()
        self._arms = [_Arm(name, board, personal) for name, board in keyboards.items()]
        self._learns = personal is not None
        self._used = 0
        self._private = False
        self._open()
        self._line = MessageLine(lambda *typed: self._arms[self._used].correct(*typed))

    def compose(self) -> ComposeResult:
        yield VerticalScroll(id="sent", can_focus=False)
        for _ in self._arms:
            yield Static(classes="arm")
        yield self._line
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._line.focus()
        self._refresh()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._refresh()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The next message begins; this one stays on the screen until the program ends."""
        text = self._line.finish()
        for arm in self._arms:
            arm.finish(text)
        if text.strip():
            sent = self.query_one("#sent", VerticalScroll)
            sent.mount(Static(Content(text.strip())))
            sent.scroll_end(animate=False)

    def action_take(self, index: int) -> None:
        suggestions = self._arms[self._used].suggestions
        if index < len(suggestions):
            self._line.take(suggestions[index])

    def action_next_arm(self) -> None:
        self._used = (self._used + 1) % len(self._arms)
        self._show()

    def action_toggle_private(self) -> None:
        self._private = not self._private
        self._open()
        self._refresh()

    def _open(self) -> None:
        """One model's session teaches the personal history, or a message would be learnt twice."""
        for i, arm in enumerate(self._arms):
            arm.open(private=self._private or i > 0)

    def _refresh(self) -> None:
        context, typed = self._line.word
        for arm in self._arms:
            arm.look(context, typed)
        self._show()

    def _show(self) -> None:
        rows = self.query(".arm").results(Static)
        for i, (arm, row) in enumerate(zip(self._arms, rows, strict=True)):
            texts = "".join(
                f"F{n} {text:<12.11}" for n, text in enumerate(arm.suggestions, start=1)
            )
            row.update(Content(f"{arm.name:<16.16}  {texts:<46}{arm.took_ms:6.1f} ms"))
            row.set_class(i == self._used, "used")
        learns = "private: learns nothing" if self._private else "learns your words"
        self._line.border_title = learns if self._learns else "learns nothing"

"""`keyfed type`, its keys pressed by textual's own pilot."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from device_runtime.keyboard import Keyboard
from device_runtime.personal import LEARNT_AFTER, PersonalHistory
from scripts.terminal import MessageLine, TypingApp, word_before
from tests.scripts.conftest import FinishedRun

Typing = Callable[[Pilot[None]], Awaitable[None]]
_NAMES = {" ": "space", ".": "full_stop", ",": "comma", "'": "apostrophe"}


@pytest.fixture(scope="module")
def keyboards(finished: FinishedRun) -> dict[str, Keyboard]:
    """Both arms of a run; the second arm's folder lies beside the first's."""
    bundles = {
        "synthetic": finished.bundle,
        "web": finished.bundle.parents[1] / "web-federated/bundle",
    }
    return {name: Keyboard.open(path) for name, path in bundles.items()}


@pytest.fixture(scope="module")
def typo(keyboards: dict[str, Keyboard]) -> tuple[str, str]:
    """A typed word and what both runtimes put in for it after "we ", found by trying."""
    sessions = [keyboard.session() for keyboard in keyboards.values()]
    for session in sessions:
        session.commit("we ")
    for word in ("because", "tomorrow", "something", "should", "people", "really", "the", "that"):
        for i in range(1, len(word)):
            typed = word[:i] + word[i + 1 :]
            if all(session.autocorrect(typed) == word for session in sessions):
                return typed, word
    raise AssertionError("no typo is corrected")


def run(
    keyboards: dict[str, Keyboard], type_on: Typing, personal: PersonalHistory | None = None
) -> None:
    async def drive() -> None:
        async with TypingApp(keyboards, personal).run_test(size=(100, 24)) as pilot:
            await type_on(pilot)

    asyncio.run(drive())


async def press(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*(_NAMES.get(character, character) for character in text))
    await pilot.pause()


def message(pilot: Pilot[None]) -> str:
    return pilot.app.query_one(MessageLine).value


def row(pilot: Pilot[None], index: int) -> str:
    return str(list(pilot.app.query(".arm").results(Static))[index].content)


def suggested(keyboard: Keyboard, context: str, prefix: str) -> list[str]:
    session = keyboard.session()
    session.commit(context)
    return [suggestion.text for suggestion in session.suggest(prefix, 3)]


def test_suggestions_are_the_runtimes_and_can_be_taken(keyboards: dict[str, Keyboard]) -> None:
    async def type_on(pilot: Pilot[None]) -> None:
        await press(pilot, "we t")
        for i, (name, keyboard) in enumerate(keyboards.items()):
            shown = [f"F{n} {word}" for n, word in enumerate(suggested(keyboard, "we", "t"), 1)]
            assert row(pilot, i).split()[0] == name and row(pilot, i).endswith(" ms")
            assert all(text[:14] in row(pilot, i) for text in shown)
        first, second = keyboards.values()
        typed = f"we {suggested(first, 'we', 't')[1]} "
        await pilot.press("f2")
        assert message(pilot) == typed
        await press(pilot, "s")
        typed += suggested(first, typed, "s")[0] + " "
        await pilot.press("tab")
        assert message(pilot) == typed
        await pilot.press("f4")
        await press(pilot, "a")
        typed += suggested(second, typed, "a")[2] + " "
        await pilot.press("alt+3")
        assert message(pilot) == typed

    run(keyboards, type_on)


def test_a_typo_is_corrected_and_backspace_takes_it_back(
    keyboards: dict[str, Keyboard], typo: tuple[str, str]
) -> None:
    typed, meant = typo

    async def type_on(pilot: Pilot[None]) -> None:
        await press(pilot, f"we {typed} ")
        assert message(pilot) == f"we {meant} "
        await pilot.press("backspace")
        assert message(pilot) == f"we {typed}"
        await press(pilot, " ")  # meant so
        assert message(pilot) == f"we {typed} "
        await pilot.press("backspace")
        assert message(pilot) == f"we {typed}"
        await pilot.press("enter")
        assert message(pilot) == ""
        await press(pilot, f"we {typed}")
        await pilot.press("enter")
        sent = [str(line.content) for line in pilot.app.query("#sent Static").results(Static)]
        assert sent == [f"we {typed}", f"we {meant}"]

    run(keyboards, type_on)


def test_a_moved_caret_is_followed(keyboards: dict[str, Keyboard]) -> None:
    async def type_on(pilot: Pilot[None]) -> None:
        await press(pilot, "we go")
        await pilot.press(*["left"] * len(" go"), "backspace", "i")
        await pilot.pause()
        assert message(pilot) == "wi go"
        shown = suggested(next(iter(keyboards.values())), "", "wi")
        assert all(word[:11] in row(pilot, 0) for word in shown)
        await press(pilot, "ll be, ")
        assert message(pilot) == "will be,  go"

    run(keyboards, type_on)


def test_a_word_is_learnt_by_the_first_model_alone_and_never_in_private(
    keyboards: dict[str, Keyboard], tmp_path: Path
) -> None:
    history = PersonalHistory(tmp_path / "words.tsv")
    public, secret = "zorblax", "quibnort"
    assert all(
        not keyboard.knows(word) for keyboard in keyboards.values() for word in (public, secret)
    )

    async def type_on(pilot: Pilot[None]) -> None:
        for _ in range(LEARNT_AFTER):
            await press(pilot, f"{public} ")
            if message(pilot) != f"{public} ":  # corrected: taken back
                await pilot.press("backspace", "space")
            await pilot.press("enter")
        await pilot.press("f5")
        for _ in range(LEARNT_AFTER):
            await press(pilot, f"{secret} ")
            if message(pilot) != f"{secret} ":
                await pilot.press("backspace", "space")
            await pilot.press("enter")
        await press(pilot, f"we {public[:4]}")
        assert public in row(pilot, 0) and public in row(pilot, 1)

    run(keyboards, type_on, history)
    lines = (tmp_path / "words.tsv").read_text("utf-8").splitlines()
    assert f"{public}\t{LEARNT_AFTER}" in lines
    assert not any(secret in line for line in lines)


@pytest.mark.parametrize(
    ("text", "word"),
    [("we don't", "don't"), ("say 'ti", "ti"), ("10:30", "30"), ("we ", ""), ("", ""), ("a-b", "b"),
     ("cafe\u0301", "cafe\u0301"), ("😂x", "x"), ("a_b", "b")],
)  # fmt: skip
def test_the_word_before_the_caret_is_split_words_last_one(text: str, word: str) -> None:
    assert word_before(text) == word

"""A headless Chromium with the keyboard page in it, and the fingers on it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from device_runtime.layouts import load_layout
from device_runtime.page_server import PageServer

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAYOUT = load_layout("qwerty")
SIZES = {"phone": (360, 640), "desktop": (1200, 800)}
"""Of a phone with a touch screen, and of a desktop with a mouse, in pixels."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Whatever Chromium this machine has; the test is skipped where it has none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield browser
        browser.close()


class Phone:
    """The opened page, and all that it asked for and complained of."""

    def __init__(self, page: Page, address: str, touch: bool) -> None:
        self.page, self.touch = page, touch
        self.asked: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        page.on("request", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text))
        page.on("requestfailed", lambda request: self.complaints.append(request.url))
        page.goto(address)
        expect(page.locator("[data-key=q]")).to_be_visible()
        self.settle()

    def _note(self, request: Any) -> None:
        self.addresses.append(request.url)
        if request.url.endswith("/suggest"):
            self.asked.append(json.loads(request.post_data))

    def key(self, character: str) -> Any:
        attribute = "key" if character.isalpha() else "mark"
        return self.page.locator(f'[data-{attribute}="{character}"]')

    def tap(self, text: str, off_mm: tuple[float, float] = (0, 0)) -> None:
        """Touches (or clicks) the keys, `off_mm` beside their middles."""
        board = self.page.locator("#letters").bounding_box()
        width_mm = np.ptp(LAYOUT.centres_mm[:, 0]) + LAYOUT.key_size_mm[0]
        height_mm = np.ptp(LAYOUT.centres_mm[:, 1]) + LAYOUT.key_size_mm[1]
        for character in text:
            box = self.key(character).bounding_box()
            x = box["x"] + box["width"] / 2 + off_mm[0] * board["width"] / width_mm
            y = box["y"] + box["height"] / 2 + off_mm[1] * board["height"] / height_mm
            self.page.touchscreen.tap(x, y) if self.touch else self.page.mouse.click(x, y)

    def press(self, label: str) -> None:
        button = self.page.get_by_role("button", name=label, exact=True)
        button.tap() if self.touch else button.click()

    @property
    def message(self) -> str:
        self.settle()
        return self.page.get_by_role("textbox", name="Message").input_value()

    def settle(self) -> None:
        """Until all that was pressed is in the message and answered."""
        expect(self.page.locator("#suggestions")).to_have_attribute("aria-busy", "false")

    @property
    def suggestions(self) -> list[str]:
        """On the strip above the keys."""
        self.settle()
        texts = self.page.locator("#suggestions button").all_inner_texts()
        return [text for text in texts if text]

    def beside(self, name: str) -> list[str]:
        """On the card of one of the models."""
        self.settle()
        return self.page.get_by_role("list", name=f"Suggestions of {name}").locator("li").all_inner_texts()  # fmt: skip

    def check(self) -> None:
        """Nothing went wrong, nothing was asked for elsewhere, and no text stood in an address."""
        origin = self.page.url.partition("#")[0]
        assert self.complaints == []
        assert all(address.startswith(origin) for address in self.addresses)
        assert not any("?" in address for address in self.addresses)


@contextmanager
def opened(
    browser: Browser, server: PageServer, size: str = "phone", **options: Any
) -> Iterator[Phone]:
    width, height = SIZES[size]
    touch = size == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=touch, is_mobile=touch, **options
    )
    context.set_default_timeout(20_000)
    yield Phone(context.new_page(), server.address, touch)
    context.close()

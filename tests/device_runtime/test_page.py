"""The keyboard page in a headless Chromium: typed, corrected, heard and looked at as people do."""

import re
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from device_runtime.bundle import write_bundle
from device_runtime.keyboard import Keyboard
from device_runtime.layouts import load_layout
from device_runtime.page_server import PageServer
from device_runtime.touch import OFFSET_MM, SIGMA_MM
from tests.device_runtime.test_page_server import served

pytest.importorskip("playwright.sync_api", reason="./scripts/setup browser")
from playwright.sync_api import Browser, expect

from tests.device_runtime.phone import LAYOUT, SIZES, Phone, launched, opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def other_keyboard(
    bundle_parts: tuple[dict[str, bytes], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Keyboard:
    """The same model, but for words that it may not say: its suggestions differ."""
    files, facts = bundle_parts
    files = {**files, "blocklist.txt": b"tomorrow\nto\ntom\nit\ni\nthe\nthat\nwe\nyou\nthey\n"}
    return Keyboard.open(write_bundle(tmp_path_factory.mktemp("other") / "bundle", files, facts))


@pytest.fixture(scope="module")
def server(keyboard: Keyboard, other_keyboard: Keyboard) -> Iterator[PageServer]:
    with served({"first": keyboard, "second": other_keyboard}) as server:
        yield server


@pytest.fixture(params=SIZES)
def phone(browser: Browser, server: PageServer, request: pytest.FixtureRequest) -> Iterator[Phone]:
    """A phone with a touch screen, and a desktop with a mouse. Afterwards nothing may have gone wrong or abroad."""
    with opened(browser, server, request.param) as phone:
        yield phone
        phone.check()


on_a_phone = pytest.mark.parametrize("phone", ["phone"], indirect=True)


def suggested(keyboard: Keyboard, asked: dict[str, Any]) -> list[str]:
    """What the runtime says to the page's question, in a session of its own."""
    session = keyboard.session()
    session.commit(asked["context"])
    touches = asked["touches_mm"]
    points = touches and [point and tuple(point) for point in touches]
    return [suggestion.text for suggestion in session.suggest(asked["prefix"], 3, points)]


def test_a_sentence_is_typed_by_taps(
    phone: Phone, keyboard: Keyboard, other_keyboard: Keyboard
) -> None:
    off = (0.9, -1.4)
    phone.tap("we found my ke", off)
    assert phone.message == "We found my ke"
    asked = phone.asked[-1]
    assert (asked["context"], asked["prefix"]) == ("We found my ", "ke")
    # Where the finger came down, to a pixel: in the layout's millimetres, from its first key's centre.
    expected = LAYOUT.centres_mm[[LAYOUT.key_index(letter) for letter in "ke"]] + off
    np.testing.assert_allclose(asked["touches_mm"], expected, atol=0.2)
    for name, board in (("first", keyboard), ("second", other_keyboard)):
        assert phone.beside(name) == suggested(board, asked)
    assert phone.suggestions == phone.beside("first")
    assert phone.page.locator(".ms").all_inner_texts()[0].endswith(" ms")


@on_a_phone
def test_gaps_and_edges_belong_to_the_nearest_letter(phone: Phone) -> None:
    """3 mm beside the middle of a key of 6.2 mm is still that key; so is the blank left of the second row."""
    phone.tap("h", (-3.0, 3.6))
    phone.tap("a", (-5.5, 0.0))
    phone.tap("g", (2.0, -4.0))
    assert phone.message == "Hag"


def test_a_suggestion_is_taken(phone: Phone) -> None:
    phone.tap("we found to")
    word = phone.suggestions[1]
    phone.press(word)
    assert phone.message == f"We found {word} "
    assert (phone.asked[-1]["context"], phone.asked[-1]["prefix"]) == (f"We found {word} ", "")
    phone.tap(".")  # right after a taken word its blank makes way
    assert phone.message == f"We found {word}."


def test_a_typo_is_corrected_and_backspace_takes_it_back(phone: Phone) -> None:
    phone.tap("tomprrow ")
    assert phone.message == "Tomorrow "
    phone.press("Backspace")
    assert phone.message == "Tomprrow"
    phone.tap(" ")  # meant so
    assert phone.message == "Tomprrow "
    phone.press("Backspace")
    assert phone.message == "Tomprrow"


def test_the_arm_in_use_can_be_switched(
    phone: Phone, keyboard: Keyboard, other_keyboard: Keyboard
) -> None:
    phone.tap("we found t")
    phone.settle()
    first, second = (suggested(board, phone.asked[-1]) for board in (keyboard, other_keyboard))
    assert first != second
    assert phone.suggestions == first
    phone.page.get_by_role("radio", name="second").check()
    assert phone.suggestions == second
    phone.press(second[0])
    assert phone.message == f"We found {second[0]} "


def test_the_simulated_thumb_misses(browser: Browser, server: PageServer) -> None:
    """Always the same draw, one standard deviation or so to the right: the letter and its touch move."""
    with opened(browser, server) as phone:
        phone.page.evaluate("Math.random = () => 0.999")
        phone.page.get_by_role("switch", name="Simulated thumb").tap()
        phone.tap("hi")
        radius = SIGMA_MM * np.sqrt(-2 * np.log(0.001))
        angle = 2 * np.pi * 0.999
        moved = np.add(OFFSET_MM, [radius * np.cos(angle), radius * np.sin(angle)])
        touches = LAYOUT.centres_mm[[LAYOUT.key_index(letter) for letter in "hi"]] + moved
        typed = "".join(LAYOUT.keys[index] for index in LAYOUT.nearest_key(touches))
        assert phone.message == typed.title() != "Hi"
        np.testing.assert_allclose(phone.asked[-1]["touches_mm"], touches, atol=1e-9)
        phone.page.get_by_role("switch", name="Simulated thumb").tap()
        phone.tap("hi")
        assert phone.message == typed.title() + "hi"
        phone.check()


def test_a_real_keyboard_types_edits_and_sends(browser: Browser, server: PageServer) -> None:
    with opened(browser, server, "desktop") as phone:
        keys = phone.page.keyboard
        keys.type("we found my keys, tomprrow ")
        assert phone.message == "we found my keys, tomorrow "
        keys.press("Backspace")
        assert phone.message == "we found my keys, tomprrow"
        # The browser tells the page of a moved caret some time after the key.
        with phone.page.expect_request(
            lambda request: '"prefix":"ke"' in (request.post_data or "")
        ):
            for _ in range(len("ys, tomprrow")):
                keys.press("ArrowLeft")
        phone.settle()
        assert phone.asked[-1] == {"context": "we found my ", "prefix": "ke", "touches_mm": None}
        keys.type("t ")  # inside a word nothing is corrected
        assert phone.message == "we found my ket ys, tomprrow"
        assert phone.asked[-1]["context"] == "we found my ket "
        keys.press("Control+Backspace")
        assert phone.message == "we found my ys, tomprrow"
        keys.press("Control+a")
        keys.insert_text("they said 😂 ")
        keys.press("Backspace")
        keys.press("Backspace")
        assert phone.message == "they said "
        word = phone.suggestions[2]
        keys.press("Alt+3")
        assert phone.message == f"they said {word} "
        keys.press("Enter")
        assert phone.message == ""
        sent = phone.page.get_by_role("list", name="Sent messages").locator("li")
        assert sent.all_inner_texts() == [f"they said {word}"]
        assert phone.asked[-1] == {"context": "", "prefix": "", "touches_mm": None}
        phone.check()


@on_a_phone
def test_digits_marks_and_capitals(phone: Phone) -> None:
    phone.press("Digits and marks")
    phone.tap("10")
    phone.press("Letters")
    phone.tap(". ")
    phone.press("Shift")  # a sentence begins with a capital; not this one
    phone.tap("we don")
    phone.press("Digits and marks")
    phone.tap("'")  # and the letters are back
    phone.tap("t. tom")
    assert phone.message == "10. we don't. Tom"


@on_a_phone
def test_a_suggested_mark_follows_its_word(phone: Phone) -> None:
    """The server's answer is ours here: a model that suggests marks is too large for a test."""
    arm = {"suggestions": ["!", "😂", "you"], "space": "", "ms": 1.0}
    page = phone.page
    page.route("**/suggest", lambda route: route.fulfill(json={"arms": [arm, arm]}))
    phone.tap("we ")
    phone.press("!")
    assert phone.message == "We! "
    phone.press("😂")
    assert phone.message == "We! 😂 "


def common(first: list[bytes], second: list[bytes]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@on_a_phone
def test_touches_stay_with_their_characters(phone: Phone) -> None:
    """Whatever the browser makes of the text: what both texts begin and end with keeps its touches."""
    random = np.random.default_rng(3)
    texts = ["".join(random.choice(list("ab 😂"), random.integers(9))) for _ in range(400)]
    histories = phone.page.evaluate(
        """async (texts) => {
          const { Message } = await import("/message.js");
          return texts.map((text, i) => {
            const message = new Message();
            Array.from(text).forEach((character, at) => message.insert(character, [at, 0]));
            const next = texts[(i + 1) % texts.length];
            const before = [...message.touches];
            message.adopt(next, next.length, next.length);
            return [message.text, before, message.touches];
          });
        }""",
        texts,
    )
    for (text, before, after), old, new in zip(
        histories, texts, [*texts[1:], texts[0]], strict=True
    ):
        assert text == new
        units = [part.encode("utf-16-le") for part in (old, new)]
        old_units, new_units = ([u[i : i + 2] for i in range(0, len(u), 2)] for u in units)
        assert (len(before), len(after)) == (len(old_units), len(new_units))
        same = common(old_units, new_units)
        tail = common(old_units[same:][::-1], new_units[same:][::-1])
        kept = before[:same] + [None] * (len(after) - same - tail) + before[len(before) - tail :]
        assert after == kept


def test_all_can_be_reached_and_pressed_without_a_pointer(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server, "desktop") as phone:
        keys = phone.page.keyboard
        keys.type("to")
        phone.settle()

        def focused() -> str:
            return phone.page.evaluate(
                "document.activeElement.ariaLabel ?? document.activeElement.textContent"
            )

        names = []
        for _ in range(5):
            keys.press("Tab")
            names.append(focused())
        assert names == ["Send", *phone.suggestions, "q"]
        keys.press("ArrowRight")
        keys.press("ArrowDown")
        assert focused() in ("s", "a")
        letter = focused()
        keys.press("Enter")
        assert phone.message == "to" + letter
        for _ in range(4):
            keys.press("ArrowDown")
        assert focused() in ("Digits and marks", "Comma", "Space")
        keys.press("Shift+Tab")
        keys.press("Shift+Tab")
        keys.press("Shift+Tab")
        word = focused()
        keys.press("Enter")
        assert phone.message == word + " "
        assert focused() == "Message"  # go on typing
        phone.check()


def test_a_screen_reader_hears_pauses_and_corrections_only(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server, "desktop") as phone:
        page = phone.page
        expect(page.get_by_role("status")).to_have_text(re.compile("Suggestions: .+"))
        page.clock.install(time=0)
        page.clock.pause_at(10_000)
        page.evaluate(
            """() => {
              window.heard = [];
              const status = document.querySelector("[role=status]");
              new MutationObserver(() => heard.push(status.textContent))
                .observe(status, {childList: true, characterData: true, subtree: true});
            }"""
        )
        for letter in "we fo":
            page.keyboard.type(letter)
            phone.settle()
            page.clock.run_for(300)
        assert page.evaluate("heard") == []
        page.clock.run_for(1_000)
        said = "Suggestions: " + ", ".join(phone.suggestions)
        assert page.evaluate("heard") == [said]
        page.keyboard.type("und tomprrow ")
        phone.settle()
        assert page.evaluate("heard") == [said, "tomprrow corrected to tomorrow"]
        page.keyboard.press("Backspace")
        phone.settle()
        assert page.evaluate("heard")[2:] == ["back to tomprrow"]
        phone.check()


_CONTRASTS = """() => {
  const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
    .getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return Array.from(context.getImageData(0, 0, 1, 1).data);
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgba(getComputedStyle(node).backgroundColor);
      if (color[3]) return color;
    }
  };
  return Array.from(document.querySelectorAll("body *"))
    .filter((node) => node.checkVisibility() && !node.disabled
      && Array.from(node.childNodes).some((child) => child.nodeType === 3 && child.textContent.trim()))
    .map((node) => [node.textContent, rgba(getComputedStyle(node).color), behind(node)]);
}"""


def luminance(color: list[int]) -> float:
    """WCAG 2.2, "relative luminance"."""
    channels = np.array(color[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(
    browser: Browser, server: PageServer, size: str, scheme: str
) -> None:
    with opened(browser, server, size, color_scheme=scheme) as phone:
        phone.tap("we found my keys")
        phone.press("Send")
        phone.tap("to")
        phone.settle()
        scrolled, width = phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert (scrolled, width) == (SIZES[size][0],) * 2
        texts = phone.page.evaluate(_CONTRASTS)
        assert len(texts) > 40
        for text, ink, paper in texts:
            low, high = sorted((luminance(ink), luminance(paper)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ink, paper)
        keys = phone.page.locator("#keyboard button:visible")
        boxes = [key.bounding_box() for key in keys.all()]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width + 0.5 for box in boxes)
        assert all(box["height"] >= 40 for box in boxes)
        assert boxes[-1]["y"] + boxes[-1]["height"] <= SIZES[size][1]  # no scrolling to type
        phone.check()


@pytest.mark.parametrize("name", ["qwertz", "dvorak"])
def test_other_layouts_have_their_keys(browser: Browser, bundle_path: Path, name: str) -> None:
    board = Keyboard.open(bundle_path, layout=name)
    layout = load_layout(name)
    with served({"one": board}) as server, opened(browser, server) as phone:
        assert phone.page.get_by_role("radio").count() == 0  # nothing to choose
        row = layout.keys[-6:]
        for letter in row:
            phone.page.locator(f'[data-key="{letter}"]').tap()
        assert phone.message == row.title()
        phone.press("Backspace")  # beside the last row, or below where there is no room
        assert phone.message == row.title()[:-1]
        assert phone.page.evaluate("document.documentElement.scrollWidth") == SIZES["phone"][0]
        phone.check()


def test_nothing_is_kept_in_the_browser_and_the_server_forgets(
    browser: Browser, server: PageServer
) -> None:
    forgotten = Event()
    forget = server.calls["/forget"]

    def note(body: bytes) -> Any:
        forgotten.set()
        return forget(body)

    server.calls["/forget"] = note
    with opened(browser, server, "desktop") as phone:
        phone.tap("we found ")
        phone.settle()
        kept = phone.page.evaluate(
            """async () => [localStorage.length, sessionStorage.length, document.cookie,
                            (await indexedDB.databases()).length, (await caches.keys()).length]"""
        )
        assert kept == [0, 0, "", 0, 0]
        phone.page.goto("about:blank")
        assert forgotten.wait(20)
    server.calls["/forget"] = forget


def test_typing_goes_on_when_the_server_has_ended(browser: Browser, keyboard: Keyboard) -> None:
    with served({"one": keyboard}) as server, opened(browser, server) as phone:
        phone.page.context.set_offline(True)
        phone.tap("tomprrow to")
        assert phone.message == "Tomprrow to"
        expect(phone.page.get_by_role("alert")).to_contain_text("keyfed does not answer")


def test_an_address_without_its_token_says_what_to_do(browser: Browser, server: PageServer) -> None:
    page = browser.new_page()
    page.goto(server.address.partition("#")[0])
    expect(page.get_by_role("alert")).to_contain_text("Open the whole address that keyfed printed")
    page.close()


class _Stranger(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>stranger</title>")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # the same site, another site
def test_another_site_s_page_gets_nothing(browser: Browser, server: PageServer, host: str) -> None:
    """A page of another origin tries all that a page can, even with a stolen token."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        Thread(target=stranger.serve_forever, args=(0.01,), daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://{host}:{stranger.server_address[1]}/")
        address = server.address.partition("#")[0]
        tried = page.evaluate(
            """async ([address, token]) => {
              const read = (options) => fetch(address + "suggest", options)
                .then((response) => response.type + response.status, () => "failed");
              const body = '{"context": "", "prefix": "", "touches_mm": null}';
              const script = await new Promise((resolve) => {
                const tag = document.createElement("script");
                tag.onload = () => resolve("loaded");
                tag.onerror = () => resolve("failed");
                tag.type = "module";
                tag.src = address + "page.js";
                document.head.append(tag);
              });
              return [
                await read({}), await read({method: "POST", body}),
                await read({method: "POST", body, headers: {"X-Keyfed-Token": token}}),
                await read({method: "POST", body, mode: "no-cors"}), script,
              ];
            }""",
            [address, server.token],
        )
        assert tried == ["failed"] * 5
        frame = page.evaluate_handle(
            """(address) => new Promise((resolve) => {
              const frame = document.createElement("iframe");
              frame.onload = () => resolve(frame);
              frame.src = address;
              document.body.append(frame);
            })""",
            server.address,
        )
        inside = frame.as_element().content_frame()
        assert inside is None or "keyfed keyboard" not in inside.content()
        page.close()
        stranger.shutdown()

"""The report's pages in a headless Chromium, from disk, with the network off."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.report import write_report
from eval.report.memorisation import render_memorisation
from eval.report.runs import render_runs
from eval.report.study import render_study
from scripts.report import compare_runs, read_run
from tests.eval.test_memorisation_page import FIGURES
from tests.eval.test_report import STUDY, STUDY_PAGE, WHOLE
from tests.eval.test_report_beside import RESULTS as BESIDE
from tests.eval.test_report_insight import INSIGHT
from tests.scripts.run_folders import write_run
from tests.scripts.test_kebbie_command import build_scores

pytest.importorskip("playwright.sync_api", reason="./scripts/setup browser")
from playwright.sync_api import Browser, Page, Request

from tests.device_runtime.phone import launched

TEMPLATES = Path(__file__).parents[2] / "eval" / "report"
WIDTHS = {360: 740, 1280: 800}
PAGES = ("report", "runs", "study", "memorisation")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = [write_run(folder / "quick"), write_run(folder / "of-a-longer-name", 2, gain=0.05)]
    runs.append(write_run(folder / "words", vocabulary="the\n"))
    contents = {
        "runs": render_runs(compare_runs(list(map(read_run, runs)))),
        "study": render_study(STUDY, **STUDY_PAGE),
        "memorisation": render_memorisation(FIGURES),
    }
    kebbie = build_scores(web="0", synthetic="1").model_dump(mode="json")
    beside = BESIDE["beside"]
    whole = WHOLE | INSIGHT | {"kebbie": kebbie, "beside": beside}
    paths = {"report": write_report(whole, folder)}
    for name, content in contents.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(content, "utf-8")
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(params=WIDTHS)
def opened(
    request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path]
) -> Iterator[Any]:
    """Opens a page; afterwards it may have asked for nothing but itself, and complained of nothing."""
    width, closing = request.param, []

    def open_page(name: str, scheme: str) -> Page:
        address = pages[name].as_uri()
        context = browser.new_context(
            viewport={"width": width, "height": WIDTHS[width]},
            color_scheme=scheme,
            offline=True,
        )
        closing.append(context)
        page = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []

        def answer(route: Any, request: Request) -> None:
            asked.append(request.url)
            route.continue_() if request.url == address else route.abort()

        context.route("**/*", answer)
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda failed: complaints.append(failed.url))
        page.goto(address)
        checks.append((asked, [address], complaints))
        return page

    checks: list[Any] = []
    yield open_page
    for context in closing:
        context.close()
    for asked, expected, complaints in checks:
        assert asked == expected and complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_screen_in_light_or_dark(opened: Any, name: str) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = opened(name, scheme)
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        width = page.viewport_size["width"]
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        cut = page.evaluate(
            """width => [...document.querySelectorAll('main *')].filter(part =>
              !part.closest('.scroll, svg') && part.getBoundingClientRect().right > width + 1
            ).map(part => part.outerHTML.slice(0, 80))""",
            width,
        )
        assert cut == []
        colours.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert len(colours) == 2


@pytest.mark.parametrize("name", PAGES)
def test_every_chart_has_a_name_and_a_description(opened: Any, name: str) -> None:
    page = opened(name, "light")
    drawn = page.evaluate(
        """[...document.querySelectorAll('svg')].map(svg =>
          [svg.getAttribute('role'), svg.querySelector('title').textContent,
           svg.querySelector('desc').textContent])"""
    )
    assert drawn and all(role == "img" and title and desc for role, title, desc in drawn)
    named = page.get_by_role("img", name=re.compile(r"\S"), include_hidden=True)
    assert named.count() == len(drawn)
    for _, title, desc in drawn:  # what a screen reader says
        assert page.get_by_role("img", name=f"{title} {desc}", exact=True).count() == 1


def test_the_reports_page_under_test_has_every_section(opened: Any) -> None:
    """A section that is added wants figures in WHOLE, or nothing here has seen it."""
    whole = (TEMPLATES / "page.html.j2").read_text("utf-8")
    templates = [whole] + [
        (TEMPLATES / name).read_text("utf-8") for name in re.findall(r'{% include "(.*)" %}', whole)
    ]
    declared = {
        name for text in templates for name in re.findall(r'{% call section\("(\w+)"', text)
    }
    page = opened("report", "light")
    assert {"reproduce", "privacy", "cards"} <= declared
    assert set(page.locator("h2").evaluate_all("all => all.map(h2 => h2.id)")) == declared


def test_contents_lead_to_their_sections(opened: Any) -> None:
    page = opened("report", "light")
    links = page.get_by_role("navigation", name="On this page").get_by_role("link")
    assert links.count() == page.locator("section").count()
    for link in links.all():
        link.click()
        heading = page.get_by_role("heading", name=link.inner_text(), exact=True)
        assert heading.bounding_box()["y"] < page.viewport_size["height"]
        page.evaluate("scrollTo(0, 0)")

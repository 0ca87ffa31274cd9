"""The report in a real browser: from a file, in both themes, on a phone, without JavaScript."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab import recorded
from lab.test_report import mixed, repeated, results

from ssot.lab.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="playwright is not installed"
    ),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of a check that passed, one that failed, one that is unknown."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    return write_report(recorded.write_run(folder, *mixed())).as_uri()


def opened(browser: Browser, address: str, **options: Any) -> Page:
    """The report in a window of its own, which notes what it complains of and asks for."""
    options = {"viewport": {"width": 1280, "height": 900}} | options
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(10_000)
    page.noted = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.noted.append(message.text))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.noted.append(str(error)))  # type: ignore[attr-defined]
    page.on(
        "request",
        lambda request: (
            request.url.partition("#")[0] == address.partition("#")[0]
            or page.noted.append(request.url)
        ),  # type: ignore[attr-defined]
    )
    page.goto(address)
    return page


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The report as most see it; at the end it has complained of nothing and fetched nothing."""
    page = opened(browser, address)
    yield page
    assert page.noted == []  # type: ignore[attr-defined]
    page.context.close()


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all(
        "details.check", "all => all.filter(c => c.checkVisibility()).map(c => c.id)"
    )


def test_a_failure_is_seen_without_a_click(page: Page) -> None:
    """Its values, its figure, its logs and its command are there."""
    failed = page.locator("#GP-13")
    for words in ("alice.types(run)", "ssot run 00_golden_path --only GP-13", "frozen 1.20 s"):
        assert failed.get_by_text(words).first.is_visible()
    assert failed.locator(".figure > svg").bounding_box()["height"] > 200  # type: ignore[index]
    assert not page.locator("#GP-05 .body").is_visible()


def test_filters(page: Page) -> None:
    """By state and by words, together; what does not match is gone, and all comes back."""
    page.get_by_role("button", name="1 failed").click()
    assert shown(page) == ["GP-13"]
    page.get_by_role("button", name="All 3").click()
    page.keyboard.press("/")
    page.keyboard.type("no ssl")
    assert shown(page) == ["GP-15"]
    page.keyboard.type(" nowhere")
    assert shown(page) == []
    assert page.get_by_text("No check matches.").is_visible()
    page.keyboard.press("Escape")
    assert shown(page) == ["GP-05", "GP-13", "GP-15"]


def test_keyboard(page: Page) -> None:
    """From check to check with j and k, Enter opens."""
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert page.locator("#GP-05 .body").is_visible()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.parentElement.id") == "GP-13"
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.parentElement.id") == "GP-05"


def test_a_sign_leads_to_its_check(page: Page) -> None:
    """And opens it; the link can be passed on."""
    page.locator(".dots a[href='#GP-05']").click()
    page.wait_for_function("document.getElementById('GP-05').open")
    assert page.url.endswith("#GP-05")


def test_logs_are_filtered(page: Page) -> None:
    """Lines of all processes at once; what has none folds up."""
    page.get_by_label("Show only log lines that contain this").fill("lease")
    (seen,) = page.locator("#GP-13 .log .line >> visible=true").all_inner_texts()
    assert "newer token" in seen


def test_a_command_is_copied(browser: Browser, address: str) -> None:
    """Whole, as it would be typed."""
    page = opened(browser, address, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#GP-13 .copy").first.click()
    page.get_by_text("Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == "ssot run 00_golden_path --only GP-13 -p users 3 -p seed 7"
    page.context.close()


BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, address: str) -> None:
    """The choice stays when the page is opened again; figures follow."""
    page = opened(browser, address, color_scheme="dark")
    dark = page.evaluate(BACKGROUND)
    ink = "getComputedStyle(document.querySelector('.figure .n')).fill"
    dark_ink = page.evaluate(ink)
    page.get_by_role("button", name="Show in light colours").click()
    light = page.evaluate(BACKGROUND)
    assert light != dark
    assert page.evaluate(ink) != dark_ink
    page.reload()
    assert page.evaluate(BACKGROUND) == light
    page.context.close()
    page = opened(browser, address, color_scheme="light")
    assert page.evaluate(BACKGROUND) == light
    page.context.close()


# Every text that is seen, with its ink, and the grounds that lie below it.
CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let count = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest("svg, script, style, .skip")) continue;
    if (!node.checkVisibility()) continue;
    const ink = parse(getComputedStyle(node).color);
    const [low, high] = [lum(ink), lum(ground(node))].sort((a, b) => a - b);
    count += 1;
    if ((high + 0.05) / (low + 0.05) < 4.5)
      poor.push(`${walk.currentNode.data.trim().slice(0, 40)}: ${ink} on ${ground(node)}`);
  }
  return [count, poor];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, address: str, scheme: str) -> None:
    """WCAG AA for all that is seen, with every check open."""
    page = opened(browser, address, color_scheme=scheme)
    page.get_by_role("button", name="Open all").click()
    count, poor = page.evaluate(CONTRAST)
    assert count > 150
    assert poor == []
    page.context.close()


@pytest.mark.parametrize("width", [360, 700, 1280])
@pytest.mark.parametrize("script", [True, False])
def test_no_page_is_wider_than_its_window(
    browser: Browser, tmp_path: Path, width: int, script: bool
) -> None:
    """What is wide scrolls by itself, also a path or a value without a space in it."""
    found, evidence = mixed()
    found["notebooks"][0]["checks"][1]["title"] = "x" * 300
    found["notebooks"][0]["error"] = "/a/very/long/path" * 30
    failure = evidence["00_golden_path"]["GP-13"]["failure"]
    failure["values"] = [["y" * 200, "z" * 500]]
    failure["statistics"] = [["what", "n" * 200, "s" * 300]]
    uri = write_report(recorded.write_run(tmp_path, found, evidence)).as_uri()
    page = opened(
        browser, uri, viewport={"width": width, "height": 800}, java_script_enabled=script
    )
    if script:
        page.get_by_role("button", name="Open all").click()
    else:
        page.locator("#GP-05 > summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


def test_on_a_phone_the_figure_begins_where_the_check_failed(
    browser: Browser, address: str
) -> None:
    """The line of the failure is seen without scrolling, and all of the legend."""
    page = opened(browser, address, viewport={"width": 375, "height": 800})
    failed = page.locator("#GP-13 .figure")
    seen, line = failed.bounding_box(), failed.locator(".z").bounding_box()
    assert seen is not None
    assert line is not None
    assert seen["x"] < line["x"] < seen["x"] + seen["width"]
    for item in failed.locator(".legend svg").all():
        box = item.bounding_box()
        assert box is not None
        assert seen["x"] <= box["x"] < box["x"] + box["width"] <= seen["x"] + seen["width"]
    page.context.close()


def test_without_javascript_everything_is_there(browser: Browser, address: str) -> None:
    """Details open by themselves; what needs a script is not shown."""
    page = opened(browser, address, java_script_enabled=False)
    assert page.locator("#GP-13").get_by_text("newer token").is_visible()
    page.locator("#GP-05 > summary").click()
    assert page.locator("#GP-05").get_by_text("Why GP-05 matters.").is_visible()
    for useless in (".tools", "#theme", ".copy", ".log-filter"):
        assert not page.locator(useless).first.is_visible()
    page.context.close()


def test_repeated_and_empty_runs(browser: Browser, tmp_path: Path) -> None:
    """They open without complaint as well."""
    for name, found in (("flaky", repeated()), ("none", (results(), {}))):
        uri = write_report(recorded.write_run(tmp_path / name, *found)).as_uri()
        page = opened(browser, uri)
        words = "1 of 2 checks is flaky" if name == "flaky" else "No check was run"
        assert page.locator("h1").inner_text() == words
        assert page.noted == []  # type: ignore[attr-defined]
        page.context.close()


def test_print_is_light_and_whole(browser: Browser, address: str) -> None:
    """On paper there is no dark ground, no button, and nothing that would have to be scrolled."""
    page = opened(browser, address, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate(
        "getComputedStyle(document.querySelector('.overview')).backgroundColor"
    ) == ("rgb(255, 255, 255)")
    assert not page.locator(".tools").is_visible()
    assert len(page.pdf()) > 20_000
    page.context.close()

"""What somebody sees who opens an exploration: the failure, at once, over its own kernel."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from lab.exploring import failed_on_servers, needs_jupyterlab

from ssot.lab.explore import explore

if TYPE_CHECKING:
    from playwright.async_api import Page

playwright: Any = pytest.importorskip(
    "playwright.async_api", reason="playwright is not installed; it is in the extra test"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    needs_jupyterlab,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on PATH"),
]


@pytest_asyncio.fixture(loop_scope="module")
async def page() -> AsyncIterator[Page]:
    """A page of a headless Chromium that talks to this machine alone."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        page = await browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(30_000)
        yield page
        await browser.close()


async def test_the_failure_is_seen_without_a_click_and_its_objects_are_alive(tmp_path, page: Page):
    """No dialog and no choice of a kernel; what one types into the empty cell meets ``alice``."""
    path = failed_on_servers(tmp_path / "run" / "00_real.ipynb")
    async with explore(path, None, outputs=tmp_path) as exploration:
        await page.goto(exploration.url)
        failure = page.locator(".jp-OutputArea-output", has_text="GP-01 FAIL claim 1 holds").first
        await failure.wait_for()
        box = await failure.bounding_box()
        assert box is not None
        assert box["y"] < 1000, "the failure is in sight"
        assert await page.locator("strong", has_text="Reproduced.").is_visible()
        assert await page.locator(".jp-Dialog, .Toastify__toast").count() == 0
        # The kernel answers: idle, and not "No Kernel".
        await page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        assert await page.locator(".jp-mod-dirty").count() == 0

        async def run(index: int, text: str | None = None) -> Any:
            cell = page.locator(f'[data-windowed-list-index="{index}"]')
            await cell.locator(".cm-content").click()
            if text is not None:
                await page.keyboard.insert_text(text)
            await page.keyboard.press("Shift+Enter")
            return cell.locator(".jp-OutputArea-output")

        last = await page.locator(".jp-Notebook .jp-Cell").count() - 1
        shown = await run(last, "[len(alice.sequence), await alice.ask('Again?') != run]")
        await shown.get_by_text("[5, True]").wait_for()
        statistics = await run(last - 3)
        await statistics.get_by_text("received 10").wait_for()
        await run(last + 1, "%debug")
        # An answered prompt may still be there when the next one comes.
        prompt = page.locator(".jp-Stdin-input").last
        await prompt.fill("p alice.sequence == [1, 2, 3], users")
        await prompt.press("Enter")
        await page.get_by_text("(False, 2)").wait_for()
        await page.get_by_text("ipdb>").nth(1).wait_for()
        await prompt.fill("q")
        await prompt.press("Enter")
        await page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

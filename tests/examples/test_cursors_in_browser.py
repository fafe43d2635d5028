"""Two Chromium pages see each other's cursors through ``trioweb run examples/cursors.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.examples.conftest import OpenPage, ServeExample

TICK = "parseInt(document.getElementById('ticks').textContent.slice('tick '.length))"


def join(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Join").click()
    page.get_by_text(f"{name} (you)").wait_for()


def wait_until_at(page: Page, cursor: Locator, x: float, y: float) -> None:
    """Waits until a cursor, which glides, has come to a place in pixels."""
    page.wait_for_function(
        """([cursor, x, y]) => {
            const box = cursor.getBoundingClientRect();
            return Math.abs(box.left - x) < 1 && Math.abs(box.top - y) < 1;
        }""",
        arg=[cursor.element_handle(), x, y],
    )


def test_two_pages_share_a_board(serve_example: ServeExample, open_page: OpenPage) -> None:
    """A cursor moves on the other page, as the firefly does, and vanishes with its own page."""
    url = serve_example("cursors")
    ada = open_page(url)
    bob = open_page(url, "dark")
    join(ada, "Ada")
    join(bob, "Bob")
    # Where the firefly does not come: it stays away from the edges.
    ada.mouse.move(40, 30)
    cursor = bob.locator(".cursor", has_text="Ada")
    cursor.wait_for()
    wait_until_at(bob, cursor, 40, 30)
    ada.mouse.move(600, 10)
    wait_until_at(bob, cursor, 600, 10)
    assert not ada.locator(".cursor", has_text="Ada").is_visible()

    firefly = bob.locator("#firefly")
    tick, before = bob.evaluate(TICK), firefly.bounding_box()
    bob.wait_for_function(f"tick => {TICK} >= tick + 10", arg=tick)
    assert firefly.bounding_box() != before

    ada.close()
    cursor.wait_for(state="detached")
    bob.get_by_text("1 here").wait_for()

"""Two Chromium pages talk to each other through ``trioweb run examples/chat.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.examples.conftest import OpenPage, ServeExample


def join(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Join").click()
    page.get_by_text(f"{name} joined").wait_for()


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def test_two_pages_talk(serve_example: ServeExample, open_page: OpenPage) -> None:
    """Each page shows what the other says, as text, and that it came and went."""
    url = serve_example("chat")
    ada = open_page(url)
    bob = open_page(url, "dark")
    join(ada, "Ada")
    join(bob, "Bob")
    ada.get_by_text("Bob joined").wait_for()
    say(ada, "Hello <b>Bob</b>")
    bob.get_by_text("Hello <b>Bob</b>").wait_for()
    say(bob, "Hello Ada")
    ada.get_by_text("Hello Ada").wait_for()
    bob.close()
    ada.get_by_text("Bob left").wait_for()

"""Two Chromium pages talk to each other through ``trioweb run examples/chat.py``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


@pytest.fixture
def chat_url() -> Iterator[str]:
    """The address that the command prints; the server is stopped as Ctrl-C would."""
    command = [sys.executable, "-m", "trioweb", "run", "examples/chat.py", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            server.terminate()
            assert server.wait(timeout=10) == 0


def join(page: Page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Join").click()
    page.get_by_text(f"{name} joined").wait_for()


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def hold_conversation(url: str) -> None:
    # The import waits until the browser is known to be there.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        ada = browser.new_page()
        bob = browser.new_page(color_scheme="dark")
        errors: list[object] = []

        def note_error(error: object) -> None:
            errors.append(error)

        for page in (ada, bob):
            page.set_default_timeout(15_000)
            page.on("pageerror", note_error)
        join(ada, url, "Ada")
        join(bob, url, "Bob")
        ada.get_by_text("Bob joined").wait_for()
        say(ada, "Hello <b>Bob</b>")
        bob.get_by_text("Hello <b>Bob</b>").wait_for()
        say(bob, "Hello Ada")
        ada.get_by_text("Hello Ada").wait_for()
        bob.close()
        ada.get_by_text("Bob left").wait_for()
        assert errors == []
        browser.close()


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium (apt: chromium)")
async def test_two_pages_talk(chat_url: str) -> None:
    """Each page shows what the other says, as text, and that it came and went."""
    # Playwright's sync API runs an event loop of its own, hence a thread of its own.
    await trio.to_thread.run_sync(hold_conversation, chat_url)

"""Loads the programs of ``examples/``, serves them, and opens their pages in a browser."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


class LoadExample(Protocol):
    def __call__(self, name: str) -> Any: ...


class ServeExample(Protocol):
    def __call__(self, name: str) -> str: ...


class OpenPage(Protocol):
    def __call__(self, url: str, color_scheme: Literal["light", "dark"] = "light") -> Page: ...


@pytest.fixture
def load_example(monkeypatch: pytest.MonkeyPatch) -> LoadExample:
    """A fresh module of ``examples/<name>.py`` at each call."""

    def load(name: str) -> ModuleType:
        path = ROOT / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"example_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Annotations are resolved, and dataclasses made, by way of sys.modules.
        monkeypatch.setitem(sys.modules, module.__name__, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def serve_example() -> Iterator[ServeExample]:
    """Runs ``examples/<name>.py`` at each call; gives the address that the command prints."""
    with ExitStack() as servers:
        yield lambda name: servers.enter_context(run_example(name))


@contextmanager
def run_example(name: str) -> Iterator[str]:
    """A server with an example, stopped as Ctrl-C would."""
    command = [sys.executable, "-m", "trioweb", "run", f"examples/{name}.py", "--port", "0"]
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


@pytest.fixture
def open_page() -> Iterator[OpenPage]:
    """A new page of one browser at each call; what a page's script raises fails the test."""
    if not CHROMIUM.exists():
        pytest.skip("needs /usr/bin/chromium (apt: chromium)")
    # The import waits until the browser is known to be there.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        errors: list[object] = []

        def note_error(error: object) -> None:
            errors.append(error)

        def open_page(url: str, color_scheme: Literal["light", "dark"] = "light") -> Page:
            page = browser.new_page(color_scheme=color_scheme)
            page.set_default_timeout(15_000)
            page.on("pageerror", note_error)
            page.goto(url)
            return page

        yield open_page
        browser.close()
        assert errors == []

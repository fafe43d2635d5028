"""The fixtures that pytest-trio runs; `trioweb.testing.plugin` registers them where it is active.

Nothing of trioweb is imported before a test asks for it: this module is part of every run of
pytest in whose environment trioweb is.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import pytest
import pytest_trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from trioweb import TrioWeb
    from trioweb.testing.client import Client
    from trioweb.testing.server import LiveServer

# These fixtures are pytest-trio's whatever trio_mode says.
trio_fixture: Callable[[Callable[..., object]], object] = pytest_trio.trio_fixture

_FIXTURES = ("trioweb_client", "trioweb_server")
_GAVE = "the fixture trioweb_app gave"


@trio_fixture
async def trioweb_client(_trioweb_test: None, trioweb_app: TrioWeb) -> AsyncGenerator[Client]:
    """A client of trioweb_app over memory streams (trioweb.testing.open_client)."""
    from trioweb.testing.client import open_client
    from trioweb.testing.running import require_app

    async with open_client(require_app(trioweb_app, _GAVE)) as client:
        yield client


@trio_fixture
async def trioweb_server(_trioweb_test: None, trioweb_app: TrioWeb) -> AsyncGenerator[LiveServer]:
    """trioweb_app at a real port of 127.0.0.1: url, ws_url, host, port, app, shutdown()."""
    from trioweb.testing.running import require_app
    from trioweb.testing.server import open_server

    _refuse_autojump()
    async with open_server(require_app(trioweb_app, _GAVE)) as server:
        yield server


@pytest.fixture
def _trioweb_test(request: pytest.FixtureRequest) -> None:
    """Checks, before the loop starts, that the test can have what it asks for."""
    asked = [name for name in _FIXTURES if name in request.fixturenames]
    if len(asked) > 1:
        pytest.fail(
            "trioweb_client and trioweb_server would both run the one application that "
            "trioweb_app gives to a test, which runs only once at a time; ask for one of them, "
            "and use trioweb.testing.open_client(make_app()) for another application",
            pytrace=False,
        )
    marks = {mark.name for mark in request.node.iter_markers()}
    # pytest-asyncio in its auto mode marks every async test; two loops in one test break both.
    # anyio's plugin would run every async fixture of a test that has this one, these as well.
    is_anyios = "anyio_backend" in request.fixturenames
    if "trio" in marks and "asyncio" not in marks and not is_anyios:
        return
    name = asked[0] if asked else "a client or server of trioweb"
    others = sorted(marks & {"asyncio", "anyio"})
    if others:
        reason = f"the mark {others[0]} gives it to another plugin; take that away, and"
    elif is_anyios:
        reason = (
            "the fixture anyio_backend gives it to anyio's plugin; take that away, or "
            "anyio_mode = auto, and"
        )
    elif not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        reason = "it is no async function; write `async def`, and"
    else:
        reason = "pytest-trio was not told to;"
    pytest.fail(
        f"{name} is for tests that pytest-trio runs, and {request.node.name} is none of them: "
        f"{reason} mark it with @pytest.mark.trio, or set trio_mode = true for all async tests",
        pytrace=False,
    )


def _refuse_autojump() -> None:
    import trio
    import trio.testing

    clock = trio.lowlevel.current_clock()
    if isinstance(clock, trio.testing.MockClock) and clock.autojump_threshold < math.inf:
        raise RuntimeError(
            "trioweb_server can't be used with autojump_clock: bytes take real time through a real "
            "socket, all tasks wait meanwhile, and the clock would jump to the next deadline; use "
            "trioweb_client, whose streams are in memory, or drop autojump_clock"
        )

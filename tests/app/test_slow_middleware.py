"""Handshakes that lead to no WebSocket, behind middleware or handlers that never end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.app.conftest import HANDSHAKE
from trioweb import Depends, TrioWeb
from trioweb.testing import open_client

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trioweb import Request, Response, Websocket

RESPONSE_TIMEOUT = 7
WEBSOCKET_TIMEOUT = 3
CONFIG: dict[str, Any] = {
    "RESPONSE_TIMEOUT": RESPONSE_TIMEOUT,
    "WEBSOCKET_TIMEOUT": WEBSOCKET_TIMEOUT,
}
HEAD = HANDSHAKE % b"/ws"
NO_ROUTE = HANDSHAKE % b"/nowhere"
STRANGER = HEAD.replace(b"\r\n\r\n", b"\r\nOrigin: http://evil.example\r\n\r\n")
OLD_VERSION = HEAD.replace(b"Version: 13", b"Version: 8")
NO_WEBSOCKET = HANDSHAKE % b"/page"


async def answer_to(app: TrioWeb, head: bytes) -> tuple[int, float]:
    """The status that a client gets, and after how many seconds its connection has ended."""
    async with open_client(app) as client:
        began = trio.current_time()
        async with client.connect() as link:
            await link.send_all(head)
            with trio.fail_after(1000):
                received = b"".join([data async for data in link])
            took = trio.current_time() - began
    version, status, _ = received.split(b" ", 2)
    assert version == b"HTTP/1.1"
    return int(status), took


def app_with_routes() -> TrioWeb:
    app = TrioWeb(config=CONFIG)

    @app.websocket("/ws")
    async def ws(request: Request, ws: Websocket) -> None:
        raise AssertionError("the handshake was to be refused")

    @app.get("/page")
    async def page(request: Request) -> str:
        return "page"

    return app


@pytest.mark.parametrize("kind", ["request", "response"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(NO_ROUTE, id="no such route"),
        pytest.param(STRANGER, id="refused origin"),
        pytest.param(OLD_VERSION, id="another version"),
        pytest.param(NO_WEBSOCKET, id="a route of HTTP"),
    ],
)
async def test_a_refused_handshake_is_answered_in_time(
    head: bytes, kind: str, autojump_clock: MockClock
) -> None:
    """503 after RESPONSE_TIMEOUT, as any request is; the middleware is cancelled."""
    app = app_with_routes()
    unwound: list[float] = []

    async def hang(*_: object) -> None:
        began = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            unwound.append(trio.current_time() - began)

    app.middleware(kind)(hang)
    status, took = await answer_to(app, head)
    assert status == 503
    assert unwound == [RESPONSE_TIMEOUT]
    assert took <= RESPONSE_TIMEOUT + 2


async def test_an_upgrade_to_a_handler_of_http_is_answered_in_time(
    autojump_clock: MockClock,
) -> None:
    app = TrioWeb(config=CONFIG)

    @app.get("/page")
    async def page(request: Request) -> str:
        await trio.sleep_forever()
        return "never"

    status, took = await answer_to(app, NO_WEBSOCKET)
    assert status == 503
    assert RESPONSE_TIMEOUT <= took <= RESPONSE_TIMEOUT + 2


@pytest.mark.parametrize("how", ["deny", "guard"])
async def test_a_denial_goes_out_though_response_middleware_never_ends(
    how: str, autojump_clock: MockClock
) -> None:
    """After WEBSOCKET_TIMEOUT, as it was before the middleware."""
    app = TrioWeb(config=CONFIG)

    async def guard(request: Request) -> bool:
        return how != "guard"

    @app.websocket("/ws", accept="manual", guards=[guard])
    async def handler(request: Request, ws: Websocket) -> None:
        await ws.deny(409)

    @app.on_response
    async def hang(request: Request, response: Response) -> None:
        await trio.sleep_forever()

    status, took = await answer_to(app, HEAD)
    assert status == (403 if how == "guard" else 409)
    assert WEBSOCKET_TIMEOUT <= took <= WEBSOCKET_TIMEOUT + 2


async def test_a_handshake_that_is_slow_but_in_time_is_answered_with_its_own_status(
    autojump_clock: MockClock,
) -> None:
    app = app_with_routes()

    @app.on_request
    async def dawdle(request: Request) -> None:
        await trio.sleep(RESPONSE_TIMEOUT - 1)

    assert (await answer_to(app, NO_ROUTE))[0] == 404
    assert (await answer_to(app, STRANGER))[0] == 403


@pytest.mark.parametrize(
    ("accept", "who"), [("auto", "what comes before the handler"), ("manual", "the handler")]
)
async def test_the_log_says_who_did_not_accept(
    accept: Any, who: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that is accepted for is not to blame for what hangs before it."""
    app = TrioWeb(config=CONFIG)

    async def hang() -> None:
        if accept == "auto":
            await trio.sleep_forever()

    @app.websocket("/ws", accept=accept)
    async def ws(ws: Websocket, nothing: None = Depends(hang)) -> None:
        await trio.sleep_forever()

    assert await answer_to(app, HEAD) == (503, WEBSOCKET_TIMEOUT)
    (record,) = [one for one in caplog.records if "did not accept" in one.getMessage()]
    assert record.getMessage() == f"ws: {who} did not accept within WEBSOCKET_TIMEOUT=3 s"

"""WebSockets through the application."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tests.app.conftest import denial
from trioweb.app import TrioWeb
from trioweb.errors import Unauthorized
from trioweb.routing import Include, websocket
from trioweb.testing import open_client

if TYPE_CHECKING:
    import pytest

    from trioweb.http import Request, Response


async def test_app_routes_accept_by_themselves() -> None:
    app = TrioWeb()

    @app.websocket("/ws/<room>")
    async def echo(request: Any, ws: Any, room: str) -> None:
        async for message in ws:
            await ws.send(f"{room}: {message}")

    async with open_client(app) as client, client.websocket("/ws/a") as ws:
        await ws.send("x")
        await ws.expect("a: x")


async def test_module_routes_accept_themselves() -> None:
    @websocket("/{room}")
    async def chat(websocket: Any, room: str) -> None:
        await websocket.accept()
        await websocket.send_text(room)

    app = TrioWeb(routes=[Include("/chat", [chat])])
    async with open_client(app) as client, client.websocket("/chat/b") as ws:
        await ws.expect("b")


async def test_middleware_guards_and_parameters_come_before_accept() -> None:
    """Their answers deny the handshake with status and body; response middleware sees all."""
    app = TrioWeb()
    seen: list[int] = []

    @app.on_request
    async def stop(request: Request) -> Any:
        return ("teapot", 418) if request.args.get("tea") else None

    @app.on_response
    async def watch(request: Request, response: Response) -> None:
        seen.append(response.status)

    def guard(request: Request) -> bool:
        return "guarded" not in request.args

    @app.websocket("/<id>", guards=[guard])
    async def handler(request: Any, ws: Any, id: int) -> None:  # noqa: A002
        await ws.send(str(id))

    async with open_client(app) as client:
        for path, status in (("/1?tea=1", 418), ("/1?guarded=1", 403), ("/x", 400), ("/a/b", 404)):
            assert (await denial(client, path)).status == status
        async with client.websocket("/1") as ws:
            await ws.expect("1")
    assert seen == [418, 403, 400, 404, 101]


async def test_exceptions_before_and_after_accept(caplog: pytest.LogCaptureFixture) -> None:
    """Before, they answer the handshake; after, the handler of the exception sees them."""
    seen: list[str] = []
    app = TrioWeb()

    @app.exception(Exception)
    async def watch(request: Request, error: Exception) -> Any:
        seen.append(type(error).__name__)

    @app.websocket("/before", accept="manual")
    async def before(request: Any, ws: Any) -> None:
        raise Unauthorized("token?")

    @app.websocket("/after")
    async def after(request: Any, ws: Any) -> None:
        raise ValueError("secret")

    async with open_client(app) as client:
        refused = await denial(client, "/before")
        assert (refused.status, refused.body) == (401, b"token?")
        with caplog.at_level(logging.ERROR, "trioweb"):
            async with client.websocket("/after") as ws:
                assert "secret" not in await ws.expect_close(1011)
    assert seen == ["Unauthorized", "ValueError"]
    assert len(caplog.records) == 1


async def test_denial_of_the_handler_is_not_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    """deny() and then accept(): the denial stands and nothing is logged as an error."""
    app = TrioWeb()

    @app.websocket("/", accept="manual")
    async def handler(request: Any, ws: Any) -> None:
        await ws.deny(409, "busy")
        await ws.accept()

    async with open_client(app) as client:
        assert (await denial(client, "/")).status == 409
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]

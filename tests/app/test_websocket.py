"""WebSockets through the application, with trio-websocket as the client."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, ConnectionRejected, wrap_client_stream

from trioweb.app import TrioWeb
from trioweb.errors import Unauthorized
from trioweb.routing import Include, websocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trioweb.http import Request, Response


@asynccontextmanager
async def connect(app: TrioWeb, path: str) -> AsyncGenerator[Any, None]:
    """A client's connection; a refusal comes out of the client's nursery as it was raised."""
    try:
        async with app.lifetime(), trio.open_nursery() as nursery:
            client, server = memory_stream_pair()
            nursery.start_soon(app.serve_stream, server)
            stream: Any = client  # typed for sockets, works on any stream
            async with await wrap_client_stream(nursery, stream, "test", path) as connection:
                yield connection
            await client.aclose()
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise leaf from None


async def test_app_routes_accept_by_themselves() -> None:
    app = TrioWeb()

    @app.websocket("/ws/<room>")
    async def echo(request: Any, ws: Any, room: str) -> None:
        async for message in ws:
            await ws.send(f"{room}: {message}")

    async with connect(app, "/ws/a") as ws:
        await ws.send_message("x")
        assert await ws.get_message() == "a: x"


async def test_module_routes_accept_themselves() -> None:
    @websocket("/{room}")
    async def chat(websocket: Any, room: str) -> None:
        await websocket.accept()
        await websocket.send_text(room)

    async with connect(TrioWeb(routes=[Include("/chat", [chat])]), "/chat/b") as ws:
        assert await ws.get_message() == "b"


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

    for path, status in (("/1?tea=1", 418), ("/1?guarded=1", 403), ("/x", 400), ("/a/b", 404)):
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(app, path):
                pass
        assert caught.value.status_code == status
    async with connect(app, "/1") as ws:
        assert await ws.get_message() == "1"
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

    with pytest.raises(ConnectionRejected) as caught:
        async with connect(app, "/before"):
            pass
    assert (caught.value.status_code, caught.value.body) == (401, b"token?")
    with caplog.at_level(logging.ERROR, "trioweb"):
        async with connect(app, "/after") as ws:
            with pytest.raises(ConnectionClosed) as closed:
                await ws.get_message()
    assert closed.value.reason is not None
    reason = closed.value.reason
    assert reason is not None
    assert reason.code == 1011
    assert "secret" not in (reason.reason or "")
    assert seen == ["Unauthorized", "ValueError"]
    assert len(caplog.records) == 1


async def test_denial_of_the_handler_is_not_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    """deny() and then accept(): the denial stands and nothing is logged as an error."""
    app = TrioWeb()

    @app.websocket("/", accept="manual")
    async def handler(request: Any, ws: Any) -> None:
        await ws.deny(409, "busy")
        await ws.accept()

    with pytest.raises(ConnectionRejected) as caught:
        async with connect(app, "/"):
            pass
    assert caught.value.status_code == 409
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]

"""Lifespan, app.nursery, serve and shutdown."""

from __future__ import annotations

import contextvars
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.app.conftest import HANDSHAKE
from trioweb.app import TrioWeb
from trioweb.testing import link_pair, open_client
from trioweb.ws.encoding import encode_close

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trioweb import Request, Websocket

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def test_connections_run_in_the_lifespans_context() -> None:
    """A context variable that the lifespan sets is seen by handlers; exits come in order."""
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        variable.set("from lifespan")
        app.nursery.start_soon(background)
        yield
        order.append("lifespan left")

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            order.append("nursery cancelled")

    app = TrioWeb(lifespan=lifespan)

    @app.get("/")
    async def index() -> str:
        return variable.get()

    async with open_client(app) as client:
        assert (await client.get("/")).text == "from lifespan"
    assert order == ["nursery cancelled", "lifespan left"]


async def test_serve_stream_enters_the_lifetime_by_itself() -> None:
    app = TrioWeb()

    @app.get("/")
    async def index() -> str:
        return "alone"

    async with trio.open_nursery() as nursery:
        client, server = memory_stream_pair()
        nursery.start_soon(app.serve_stream, server)
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"".join([data async for data in client]).endswith(b"alone")


async def test_serve_tells_its_addresses_and_drains() -> None:
    """Port 0 works; shutdown lets serve return by itself."""
    app = TrioWeb()
    async with trio.open_nursery() as nursery:
        addresses: Any = await nursery.start(_serve_anywhere, app)
        host, port = addresses[0][:2]
        assert host == "127.0.0.1"
        assert port > 0
        stream = await trio.open_tcp_stream(host, port)
        await stream.aclose()
        app.shutdown()
        assert app.is_draining
    assert app.connection_count == 0


async def _serve_anywhere(app: TrioWeb, task_status: Any) -> None:
    await app.serve("127.0.0.1", 0, task_status=task_status)


async def test_crash_in_the_nursery_drains_and_comes_out_as_itself() -> None:
    app = TrioWeb()
    error = ValueError("boom")

    async def crash() -> None:
        raise error

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        app.nursery.start_soon(crash)
        yield

    app = TrioWeb(lifespan=lifespan)
    with pytest.raises(ValueError, match="boom") as caught:
        await app.serve("127.0.0.1", 0)
    assert caught.value is error


async def test_error_of_the_lifespan_comes_out_as_itself() -> None:
    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        raise KeyError("no database")
        yield

    with pytest.raises(KeyError):
        await TrioWeb(lifespan=lifespan).serve(port=0)


async def test_cancelling_serve_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """The cancellation is caught by the scope that asked for it, the nursery is empty."""
    app = TrioWeb()
    with trio.move_on_after(1) as scope:
        async with app.lifetime():
            app.nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_nursery_is_closed_outside_and_start_raises_as_it_was() -> None:
    app = TrioWeb()
    with pytest.raises(RuntimeError, match="lifespan"):
        _ = app.nursery

    async def fail(task_status: Any) -> None:
        raise KeyError("early")

    async with app.lifetime():
        with pytest.raises(KeyError):
            await app.nursery.start(fail)
        with pytest.raises(RuntimeError, match="runs already"):
            async with app.lifetime():
                pass


@pytest.mark.parametrize("steps", range(6))
async def test_lifespan_that_is_cancelled_at_the_start_ends_serve(steps: int) -> None:
    """By a scope of its own: whatever was being started has ended then."""

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        async def cancel(scope: trio.CancelScope) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                yield

    with trio.fail_after(5):
        try:
            await TrioWeb(lifespan=lifespan).serve("127.0.0.1", 0)
        except RuntimeError as error:
            assert "yield" in str(error)  # noqa: PT017 - it did not, which is Python's to say


async def test_listeners_are_closed_when_the_lifespan_fails() -> None:
    """They are the server's as soon as they are given."""

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        raise OSError("no database")
        yield

    listener = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(OSError, match="no database"):
        await TrioWeb(lifespan=lifespan).serve(listeners=[listener])
    assert listener.fileno() == -1


async def test_connections_outside_a_lifetime_share_one_to_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first one's end takes the deadlines of the others not away."""
    app = TrioWeb()
    ours, theirs = zip(*(link_pair() for _ in range(2)), strict=True)
    async with trio.open_nursery() as nursery:
        for stream in ours:
            nursery.start_soon(app.serve_stream, stream)
            await wait_all_tasks_blocked()
        await theirs[0].aclose()
        began = trio.current_time()
        assert not await theirs[1].receive_some(1)
        assert trio.current_time() - began == app.config.REQUEST_TIMEOUT


async def test_what_outlives_the_lifetime_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody minds its deadlines any more: a silent connection would stay for ever."""
    app = TrioWeb()
    ours, theirs = link_pair()
    with trio.fail_after(app.config.REQUEST_TIMEOUT):
        async with trio.open_nursery() as nursery, app.lifetime():
            nursery.start_soon(app.serve_stream, ours)
            await wait_all_tasks_blocked()
    assert not await theirs.receive_some(1)


async def test_a_lifespan_may_serve_connections_itself(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """With all their deadlines, at its start and at its end."""
    ended: list[float] = []

    async def serve_silent(app: TrioWeb) -> None:
        began = trio.current_time()
        await app.serve_stream(link_pair()[0])
        ended.append(trio.current_time() - began)

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        await serve_silent(app)
        yield
        await serve_silent(app)

    app = TrioWeb(lifespan=lifespan)
    with trio.fail_after(10 * app.config.REQUEST_TIMEOUT):
        async with app.lifetime():
            pass
    assert ended == [app.config.REQUEST_TIMEOUT] * 2


async def test_the_ticker_holds_nothing_that_has_ended() -> None:
    """Deadlines of a connection are a minute away when it ends; it goes at once all the same."""
    app = TrioWeb()
    async with open_client(app) as client:
        async with client.connect() as link:
            await link.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await link.receive_some()).startswith(b"HTTP/1.1 404 ")
            assert [alarm._sleeper for _, _, alarm in app.ticker._heap] != []
        await wait_all_tasks_blocked()
        assert {alarm._sleeper for _, _, alarm in app.ticker._heap} == {None}


async def test_a_websocket_that_outlives_the_lifetime_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However long ago it was an HTTP request, whose deadlines are over."""
    app = TrioWeb(config={"WEBSOCKET_PING_TIMEOUT": None})

    @app.websocket("/ws")
    async def handler(request: Request, ws: Websocket) -> None:
        async for _ in ws:
            pass

    ours, theirs = link_pair()
    with trio.fail_after(110):
        async with trio.open_nursery() as nursery, app.lifetime():
            nursery.start_soon(app.serve_stream, ours)
            await theirs.send_all(HANDSHAKE % b"/ws")
            await trio.sleep(100)
    received = b"".join([data async for data in theirs])
    assert received.endswith(encode_close(1001, "server is shutting down"))

"""`open_server`: a real port for the time of a block."""

from __future__ import annotations

import logging
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio_websocket import ConnectionClosed, open_websocket_url, wrap_client_stream

from trioweb import TrioWeb
from trioweb.testing import Leaked, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock
    from trio_websocket import WebSocketConnection

    from trioweb import Websocket
    from trioweb.testing import LiveServer


class Recorded:
    """An application that notes what happens to it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.app = TrioWeb("recorded", lifespan=self.lifespan)
        self.app.get("/")(self.show)
        self.app.post("/break")(self.break_nursery)
        self.app.websocket("/echo")(self.echo)
        self.app.websocket("/deaf")(self.deaf)

    @asynccontextmanager
    async def lifespan(self, app: TrioWeb) -> AsyncGenerator[None]:
        self.notes.append("entered")
        yield
        await trio.lowlevel.checkpoint()  # as who closes a pool
        self.notes.append("left")

    async def show(self) -> str:
        return "shown"

    async def break_nursery(self) -> None:
        async def crash() -> None:
            raise ZeroDivisionError("broken")

        self.app.nursery.start_soon(crash)

    async def echo(self, ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    async def deaf(self, ws: Websocket) -> None:
        await ws.send("deaf")
        try:
            await trio.sleep_forever()
        finally:
            self.notes.append("cancelled")


async def fetch(server: LiveServer, request_line: str) -> bytes:
    stream = await trio.open_tcp_stream(server.host, server.port)
    async with stream:
        head = (
            f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        await stream.send_all(head.encode())
        return b"".join([part async for part in stream])


@asynccontextmanager
async def open_websocket(server: LiveServer, path: str) -> AsyncGenerator[WebSocketConnection]:
    """As open_websocket_url, which leaves its socket open where the server has closed."""
    async with (
        await trio.open_tcp_stream(server.host, server.port) as stream,
        trio.open_nursery() as nursery,
    ):
        yield await wrap_client_stream(nursery, stream, server.host, path)


def assert_refused(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))


async def test_it_serves_both_protocols_until_the_block_is_left() -> None:
    """HTTP at url, WebSockets at ws_url; then the port is closed and the lifespan left."""
    recorded = Recorded()
    async with open_server(recorded.app) as server:
        assert server.app is recorded.app
        assert server.host == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.ws_url == f"ws://127.0.0.1:{server.port}"
        assert (await fetch(server, "GET /")).endswith(b"shown")
        async with open_websocket_url(f"{server.ws_url}/echo") as ws:
            await ws.send_message("hello")
            assert await ws.get_message() == "hello"
    assert_refused(server)
    assert recorded.notes == ["entered", "left"]


async def test_a_connection_that_is_still_open_does_not_hold_the_end() -> None:
    """Its handler is cancelled at once, without the drain's 20 s; the lifespan is left in order."""
    recorded = Recorded()
    recorded.app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 20.5
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, AsyncExitStack() as streams:
            async with open_server(recorded.app) as server:
                stream = await trio.open_tcp_stream(server.host, server.port)
                await streams.enter_async_context(stream)
                ws = await wrap_client_stream(nursery, stream, server.host, "/deaf")
                assert await ws.get_message() == "deaf"
            with pytest.raises(ConnectionClosed) as closed:
                await ws.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1001
    assert recorded.notes == ["entered", "cancelled", "left"]
    assert recorded.app.config.GRACEFUL_SHUTDOWN_TIMEOUT == 20.5


async def test_shutdown_closes_the_port_and_not_the_block() -> None:
    """WebSockets hear of the drain; the block goes on."""
    recorded = Recorded()
    async with open_server(recorded.app) as server:
        async with open_websocket(server, "/echo") as ws:
            server.shutdown()
            with pytest.raises(ConnectionClosed) as closed:
                await ws.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1001
        assert_refused(server)
    assert recorded.notes == ["entered", "left"]


async def test_a_crash_of_the_nursery_cancels_the_block_and_comes_out_as_itself() -> None:
    """Whoever waits in the block waits no longer."""
    recorded = Recorded()

    async def wait_in_vain() -> None:
        async with open_server(recorded.app) as server:
            await fetch(server, "POST /break")
            await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError, match="broken"):
        await wait_in_vain()
    assert recorded.notes == ["entered", "left"]


async def test_what_the_block_raises_comes_out_as_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A failure, or a group of the test's own; a crash of the server at its end is logged."""
    recorded = Recorded()
    for mine in [AssertionError("mine"), ExceptionGroup("mine", [ValueError()])]:
        with pytest.raises(type(mine)) as caught:
            async with open_server(recorded.app):
                raise mine
        assert caught.value is mine
    assert recorded.notes == ["entered", "left"] * 2

    @asynccontextmanager
    async def broken(app: TrioWeb) -> AsyncGenerator[None]:
        yield
        raise ZeroDivisionError("at the end")

    with caplog.at_level(logging.ERROR, "trioweb"), pytest.raises(AssertionError, match="mine"):
        async with open_server(TrioWeb("broken", lifespan=broken)):
            raise AssertionError("mine")
    assert "at the end" in caplog.text


async def test_a_cancellation_ends_the_server() -> None:
    """From around the block, it is no failure."""
    recorded = Recorded()
    with trio.CancelScope() as scope:
        async with open_server(recorded.app) as server:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert_refused(server)


async def test_what_keeps_it_from_starting_comes_out_as_itself() -> None:
    """A lifespan that raises, and an application that runs already."""

    @asynccontextmanager
    async def broken(app: TrioWeb) -> AsyncGenerator[None]:
        raise ZeroDivisionError("no start")
        yield

    with pytest.raises(ZeroDivisionError, match="no start"):
        async with open_server(TrioWeb("broken", lifespan=broken)):
            raise AssertionError("never reached")
    app = TrioWeb("twice")
    async with open_server(app) as server:
        with pytest.raises(RuntimeError, match="runs already"):
            async with open_server(app):
                raise AssertionError("never reached")
        assert b"404" in await fetch(server, "GET /")


async def test_a_task_that_outlives_the_server_fails_the_test(nursery: trio.Nursery) -> None:
    app = TrioWeb("wrong")

    @app.get("/")
    async def show() -> str:
        nursery.start_soon(trio.sleep_forever)
        return "shown"

    async def ask() -> None:
        async with open_server(app) as server:
            stream = await trio.open_tcp_stream(server.host, server.port)
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")

    with pytest.raises(Leaked, match=r"sleep_forever, started at .* in show; "):
        await ask()


async def sleep_shielded() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(3600)


async def sleep_shielded_again() -> None:
    try:
        await sleep_shielded()
    finally:
        await sleep_shielded()


@pytest.mark.parametrize(("sleep", "seconds"), [(sleep_shielded, 5), (sleep_shielded_again, 10)])
async def test_a_handler_that_shields_itself(
    sleep: Any, seconds: int, mock_clock: MockClock
) -> None:
    """The test fails, and does not hang; the lifespan is left in order."""
    recorded = Recorded()
    inside = trio.Event()

    @recorded.app.get("/stubborn")
    async def handler() -> None:
        inside.set()
        await sleep()

    async def leave(nursery: trio.Nursery) -> None:
        async with open_server(recorded.app) as server:
            nursery.start_soon(fetch, server, "GET /stubborn")
            await inside.wait()
            mock_clock.autojump_threshold = 0

    async with trio.open_nursery() as nursery:
        with pytest.raises(
            Leaked, match=r"1 thing has outlived .*\n.*; it waits at .* in sleep_sh"
        ):
            await leave(nursery)
    assert recorded.notes == ["entered", "left"]
    assert trio.current_time() == seconds


@pytest.mark.parametrize("shielded", [True, False])
async def test_a_lifespan_that_does_not_end(shielded: bool, mock_clock: MockClock) -> None:
    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        yield
        with trio.CancelScope(shield=shielded):
            await trio.sleep(3600)

    async def leave() -> None:
        async with open_server(TrioWeb("wrong", lifespan=lifespan)):
            mock_clock.autojump_threshold = 0

    with pytest.raises(Leaked, match=r"the lifespan; it waits at .* in lifespan"):
        await leave()
    assert trio.current_time() == 5


async def test_a_task_that_shields_itself_is_a_note_of_a_failure(mock_clock: MockClock) -> None:
    """What the block raises matters more; a task of app.nursery is named too."""

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        app.nursery.start_soon(sleep_shielded)
        yield

    async def fail() -> None:
        async with open_server(TrioWeb("wrong", lifespan=lifespan)):
            mock_clock.autojump_threshold = 0
            raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine") as caught:
        await fail()
    (note,) = caught.value.__notes__
    assert "sleep_shielded, started at " in note
    assert trio.current_time() == 5

"""Server: listeners, the drain, and connections that must not hurt each other.

The testing kit needs a TrioWeb; this is the server alone.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trioweb.config import Config
from trioweb.errors import HTTPException
from trioweb.http import Request, Response, error_response, text
from trioweb.net.stream import ByteStream, StreamAdapter
from trioweb.net.ticker import Ticker
from trioweb.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class App:
    """Answers at once, except on /wait; its WebSockets end when the server drains."""

    def __init__(self, **config: object) -> None:
        self.config = Config(config)
        self.ticker = Ticker()
        trio.lowlevel.spawn_system_task(self.ticker.loop)  # as an application's lifetime does
        self.is_asked = trio.Event()
        self.go = trio.Event()
        self.deaf = False
        self.told: list[str] = []  # who has heard of a cancellation, in order

    def is_being_cancelled(self) -> None:
        self.told.append("app")

    async def handle(self, request: Request) -> Response:
        if request.path == "/wait":
            self.is_asked.set()
            try:
                await self.go.wait()
            except trio.Cancelled:
                self.told.append("connection")
                raise
        try:
            return text(f"{len(await request.body())}")
        except HTTPException as error:
            return error_response(error)

    async def handle_upgrade(
        self,
        request: Request,
        stream: ByteStream,
        trailing: bytes,
        take_scope: Callable[[trio.CancelScope], None],
    ) -> Response | None:
        if "crash" in request.args:
            raise RuntimeError("boom")
        drained = trio.Event()
        callback: Callable[[], None] = (lambda: None) if self.deaf else drained.set
        request.on_shutdown.add(callback)
        try:
            with trio.CancelScope() as scope:
                take_scope(scope)
                await drained.wait()
                await stream.send_some(b"goodbye")
        finally:
            request.on_shutdown.discard(callback)
            await stream.aclose()
        return None


def listen() -> tuple[socket.socket, tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener, listener.getsockname()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    async for data in stream:
        received += bytes(data)
    return received


async def test_it_serves_every_listener_until_shutdown() -> None:
    app = App()
    server = Server(app)
    (first, one), (second, two) = listen(), listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [first, second])
        for host, port in (one, two):
            client = await trio.open_tcp_stream(host, port)
            await client.send_all(GET)
            assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
            await client.aclose()
        server.shutdown()
    assert server.connections == 0
    with pytest.raises(OSError, match="failed"):
        await trio.open_tcp_stream(*one)


async def test_cancelling_serve_closes_connections_and_listeners() -> None:
    server = Server(App())
    listener, address = listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        client = await trio.open_tcp_stream(*address)
        await client.send_all(GET)
        await client.receive_some()
        nursery.cancel_scope.cancel()
    assert listener.fileno() == -1
    assert await client.receive_some() == b""
    await client.aclose()


async def test_application_hears_of_a_cancellation_before_connections_do() -> None:
    """So it can act for all of them together; a server that just ends has nothing to tell."""
    for ends_by_itself in (True, False):
        app = App()
        server = Server(app)
        listener, address = listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            client = await trio.open_tcp_stream(*address)
            await client.send_all(GET.replace(b"/a", b"/wait"))
            await app.is_asked.wait()
            if ends_by_itself:
                app.go.set()
                server.shutdown()
                await read_all(client)
            else:
                nursery.cancel_scope.cancel()
        await client.aclose()
        assert app.told == ([] if ends_by_itself else ["app", "connection"])


async def test_an_application_s_crash_stops_its_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(App())
    listener, address = listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        bad = await trio.open_tcp_stream(*address)
        await bad.send_all(UPGRADE.replace(b"/ws", b"/ws?crash=1"))
        assert await bad.receive_some() == b""
        good = await trio.open_tcp_stream(*address)
        await good.send_all(GET)
        assert (await good.receive_some()).startswith(b"HTTP/1.1 200 ")
        await bad.aclose()
        await good.aclose()
        server.shutdown()
    assert len(caplog.records) == 1


async def test_shutdown_ends_idle_connections_at_once() -> None:
    server = Server(App())
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        await ours.send_all(GET)
        await wait_all_tasks_blocked()
        server.shutdown()
        assert b"200 OK" in await read_all(ours)
    assert server.draining


async def test_shutdown_lets_a_request_finish() -> None:
    app = App()
    server = Server(app)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        await ours.send_all(GET.replace(b"/a", b"/wait"))
        await wait_all_tasks_blocked()
        server.shutdown()
        await wait_all_tasks_blocked()
        assert server.connections == 1
        app.go.set()
        await ours.send_eof()
        assert b"Connection: close" in await read_all(ours)


async def test_shutdown_cuts_off_what_is_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(GRACEFUL_SHUTDOWN_TIMEOUT=3)
    app.deaf = True
    server = Server(app)
    start = trio.current_time()
    waiting, theirs = memory_stream_pair()
    deaf, theirs_too = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs_too))
        await waiting.send_all(GET.replace(b"/a", b"/wait"))
        await deaf.send_all(UPGRADE)
        await wait_all_tasks_blocked()
        server.shutdown()
        assert (await read_all(waiting)).startswith(b"HTTP/1.1 503 ")
        await waiting.aclose()
        assert await read_all(deaf) == b""
    assert 3 <= trio.current_time() - start <= 5
    assert "cut off by the shutdown" in caplog.text


async def test_a_second_shutdown_hastens(autojump_clock: MockClock) -> None:
    app = App(GRACEFUL_SHUTDOWN_TIMEOUT=30)
    app.deaf = True
    server = Server(app)
    ours, theirs = memory_stream_pair()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        await ours.send_all(UPGRADE)
        await wait_all_tasks_blocked()
        server.shutdown()
        server.shutdown(timeout=1)
        server.shutdown(timeout=9)
    assert trio.current_time() - start == pytest.approx(1)


async def test_websockets_are_told_to_drain_and_new_ones_refused(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(App())
    server.on_shutdown.add(lambda: [][0])  # a callback that crashes
    old, theirs = memory_stream_pair()
    new, theirs_too = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs_too))
        await old.send_all(UPGRADE)
        await new.send_all(UPGRADE[:20])
        await wait_all_tasks_blocked()
        server.shutdown()
        assert await read_all(old) == b"goodbye"
        await new.send_all(UPGRADE[20:])
        assert (await read_all(new)).startswith(b"HTTP/1.1 503 ")
        await new.aclose()
    assert "a shutdown callback crashed" in caplog.text


async def test_a_413_arrives_while_the_client_is_writing() -> None:
    server = Server(App(REQUEST_MAX_SIZE=1000))
    listener, address = listen()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (4096, b"x" * 4096)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        for _ in range(50):
            client = await trio.open_tcp_stream(*address)
            await client.send_all(head)
            for _ in range(20):
                await client.send_all(chunk)
            assert (await read_all(client)).startswith(b"HTTP/1.1 413 ")
            await client.aclose()
        server.shutdown()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
async def test_clients_that_leave_at_any_byte_leave_nothing() -> None:
    app = App()
    server = Server(app)
    listener, address = listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        descriptors = len(os.listdir("/proc/self/fd"))
        tasks = trio.lowlevel.current_statistics().tasks_living
        for cut in range(len(GET)):
            client = await trio.open_tcp_stream(*address)
            await client.send_all(GET[:cut])
            await client.aclose()
        with trio.fail_after(5):
            while server.connections or len(os.listdir("/proc/self/fd")) > descriptors:
                await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        server.shutdown()

"""An application on a real loopback socket, and clients that may behave as badly as they like.

What is here is below the testing kit on purpose: the kernel's resets and buffers are part of what
these tests show, and so is what becomes of a ``serve`` that is cancelled.
"""

from __future__ import annotations

import logging
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from wsproto import events
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionState, ConnectionType

from trioweb import testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from trioweb.app import TrioWeb

    Serve = Callable[[TrioWeb], AbstractAsyncContextManager["Serving"]]

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\n"
    b"Host: example.org\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def denial(client: testing.Client, path: str = "/ws", **options: Any) -> testing.Denied:
    """How the handshake is refused; accepting it fails the test."""
    with pytest.raises(testing.Denied) as caught:
        async with client.websocket(path, **options):
            pass
    return caught.value


class Client:
    """A client's TCP connection, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_all(self) -> bytes:
        """Read to the end; a reset is an error."""
        received = b""
        async for data in self.stream:
            received += bytes(data)
        return received

    async def read_head(self) -> tuple[bytes, bytes]:
        """A response's head, and what came with it."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = await self.stream.receive_some(65536)
            assert data, f"the stream ended after {received!r}"
            received += bytes(data)
        head, _, rest = received.partition(b"\r\n\r\n")
        return head, rest

    async def open_websocket(self, path: str = "/ws") -> WebsocketPeer:
        await self.send(HANDSHAKE % path.encode())
        head, rest = await self.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return WebsocketPeer(self, rest)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)

    async def abort(self) -> None:
        """Leave with a RST."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.aclose()


class WebsocketPeer:
    """A client after its handshake, with wsproto's codec; it answers nothing by itself."""

    def __init__(self, client: Client, rest: bytes) -> None:
        self.client = client
        self._codec = WsprotoConnection(ConnectionType.CLIENT)
        self._codec.receive_data(rest)
        self._received = list(self._codec.events())

    async def send(self, message: str | bytes | events.Event) -> None:
        event: events.Event
        if isinstance(message, str):
            event = events.TextMessage(message)
        elif isinstance(message, bytes):
            event = events.BytesMessage(message)
        else:
            event = message
        await self.client.send(self._codec.send(event))

    async def next_event(self) -> events.Event | None:
        """The next event; None at the end of the stream."""
        while not self._received:
            data = await self.client.stream.receive_some(65536)
            if not data:
                return None
            self._codec.receive_data(bytes(data))
            self._received += list(self._codec.events())
        return self._received.pop(0)

    async def next_text(self) -> str:
        parts = ""
        while True:
            event = await self.next_event()
            assert isinstance(event, (events.TextMessage, events.Ping)), event
            if isinstance(event, events.TextMessage):
                parts += event.data
                if event.message_finished:
                    return parts

    async def next_close(self, *, answer: bool = True) -> tuple[int, str]:
        """Skip to the server's Close; with ``answer``, finish the closing handshake."""
        while True:
            event = await self.next_event()
            assert event is not None, "the stream ended without a Close"
            if isinstance(event, events.CloseConnection):
                if answer:
                    if self._codec.state is not ConnectionState.CLOSED:
                        await self.send(event.response())
                    assert await self.client.read_all() == b""
                    await self.client.aclose()
                return int(event.code), event.reason or ""


class Serving:
    """``app.serve`` in a task of its own."""

    def __init__(self, app: TrioWeb, address: tuple[str, int], scope: trio.CancelScope) -> None:
        self.app = app
        self.address = address
        self.scope = scope
        self.ended = trio.Event()
        self._clients: list[Client] = []

    def connect(self, *, receive_buffer: int | None = None, source: str | None = None) -> Client:
        """Connect; on loopback that takes no time and needs no accept."""
        sock = socket.socket()
        if source is not None:
            sock.bind((source, 0))
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        client = Client(sock)
        self._clients.append(client)
        return client

    async def open_websocket(self, path: str = "/ws") -> WebsocketPeer:
        return await self.connect().open_websocket(path)

    async def get(self, path: str) -> bytes:
        client = self.connect()
        request = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        await client.send(request.encode())
        return await client.read_all()

    async def become_idle(self) -> None:
        """Wait until the last connection has ended."""
        while self.app.connection_count:
            await trio.sleep(0.005)

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()


@pytest.fixture
def serve() -> Serve:
    """Serve an application on a loopback port; leaving cancels it."""

    @asynccontextmanager
    async def serve(app: TrioWeb) -> AsyncIterator[Serving]:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def run(task_status: trio.TaskStatus[Any]) -> None:
                try:
                    with scope:
                        await app.serve("127.0.0.1", 0, task_status=task_status)
                finally:
                    serving.ended.set()

            # Filled in when the server has started; run() needs it at its end only.
            serving = Serving(app, ("", 0), scope)
            addresses = await nursery.start(run)
            serving.address = addresses[0][:2]
            with trio.fail_after(20):
                try:
                    yield serving
                finally:
                    with trio.CancelScope(shield=True):
                        await serving.aclose()
                    scope.cancel()

    return serve


@pytest.fixture
def trioweb_log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """What the logger ``trioweb`` has said since the last call, from INFO on."""
    caplog.set_level(logging.INFO, "trioweb")

    def take() -> list[logging.LogRecord]:
        records = [one for one in caplog.records if one.name == "trioweb"]
        caplog.clear()
        return records

    return take

"""A WebSocket served over each of the three byte streams, with wsproto as its peer.

This is below the testing kit on purpose: a connection by itself, over streams that the kit has not,
and a peer that answers nothing by itself.
"""

from __future__ import annotations

import re
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing
from wsproto import events
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionState, ConnectionType

from trioweb.config import Config
from trioweb.http import Headers, Request, Response
from trioweb.net.stream import SocketStream, StreamAdapter
from trioweb.net.ticker import Ticker
from trioweb.testing import link_pair
from trioweb.ws import ConnectionOptions, Websocket
from trioweb.ws.fanout import Fanout
from trioweb.ws.serve import check_opening, serve_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from wsproto.extensions import PerMessageDeflate

    from trioweb.net.stream import ByteStream

Handler = Any


class Peer:
    """A client after its handshake: wsproto's codec over a trio stream."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        head: bytes,
        deflate: PerMessageDeflate | None = None,
    ) -> None:
        self.stream = stream
        self.head, _, rest = head.partition(b"\r\n\r\n")
        agreed = re.search(rb"(?i)sec-websocket-extensions: (.*)", self.head)
        if deflate is not None:
            assert agreed, "no extension was agreed on"
            deflate.finalize(agreed[1].decode())
        self._codec = WsprotoConnection(
            ConnectionType.CLIENT, extensions=[] if deflate is None else [deflate]
        )
        self.received: list[events.Event] = []
        self.bytes_received = 0  # of frames
        self._parts: list[Any] = []
        self.cancel_server: Callable[[], object]
        if rest:
            self._feed(rest)

    def encode(self, event: events.Event) -> bytes:
        return self._codec.send(event)

    async def send(self, *messages: str | bytes | events.Event) -> None:
        wire = b""
        for message in messages:
            if isinstance(message, str):
                wire += self.encode(events.TextMessage(message))
            elif isinstance(message, bytes):
                wire += self.encode(events.BytesMessage(message))
            else:
                wire += self.encode(message)
        await self.stream.send_all(wire)

    def _feed(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._codec.receive_data(data)
        self.received += list(self._codec.events())

    async def next_frame(self) -> events.Event | None:
        """The next event, fragments each by itself; None at the end of the stream."""
        while not self.received:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._feed(bytes(data))
        return self.received.pop(0)

    async def answer(self, event: events.CloseConnection) -> None:
        """Answer the server's Close, unless it is the answer to ours or nobody listens."""
        if self._codec.state is not ConnectionState.CLOSED:
            try:
                await self.send(event.response())
            except trio.BrokenResourceError:
                pass

    async def next_event(self) -> events.Event | None:
        """The next event with messages put together; None at the end of the stream."""
        while True:
            event = await self.next_frame()
            if event is None:
                assert not self._parts, "the stream ended inside a message"
                return None
            if isinstance(event, events.Message):
                self._parts.append(event.data)
                if not event.message_finished:
                    continue
                empty: Any = "" if isinstance(event, events.TextMessage) else b""
                event = replace(event, data=empty.join(self._parts))
                self._parts = []
            return event

    async def next_message(self) -> str | bytes:
        while True:
            event = await self.next_event()
            if isinstance(event, events.Message):
                return cast("str | bytes", event.data)
            assert event is not None, "the stream ended"
            if isinstance(event, events.Ping) and self._codec.state is ConnectionState.OPEN:
                await self.send(event.response())
            assert not isinstance(event, events.CloseConnection), event

    async def next_close(self) -> tuple[int, str]:
        """Skip to the server's Close and answer it; the stream must end then."""
        while True:
            event = await self.next_event()
            assert event is not None, "the stream ended without a Close"
            if isinstance(event, events.CloseConnection):
                await self.answer(event)
                return int(event.code), event.reason or ""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.send(events.CloseConnection(code, reason))


@dataclass
class Endpoint:
    """What an application does with one WebSocket."""

    accepts: bool
    sees_responses: bool
    open: Callable[[Websocket], Awaitable[Response | Awaitable[object]]]
    failed: Callable[[Websocket, Exception], Awaitable[Response | None]]
    finish: Callable[[Response], Awaitable[Response]]
    name: str = "handler"

    def answer(self, websocket: Websocket, returned: object) -> Response | None:
        """What a handler returns is its answer, if it is one."""
        return returned if isinstance(returned, Response) else None

    def ended(self) -> None:
        """Nothing is counted here."""


class Bench:
    """Serves handlers over one kind of byte stream."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.buffer = 4096  # bytes that one direction holds, unless it is a socket
        self.fanout = Fanout()
        self.last_client: trio.abc.HalfCloseableStream

    async def pair(self) -> tuple[ByteStream, trio.abc.HalfCloseableStream]:
        if self.kind in ("link", "adapter"):
            ours, theirs = link_pair(buffer=self.buffer)
            return (ours if self.kind == "link" else StreamAdapter(ours)), theirs
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        return SocketStream(server), trio.SocketStream(trio.socket.from_stdlib_socket(client))

    @asynccontextmanager
    async def connect(
        self,
        handler: Callable[[Websocket], Awaitable[object]],
        *,
        auto: bool = True,
        finish: Callable[[Response], Awaitable[Response]] | None = None,
        deflate: PerMessageDeflate | None = None,
        early: bytes = b"",
        **options: Any,
    ) -> AsyncIterator[Peer]:
        """Serve one connection; leaving cancels the server.

        Args:
            handler: of the WebSocket.
            auto: accept before it is called.
            finish: response middleware.
            deflate: what the client offers.
            early: what came with the request.
            options: that differ from the config's defaults.
        """
        ours, theirs = await self.pair()
        self.last_client = theirs
        offer = {} if deflate is None else {"Sec-WebSocket-Extensions": offer_of(deflate)}
        request = handshake_request(**offer)
        denial: list[Response | None] = []
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            ticker, ticking = Ticker(), trio.CancelScope()

            async def tick() -> None:
                with ticking:
                    await ticker.loop()

            async def serve() -> None:
                async def opening(ws: Websocket) -> Awaitable[object]:
                    if auto:
                        await ws.accept()
                    called: Awaitable[object] = handler(ws)
                    return called

                async def unchanged(response: Response) -> Response:
                    return response

                try:
                    denial.append(
                        await serve_websocket(
                            request,
                            ours,
                            early,
                            options=make_options(**options),
                            opening=check_opening(
                                request,
                                subprotocols=["chat"],
                                subprotocol_required=False,
                                origins="same-origin",
                                compression=options.get("compression"),
                            ),
                            fanout=self.fanout,
                            ticker=ticker,
                            endpoint=Endpoint(
                                auto, finish is not None, opening, failed, finish or unchanged
                            ),
                            take_scope=lambda _: None,
                        )
                    )
                finally:
                    ticking.cancel()
                if denial[0] is not None:
                    await ours.send_some(b"HTTP/1.1 %d Denied\r\n\r\n" % denial[0].status)
                    await ours.aclose()

            async def failed(ws: Websocket, error: Exception) -> Response | None:
                return None

            nursery.start_soon(tick)
            nursery.start_soon(serve)
            with trio.fail_after(30):
                head = b""
                while b"\r\n\r\n" not in head:
                    data = await theirs.receive_some(4096)
                    if not data:
                        break
                    head += data
            peer = Peer(theirs, head, deflate)
            peer.cancel_server = nursery.cancel_scope.cancel
            try:
                yield peer
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await theirs.aclose()


def offer_of(deflate: PerMessageDeflate) -> str:
    parameters = deflate.offer()
    return deflate.name if parameters is True else f"{deflate.name}; {parameters}"


def make_options(**overrides: Any) -> ConnectionOptions:
    return replace(ConnectionOptions.from_config(Config()), **overrides)


def handshake_request(**extra: str) -> Request:
    headers = {
        "Host": "example.org",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **extra,
    }
    return Request("GET", "/ws", Headers(headers))


@pytest.fixture(params=["socket", "adapter", "link"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """All three byte streams."""
    return Bench(request.param)


@pytest.fixture
def memory() -> Bench:
    """A stream that needs no kernel, for tests on the virtual clock."""
    return Bench("link")

"""An application in its lifetime, with clients over links that read only when a test says so.

The application is run by the testing kit; its sessions read by themselves, and have tasks. A client
here has none: there may be a thousand of them, which read between two steps of the server's.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionState, ConnectionType

from tests.app.conftest import HANDSHAKE
from trioweb import TrioWeb, Websocket
from trioweb.testing import Link, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from wsproto.extensions import PerMessageDeflate

    from trioweb import Room
    from trioweb.testing.client import Client

    Handler: TypeAlias = Callable[[Websocket], Awaitable[object]]

# What a link holds in each direction: little, so that a peer that does not read is soon noticed.
BUFFER = 4096
# The name of the route of all that is served here.
ROUTE = "member"


class Peer:
    """A client after its handshake: wsproto's codec over a link that ``Stage.settle`` reads.

    Attributes:
        ws: the server's side of it.
        handler_ended: whether the handler has.
        messages: what has come whole, in order.
        close: code and reason of the Close that has come.
        ended: whether the stream has.
        is_stalled: it reads nothing.
        answers: whether it answers a Close.
    """

    ws: Websocket

    def __init__(self, link: Link, handler: Handler, deflate: PerMessageDeflate | None) -> None:
        self.link = link
        self.handler = handler
        self.handler_ended = False
        self.messages: list[Any] = []
        self.close: tuple[int, str] | None = None
        self.ended = False
        self.is_stalled = False
        self.answers = True
        self.bytes_received = 0
        self._deflate = deflate
        self._codec: WsprotoConnection | None = None  # until the handshake is answered
        self._head = bytearray()
        self._parts: list[Any] = []

    @property
    def waiting(self) -> int:
        """Bytes that wait on the server for this client to read."""
        return self.ws._connection.outbox.waiting

    def say(self, *what: str | bytes | events.Event) -> None:
        """Send messages, or other events; the link must have room for them."""
        for one in what:
            event: events.Event
            if isinstance(one, str):
                event = events.TextMessage(one)
            else:
                event = events.BytesMessage(one) if isinstance(one, bytes) else one
            assert self._codec is not None
            self.write(self._codec.send(event))

    def write(self, wire: bytes) -> None:
        """Send bytes, in which a rule of the protocol may be broken."""
        assert self.link.try_send(wire) == len(wire)

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close."""
        self.say(events.CloseConnection(code, reason))

    def abort(self) -> None:
        """Vanish, as by a reset."""
        self.link.abort()
        self.ended = True

    async def hang_up(self) -> None:
        """End the stream, without a Close."""
        self.ended = True
        await self.link.aclose()

    def answer_close(self) -> None:
        """Answer the server's Close, which ``answers`` had forbidden."""
        assert self.close is not None
        self.say(events.CloseConnection(*self.close))

    def take(self) -> list[Any]:
        """What has come since the last call."""
        taken, self.messages = self.messages, []
        return taken

    def read(self) -> bool:
        """Take what the link holds now; whether there was anything."""
        if self.ended:
            return False
        try:
            data = self.link.try_receive(1 << 20)
        except trio.BrokenResourceError:
            data = b""
        if data is None:
            return False
        if data:
            self._received(data)
        else:
            assert not self._parts or self.close is not None, "the stream ended inside a message"
            self.ended = True
        return True

    def _received(self, data: bytes) -> None:
        if self._codec is None:
            self._head += data
            head, end, data = bytes(self._head).partition(b"\r\n\r\n")
            if not end:
                return
            self._codec = self._make_codec(head)
        self.bytes_received += len(data)
        self._codec.receive_data(data)
        for event in self._codec.events():
            self._take(event)

    def _make_codec(self, head: bytes) -> WsprotoConnection:
        assert head.startswith(b"HTTP/1.1 101 "), head
        agreed = re.search(rb"(?i)sec-websocket-extensions: (.*)", head)
        if self._deflate is None:
            assert not agreed
            return WsprotoConnection(ConnectionType.CLIENT)
        assert agreed, "no extension was agreed on"
        self._deflate.finalize(agreed[1].decode())
        return WsprotoConnection(ConnectionType.CLIENT, extensions=[self._deflate])

    def _take(self, event: events.Event) -> None:
        assert self._codec is not None
        assert self.close is None, f"{event} behind Close"
        if isinstance(event, events.Message):
            self._parts.append(event.data)
            if event.message_finished:
                empty: Any = "" if isinstance(event, events.TextMessage) else b""
                self.messages.append(empty.join(self._parts))
                self._parts = []
        elif isinstance(event, events.CloseConnection):
            self.close = (int(event.code), event.reason or "")
            if self.answers and self._codec.state is not ConnectionState.CLOSED:
                self._say_if_heard(event.response())
        elif isinstance(event, events.Ping) and self._codec.state is ConnectionState.OPEN:
            self._say_if_heard(event.response())

    def _say_if_heard(self, event: events.Event) -> None:
        try:
            self.say(event)
        except trio.BrokenResourceError:
            pass  # the server has closed the stream already


class Stage:
    """An application that serves each client with a handler of the test's own."""

    def __init__(self, app: TrioWeb, buffer: int) -> None:
        self.app = app
        self.client: Client
        self.peers: list[Peer] = []
        self._buffer = buffer
        self._failures: list[AssertionError] = []  # which would only be a 1011 otherwise
        app.add_websocket_route(self.serve, "/member/<number:int>", name=ROUTE)
        app.add_websocket_route(self.serve, "/manual/<number:int>", name="manual", accept="manual")

    @asynccontextmanager
    async def run(self, *, clients_leave: bool = True) -> AsyncGenerator[None]:
        """Run the application, once or again; see ``open_stage``.

        Raises:
            AssertionError: nothing else has failed, and a handler found something wrong.
        """
        async with open_client(self.app, link=Link(buffer=self._buffer)) as self.client:
            try:
                yield
                if clients_leave:
                    self._abort_all()
                    await wait_all_tasks_blocked()
                    self.check_nothing_is_left()
            except BaseException:
                # Lest their last words take a second, of a clock that may stand still.
                self._abort_all()
                raise
        self.check_nothing_is_left()
        if self._failures:
            raise self._failures[0]

    async def serve(self, ws: Websocket, number: int) -> None:
        """The handler of the application: the client's own."""
        peer = self.peers[number]
        peer.ws = ws
        try:
            await peer.handler(ws)
        except AssertionError as failure:
            self._failures.append(failure)
            raise
        finally:
            peer.handler_ended = True

    def open(
        self, handler: Handler, *, path: str = "/member", deflate: PerMessageDeflate | None = None
    ) -> Peer:
        """Ask for a WebSocket; nothing has happened yet when this returns.

        Args:
            handler: the server's side of it.
            path: "/manual", where handlers accept themselves, or this one.
            deflate: what the client offers.
        """
        peer = Peer(self.client.connect(), handler, deflate)
        head = HANDSHAKE % f"{path}/{len(self.peers)}".encode()
        if deflate is not None:
            offer = deflate.offer()
            name = deflate.name if offer is True else f"{deflate.name}; {offer}"
            head = head[:-2] + f"Sec-WebSocket-Extensions: {name}\r\n\r\n".encode()
        peer.write(head)
        self.peers.append(peer)
        return peer

    async def connect(self, handler: Handler, **options: Any) -> Peer:
        """Open a WebSocket, and let its handler run until it waits."""
        peer = self.open(handler, **options)
        await self.settle()
        return peer

    async def connect_all(self, handlers: Sequence[Handler]) -> list[Peer]:
        """Open a WebSocket for each handler and let it run until it waits, one after the other."""
        peers = []
        for handler in handlers:
            peers.append(self.open(handler))
            await wait_all_tasks_blocked()
        await self.settle()
        return peers

    async def settle(self) -> None:
        """Let all happen that needs no time, while every client reads that is not stalled."""
        has_read = True
        while has_read:
            await wait_all_tasks_blocked()
            has_read = False
            for peer in self.peers:
                if not peer.is_stalled and peer.read():
                    has_read = True
                    if peer.ended:
                        await peer.hang_up()

    def _abort_all(self) -> None:
        for peer in self.peers:
            peer.abort()

    def check_nothing_is_left(self) -> None:
        """There are no rooms without clients, whatever handlers still do."""
        assert dict(self.app.rooms) == {}
        assert self.app.connections == frozenset()


@asynccontextmanager
async def open_stage(
    *,
    buffer: int = BUFFER,
    clients_leave: bool = True,
    **config: Any,
) -> AsyncGenerator[Stage]:
    """Run an application that serves WebSockets; at the end no room may be left.

    Args:
        buffer: bytes that a link holds in each direction.
        clients_leave: before the application is cancelled, and then there is no room already.
        config: what differs from the defaults.
    """
    stage = Stage(TrioWeb(config=config), buffer)
    async with stage.run(clients_leave=clients_leave):
        yield stage


def staying_in(*names: str, **options: Any) -> Handler:
    """A handler that joins rooms, each within the one before, and stays until its client leaves.

    Args:
        names: of the rooms.
        options: of ``join``.
    """

    async def handler(ws: Websocket) -> None:
        async def enter(remaining: tuple[str, ...]) -> None:
            if remaining:
                async with ws.app.room(remaining[0]).join(ws, **options):
                    await enter(remaining[1:])
            else:
                async for _ in ws:
                    pass

        await enter(names)

    return handler


def sockets(room: Room) -> list[Websocket]:
    """Of its members, in their order."""
    return [member.ws for member in room.members]


async def idle(ws: Websocket) -> None:
    """A handler that receives until its client leaves, and is in no room."""
    async for _ in ws:
        pass


class StepCounter(trio.abc.Instrument):
    """Calls a function before the n-th step of any task from now on; 0 is at once."""

    def __init__(self, step: int, function: Callable[[], object]) -> None:
        self._left = step
        self._function = function
        self.has_called = step == 0
        if step == 0:
            function()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.has_called = True
            self._function()

"""``Websocket``: what handlers hold, with the vocabulary of Sanic and of ``websockets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from trioweb.errors import RecvTimeout
from trioweb.http.response import Response, to_response
from trioweb.ws.close import check_code, check_reason
from trioweb.ws.encoding import PONG, encode_frame
from trioweb.ws.facts import Facts
from trioweb.ws.fragments import MessageParts, send_fragments
from trioweb.ws.prepared import to_payload
from trioweb.ws.typed import TypedMessages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from trioweb.http.request import Request
    from trioweb.ws.connection import Connection
    from trioweb.ws.fragments import Parts
    from trioweb.ws.heartbeat import PingWaiter
    from trioweb.ws.nursery import ConnectionNursery


class Websocket(TypedMessages, Facts):
    """One WebSocket connection, as its handler sees it.

    Every async method is a cancel point on each call. It lets other tasks run when it waits, and
    otherwise after 64 operations or 256 KiB of one task.
    """

    nursery: ConnectionNursery

    def __init__(
        self,
        connection: Connection,
        request: Request,
        auto_accepted: bool,
    ) -> None:
        self._connection = connection
        self._auto_accepted = auto_accepted
        self.subprotocol = None
        self.request = request
        connection.websocket = self

    def __repr__(self) -> str:
        return f"<Websocket {self.request.path} {self._connection.server_state.value}>"

    # Opening

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """Accept the handshake: answer 101, and become able to send and receive.

        A handler registered on an app is accepted already; then this does nothing.

        Args:
            subprotocol: one that the client offered; by default the first of the route's that it
                offered.
            headers: more headers for the 101.

        Raises:
            ValueError: the client did not offer that subprotocol, or a header belongs to the
                handshake.
            RuntimeError: accepted already, and there are arguments.
            WebsocketClosed: the handshake was denied or the client has left.

        Cancellation:
            Either nothing was sent, or the whole 101 was.

        Source:
            RFC 6455 §4.2.2
        """
        if self.accepted:
            if subprotocol is not None or headers is not None:
                raise RuntimeError(
                    "this WebSocket is accepted already; register its handler with "
                    'accept="manual" to call accept() with arguments'
                    if self._auto_accepted
                    else "this WebSocket is accepted already"
                )
            await self._connection.checkpoint()
            return
        if self._connection.is_refused:
            raise self._connection.closed_error()
        await self._connection.checkpoint()
        await self._connection.accept_handshake(subprotocol, headers)

    async def deny(
        self,
        status: int = 403,
        body: str | bytes | dict[str, Any] | list[Any] = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the handshake with an HTTP response; it goes out when the handler returns.

        Args:
            status: 200-599.
            body: what a handler of an HTTP route may return.
            headers: the response's.

        Raises:
            RuntimeError: accepted already; use ``close``.
            ValueError: the status is no final one.

        Cancellation:
            The denial stands.
        """
        if not 200 <= status <= 599:
            raise ValueError(f"a handshake is denied with a status of 200-599, not {status}")
        if self.accepted:
            raise RuntimeError("this WebSocket is accepted already; close() it instead")
        if self._connection.denial is None:
            response = to_response(body)
            response.status = status
            for name, value in (headers or {}).items():
                response.headers[name] = value
            self._connection.denial = response
        await self._connection.checkpoint()

    # Messages

    async def send(self, data: object, encoding: str = "text") -> None:
        """Send one message.

        Args:
            data: str → text; bytes, bytearray, memoryview → binary; dict, list, tuple, dataclass,
                Struct → JSON text.
            encoding: ``"text"`` as above; ``"json"``: any JSON value; ``"bytes"``: a binary
                message, a str as UTF-8.

        Raises:
            TypeError: data can't be sent in this encoding.
            ValueError: an unknown encoding.
            NotAccepted: before ``accept``.
            WebsocketClosed: the connection is closing or has ended.
            SendFailed: it was lost, which this or an earlier send found out.

        Cancellation:
            Either nothing of the message is sent, or all of it, and then this does not raise.
        """
        opcode, payload = to_payload(data, encoding)
        await self._connection.send(opcode, payload)

    async def send_fragments(self, parts: Parts) -> None:
        """Send one message in fragments, each as soon as it is made.

        Others who send wait until the message has ended. When ``parts`` raises, or this call is
        cancelled, after the first fragment, the connection is closed (1011 unless the handler's
        end decides otherwise), since the peer could tell no half message from a whole one.

        Args:
            parts: an iterable or async iterable of str, or of bytes; an async generator is closed.
                Nothing is sent if there are none.

        Raises:
            TypeError: a part is neither str nor bytes, or they are mixed.
            RuntimeError: ``parts`` itself sends on this connection.
            NotAccepted, WebsocketClosed, SendFailed: as ``send``.
            BaseException: what ``parts`` raises.

        Cancellation:
            Before the first fragment nothing is sent; later it closes the connection.

        Source:
            RFC 6455 §5.4
        """
        await send_fragments(self._connection, parts)

    async def flush(self) -> None:
        """Wait until everything that was sent is with the operating system.

        Raises:
            NotAccepted: before ``accept``.
            WebsocketClosed: the connection was lost before.
        """
        await self._connection.flush()

    async def recv(self, timeout: float | None = None) -> str | bytes:
        """Receive one message: str for text, bytes for binary.

        Args:
            timeout: seconds; 0 takes what is there; None waits for ever.

        Raises:
            RecvTimeout: no message within the timeout.
            NotAccepted: before ``accept``.
            WebsocketClosed: the connection has ended and every message was handed out.
            trio.BusyResourceError: another task is receiving.

        Cancellation:
            Loses nothing.
        """
        if timeout is None:
            return await self._connection.recv()
        if timeout <= 0:
            await self._connection.checkpoint()
            try:
                return self.recv_nowait()
            except trio.WouldBlock:
                raise RecvTimeout("no message is waiting") from None
        with trio.move_on_after(timeout):
            return await self._connection.recv()
        raise RecvTimeout(f"no message within {timeout:g} s")

    def recv_nowait(self) -> str | bytes:
        """Take a message that has come.

        Raises:
            trio.WouldBlock: none has.
            NotAccepted, WebsocketClosed, trio.BusyResourceError: as ``recv``.
        """
        connection = self._connection
        connection.check_accepted()
        connection.inbox.check_reader()
        message = connection.take_or_fail()
        if message is None:
            connection.inbox.raise_if_ended()
            raise trio.WouldBlock
        return message

    async def recv_burst(self, limit: int) -> list[str | bytes]:
        """Receive all messages that are waiting; when there is none, wait for the next.

        Args:
            limit: how many at most, 1 or more. A burst also ends when its messages are four times
                WEBSOCKET_MAX_SIZE together.

        Returns:
            One message at least, in the order in which they came.

        Raises:
            ValueError: the limit is less than 1.
            NotAccepted, WebsocketClosed, trio.BusyResourceError: as ``recv``.

        Cancellation:
            Loses nothing.
        """
        if limit < 1:
            raise ValueError(f"a burst is of 1 message at least, not {limit}")
        return await self._connection.recv_burst(limit)

    def recv_streaming(self) -> MessageParts:
        """Receive one message in parts, as they come: ``async for part in ws.recv_streaming()``.

        However large the message is, no more than 256 KiB of it and one read wait on a route with
        ``stream=True``. Parts are str, cut at a character, or bytes; an empty message is one empty
        part. What is left when the loop is left early is skipped when the next message is received.

        Raises:
            WebsocketClosed: on iterating: the connection ended before the message did, or before
                it began.
            RuntimeError: on iterating: something else was received since.
            NotAccepted, trio.BusyResourceError: as ``recv``.

        Cancellation:
            Loses nothing; the iterator can be used again.

        Source:
            RFC 6455 §5.4
        """
        return MessageParts(self._connection)

    def __aiter__(self) -> Websocket:
        return self

    def __anext__(self) -> Awaitable[str | bytes]:
        return self._connection.recv(iterating=True)

    def _end_of_iteration(self) -> Exception:
        return self._connection.end_of_iteration()

    def raise_for_close(self) -> None:
        """Raise why the connection ended, unless it ended with 1000 or 1001, or is open.

        Raises:
            WebSocketException: what we closed it for.
            WebsocketClosed: any other end.
        """
        connection = self._connection
        if connection.failure is not None:
            raise connection.failure
        error = connection.closed_error()
        if (self.closed or connection.close_info) and error.code not in (1000, 1001):
            raise error

    # Control frames

    async def ping(self, data: bytes = b"") -> PingWaiter:
        """Send a ping.

        Args:
            data: at most 125 bytes; random ones if empty.

        Returns:
            A waiter: await it, any number of times, for the round trip in seconds. It raises
            ``WebsocketClosed`` when the connection ends first.

        Raises:
            ValueError: data is too long, or another ping in flight has the same.
            NotAccepted, WebsocketClosed: as ``send``.

        Cancellation:
            The ping is queued all the same.

        Source:
            RFC 6455 §5.5.2
        """
        self._check_open()
        waiter = self._connection.heartbeat.ping(_control_data(data))
        await self._connection.wait_for_room()
        return waiter

    async def pong(self, data: bytes = b"") -> None:
        """Send an unsolicited pong.

        Args:
            data: at most 125 bytes.

        Raises:
            ValueError: data is too long.
            NotAccepted, WebsocketClosed: as ``send``.

        Cancellation:
            The pong is queued all the same.

        Source:
            RFC 6455 §5.5.3
        """
        self._check_open()
        data = _control_data(data)
        if len(data) > 125:
            raise ValueError(f"a pong carries at most 125 bytes, not {len(data)}")
        self._connection.outbox.put_control(encode_frame(PONG, data))
        await self._connection.wait_for_room()

    def _check_open(self) -> None:
        self._connection.check_accepted()
        if not self.open:
            raise self._connection.closed_error()

    # Closing

    async def close(self, code: int = 1000, reason: str = "", *, wait: bool = True) -> None:
        """Close the connection; a second time does nothing but wait.

        What was sent before goes out first. Before ``accept`` it denies the handshake with 403.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            reason: cut to 123 bytes of UTF-8.
            wait: for the peer's Close, at most WEBSOCKET_TIMEOUT.

        Raises:
            ValueError: the code can't be sent.
            TypeError: the code is no int, or the reason no str.

        Cancellation:
            Close is queued all the same.

        Source:
            RFC 6455 §7.1
        """
        check_code(code)
        check_reason(reason)
        connection = self._connection
        if not self.accepted:
            if connection.denial is None:
                connection.denial = Response("Forbidden", status=403)
            await self._connection.checkpoint()
            return
        connection.begin_close(code, reason)
        await self._connection.checkpoint()
        if wait:
            await connection.close_answered.wait()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and its stream is closed.

        Messages that come meanwhile are thrown away, unless another task receives them.

        Raises:
            NotAccepted: before ``accept``.

        Cancellation:
            Changes nothing.
        """
        self._connection.check_accepted()
        self._connection.inbox.start_draining()
        try:
            await self._connection.stream_closed.wait()
        finally:
            self._connection.inbox.stop_draining()


def _control_data(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"control frames carry bytes, not {type(data).__name__}")


def connection_of(websocket: Websocket) -> Connection:
    """The engine below a WebSocket, for what tells many connections things at once."""
    return websocket._connection

"""A test's end of a WebSocket: trio-websocket over a `Link`, with every wait bounded."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, wrap_client_stream

from trioweb.errors import TrioWebError, WebsocketClosed
from trioweb.http import jsoncodec
from trioweb.http.headers import Headers

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trio_websocket import WebSocketConnection

    from trioweb.testing.link import Link

# Seconds, of the clock in use, after which every wait of the kit ends.
PATIENCE = 5.0
# Messages that the client holds unread before it stops reading: far more than a test needs, so that
# pings are answered while the test is busy elsewhere (trio-websocket stops at a full queue).
CLIENT_QUEUE = 1024
# The server's limits are what is tested, not the client's: above all of them.
CLIENT_MAX_SIZE = 256 * 1024 * 1024
# What the conversation keeps, in lines, and shows of one message, in characters.
_LINES, _WIDTH = 40, 120


class Denied(TrioWebError):
    """The server answered a WebSocket handshake with an HTTP response instead of 101.

    Args:
        status: of the response.
        headers: of the response.
        body: of the response.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(status, headers, body)
        self.status = status
        self.headers = headers
        self.body = body

    def __str__(self) -> str:
        return f"the handshake was answered with {self.status}: {self.body[:500]!r}"


class WebsocketSession:
    """One WebSocket of a test; ``client.websocket(path)`` opens it.

    Every wait ends after 5 s with ``trio.TooSlowError``, which shows the conversation so far.
    """

    def __init__(self, connection: WebSocketConnection, link: Link, path: str) -> None:
        self._connection = connection
        self._link = link
        self._path = path
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._stalled = False

    @property
    def subprotocol(self) -> str | None:
        """What the server chose of the offered subprotocols."""
        return self._connection.subprotocol

    @property
    def headers(self) -> Headers:
        """The headers of the 101, but for those of the handshake itself."""
        return _read_headers(self._connection.handshake_headers)

    async def send(self, data: str | bytes) -> None:
        """Send a text or a binary message.

        Raises:
            WebsocketClosed: the connection has ended.
        """
        self._note(">", data)
        with self._patience("a message to be taken"), self._translated():
            await self._connection.send_message(data)

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON text."""
        await self.send(jsoncodec.encode(value).decode())

    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            WebsocketClosed: the connection has ended and everything before was handed out.
        """
        with self._patience("a message"), self._translated():
            message = await self._connection.get_message()
        self._note("<", message)
        return message

    async def recv_json(self) -> Any:
        """Receive the next message and decode it."""
        return jsoncodec.decode(await self.recv())

    async def expect(self, value: str | bytes) -> None:
        """Receive the next message, which must be this one."""
        got = await self._recv_expected(value)
        if type(got) is not type(value) or got != value:
            raise AssertionError(self._explain(f"expected {value!r}, got {got!r}"))

    async def expect_json(self, value: Any) -> None:
        """Receive the next message, which must be this value as JSON."""
        got = await self._recv_expected(value)
        try:
            decoded = jsoncodec.decode(got)
        except ValueError as exc:
            raise AssertionError(self._explain(f"expected {value!r} as JSON, got {got!r}")) from exc
        if decoded != value:
            raise AssertionError(self._explain(f"expected {value!r}, got {decoded!r}"))

    async def expect_close(self, code: int = 1000) -> str:
        """Wait for the end of the connection, which must come now and with this code.

        Args:
            code: 1005 is a Close without a code, 1006 a loss without a Close.

        Returns:
            The reason that the server gave.
        """
        try:
            got = await self.recv()
        except WebsocketClosed as closed:
            if closed.code != code:
                raise AssertionError(
                    self._explain(f"expected close {code}, got {closed}")
                ) from None
            return closed.reason
        raise AssertionError(self._explain(f"expected close {code}, got {got!r}"))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a handshake, then the stream; a second time does nothing.

        Cancellation:
            The stream is closed all the same.
        """
        try:
            # A stalled client could not read the answer; its stream just ends.
            if not self._stalled:
                with self._patience("the answer to our Close"):
                    await self._connection.aclose(code, reason or None)
        finally:
            await self._link.aclose()

    def abort(self) -> None:
        """Vanish without a Close, as by a reset."""
        self._lines.append("> (aborted)")
        self._link.abort()

    def stall(self) -> None:
        """Read nothing more, as a client that was stopped."""
        self._stalled = True
        self._lines.append("> (stalled)")
        self._link.stall()

    async def _recv_expected(self, value: object) -> str | bytes:
        try:
            return await self.recv()
        except WebsocketClosed as closed:
            raise AssertionError(self._explain(f"expected {value!r}, got {closed}")) from None

    def _note(self, direction: str, data: object) -> None:
        text = repr(data)
        if len(text) > _WIDTH:
            text = f"{text[:_WIDTH]}… ({len(text)} characters)"
        self._lines.append(f"{direction} {text}")

    def _explain(self, what: str) -> str:
        return "\n  ".join([f"{what}\nWebSocket {self._path}, conversation so far:", *self._lines])

    @contextmanager
    def _patience(self, what: str) -> Generator[None]:
        with trio.move_on_after(PATIENCE) as scope:
            yield
        if scope.cancelled_caught:
            raise trio.TooSlowError(self._explain(f"waited {PATIENCE:g} s for {what}"))

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except ConnectionClosed as exc:
            why = exc.reason
            code, reason = (1006, "") if why is None else (why.code, why.reason or "")
            self._lines.append(f"< (closed with {code} {reason})")
            raise WebsocketClosed(code, reason) from None


async def run_websocket(
    link: Link,
    host: str,
    path: str,
    subprotocols: Sequence[str],
    headers: Headers,
    *,
    task_status: trio.TaskStatus[WebsocketSession],
) -> None:
    """Open a WebSocket over a link, and run what trio-websocket runs, to its end.

    Raises:
        Denied: the server refused it.
        WebsocketClosed: the server went away before it answered.
    """
    try:
        async with trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                _HandshakeGuard(link),  # type: ignore[arg-type]  # it wants any Stream really
                host,
                path,
                subprotocols=subprotocols,
                extra_headers=headers.raw,
                message_queue_size=CLIENT_QUEUE,
                max_message_size=CLIENT_MAX_SIZE,
                receive_buffer_size=64 * 1024,
            )
            task_status.started(WebsocketSession(connection, link, path))
    except BaseExceptionGroup as group:
        for failure in group.exceptions:
            if isinstance(failure, ConnectionRejected):
                await link.aclose()
                raise Denied(
                    failure.status_code, _read_headers(failure.headers), failure.body or b""
                ) from None
            if isinstance(failure, WebsocketClosed):
                raise failure from None
            if isinstance(failure, h11.LocalProtocolError):
                # How trio-websocket takes an answer that is no HTTP: it tries to refuse it.
                raise WebsocketClosed(1006, "the answer to the handshake is no HTTP") from failure
        raise


def _read_headers(pairs: Sequence[tuple[bytes, bytes]]) -> Headers:
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])


class _HandshakeGuard(trio.abc.Stream):
    """A link that says so when the server leaves before 101; trio-websocket waits for ever then.

    It also closes at the end of the stream, as clients do, lest the server waits for that.
    """

    _UPGRADED = b"HTTP/1.1 101"

    def __init__(self, link: Link) -> None:
        self._link = link
        self._head = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._link.send_all(data)
        except trio.BrokenResourceError:
            self._check_upgraded()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._link.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            data = await self._link.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._check_upgraded()
            raise
        if len(self._head) < len(self._UPGRADED):
            self._head += data[: len(self._UPGRADED)]
        if not data:
            self._check_upgraded()
            await self._link.aclose()
        return data

    async def aclose(self) -> None:
        await self._link.aclose()

    def _check_upgraded(self) -> None:
        if not self._head.startswith(self._UPGRADED):
            raise WebsocketClosed(1006, "the server left before it had answered the handshake")

"""One request and its answer, on a connection of their own: h11 over a `Link`.

Theory of operation. The request is sent by a task in the client's nursery while the answer is read
by whoever calls, since an application may answer before it has taken the whole body. Both use one
h11 connection, whose calls never wait. The sender ends with the exchange: `Exchange.aclose` cancels
it, and waits for it. What a body's iterator raises is kept and raised where the answer is read; the
connection is aborted for it, as a body that was cut short must not pass for a whole one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import h11
import trio

from trioweb.errors import TrioWebError
from trioweb.http.headers import Headers
from trioweb.testing.link import DEFAULT_BUFFER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from trioweb.testing.link import Link
    from trioweb.testing.outgoing import Outgoing

# How large the head of an answer may be. The server's limits are what is tested, not the client's:
# far above h11's 16 KiB.
_MAX_HEAD = 1024 * 1024
# How much of what has come an error shows, in bytes.
SAMPLE = 200
# Seconds for a body's iterator to end when it is cancelled; what it shields may take no longer.
_UNWIND = 5.0


class _Sender:
    """The task that sends a request; it ends when the request is sent, or nobody wants it."""

    def __init__(
        self, link: Link, wire: h11.Connection, head: h11.Request, outgoing: Outgoing
    ) -> None:
        self._link = link
        self._wire = wire
        self._head = wire.send(head) or b""
        self._body = outgoing.body
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.failure: Exception | None = None

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._send()
        except Exception as exc:
            self.failure = exc
            self._link.abort()
        finally:
            self._ended.set()

    async def aclose(self) -> None:
        """Cancel it, and wait until what gave the body has unwound."""
        self._scope.cancel(reason="the request is over")
        if not self.has_ended:
            with trio.move_on_after(_UNWIND, shield=True):
                await self._ended.wait()

    async def _send(self) -> None:
        if isinstance(self._body, bytes):
            await self._put(self._head + self._encode(h11.Data(data=self._body)) + self._end())
            return
        pieces = aiter(self._body)
        try:
            if await self._put(self._head):
                await self._send_pieces(pieces)
        finally:
            # A generator that is left in the middle runs its own finally now. Other iterators, as
            # a channel, stay open: they are the test's.
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def _send_pieces(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(f"the body's iterator gave {piece!r}; it must give bytes")
            if not await self._put(self._encode(h11.Data(data=bytes(piece)))):
                return
        await self._put(self._end())

    def _encode(self, event: h11.Event) -> bytes:
        try:
            return self._wire.send(event) or b""
        except h11.LocalProtocolError as exc:
            raise ValueError(f"the body is not as its headers say: {exc}") from exc

    def _end(self) -> bytes:
        return self._encode(h11.EndOfMessage())

    async def _put(self, data: bytes) -> bool:
        """Whether the application still takes it; where not, its answer says why."""
        try:
            await self._link.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True


class Exchange:
    """A request that is being sent and answered.

    Args:
        link: a fresh connection; closed by `aclose`.
        outgoing: what to ask.
        head: the head of it.
        nursery: where it is sent.

    Attributes:
        status: of the answer; 0 until its head has come.
        headers: of the answer.
    """

    def __init__(
        self, link: Link, outgoing: Outgoing, head: h11.Request, nursery: trio.Nursery
    ) -> None:
        self.outgoing = outgoing
        self.status = 0
        self.headers = Headers()
        self._link = link
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._sender = _Sender(link, self._wire, head, outgoing)
        self._informational: list[int] = []
        self._has_all = False
        # What had come, for errors: of the head as long as it is not complete, then of the body.
        self._came = 0
        self._sample = b""
        nursery.start_soon(self._sender.run, name=f"sending {outgoing}")

    async def read_head(self) -> None:
        """Wait for the status and headers of the answer; informational ones before it are skipped.

        Raises:
            TrioWebError: what has come is no HTTP.
            Exception: what the body's iterator raised.
        """
        while True:
            event = await self._next_event()
            assert isinstance(event, h11.InformationalResponse | h11.Response)
            self._came, self._sample = 0, b""
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = _read_headers(event.headers)
                return
            if event.status_code == 101:
                raise TrioWebError(
                    f"{self.outgoing} was answered with 101, after which it is no HTTP any more; "
                    "client.websocket() speaks WebSocket, client.connect() anything"
                )
            self._informational.append(event.status_code)

    async def receive(self) -> bytes:
        """Wait for the next piece of the body: what has come; empty at its end.

        Raises:
            TrioWebError: it was cut short.
            Exception: what the body's iterator raised.

        Cancellation: nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        while not self._has_all:
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                self._has_all = True
            elif event.data:
                data = bytes(event.data)
                self._count(data)
                return data
        return b""

    async def read(self) -> bytes:
        """Wait for the rest of the body."""
        body = bytearray()
        while piece := await self.receive():
            body += piece
        return bytes(body)

    async def aclose(self) -> None:
        """Close the connection, in whatever state, and end the sender."""
        try:
            await self._link.aclose()
        finally:
            await self._sender.aclose()

    def check_sent(self) -> None:
        """Raise what the body's iterator raised, if it did."""
        if self._sender.failure is not None:
            raise self._sender.failure

    def explain(self) -> str:
        """What is awaited, and what has come so far."""
        awaited = "the rest of the body" if self.status else "the status and headers"
        return f"for {awaited} of the answer {self._tell()}"

    def _tell(self) -> str:
        came = [f"{status}" for status in self._informational]
        if self.status:
            came.append(f"{self.status} and")
        if self._came:
            cut = "" if self._came == len(self._sample) else ", beginning with"
            came.append(f"{self._came} bytes of it{cut} {self._sample!r}")
        elif self.status:
            came.append("nothing of its body")
        told = f"after {' '.join(came)}" if came else "before anything had come"
        return told if self._sender.has_ended else f"{told}; the request was not sent whole yet"

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._wire.next_event()
                if event is not h11.NEED_DATA:
                    return event
                data = await self._link.receive_some(DEFAULT_BUFFER)
            except (h11.RemoteProtocolError, trio.BrokenResourceError) as exc:
                raise TrioWebError(
                    f"the answer to {self.outgoing} is no complete HTTP response {self._tell()}: "
                    f"{exc}"
                ) from exc
            except trio.ClosedResourceError:
                self.check_sent()
                raise
            if not self.status:
                if not data:
                    raise TrioWebError(
                        f"{self.outgoing}: the connection was closed {self._tell()}, before the "
                        "head of the answer was whole"
                    )
                self._count(data)
            self._wire.receive_data(data)

    def _count(self, data: bytes) -> None:
        self._came += len(data)
        if len(self._sample) < SAMPLE:
            self._sample += data[: SAMPLE - len(self._sample)]


def _read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])

"""A bounded connection in memory that behaves as a socket does, partial writes included.

Theory of operation. A `Link` is one end; each direction is a `Pipe`, which one end fills and the
other empties, of at most ``buffer`` bytes. As with a socket, a send takes what fits, and what has
been taken is delivered even when the sender is cancelled or closes; unlike
``trio.testing.memory_stream_pair`` nothing else is. So a test can see a frame torn in the middle.

Both directions go through one `Cable`, which may take time and may be dropped. All time is that of
Trio's clock: under a ``trio.testing.MockClock`` it is exact and costs none.

An end is a `trioweb.net.ByteStream` for the server's side and a ``trio.abc.HalfCloseableStream``
for a client's. One task at a time may wait in each direction of an end.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

from trioweb.testing.pipe import Cable, Pipe

if TYPE_CHECKING:
    from trioweb.net.stream import Data

# What Linux gives a socket's receive buffer without tuning is of this order; a power of two.
DEFAULT_BUFFER = 64 * 1024


class Link(trio.abc.HalfCloseableStream):
    """The test's end of a bounded in-memory connection; `other` is the application's.

    With a bandwidth bytes are transmitted one after the other, and arrive in segments of at most
    1460 bytes, each when its last byte is through. The end of the stream comes behind them, and as
    late; only `abort` takes no time.

    Args:
        buffer: how many bytes each direction holds, under way and unread together, > 0; a send
            takes what fits, and there is room again at once when the other end reads.
        latency: seconds, >= 0, that bytes travel in each direction.
        bandwidth: bytes a second in each direction, > 0; None is no limit.
        drop_after: seconds from now, >= 0, until the cable is pulled as by `drop`; None never.
            Made outside of ``trio.run``, from the first use.
        client: what the application's end shows as its peer's address.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        buffer: int = DEFAULT_BUFFER,
        latency: float = 0,
        bandwidth: float | None = None,
        drop_after: float | None = None,
        client: tuple[str, int] | None = None,
    ) -> None:
        if buffer <= 0:
            raise ValueError(f"buffer={buffer} must be a positive number of bytes")
        self._cable = Cable(latency, bandwidth, drop_after)
        self.buffer = buffer
        self.latency = latency
        self.bandwidth = bandwidth
        self.drop_after = drop_after
        self._client_address = client
        self._incoming = Pipe(buffer, self._cable)
        self._outgoing = Pipe(buffer, self._cable)
        self._closed = False
        self._is_template = False
        self._is_interrupted = False
        self.client: tuple[str, int] | None = None
        self.peer = "memory"
        self.scheme = "http"
        other: Link = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._incoming, other._outgoing = self._outgoing, self._incoming
        other._other = self
        self._other: Link = other
        if client is not None:
            other.client = client
            other.peer = _describe(*client)

    def another_pair(self) -> tuple[Link, Link]:
        """Make a pair like this one was when it was new; ``drop_after`` counts from now.

        Returns:
            The test's end and the application's.
        """
        self._is_template = True
        link = type(self)(
            buffer=self.buffer,
            latency=self.latency,
            bandwidth=self.bandwidth,
            drop_after=self.drop_after,
            client=self._client_address,
        )
        return link, link.other

    @property
    def other(self) -> Link:
        """The end that this one is connected to."""
        return self._other

    def try_send(self, data: Data) -> int:
        """Take what fits into the buffer now: how many bytes, 0 for none."""
        self._check()
        pipe = self._outgoing
        if pipe.is_ended:
            raise trio.ClosedResourceError("send_eof was called on this Link")
        if pipe.is_refused:
            raise trio.BrokenResourceError("the peer has closed this Link")
        return pipe.put(data)

    async def send_some(self, data: Data) -> int:
        """Wait until at least one byte fits; a checkpoint only if it waits."""
        while True:
            count = self.try_send(data)
            if count or not len(data):
                return count
            await self._outgoing.wait_as_writer()

    async def send_all(self, data: Data) -> None:
        """Send everything; cancelled, what did fit has been sent."""
        await trio.lowlevel.checkpoint()
        self._check()
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += await self.send_some(view[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until at least one byte fits."""
        await trio.lowlevel.checkpoint()
        while not self._is_writable():
            await self._outgoing.wait_as_writer()

    def try_receive(self, max_bytes: int) -> bytes | None:
        """Take what is there: bytes, ``b""`` at the end, None for nothing yet."""
        self._check()
        return self._incoming.take(max_bytes)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes, at most ``max_bytes``; a checkpoint only if it waits."""
        limit = DEFAULT_BUFFER if max_bytes is None else operator.index(max_bytes)
        if limit <= 0:
            raise ValueError(f"max_bytes={limit} must be positive")
        while True:
            data = self.try_receive(limit)
            if data is not None:
                return data
            await self._incoming.wait_as_reader()

    def as_pollable(self) -> Link:
        """This end: it can be waited at as at a socket."""
        return self

    async def wait_readable(self) -> None:
        """Wait until there are bytes, or the end."""
        pipe = self._incoming
        self._check_open()
        if pipe.is_readable:
            await trio.lowlevel.checkpoint()
            return
        self._is_interrupted = False
        while not pipe.is_readable:
            await pipe.wait_as_reader()
            self._check_open()
            if self._is_interrupted:
                raise trio.ClosedResourceError("the wait was interrupted")

    def interrupt(self) -> None:
        """Let ``wait_readable`` raise."""
        self._is_interrupted = True
        self._incoming.reader.wake()

    async def send_eof(self) -> None:
        """Half-close: the peer reads what is left, then the end."""
        self._check()
        if self._outgoing.writer.is_taken:
            raise trio.BusyResourceError("another task is sending on this Link")
        self._outgoing.end()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close both directions; the peer reads what is left, and its sends fail from then on.

        Its sends fail once the news has travelled to it.
        """
        self._close()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Vanish as a reset connection does: what is under way is lost in both directions.

        The peer gets ``trio.BrokenResourceError`` from now on, whatever the latency, this end
        ``trio.ClosedResourceError``. Once the cable was dropped the peer is not told.
        """
        self._check_is_connection("abort")
        if self._closed:
            return
        self._close()
        if not self._cable.is_dropped:
            self._outgoing.tear()
            self._incoming.tear()

    @property
    def is_dropped(self) -> bool:
        """Whether the cable was pulled, by `drop` or ``drop_after``."""
        return self._cable.is_dropped

    def drop(self) -> None:
        """Pull the cable, for good: nothing arrives any more in either direction.

        What arrives at this very moment still does; what is under way and what is sent from now on
        is lost, the end of the stream included, and no end is told. Sends are taken until the
        buffer is full, and then wait: that there is room again would be news too.
        """
        self._check_is_connection("drop")
        # Who waits for an arrival is left alone: he finds then that nothing has come.
        self._cable.drop()

    def stall(self) -> None:
        """Receive nothing more at this end, as a process that was stopped; `resume` ends it."""
        self._check_is_connection("stall")
        self._incoming.stall(True)

    def resume(self) -> None:
        """Receive again after `stall`, with all that has arrived meanwhile."""
        self._incoming.stall(False)

    def is_peer_alive(self, ack_timeout: float) -> bool | None:
        """Answer as the kernel would: False once the peer has closed or vanished.

        After a drop that is once something which was sent has been unacknowledged for
        ``ack_timeout`` seconds; who sends nothing finds nothing out.
        """
        if self._closed or self._incoming.is_broken or self._incoming.has_end:
            return False
        return not self._outgoing.is_unacknowledged_for(ack_timeout)

    def _check_is_connection(self, what: str) -> None:
        if self._is_template:
            raise RuntimeError(
                f"connections are made like this Link, which is none of them itself; {what}() is a "
                "method of the session that client.websocket() gives"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this Link was closed at this end")

    def _check(self) -> None:
        self._check_open()
        if self._incoming.is_broken:
            raise trio.BrokenResourceError("connection lost: the peer has vanished")

    def _is_writable(self) -> bool:
        """Whether a send would do something at once, failing included."""
        pipe = self._outgoing
        self._check()
        return pipe.is_refused or pipe.is_ended or pipe.room > 0

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._incoming.refuse(self._outgoing.next_moment())
        self._outgoing.end()
        self._incoming.reader.wake()
        self._outgoing.writer.wake()


def link_pair(
    buffer: int = DEFAULT_BUFFER,
    *,
    latency: float = 0,
    bandwidth: float | None = None,
    drop_after: float | None = None,
    client: tuple[str, int] | None = None,
) -> tuple[Link, Link]:
    """Make a bounded in-memory connection; the arguments are those of `Link`.

    Returns:
        The test's end and the application's.
    """
    link = Link(
        buffer=buffer,
        latency=latency,
        bandwidth=bandwidth,
        drop_after=drop_after,
        client=client,
    )
    return link, link.other


def _describe(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

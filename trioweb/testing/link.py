"""A bounded connection in memory that behaves as a socket does, partial writes included.

Theory of operation. A `Link` is one end; each direction is a `_Pipe`, a bytearray of at most
``buffer`` bytes that one end fills and the other empties. As with a socket, a send takes what
fits, and what has been taken is delivered even when the sender is cancelled or closes; unlike
``trio.testing.memory_stream_pair`` nothing else is. So a test can see a frame torn in the middle.

An end is a `trioweb.net.ByteStream` for the server's side and a ``trio.abc.HalfCloseableStream``
for a client's. One task at a time may wait in each direction of an end.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioweb.net.stream import Data

# What Linux gives a socket's receive buffer without tuning is of this order; a power of two.
DEFAULT_BUFFER = 64 * 1024


class _Pipe:
    """The bytes of one direction, with the tasks that wait for them or for room."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.ended = False  # the writer has sent its EOF
        self.discarding = False  # the reader has closed: a write finds nobody
        self.broken = False  # torn by abort(), whatever was inside is lost
        # A stalled reader's pipe is read by nobody, as if its process had been stopped.
        self.stalled = False
        self.reader: trio.lowlevel.Task | None = None
        self.writer: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let both sides look again; they loop until their condition holds."""
        reader, writer = self.reader, self.writer
        self.reader = self.writer = None
        if reader is not None:
            trio.lowlevel.reschedule(reader)
        if writer is not None:
            trio.lowlevel.reschedule(writer)

    async def wait_as_reader(self) -> None:
        if self.reader is not None:
            raise trio.BusyResourceError("another task is receiving from this Link")
        self.reader = trio.lowlevel.current_task()

        def forget(_: object) -> trio.lowlevel.Abort:
            self.reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)

    async def wait_as_writer(self) -> None:
        if self.writer is not None:
            raise trio.BusyResourceError("another task is sending on this Link")
        self.writer = trio.lowlevel.current_task()

        def forget(_: object) -> trio.lowlevel.Abort:
            self.writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)


class Link(trio.abc.HalfCloseableStream):
    """One end of a bounded in-memory connection; `link_pair` makes both, `other` is the second.

    Args:
        buffer: how many bytes each direction holds, > 0; a send takes what fits.
    """

    def __init__(self, *, buffer: int = DEFAULT_BUFFER) -> None:
        if buffer <= 0:
            raise ValueError(f"buffer={buffer} must be a positive number of bytes")
        self.buffer = buffer
        self._incoming = _Pipe(buffer)
        self._outgoing = _Pipe(buffer)
        self._closed = False
        self._is_interrupted = False
        self.client: tuple[str, int] | None = None
        self.peer = "memory"
        self.scheme = "http"
        other: Link = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._incoming, other._outgoing = self._outgoing, self._incoming
        other._other = self
        self._other: Link = other

    @property
    def other(self) -> Link:
        """The end that this one is connected to."""
        return self._other

    def try_send(self, data: Data) -> int:
        """Take what fits into the buffer now: how many bytes, 0 for none."""
        self._check()
        pipe = self._outgoing
        if pipe.ended:
            raise trio.ClosedResourceError("send_eof was called on this Link")
        if pipe.discarding:
            raise trio.BrokenResourceError("the peer has closed this Link")
        count = min(pipe.capacity - len(pipe.data), len(data))
        if count > 0:
            pipe.data += memoryview(data)[:count]
            pipe.wake()
        return count

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
        pipe = self._incoming
        if pipe.stalled:
            return None
        if not pipe.data:
            return b"" if pipe.ended else None
        data = bytes(memoryview(pipe.data)[:max_bytes])
        del pipe.data[:max_bytes]
        pipe.wake()
        return data

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
        if pipe.broken or (not pipe.stalled and (pipe.data or pipe.ended)):
            await trio.lowlevel.checkpoint()
        else:
            self._is_interrupted = False
            await pipe.wait_as_reader()
            self._check_open()
            if self._is_interrupted:
                raise trio.ClosedResourceError("the wait was interrupted")

    def interrupt(self) -> None:
        """Let ``wait_readable`` raise."""
        self._is_interrupted = True
        self._incoming.wake()

    async def send_eof(self) -> None:
        """Half-close: the peer reads what is left, then the end."""
        self._check()
        if self._outgoing.writer is not None:
            raise trio.BusyResourceError("another task is sending on this Link")
        self._outgoing.ended = True
        self._outgoing.wake()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close both directions; the peer reads what is left, and its sends fail from now on."""
        self._close()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Vanish as a reset connection does: what is under way is lost in both directions.

        The peer gets ``trio.BrokenResourceError`` from now on, this end
        ``trio.ClosedResourceError``.
        """
        if self._closed:
            return
        self._close()
        for pipe in (self._outgoing, self._incoming):
            pipe.data.clear()
            pipe.broken = True
            pipe.wake()

    def stall(self) -> None:
        """Receive nothing more at this end, as a process that was stopped; `resume` ends it."""
        self._incoming.stalled = True

    def resume(self) -> None:
        """Receive again after `stall`."""
        self._incoming.stalled = False
        self._incoming.wake()

    def is_peer_alive(self, ack_timeout: float) -> bool | None:
        """Answer as the kernel would: False once the peer has closed or vanished."""
        return not (self._closed or self._incoming.ended or self._incoming.broken)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this Link was closed at this end")

    def _check(self) -> None:
        self._check_open()
        if self._incoming.broken:
            raise trio.BrokenResourceError("connection lost: the peer has vanished")

    def _is_writable(self) -> bool:
        """Whether a send would do something at once, failing included."""
        pipe = self._outgoing
        self._check()
        return pipe.discarding or pipe.ended or len(pipe.data) < pipe.capacity

    def _close(self) -> None:
        self._closed = True
        self._outgoing.ended = True
        self._incoming.discarding = True
        self._incoming.data.clear()
        self._incoming.wake()
        self._outgoing.wake()


def link_pair(buffer: int = DEFAULT_BUFFER) -> tuple[Link, Link]:
    """Make a bounded in-memory connection.

    Args:
        buffer: how many bytes each direction holds.

    Returns:
        Its two ends.
    """
    link = Link(buffer=buffer)
    return link, link.other

"""The way out: whole frames, one writer, bounded in bytes, senders admitted in order.

Theory of operation. A frame that finds the outbox idle is written to the stream at once; what the
stream does not take stays as ``_partial``, and from then on only the send task writes, until all
is out. So two frames never mix. The send task writes, in this order: the rest of a frame that was
begun, control frames, data frames (small ones joined into one system call), then Close.

A frame is *admitted* when it is written or queued, always whole. While the queue is at its bound
senders wait in line; the task that waits is rescheduled by the one that admits its frame, so a
cancellation comes either before admission (nothing is sent) or not at all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.net.stream import ByteStream

# One write: what a read takes at most as well. Joining more than this saves no system call.
WRITE_SIZE = 65536


class Marker:
    """A place in the queue.

    Attributes:
        reached: set when all that was queued before it is with the stream, or was dropped.
        is_dropped: whether some of that was dropped.
    """

    __slots__ = ("is_dropped", "reached")

    def __init__(self) -> None:
        self.reached = trio.Event()
        self.is_dropped = False


class Outbox:
    """Queues frames and writes them to a stream.

    Args:
        stream: written by this object alone.
        bound: bytes that may wait; at most this and one message.
        start_sender: starts ``send_loop`` in a task; called once, when it is first needed.
        lost: told once when the stream is found broken.
        backlog_began: told the time when the queue begins to wait for the peer.
    """

    def __init__(
        self,
        stream: ByteStream,
        bound: int,
        start_sender: Callable[[], None],
        lost: Callable[[], None],
        backlog_began: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._bound = bound
        self._start_sender: Callable[[], None] | None = start_sender
        self._lost = lost
        self._backlog_began = backlog_began
        self._data: deque[bytes | Marker] = deque()
        self._control: deque[bytes] = deque()
        self._pong: bytes | None = None
        self._waiting: deque[tuple[trio.lowlevel.Task, bytes]] = deque()
        self._partial: memoryview | None = None
        self._parked: trio.lowlevel.Task | None = None
        self._closing: bytes | None = None
        self._idle = True
        self.size = 0
        self.bytes_sent = 0
        self.is_broken = False
        self.close_written = trio.Event()
        # When the stream last took something, or when the queue last began to wait for it.
        self.progress_at = 0.0

    @property
    def has_room(self) -> bool:
        """Whether a data frame would be admitted at once."""
        return self.size < self._bound and not self._waiting

    def put(self, frame: bytes, *, gather: bool = False) -> None:
        """Admit a data frame; the caller has looked at ``has_room``.

        Args:
            frame: whole, header included.
            gather: leave it to the send task, so that frames which follow at once share its write.
        """
        if self._idle and not gather:
            self._write_now(frame)
        else:
            self._data.append(frame)
            self._queued(len(frame))

    async def wait_to_put(self, frame: bytes) -> None:
        """Wait in line until the frame is admitted.

        Cancellation:
            Only before the frame is admitted; then nothing of it is sent.
        """
        entry = (trio.lowlevel.current_task(), frame)
        self._waiting.append(entry)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(entry)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def put_pong(self, frame: bytes) -> None:
        """Send a pong before what is queued; the newest replaces one that still waits.

        So a peer that pings and reads nothing costs no more than one frame (RFC 6455 §5.5.3).
        """
        if self._pong is None:
            if self._idle:
                self.put_control(frame)
                return
            self._pong = b""
        if self._closing is None and not self.is_broken:
            replaced, self._pong = self._pong, frame
            self._queued(len(frame) - len(replaced))

    def put_control(self, frame: bytes) -> None:
        """Send a ping before what is queued; dropped once Close is queued."""
        if self._closing is not None or self.is_broken:
            return
        if self._idle:
            self._write_now(frame)
        else:
            self._control.append(frame)
            self._queued(len(frame))

    def put_marker(self) -> Marker:
        """Mark the end of what is queued so far."""
        marker = Marker()
        if self._idle or self.is_broken:
            marker.reached.set()
        else:
            self._data.append(marker)
        return marker

    def put_close(self, frame: bytes, error: Callable[[], Exception], *, drop: bool) -> None:
        """Take no more frames; write what is queued, then Close.

        Args:
            frame: the Close frame; empty when none is to be sent.
            error: makes the exception that senders still in line get.
            drop: forget what is queued and write Close right after the frame in progress.
        """
        if drop:
            self.drop_queue()
        if self._closing is None:
            self._closing = frame
        self._release_waiting(error)
        if self.is_broken:
            self.close_written.set()
        elif self._idle:
            closing, self._closing = self._closing, b""
            self._write_now(closing)
            if self._idle:
                self.close_written.set()
        # Otherwise the send task writes it when the queue is empty.

    def fail(self, error: Callable[[], Exception]) -> None:
        """The stream is broken: forget everything and let nobody wait."""
        self.is_broken = True
        self._partial = None
        self.drop_queue()
        self._control.clear()
        self._pong = None
        self.size = 0
        self._release_waiting(error)
        self.close_written.set()

    def drop_queue(self) -> None:
        """Forget the data frames of which nothing has been written."""
        for item in self._data:
            if isinstance(item, Marker):
                item.is_dropped = True
                item.reached.set()
            else:
                self.size -= len(item)
        self._data.clear()

    def _release_waiting(self, error: Callable[[], Exception]) -> None:
        while self._waiting:
            task, _ = self._waiting.popleft()
            trio.lowlevel.reschedule(task, outcome.Error(error()))

    def _queued(self, size: int) -> None:
        if self.size == 0:
            self.progress_at = now = trio.current_time()
            self._backlog_began(now)
        self.size += size
        self._idle = False
        self._wake()

    def _write_now(self, frame: bytes) -> None:
        try:
            taken = self._stream.try_send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.is_broken = True
            self._lost()
            return
        self.bytes_sent += taken
        if taken < len(frame):
            self._partial = memoryview(frame)[taken:]
            self._queued(len(frame) - taken)

    def _wake(self) -> None:
        if self._start_sender is not None:
            start, self._start_sender = self._start_sender, None
            start()
        elif self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    async def send_loop(self) -> None:
        """Write what is queued, then park until there is more; the body of the send task."""
        while not self.is_broken:
            chunk = self._next_chunk()
            if chunk is None:
                self._idle = True
                await self._park()
                continue
            try:
                await self._write(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.is_broken = True
                self._lost()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _next_chunk(self) -> memoryview | None:
        if self._partial is not None:
            chunk, self._partial = self._partial, None
            return chunk
        frames: list[bytes] = []
        size = 0
        if self._pong is not None:
            frames.append(self._pong)
            self._pong = None
        while self._control:
            frames.append(self._control.popleft())
        data = self._data
        while data and size < WRITE_SIZE:
            item = data[0]
            if isinstance(item, Marker):
                if frames:
                    break  # Reached when what was joined before it is out.
                item.reached.set()
            else:
                frames.append(item)
                size += len(item)
            data.popleft()
        if frames:
            return memoryview(frames[0] if len(frames) == 1 else b"".join(frames))
        if self._closing is not None and not self.close_written.is_set():
            closing, self._closing = self._closing, b""
            if closing:
                self.size += len(closing)
                return memoryview(closing)
            self.close_written.set()
        return None

    async def _write(self, chunk: memoryview) -> None:
        stream = self._stream
        while chunk and not self.is_broken:
            taken = stream.try_send(chunk)
            if taken == 0:
                # In pieces, since over an adapter only one that has ended shows progress.
                taken = await stream.send_some(chunk[:WRITE_SIZE])
            elif taken < len(chunk) or len(chunk) >= WRITE_SIZE:
                # The stream takes as fast as we write: others must have their turn all the same.
                await trio.lowlevel.checkpoint()
            chunk = chunk[taken:]
            self.bytes_sent += taken
            self.size -= taken
            self.progress_at = trio.current_time()
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.size < self._bound:
            task, frame = self._waiting.popleft()
            self._data.append(frame)
            self.size += len(frame)
            trio.lowlevel.reschedule(task)

"""The one writer of a connection's stream.

Theory of operation. A frame that finds the stream idle is written at once; what the stream does not
take stays as ``_partial``, and from then on only the send task writes, until all is out. So two
frames never mix. It writes, in this order: the rest of a frame that was begun, control frames, data
frames (small ones joined into one system call), then Close.

What may share a write with what comes next is *left*: then the stream is not idle, yet nobody is
writing, and whoever comes first does. A broadcast to many leaves frames to the fan-out, and a task
that answers many messages leaves them to its last answer, or to the send task's next turn. Whatever
else wakes the send task takes the writing from all of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trioweb.ws.encoding import FIN
from trioweb.ws.milestone import Milestone
from trioweb.ws.parking import Parking
from trioweb.ws.queue import FrameQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.net.stream import ByteStream
    from trioweb.ws.fanout import Fanout
    from trioweb.ws.shift import Shift

# One write: what a read takes at most as well. Joining more than this saves no system call.
WRITE_SIZE = 65536
# What a stream is given that has to be waited for: a TLS record. Over an adapter only a piece that
# has ended shows progress.
PIECE_SIZE = 16384


class FrameWriter:
    """Writes frames to a stream; ``Outbox`` decides which are admitted.

    Args:
        stream: written by this object alone.
        fanout: says how much of a broadcast is written at once, and writes the rest.
        start_sender: starts ``send_loop`` in a task; called once, when it is first needed.
        lost: told once when the stream is found broken.
        backlog_began: told the time when something begins to wait for the peer.

    Attributes:
        bytes_sent: what the stream has taken.
        is_broken: the stream takes nothing any more.
        close_written: set when Close is out, or will never be.
        unsent: messages that were admitted and never written: some of those dropped, those
            replaced, and those forgotten when the connection ended.
        shift: of those who read, if that is not always the receive task.
        progress_at: when the stream last took something, or something last began to wait for it.
        data_taken_at: when it last took something of a data frame.
    """

    # Slots: a broadcast touches these of very many connections, and nothing else of them.
    __slots__ = (
        "_backlog_began",
        "_closing",
        "_control",
        "_fanout",
        "_in_hand",
        "_is_idle",
        "_is_left",
        "_is_writing_data",
        "_lost",
        "_parking",
        "_partial",
        "_pong",
        "_queue",
        "_start_sender",
        "_stream",
        "bytes_sent",
        "close_written",
        "data_taken_at",
        "is_broken",
        "progress_at",
        "shift",
        "unsent",
    )

    def __init__(
        self,
        stream: ByteStream,
        fanout: Fanout,
        start_sender: Callable[[], None],
        lost: Callable[[], None],
        backlog_began: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._fanout = fanout
        self._start_sender: Callable[[], None] | None = start_sender
        self._lost = lost
        self._backlog_began = backlog_began
        self._queue = FrameQueue()
        self._in_hand = 0  # bytes that are not in the queue any more, or were never, but not out
        self._control: list[bytes] = []
        self._pong: bytes | None = None
        self._partial: memoryview | None = None
        self._parking = Parking()
        self._closing: bytes | None = None
        self._is_writing_data = False
        self._is_idle = True
        self._is_left = False
        self.shift: Shift | None = None
        self.bytes_sent = 0
        self.is_broken = False
        self.close_written = Milestone()
        self.unsent = 0
        self.progress_at = 0.0
        self.data_taken_at = 0.0

    @property
    def size(self) -> int:
        """Bytes that wait for the stream."""
        return self._queue.size + self._in_hand

    # Control frames

    def put_pong(self, frame: bytes) -> None:
        """Send a pong before what is queued; the newest replaces one that still waits.

        So a peer that pings and reads nothing costs no more than one frame (RFC 6455 §5.5.3).
        """
        if self._pong is None:
            if self._is_idle:
                self.put_control(frame)
                return
            self._pong = b""
        if self._closing is None and not self.is_broken:
            replaced, self._pong = self._pong, frame
            self._took_in_hand(len(frame) - len(replaced))

    def put_control(self, frame: bytes) -> None:
        """Send a ping, or a pong that answers none, before what is queued; not behind Close."""
        if self._closing is not None or self.is_broken:
            return
        if self._is_idle:
            self._write_now(frame, is_data=False)
        else:
            self._control.append(frame)
            self._took_in_hand(len(frame))

    # At once

    def _write_now(self, frame: bytes, *, is_data: bool = True) -> None:
        """Write a frame to the idle stream; what it does not take is the send task's."""
        try:
            taken = self._stream.try_send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._found_broken()
            return
        self.bytes_sent += taken
        if taken and is_data:
            self.data_taken_at = trio.current_time()
        if taken < len(frame):
            self._keep_rest(frame, taken, is_data)

    def _keep_rest(self, frame: bytes, taken: int, is_data: bool) -> None:
        """Leave what the stream did not take of a frame to the send task."""
        self._partial = memoryview(frame)[taken:]
        self._is_writing_data = is_data
        self._took_in_hand(len(frame) - taken)

    # Later

    def _gather(self, frame: bytes) -> None:
        """Leave a frame for the idle stream to the next one that is not to be gathered."""
        self._queue.append(frame)
        self._is_idle = False
        self._note_backlog(len(frame))
        if self.shift is None or not self.shift.is_resting:
            self._wake()
        # Otherwise who reads next calls write_left, at the end of this turn at the latest.
        self._is_left = True

    def write_left(self) -> None:
        """Write what was left; nothing more follows at once."""
        if self._is_left:
            self.write_in_turn(trio.current_time())

    def _leave_to_fanout(self, now: float) -> None:
        """What waits for the idle stream is written in a later turn."""
        self._is_idle = False
        self._is_left = True
        self._is_writing_data = True
        self.progress_at = now  # though it does not wait for the peer yet
        self._fanout.add(self)

    def write_in_turn(self, now: float) -> int:
        """Write what was left; what the stream does not take is the send task's.

        Args:
            now: the time.

        Returns:
            The bytes that were written.
        """
        if not self._is_left:
            return 0
        # No control frame waits, nor Close, which would have woken the send task.
        written = 0
        chunk, frames = self._partial, []
        while chunk is not None or self._queue:
            if chunk is None:
                self._partial = None
                size = self._queue.size
                frames = self._queue.take(WRITE_SIZE)
                if not frames:
                    continue
                self._in_hand += size - self._queue.size
                chunk = memoryview(frames[0] if len(frames) == 1 else b"".join(frames))
            try:
                taken = self._stream.try_send(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.bytes_sent += written
                self.unsent += sum(frame[0] >= FIN for frame in frames)
                self._found_broken()
                return written
            written += taken
            self._in_hand -= taken
            if taken < len(chunk):
                self._is_writing_data = True
                self._partial = chunk[taken:]
                self.progress_at = now
                self._wake()
                break
            chunk = None
        else:
            self._partial = None
            self._is_idle = True
            self._is_left = False
        if written:
            self.bytes_sent += written
            self.data_taken_at = now
        self._admit()
        return written

    def leave_to_sender(self) -> None:
        """The fan-out has no more turns."""
        if self._is_left:
            self._wake()

    def _found_broken(self) -> None:
        self.is_broken = True
        self._lost()

    def let_go(self) -> None:
        """The connection has ended."""
        self._start_sender = None
        self._lost = self._backlog_began = _ignore

    # The send task

    def _took_in_hand(self, size: int) -> None:
        self._in_hand += size
        self._queued(size)

    def _queued(self, size: int) -> None:
        """So many bytes have just begun to wait."""
        self._note_backlog(size)
        self._is_idle = False
        self._wake()

    def _note_backlog(self, size: int) -> None:
        if self._queue.size + self._in_hand == size:
            self.progress_at = now = trio.current_time()
            self._backlog_began(now)

    def _wake(self) -> None:
        self._leave_no_more()
        if self._start_sender is not None:
            start, self._start_sender = self._start_sender, None
            start()
        else:
            self._parking.wake()

    def _leave_no_more(self) -> None:
        """What was left is the send task's now."""
        if self._is_left:
            self._is_left = False
            self._backlog_began(self.progress_at)

    async def send_loop(self) -> None:
        """Write what is queued, then park until there is more; the body of the send task."""
        while not self.is_broken:
            self._leave_no_more()
            chunk = self._next_chunk()
            if chunk is None:
                self._is_idle = True
                await self._parking.park()
                continue
            try:
                await self._write(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._found_broken()

    def _next_chunk(self) -> memoryview | None:
        if self._partial is not None:
            chunk, self._partial = self._partial, None
            return chunk
        frames = self._take_controls() if self._control or self._pong is not None else []
        self._is_writing_data = not frames
        if not frames and self._queue:
            size = self._queue.size
            frames = self._queue.take(WRITE_SIZE)
            self._in_hand += size - self._queue.size
        if frames:
            return memoryview(frames[0] if len(frames) == 1 else b"".join(frames))
        if self._closing is not None and not self.close_written.is_set():
            closing, self._closing = self._closing, b""
            if closing:
                self._in_hand += len(closing)
                return memoryview(closing)
            self.close_written.set()
        return None

    def _take_controls(self) -> list[bytes]:
        frames: list[bytes] = []
        if self._pong is not None:
            frames.append(self._pong)
            self._pong = None
        frames += self._control
        self._control.clear()
        return frames

    async def _write(self, chunk: memoryview) -> None:
        stream = self._stream
        while chunk and not self.is_broken:
            # No more at once, since many connections may have much to write in the same turn.
            taken = stream.try_send(chunk[:WRITE_SIZE])
            if taken == 0:
                taken = await stream.send_some(chunk[:PIECE_SIZE])
            elif taken < len(chunk) or len(chunk) >= WRITE_SIZE:
                # The stream takes as fast as we write: others must have their turn all the same.
                await trio.lowlevel.checkpoint()
            chunk = chunk[taken:]
            self._has_taken(taken)

    def _has_taken(self, size: int) -> None:
        """The stream has taken so many bytes of a chunk."""
        self.bytes_sent += size
        self._in_hand -= size
        self.progress_at = trio.current_time()
        if self._is_writing_data:
            self.data_taken_at = self.progress_at
        self._admit()

    def _admit(self) -> None:
        """There may be room for more: ``Outbox`` knows who waits for it."""
        raise NotImplementedError


def _ignore(_now: float = 0.0) -> None:
    """Nobody is there to be told."""

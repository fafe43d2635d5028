"""The way out: whole frames, bounded in bytes, senders admitted in order.

Theory of operation. A frame is *admitted* when it is written or queued, always whole; ``writer``
tells how it is written. There are two ways in. Senders wait in line while the queue is at its
bound; the task that waits is rescheduled by the one that admits its frame, so a cancellation comes
either before admission (nothing is sent) or not at all. A broadcaster waits for nobody: what it
*offers* may be dropped again while it is queued, which what was sent never is.

A fragmented message *takes a turn*: until its end only its own frames are admitted, and what is
offered is held back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import outcome
import trio

from trioweb.ws.fanout import share_of
from trioweb.ws.queue import FrameQueue, Marker
from trioweb.ws.writer import FrameWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import TypeAlias

    from trioweb.net.stream import ByteStream
    from trioweb.ws.deflate import Deflater
    from trioweb.ws.fanout import Fanout
    from trioweb.ws.prepared import PreparedMessage

    # A frame, or what makes it when it is admitted: one that depends on those before it.
    LazyFrame: TypeAlias = bytes | Callable[[], bytes]
    Line: TypeAlias = OrderedDict[trio.lowlevel.Task, LazyFrame | None]

# A member that is this many times over the bound is not slow but stuck.
REFUSED_ABOVE = 4
# What a place in the queue costs, if its message is smaller: broadcasts of a few bytes must not
# take many times the memory of the bound. Some may wait in any case.
BYTES_PER_PLACE = 256
PLACES_FREE = 64

# Of an outbox where nothing was ever held back: not to be filled.
_NOTHING_HELD: Final = FrameQueue()


class Outbox(FrameWriter):
    """Admits frames, which its other half writes.

    Args:
        stream: written by this object alone.
        bound: bytes that may wait; at most this and one message.
        fanout: of broadcasts.
        start_sender: starts ``send_loop`` in a task; called once, when it is first needed.
        lost: told once when the stream is found broken.
        backlog_began: told the time when the queue begins to wait for the peer.

    Attributes:
        deflater: compresses what is sent, if that was agreed on.
        admitted: messages that were written or queued.
        dropped: messages that were offered and then dropped, or refused.
        replaced: messages whose place was taken by a newer one of the same key.
    """

    __slots__ = (
        "_bound",
        "_held",
        "_line",
        "_turn_line",
        "_turn_of",
        "admitted",
        "deflater",
        "dropped",
        "replaced",
    )

    def __init__(
        self,
        stream: ByteStream,
        bound: int,
        fanout: Fanout,
        start_sender: Callable[[], None],
        lost: Callable[[], None],
        backlog_began: Callable[[float], None],
    ) -> None:
        super().__init__(stream, fanout, start_sender, lost, backlog_began)
        self._bound = max(bound, 1)  # one message always
        self._held = _NOTHING_HELD  # until the fragmented message has ended
        # Who waits for the admission of a frame, or for a turn (None); they leave from anywhere.
        # Most connections never have a line.
        self._line: Line | None = None
        self._turn_of: trio.lowlevel.Task | None = None
        self._turn_line: Line | None = None
        self.deflater: Deflater | None = None
        self.admitted = 0
        self.dropped = 0
        self.replaced = 0

    @property
    def waiting(self) -> int:
        """Bytes that wait for the stream, or for a fragmented message to end."""
        return self.size + self._held.size

    @property
    def has_room(self) -> bool:
        """Whether a data frame would be admitted at once."""
        size = self._queue.size + self._in_hand
        return size < self._bound and not self._line and self._turn_of is None

    def put(self, frame: bytes, *, gather: bool = False, is_its_turn: bool = False) -> bool:
        """Admit a data frame if there is room.

        Args:
            frame: whole, header included.
            gather: another one is likely to follow at once: let them share a write.
            is_its_turn: it has waited for its place, or needs none.

        Returns:
            Whether it was admitted.
        """
        queue = self._queue
        if not is_its_turn:
            if self._turn_of is not None or self._line:
                return False
            if queue.size + self._in_hand >= self._bound:
                return False
        if self._is_idle:
            if gather:
                self._gather(frame)
            else:
                self._write_now(frame)
            return True
        queue.append(frame)
        if not self._is_left:
            self._queued(len(frame))
        elif not gather:
            self.write_in_turn(trio.current_time())
        return True

    async def wait_to_put(self, frame: LazyFrame) -> None:
        """Wait in line until the frame is admitted.

        Args:
            frame: whole, or a function that is called for it at its admission.

        Raises:
            RuntimeError: it is this task whose turn it is, so that it would wait for itself.

        Cancellation:
            Only before the frame is admitted; then nothing of it is sent.
        """
        await self._wait_in_line(frame)

    async def _wait_in_line(self, frame: LazyFrame | None) -> None:
        if self.is_turn_of_this_task:
            raise RuntimeError(
                "send() within the parts of send_fragments() would wait for itself; end the "
                "fragmented message first"
            )
        if self._line is None:
            self._line = OrderedDict()
        await self._wait_in(self._line, frame)

    async def _wait_in(self, line: Line, frame: LazyFrame | None) -> None:
        task = trio.lowlevel.current_task()
        line[task] = frame

        def abort(_: object) -> trio.lowlevel.Abort:
            del line[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    # Fragmented messages

    async def take_turn(self) -> None:
        """Wait in line, then admit nothing but this task's ``put_fragment`` until ``end_turn``.

        Raises:
            RuntimeError: this task has the turn already.

        Cancellation:
            Only before the turn has come.
        """
        if self.has_room:
            self._turn_of = trio.lowlevel.current_task()
        else:
            await self._wait_in_line(None)

    async def put_fragment(self, frame: Callable[[], bytes]) -> None:
        """Admit a frame of the message whose turn it is, when there is room.

        Args:
            frame: called for it at its admission.

        Cancellation:
            Only before the frame is admitted.
        """
        if self.size < self._bound:
            self.put(frame(), is_its_turn=True)
        else:
            if self._turn_line is None:
                self._turn_line = OrderedDict()
            await self._wait_in(self._turn_line, frame)

    def end_turn(self) -> None:
        """The fragmented message has ended: others go on."""
        self._turn_of = None
        if self._held:
            size = self._held.size
            self._held.move_to(self._queue)
            self._queued(size)
        self._admit()

    # Broadcasts

    def offer(
        self,
        frame: bytes,
        now: float,
        *,
        key: Hashable = None,
        drop_oldest: bool = False,
    ) -> bool:
        """Write or queue a message that may be dropped again while it is queued; never waits.

        Args:
            frame: whole; one that does not depend on those before it.
            now: the time.
            key: replaces a queued message that was offered with an equal key, in its place.
            drop_oldest: over the bound, drop what was offered so, the oldest first, until this one
                fits; it waits in any case. Otherwise it is queued up to four times the bound:
                whether a peer is too slow is told by its progress, not by its queue.

        Returns:
            Whether the message was queued or written, unless ``is_broken`` now; if not, the peer is
            too far behind and is to be disconnected.
        """
        if self._is_idle and self._turn_of is None:
            if self._fanout.left > 0:
                self._fanout.left -= share_of(frame)
                self._write_now(frame)
                self.admitted += not self.is_broken
                return True
            if key is None:
                self._leave_frame(memoryview(frame), now)
                return True
        bound = self._bound if drop_oldest else REFUSED_ABOVE * self._bound
        if self._is_left and self._is_over(bound, len(frame)):
            # Nobody has tried yet what the peer takes: it is not slow.
            self.write_in_turn(now)
            if self.is_broken:
                return True  # which is not for being slow
        own = 0 if key is None else self._queue.size_of(key) + self._held.size_of(key)
        # What is being written can't be dropped, and shall not keep the newest from its place.
        while drop_oldest and self._is_over(bound, len(frame), own):
            if not self._drop_oldest(spared=key):
                break
        # What takes the place of another makes the queue no longer.
        if not drop_oldest and self._is_over(bound, 1, own) and not 0 < len(frame) <= own:
            self.dropped += 1
            return False
        self.admitted += 1
        if own:
            queue = self._queue if self._queue.size_of(key) else self._held
            queue.replace(frame, key)
            self.replaced += 1
            self.unsent += 1
        elif self._turn_of is not None:
            if self._held is _NOTHING_HELD:
                self._held = FrameQueue()
            self._held.offer(frame, key, droppable=drop_oldest)
        else:
            self._queue.offer(frame, key, droppable=drop_oldest)
            if self._is_idle:
                self._leave_to_fanout(now)
            elif not self._is_left:
                self._note_backlog(len(frame))
        return True

    def _leave_frame(self, frame: memoryview, now: float) -> None:
        """Leave a message to the fan-out as if it were being written: cheaper than to queue it."""
        self.admitted += 1
        self._partial = frame
        self._in_hand += len(frame)
        self._leave_to_fanout(now)

    def _is_over(self, bound: int, more: int, replaced: int = 0) -> bool:
        """Whether so many more bytes are more than may be queued, beside those replaced by them."""
        queue, held = self._queue, self._held
        places = queue.places + held.places + (not replaced)
        if places > PLACES_FREE and places * BYTES_PER_PLACE > bound:
            return True
        return queue.size + held.size - replaced + more > bound

    def _drop_oldest(self, spared: Hashable) -> bool:
        if self._queue.drop_oldest(spared) or self._held.drop_oldest(spared):
            self.dropped += 1
            self.unsent += 1
            return True
        return False

    # Markers, and the end

    @property
    def is_over_bound(self) -> bool:
        """Whether more waits than should."""
        return self.size >= self._bound

    @property
    def has_turn(self) -> bool:
        """Whether a fragmented message is in progress."""
        return self._turn_of is not None

    @property
    def is_turn_of_this_task(self) -> bool:
        """Whether the running task is sending a fragmented message."""
        return trio.lowlevel.current_task() is self._turn_of

    def put_marker(self, *, behind_turn: bool = True) -> Marker:
        """Mark the end of what is queued so far.

        Args:
            behind_turn: with what is held back until the fragmented message has ended.
        """
        marker = Marker()
        if behind_turn and self._held:
            self._held.mark(marker)
        elif self._is_idle or self.is_broken:
            marker.reached.set()
        else:
            self._queue.mark(marker)
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
        self._forget(self._held)  # the message before them will not end
        self._release_waiting(error)
        if self.is_broken:
            self.close_written.set()
        elif self._is_idle:
            closing, self._closing = self._closing, b""
            self._write_now(closing, is_data=False)
            if self._is_idle:
                self.close_written.set()
        elif self._is_left:
            self._wake()
        # Otherwise the send task writes it when the queue is empty.

    def fail(self, error: Callable[[], Exception]) -> None:
        """The stream is broken: forget everything and let nobody wait."""
        self.is_broken = True
        self.drop_queue()
        self._partial = None
        self._control.clear()
        self._pong = None
        self._in_hand = 0
        self._release_waiting(error)
        self.close_written.set()

    def drop_queue(self) -> None:
        """Forget the data frames of which nothing has been written."""
        if self._is_left and self._partial is not None:
            self._in_hand -= len(self._partial)
            self._partial = None
            self.dropped += 1
            self.unsent += 1
        self._forget(self._queue)
        self._forget(self._held)

    def _forget(self, queue: FrameQueue) -> None:
        sent, offered = queue.clear()
        self.dropped += offered
        self.unsent += sent + offered

    def _release_waiting(self, error: Callable[[], Exception]) -> None:
        for line in (self._turn_line, self._line):
            while line:
                task, _ = line.popitem(last=False)
                trio.lowlevel.reschedule(task, outcome.Error(error()))

    def _admit(self) -> None:
        while self.size < self._bound:
            line = self._line if self._turn_of is None else self._turn_line
            if not line:
                return
            task, frame = line.popitem(last=False)
            if frame is None:
                self._turn_of = task
            else:
                self.put(frame if isinstance(frame, bytes) else frame(), is_its_turn=True)
            trio.lowlevel.reschedule(task)


def write_at_once(
    outboxes: Iterable[Outbox],
    message: PreparedMessage,
    fanout: Fanout,
    now: float,
    *,
    or_leave: bool,
) -> list[int]:
    """Write a broadcast to all to whom nothing is in the way, as far as the slice goes.

    A loop without a call for each, in which nothing but the outbox is touched: that is what costs
    beside the system call.

    Args:
        outboxes: of connections that are open.
        message: encoded once for all.
        fanout: whose slice it is.
        now: the time.
        or_leave: beyond the slice, leave it to the fan-out.

    Returns:
        The places of those to whom the message is to be offered.
    """
    plain, share, left = message.plain, share_of(message.plain), fanout.left
    plain_view = memoryview(plain)
    others: list[int] = []
    for place, outbox in enumerate(outboxes):
        if not outbox._is_idle or outbox._turn_of is not None:
            others.append(place)
            continue
        deflater = outbox.deflater
        frame = plain if deflater is None else message.frame_for(deflater)
        if left <= 0:
            if or_leave and outbox._fanout is fanout:
                outbox._leave_frame(plain_view if frame is plain else memoryview(frame), now)
            else:
                others.append(place)
            continue
        try:
            taken = outbox._stream.try_send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            outbox._found_broken()
            others.append(place)
            continue
        left -= share
        outbox.admitted += 1
        outbox.bytes_sent += taken
        if taken == len(frame):
            outbox.data_taken_at = now
        else:
            if taken:
                outbox.data_taken_at = now
            outbox._keep_rest(frame, taken, is_data=True)
    fanout.left = left
    return others

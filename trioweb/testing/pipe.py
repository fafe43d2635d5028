"""One direction of a `Link`, and the cable that both directions share.

Theory of operation. No task runs in the background. A send decides at once when each of its bytes
arrives, and puts them behind those that are there; whoever looks lets arrive what has come by now,
and a reader that waits does so until the next arrival. News of the reader's close reaches a waiting
writer in the same way. Once the cable is dropped, what would come later than that never comes.

The clock is read, and a wait gets a deadline, only where the cable takes time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioweb.net.stream import Data

# What a TCP segment carries over Ethernet: 1500 bytes less two headers of 20 (RFC 9293 §3.7.1).
SEGMENT = 1460


class Cable:
    """How long bytes travel, and when they travel no more.

    Args:
        latency: seconds, >= 0, from the moment that a byte has been transmitted.
        bandwidth: bytes a second in each direction, > 0; None transmits at once.
        drop_after: seconds, >= 0; None never. Outside of ``trio.run`` there is no clock to count
            by, and they are counted from the first use.

    Attributes:
        has_delay: whether something arrives later than it is sent.
        is_timed: whether anything depends on the clock; a test of many connections without time
            would feel what it costs to ask.
        dropped_at: the moment of the drop; what arrives then still arrives.
    """

    def __init__(self, latency: float, bandwidth: float | None, drop_after: float | None) -> None:
        if not 0 <= latency < math.inf:
            raise ValueError(f"latency={latency} must be a finite number of seconds, 0 or more")
        if bandwidth is not None and not bandwidth > 0:
            raise ValueError(
                f"bandwidth={bandwidth} must be a positive number of bytes a second, or None for "
                "no limit"
            )
        if drop_after is not None and not drop_after >= 0:
            raise ValueError(
                f"drop_after={drop_after} must be a number of seconds, 0 or more, or None for never"
            )
        self.latency = latency
        self.bandwidth = bandwidth
        self.has_delay = latency > 0 or bandwidth is not None
        self.dropped_at = math.inf
        self._drop_after = drop_after  # until it is known when that is
        self.is_timed = self.has_delay or drop_after is not None
        if drop_after is not None and trio.lowlevel.in_trio_run():
            self.now()

    def now(self) -> float:
        """Read the clock, or return ``-inf`` where nothing depends on it."""
        if not self.is_timed:
            return -math.inf
        now = trio.current_time()
        if self._drop_after is not None:
            self.dropped_at, self._drop_after = now + self._drop_after, None
        return now

    @property
    def is_dropped(self) -> bool:
        """Whether nothing that is sent now arrives."""
        return self.now() >= self.dropped_at

    def horizon(self) -> float:
        """Return the moment up to which everything has come that ever comes."""
        return min(self.now(), self.dropped_at)

    def unless_dropped(self, moment: float) -> float:
        """Return the moment of an arrival, ``inf`` if it is cut off."""
        return moment if moment <= self.dropped_at else math.inf

    def drop(self) -> None:
        """Let nothing arrive from now on."""
        self.is_timed = True
        self.dropped_at = min(self.now(), self.dropped_at)


class Seat:
    """Where one task at a time waits, until it is woken or a moment has come.

    Args:
        purpose: what the task does, for the error that a second one gets.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a task waits here."""
        return self._task is not None

    async def wait(self, until: float | None) -> None:
        """Wait to be woken, but no longer than ``until``; None is without a deadline.

        Raises:
            trio.BusyResourceError: another task waits here.

        Cancellation:
            Changes nothing.
        """
        if self._task is not None:
            raise trio.BusyResourceError(f"another task is {self._purpose} this Link")
        if until is None:
            await self._park()
            return
        try:
            with trio.CancelScope(deadline=until) as self._scope:
                await self._park()
        finally:
            self._scope = None

    def wake(self) -> None:
        """Let the task that waits, if any, look again."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def move(self, until: float) -> None:
        """Let the task that waits, if any, wait until another moment."""
        if self._scope is not None:
            self._scope.deadline = until

    async def _park(self) -> None:
        self._task = trio.lowlevel.current_task()

        def forget(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)


class Pipe:
    """The bytes of one direction, with the tasks that wait for them or for room.

    Args:
        capacity: how many bytes may be under way and unread together.
        cable: what they travel through.

    Attributes:
        reader: where the reading end waits.
        writer: where the writing end waits.
        is_ended: whether the writer has sent its end.
        is_broken: whether it was torn; what was inside is lost.
    """

    def __init__(self, capacity: int, cable: Cable) -> None:
        self._capacity = capacity
        self._cable = cable
        self._data = bytearray()  # what has arrived and is unread, then what is under way
        # When the last bytes of `_data` arrive, and how many; 0 is the end of the stream.
        self._under_way: deque[tuple[float, int]] = deque()
        self._under_way_size = 0
        # Bytes that take up room until the end of time: no news of their being read gets through.
        self._lost = 0
        self._lost_since = math.inf
        # Since when bytes have been transmitted without a pause, and how many. Moments are counted
        # from there, so that they are the same however the bytes were split.
        self._busy_since = -math.inf
        self._busy_size = 0
        self._has_end = False  # the end has arrived
        self._refused_at = math.inf  # when the writer hears that the reader has closed
        # A stalled reader's pipe is read by nobody, as if its process had been stopped.
        self._is_stalled = False
        self.reader = Seat("receiving from")
        self.writer = Seat("sending on")
        self.is_ended = False
        self.is_broken = False

    # The writer's side

    @property
    def room(self) -> int:
        """How many bytes fit."""
        return self._capacity - len(self._data) - self._lost

    def put(self, data: Data) -> int:
        """Take what fits: how many bytes."""
        count = min(self._capacity - len(self._data) - self._lost, len(data))
        if count > 0:
            if not self._cable.is_timed:
                self._data += memoryview(data)[:count]
            else:
                self._put_timed(memoryview(data)[:count])
            if self.reader.is_taken:
                self.look()
        return count

    def end(self) -> None:
        """Send the end of the stream behind the bytes."""
        if self.is_ended:
            return
        self.is_ended = True
        arrival = self.next_moment()
        if arrival == math.inf:
            self._lose(0, self._cable.now())
        else:
            self._under_way.append((arrival, 0))
            self.look()

    def next_moment(self) -> float:
        """Return when something without a size, sent now, arrives: ``-inf`` at once, ``inf`` never.

        It goes behind the bytes that were sent before.
        """
        now = self._cable.now()
        if now >= self._cable.dropped_at:
            return math.inf
        if not self._cable.has_delay:
            return -math.inf
        return max(now, self._transmitted_at()) + self._cable.latency

    @property
    def is_refused(self) -> bool:
        """Whether the writer has heard that the reader has closed."""
        return self._refused_at < math.inf and self._refused_at <= self._cable.horizon()

    def is_unacknowledged_for(self, seconds: float) -> bool:
        """Whether something that never arrives was sent so long ago.

        What was under way at the drop counts from the drop, until which others were acknowledged.
        """
        since = self._lost_since
        if self._cable.is_dropped:
            self._settle()
            if self._under_way:
                since = self._cable.dropped_at
        return since < math.inf and self._cable.now() >= since + seconds

    async def wait_as_writer(self) -> None:
        """Wait until there may be room, or nobody to read."""
        await self.writer.wait(self._refusal() if self._cable.has_delay else None)

    # The reader's side

    def take(self, max_bytes: int) -> bytes | None:
        """Take what has arrived: bytes, ``b""`` at the end, None for nothing yet."""
        if self._is_stalled:
            return None
        if self._under_way:
            self._settle()
        arrived = len(self._data) - self._under_way_size
        if not arrived:
            return b"" if self._has_end else None
        count = min(arrived, max_bytes)
        data = bytes(memoryview(self._data)[:count])
        del self._data[:count]
        if self._cable.is_timed and self._cable.is_dropped:
            self._lost += count
        else:
            self.writer.wake()
        return data

    @property
    def is_readable(self) -> bool:
        """Whether a read would do something at once, failing included."""
        if self._is_stalled or self.is_broken:
            return self.is_broken
        self._settle()
        return self._has_end or len(self._data) > self._under_way_size

    @property
    def has_end(self) -> bool:
        """Whether the end has arrived, be it read or not."""
        self._settle()
        return self._has_end

    async def wait_as_reader(self) -> None:
        """Wait until something may have come."""
        await self.reader.wait(self._next_arrival() if self._cable.has_delay else None)

    def stall(self, is_stalled: bool) -> None:
        """Let nothing be read any more, or again."""
        self._is_stalled = is_stalled
        self.look()

    def refuse(self, moment: float) -> None:
        """Tell the writer at this moment that nothing is read any more.

        What it sends until then takes up room, or it would never have to wait.
        """
        self._refused_at = moment
        self.look()

    # Both

    def tear(self) -> None:
        """Break now, with what is inside."""
        self._data.clear()
        self._under_way.clear()
        self._under_way_size = 0
        self.is_broken = True
        self.look()

    def look(self) -> None:
        """Let those who wait know what has changed."""
        if self.reader.is_taken:
            if self.is_readable:
                self.reader.wake()
            else:
                self.reader.move(self._next_arrival())
        if self.writer.is_taken:
            if self.is_broken or self.is_refused:
                self.writer.wake()
            else:
                self.writer.move(self._refusal())

    def _put_timed(self, data: memoryview) -> None:
        now = self._cable.now()
        if now >= self._cable.dropped_at:
            self._lose(len(data), now)
            return
        self._data += data
        if self._cable.has_delay:
            self._transmit(len(data), now)

    def _lose(self, count: int, now: float) -> None:
        self._lost += count
        self._lost_since = min(self._lost_since, now)

    def _transmit(self, count: int, now: float) -> None:
        """Set the moments of the bytes that were put last."""
        cable = self._cable
        self._under_way_size += count
        if cable.bandwidth is None:
            self._under_way.append((now + cable.latency, count))
            return
        if now >= self._transmitted_at():
            self._busy_since, self._busy_size = now, 0
        for start in range(0, count, SEGMENT):
            size = min(SEGMENT, count - start)
            self._busy_size += size
            self._under_way.append((self._transmitted_at() + cable.latency, size))

    def _transmitted_at(self) -> float:
        """Return when the last of the bytes is through."""
        return self._busy_since + self._busy_size / (self._cable.bandwidth or math.inf)

    def _settle(self) -> None:
        """Let arrive what has come by now."""
        if not self._under_way:
            return  # nothing depends on the clock
        horizon = self._cable.horizon()
        while self._under_way and self._under_way[0][0] <= horizon:
            _, size = self._under_way.popleft()
            self._under_way_size -= size
            if not size:
                self._has_end = True

    def _next_arrival(self) -> float:
        if self._is_stalled or not self._under_way:
            return math.inf
        return self._cable.unless_dropped(self._under_way[0][0])

    def _refusal(self) -> float:
        return self._cable.unless_dropped(self._refused_at)

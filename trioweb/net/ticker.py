"""Wakes sessions and WebSockets at their deadlines: one task for all those of an application.

Theory of operation. Each of them has an alarm, which waits in a heap for its time. Traffic moves
deadlines later without a word to the ticker: who is woken too early looks, and sets the alarm anew.
One that is set earlier waits in the heap twice, and the second time means nothing; neither does the
time of a connection that has ended. So a connection costs no task and no timer of its own.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

import trio

# Alarms that ring in one turn of the event loop, about 2 ms at most: connections that were made
# together send their pings together.
RINGS_AT_ONCE = 256
# Entries that mean nothing are cleared out when they are as many, and most of the heap.
STALE_AT_LEAST = 1024


class Sleeper(Protocol):
    """Who has an alarm."""

    def wake(self) -> None:
        """The time has come for which the alarm was set; it is not set any more."""

    def abandon(self) -> None:
        """The application has ended, and nobody will be woken any more; never to raise."""


class Alarm:
    """What a connection has at the ticker.

    Args:
        ticker: which is to ring.
        sleeper: woken when the time has come; never to raise.

    Attributes:
        at: the Trio time at which it rings; infinity: never.
    """

    __slots__ = ("_sleeper", "_ticker", "at")

    def __init__(self, ticker: Ticker, sleeper: Sleeper) -> None:
        self._ticker = ticker
        self._sleeper: Sleeper | None = sleeper
        self.at = math.inf

    def set_by(self, at: float) -> None:
        """Ring at this time, or at that for which it is set already if that is earlier."""
        if at < self.at and self._sleeper is not None:
            self._ticker.add(self, at)

    def ring(self) -> None:
        """The time has come."""
        self.at = math.inf
        if self._sleeper is not None:
            self._sleeper.wake()

    def abandon(self) -> None:
        """It will never ring, though it should have."""
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None and self.at < math.inf:
            sleeper.abandon()

    def stop(self) -> None:
        """Never ring again, and hold nobody."""
        if self.at < math.inf:
            self.at = math.inf
            self._ticker.stale += 1
        self._sleeper = None


class Ticker:
    """Rings the alarms of one application's connections; ``loop`` is the body of its task.

    Attributes:
        stale: how many entries of the heap mean nothing any more.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = count()
        self._scope: trio.CancelScope | None = None
        self.stale = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, alarm: Alarm, at: float) -> None:
        """Let an alarm ring at this time, which is earlier than that for which it was set."""
        if alarm.at < math.inf:
            self.stale += 1
        alarm.at = at
        if self.stale > STALE_AT_LEAST and self.stale > len(self._heap) // 2:
            self._clear_out()
        heappush(self._heap, (at, next(self._order), alarm))
        if self._scope is not None and at < self._scope.deadline:
            self._scope.deadline = at

    def _clear_out(self) -> None:
        self._heap = [entry for entry in self._heap if entry[0] == entry[2].at]
        heapify(self._heap)
        self.stale = 0

    async def loop(self) -> None:
        """Sleep until the nearest deadline and ring, until cancelled."""
        try:
            while True:
                with trio.CancelScope(deadline=self._nearest()) as self._scope:
                    await trio.sleep_forever()
                self._ring(trio.current_time())
        finally:
            self._scope = None

    def abandon(self) -> None:
        """Tell those who still wait that nobody will wake them any more."""
        heap, self._heap = self._heap, []
        for _, _, alarm in heap:
            alarm.abandon()

    def _nearest(self) -> float:
        """The next time at which somebody is to be woken; what means nothing wakes nobody."""
        heap = self._heap
        while heap and heap[0][0] != heap[0][2].at:
            heappop(heap)
            self.stale -= 1
        return heap[0][0] if heap else math.inf

    def _ring(self, now: float) -> None:
        for _ in range(RINGS_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                return
            at, _, alarm = heappop(self._heap)
            if at == alarm.at:
                alarm.ring()
            else:
                self.stale -= 1

"""Shares out the writing of broadcasts, so that one to very many does not hold the event loop.

Theory of operation. A broadcast is in the queue of each member when it returns. Of the writing, as
much as a slice is done at once, in the broadcaster's own step, since a write that waits costs more.
What is above that is written by ``loop`` in its turns, a slice each, with everybody else's turns
in between; so are the broadcasts of a busy room, of which one write then takes several. All the
rooms of an application share the slice of a turn, one member of each broadcast after the other: one
to a few members does not wait for one to thousands.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import trio

from trioweb.ws.parking import Parking

if TYPE_CHECKING:
    from trioweb.ws.writer import FrameWriter

# Writes in one turn of the event loop: about 3 ms at 5 to 6 µs each.
SLICE = 512
# One write counts as one more for each of these: about what a small one costs, in copying.
BYTES_PER_WRITE = 4096
# A broadcast that leaves less than this of the slice has it renewed, at the price of a turn.
RENEWED_BELOW = SLICE - SLICE // 8


def share_of(frame: bytes) -> int:
    """How much of a slice it takes to write a frame."""
    return 1 + len(frame) // BYTES_PER_WRITE


class Fanout:
    """The writing of one application's broadcasts.

    Attributes:
        left: writes that may still be made in this turn; no end to them while ``loop`` isn't run.
    """

    def __init__(self) -> None:
        self.left: float = math.inf
        self._waiting: deque[deque[FrameWriter]] = deque()  # one for each broadcast
        self._newest: deque[FrameWriter] | None = None  # of the broadcast that is being handed out
        self._parking = Parking()

    def add(self, writer: FrameWriter) -> None:
        """Let a writer write what it has queued in a later turn."""
        if self._newest is None:
            self._newest = deque()
            self._waiting.append(self._newest)
            self._parking.wake()
        self._newest.append(writer)

    def has_handed_out(self) -> None:
        """A broadcast is in the queues of all: begin a new slice if it took much of this one."""
        self._newest = None
        if self.left < RENEWED_BELOW:
            self._parking.wake()

    async def loop(self) -> None:
        """Write in slices what was left to it, until cancelled; the body of a task."""
        try:
            while True:
                self.left = SLICE
                self._write_slice()
                if self._waiting or self.left < SLICE:
                    await trio.lowlevel.checkpoint()
                else:
                    await self._parking.park()
        finally:
            self.left = math.inf
            while self._waiting:
                for writer in self._waiting.popleft():
                    writer.leave_to_sender()

    def _write_slice(self) -> None:
        waiting, now = self._waiting, trio.current_time()
        self._newest = None  # no broadcast is being handed out now
        while waiting and self.left > 0:
            writers = waiting.popleft()
            self.left -= 1 + writers.popleft().write_in_turn(now) // BYTES_PER_WRITE
            if writers:
                waiting.append(writers)

"""What becomes of the messages for one client, in lists: a model of the outbox and its link."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Hashable

# What a link holds; with a bound above it, what a few operations make fits for one who reads.
BUFFER = 300
BOUND = 1600


@dataclass
class Frame:
    text: str
    size: int
    key: Hashable
    was_offered: bool
    droppable: bool = False
    age: int = 0


class Wire:
    """What waits for one client, and what it will get in any case.

    So few messages wait here that each counts as what it has in bytes.

    Attributes:
        begun: the texts that are with its link or can't be kept from it any more.
        busy_since: when something began to wait; infinity if nothing does.
        turns: how often all that waited was written, or dropped.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.busy_since = math.inf
        self.turns = 0
        self._free = BUFFER
        self._partial = 0
        self._queue: list[Frame] = []
        self._offered = 0

    @property
    def is_idle(self) -> bool:
        return self.busy_since == math.inf

    @property
    def waiting(self) -> int:
        return self._partial + sum(frame.size for frame in self._queue)

    @property
    def has_room(self) -> bool:
        return self.waiting < BOUND

    def send(self, text: str) -> None:
        """What is sent to it alone, while there is room."""
        frame = make_frame(text, None, was_offered=False)
        if self.is_idle:
            self._write(frame)
        else:
            self._queue.append(frame)

    def offer(self, text: str, key: Hashable, *, drop_oldest: bool) -> tuple[bool, int]:
        """A broadcast: whether it is taken, and how many messages are dropped for it."""
        frame = make_frame(text, key, was_offered=True)
        frame.droppable = drop_oldest
        self._offered += 1
        frame.age = self._offered
        if self.is_idle:
            self._write(frame)
            return True, 0
        same = [
            one for one in self._queue if one.was_offered and key is not None and one.key == key
        ]
        others = [one for one in self._queue if one not in same]
        bound = BOUND if drop_oldest else 4 * BOUND
        dropped = 0
        while drop_oldest and sum(one.size for one in others) + frame.size > bound:
            droppable = [one for one in others if one.droppable]
            if not droppable:
                break
            oldest = min(droppable, key=lambda one: one.age)
            others.remove(oldest)
            self._queue.remove(oldest)
            dropped += 1
        is_no_worse = drop_oldest or (same and frame.size <= same[0].size)
        if sum(one.size for one in others) >= bound and not is_no_worse:
            return False, 0
        if same:
            self._queue[self._queue.index(same[0])] = frame
        else:
            self._queue.append(frame)
        return True, dropped

    def has_been_read(self) -> None:
        """Its client has read all that there was, so that nothing waits any more."""
        self.begun += [frame.text for frame in self._queue]
        self.drop_queue()
        self._free, self._partial = BUFFER, 0
        self.busy_since = math.inf

    def drop_queue(self) -> None:
        """Only what has begun is written yet."""
        self._queue.clear()
        self.turns += 1

    def _write(self, frame: Frame) -> None:
        self.begun.append(frame.text)
        taken = min(self._free, frame.size)
        self._free -= taken
        self._partial = frame.size - taken
        if self._partial:
            self.busy_since = trio.current_time()


def make_frame(text: str, key: Hashable, *, was_offered: bool) -> Frame:
    return Frame(text, len(text) + (2 if len(text) < 126 else 4), key, was_offered)

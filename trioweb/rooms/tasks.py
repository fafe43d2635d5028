"""Room tasks: what lives from a room's first join to its last leave."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import trio

from trioweb.ws.groups import without_cancelled
from trioweb.ws.outcome import INTERNAL_ERROR

if TYPE_CHECKING:
    from trioweb.rooms.members import Members
    from trioweb.rooms.room import Room

logger = logging.getLogger("trioweb")


class RoomTask(NamedTuple):
    """A function for one room.

    Attributes:
        name: the function's, for logs.
        start: runs it.
    """

    name: str
    start: Callable[[Room], Awaitable[object]]


FindTasks: TypeAlias = Callable[[str], Sequence[RoomTask]]
"""Finds the tasks of a room by its name."""


class TaskLife:
    """The tasks of one room, from the first join to the last leave.

    Args:
        room: theirs.
        members: the room's, for as long as this life lasts.
        tasks: what to run.
    """

    def __init__(self, room: Room, members: Members, tasks: Sequence[RoomTask]) -> None:
        self._room = room
        self._members = members
        self._tasks = tasks
        # The last leave ends them, which comes before all else: when the application ends, too.
        self._scope = trio.CancelScope(shield=True)

    def end(self) -> None:
        """Cancel the tasks: the last member has left."""
        self._scope.cancel(reason=f"the last member has left {self._room!r}")

    async def run(self) -> None:
        """Run the tasks to their end, unless the last member has left already."""
        if self._scope.cancel_called:
            return
        with self._scope:
            async with trio.open_nursery() as nursery:
                for task in self._tasks:
                    nursery.start_soon(self._run_task, task, name=task.name)

    async def _run_task(self, task: RoomTask) -> None:
        try:
            await task.start(self._room)
        except BaseException as raised:
            rest = without_cancelled(raised)
            if not isinstance(rest, Exception):
                raise
            logger.error("room task %s of %r crashed", task.name, self._room, exc_info=rest)
            # Its members would wait for what does not come; when they come again, it starts anew.
            self._members.close(*INTERNAL_ERROR)

"""``Rooms``: the rooms of one application that exist, and the tasks that live in them."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioweb.rooms.members import NOBODY, Members, check_run
from trioweb.rooms.room import Room
from trioweb.rooms.tasks import TaskLife
from trioweb.ws.fanout import Fanout

if TYPE_CHECKING:
    from collections.abc import Hashable, ItemsView, Iterator, KeysView, ValuesView
    from collections.abc import Set as AbstractSet

    from trioweb.rooms.members import BroadcastResult, Member
    from trioweb.rooms.tasks import FindTasks
    from trioweb.types import SlowPolicy
    from trioweb.ws.prepared import PreparedMessage
    from trioweb.ws.websocket import Websocket


class Rooms(Mapping[str, Room]):
    """The rooms that exist, by name: ``app.rooms``.

    A room exists from the first join to the last leave. Iteration is over those that exist when it
    begins.

    Args:
        find_tasks: finds the tasks of a room.
    """

    def __init__(self, find_tasks: FindTasks) -> None:
        self._find_tasks = find_tasks
        self._members: dict[str, Members] = {}
        self._lives: dict[str, TaskLife] = {}  # the newest of each name
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.Context()
        self.fanout = Fanout()

    def __repr__(self) -> str:
        return f"<Rooms {list(self._members)}>"

    def __getitem__(self, name: str) -> Room:
        if name in self._members:
            return Room(self, name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def keys(self) -> KeysView[str]:
        """The names of the rooms that exist now."""
        return self._snapshot().keys()

    def values(self) -> ValuesView[Room]:
        """The rooms that exist now."""
        return self._snapshot().values()

    def items(self) -> ItemsView[str, Room]:
        """The rooms that exist now, and their names."""
        return self._snapshot().items()

    def _snapshot(self) -> dict[str, Room]:
        # Whoever closes one of these rooms may empty the next.
        return {name: Room(self, name) for name in self}

    # For Room

    def members_of(self, name: str) -> Members:
        """The members of a room, whether it exists or not."""
        return self._members.get(name) or Members()

    def join(self, room: Room, member: Member, policy: SlowPolicy) -> None:
        """Let an open connection be a member.

        Raises:
            RuntimeError: it is one already.
        """
        self.check_thread()
        members = self._members.get(room.name)
        if members is None:
            members = self._open(room)
        elif member.ws in members:
            raise RuntimeError(f"{member.ws!r} is a member of {room!r} already")
        members.add(member, policy)

    def leave(self, room: Room, websocket: Websocket) -> None:
        """Let a connection be no member any more; it may have left by itself."""
        self.members_of(room.name).discard(websocket)

    def hand_out(
        self,
        name: str,
        message: PreparedMessage,
        *,
        exclude: AbstractSet[Websocket] = frozenset(),
        key: Hashable = None,
    ) -> BroadcastResult:
        """Hand a message to the members of a room in this process.

        Args:
            name: the room's.
            message: encoded once for all; from here or, one day, from another process.
            exclude: who is not told.
            key: of the message that it replaces; belongs to the room.

        Raises:
            RuntimeError: called from another thread.
        """
        self.check_thread()
        members = self._members.get(name)
        if members is None:
            return NOBODY
        # A connection may be in several rooms, which know nothing of each other's keys.
        room_key = None if key is None else (name, key)
        return members.broadcast(message, exclude=exclude, key=room_key)

    def disband(self) -> None:
        """Let every member leave every room."""
        for members in list(self._members.values()):
            for member in members:
                members.discard(member.ws)

    def check_thread(self) -> None:
        """Refuse a call from a thread in which the application does not run.

        Raises:
            RuntimeError: it is such a call.
        """
        if self._token is not None:  # else it does not run, so that there is nobody to be told
            check_run(self._token)

    # From the first join to the last leave

    def _open(self, room: Room) -> Members:
        tasks = self._find_tasks(room.name)  # which may raise
        members = self._members[room.name] = Members(partial(self._close, room.name))
        if tasks and self._nursery is not None:
            is_kept = room.name in self._lives
            self._lives[room.name] = TaskLife(room, members, tasks)
            if not is_kept:
                # In the application's context, not in that of who happens to join first.
                self._context.copy().run(self._nursery.start_soon, self._keep, room.name)
        return members

    def _close(self, name: str) -> None:
        del self._members[name]
        if name in self._lives:
            self._lives[name].end()

    async def _keep(self, name: str) -> None:
        """Run the lives of a room one after the other; the last one is all that matters then."""
        life: TaskLife | None = None
        try:
            while self._lives[name] is not life:
                life = self._lives[name]
                await life.run()
        finally:
            del self._lives[name]

    # The application's life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the rooms' tasks and the fan-out of broadcasts; the body of a task, until cancelled.

        The rooms' tasks run in its context.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._context = contextvars.copy_context()
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._fan_out)
                task_status.started()
        finally:
            self._token = None
            self._context = contextvars.Context()

    async def _fan_out(self) -> None:
        try:
            await self.fanout.loop()
        finally:
            # What ends the application ends the rooms, and that ends their tasks.
            self._nursery = None
            self.disband()

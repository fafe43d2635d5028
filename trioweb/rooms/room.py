"""``Room``: the handle that users hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trioweb.rooms.members import Member, check_websocket
from trioweb.ws.close import check_code, check_reason
from trioweb.ws.prepared import PreparedMessage
from trioweb.ws.websocket import Websocket, connection_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable
    from types import TracebackType

    from trioweb.rooms.members import BroadcastResult
    from trioweb.rooms.rooms import Rooms
    from trioweb.types import SlowPolicy


class Room:
    """A name under which WebSockets are told things together; ``app.room(name)`` makes it.

    It is a handle: it creates nothing, costs nothing and may be thrown away. The room itself exists
    from the first join to the last leave. Handles of one application with the same name are equal.

    A member leaves at the end of its ``join`` block or, earlier, in the moment in which nothing can
    be sent to it any more: because it, the application, or a drain closes it, or because it is
    lost.

    Attributes:
        name: the room's.
    """

    __slots__ = ("_rooms", "name")

    def __init__(self, rooms: Rooms, name: str) -> None:
        self._rooms = rooms
        self.name = name

    def __repr__(self) -> str:
        return f"<Room {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Room):
            return NotImplemented
        return self.name == other.name and self._rooms is other._rooms

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def members(self) -> tuple[Member, ...]:
        """Who is in it now, with what they joined with, in the order of joining."""
        return tuple(self._rooms.members_of(self.name))

    def join(
        self, ws: Websocket, *, meta: object = None, policy: SlowPolicy | None = None
    ) -> JoinScope:
        """Be a member for the time of a block: ``async with app.room("tea").join(ws) as room:``.

        A connection that has ended already does not become a member; the block runs all the same,
        for what had come from it before. What leaves the block leaves the room in the same step.

        Args:
            ws: accepted.
            meta: anything; ``members`` has it.
            policy: what happens when it is too slow; by default ROOM_SLOW_POLICY. What waits for
                it is bounded by WEBSOCKET_SEND_QUEUE_BYTES.
                ``"disconnect"``: it is closed with 1013 when it takes nothing for
                WEBSOCKET_STALL_TIMEOUT, or at once when four times the bound wait for it.
                ``"drop_oldest"``: what was broadcast first goes, until the newest fits; in rooms
                that it joined with ``"disconnect"`` nothing is dropped.

        Raises:
            TypeError: ws is no Websocket.
            ValueError: an unknown policy.
            NotAccepted: on entering: before ``accept``.
            RuntimeError: on entering: it is a member already, or this is another thread.

        Cancellation:
            On entering: it has not joined. Leaving the block is no cancel point.
        """
        check_websocket(ws, "join()")
        if policy not in (None, "disconnect", "drop_oldest"):
            raise ValueError(f'unknown policy {policy!r}; use "disconnect" or "drop_oldest"')
        return JoinScope(self._rooms, self, Member(ws, meta), policy)

    def broadcast(
        self,
        data: object,
        encoding: str = "text",
        *,
        exclude: Websocket | Collection[Websocket] | None = None,
        key: Hashable = None,
    ) -> BroadcastResult:
        """Send a message to every member, without waiting for any.

        It is encoded once, and written or queued for every member when this returns; so it works
        in a ``finally`` of a cancelled handler as well. Each member gets broadcasts in their order.
        From another thread: ``trio.from_thread.run_sync(room.broadcast, data)``.

        Who broadcasts more than may wait for a member, without any ``await`` in between, gives it
        no time to take it: ``await room.flush()`` now and then. To a member to which a fragmented
        message is being sent it goes afterwards.

        Args:
            data: as ``Websocket.send`` takes it.
            encoding: likewise.
            exclude: a member, or several, that are not told.
            key: what the message is about: it takes the place of one with the same key that still
                waits for a member, so that a slow member sees the newest of each only. Keys
                belong to the room.

        Returns:
            How many members it was sent to, what was dropped for it, and who was closed.

        Raises:
            TypeError: data can't be sent in this encoding, the key is not hashable, or what is
                excluded is no WebSocket.
            ValueError: an unknown encoding.
            RuntimeError: called from another thread.
        """
        hash(key)
        message = PreparedMessage(data, encoding)
        return self._rooms.hand_out(self.name, message, exclude=_websockets(exclude), key=key)

    async def flush(self) -> None:
        """Wait until all that was sent to the members so far is with the operating system.

        What was dropped, or queued for a member that has ended, is not waited for.

        Raises:
            RuntimeError: called from another thread.

        Cancellation:
            Changes nothing.
        """
        self._rooms.check_thread()
        await self._rooms.members_of(self.name).flush()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close every member's connection, without waiting for any; the room is empty then.

        What was sent to them before goes out first.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            reason: cut to 123 bytes of UTF-8.

        Raises:
            ValueError: the code can't be sent.
            TypeError: the code is no int, or the reason no str.
            RuntimeError: called from another thread.
        """
        check_code(code)
        check_reason(reason)
        self._rooms.check_thread()
        self._rooms.members_of(self.name).close(code, reason)


def _websockets(exclude: Any) -> frozenset[Websocket]:
    if exclude is None:
        return frozenset()
    if isinstance(exclude, Websocket):
        return frozenset((exclude,))
    # A Member is a tuple, but not of WebSockets.
    is_many = isinstance(exclude, Iterable) and not isinstance(exclude, Member)
    excluded = list(exclude) if is_many else [exclude]
    for one in excluded:
        if not isinstance(one, Websocket):
            raise TypeError(
                f"exclude= takes a Websocket or several, not {type(one).__name__}; "
                "of a Member it is member.ws"
            )
    return frozenset(excluded)


class JoinScope:
    """What ``Room.join`` returns: membership for the time of a block."""

    __slots__ = ("_member", "_policy", "_room", "_rooms")

    def __init__(self, rooms: Rooms, room: Room, member: Member, policy: SlowPolicy | None) -> None:
        self._rooms = rooms
        self._room = room
        self._member = member
        self._policy = policy

    async def __aenter__(self) -> Room:
        connection = connection_of(self._member.ws)
        connection.check_accepted()
        await connection.checkpoint()
        if connection.open:
            policy = self._policy or connection.options.slow_policy
            self._rooms.join(self._room, self._member, policy)
        return self._room

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # No checkpoint: whatever ends the block, the room is left in the same step.
        self._rooms.leave(self._room, self._member.ws)

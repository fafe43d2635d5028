"""The members of a room: who is in, and what they are told.

Theory of operation. A membership ends by itself in the step in which nothing can be sent to its
connection any more, whatever the reason, and before anybody else hears of that; so there is nobody
among the members who could not be told something, and a farewell does not reach who has left.
Telling them waits for nobody, so that it can be done anywhere, in the ``finally`` of a cancelled
handler too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from trioweb.ws.budget import BYTES_PER_OPERATION, Budget
from trioweb.ws.outbox import write_at_once
from trioweb.ws.websocket import Websocket, connection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from trioweb.types import SlowPolicy
    from trioweb.ws.connection import Connection
    from trioweb.ws.outbox import Outbox
    from trioweb.ws.prepared import PreparedMessage

    # What a broadcast goes by: side by side, since to touch two objects of each member costs more
    # than all else, with many of them.
    _Ways: TypeAlias = tuple[list[Outbox], list["_Membership"]]


class Member(NamedTuple):
    """Who is in a room.

    Attributes:
        ws: its WebSocket.
        meta: what it joined with.
    """

    ws: Websocket
    meta: Any


class BroadcastResult(NamedTuple):
    """What became of a broadcast in this process.

    Attributes:
        sent: members that it was written to or queued for.
        dropped: messages that were dropped from queues of members to make room for it, by the
            policy ``"drop_oldest"``.
        closed: members that turned out to be lost, or were closed now because they are too slow.
    """

    sent: int
    dropped: int
    closed: int


class _Membership:
    """One member, as ``Members`` sees it."""

    __slots__ = ("connection", "drop_oldest", "leave", "member")

    def __init__(
        self, member: Member, connection: Connection, drop_oldest: bool, leave: Callable[[], None]
    ) -> None:
        self.member = member
        self.connection = connection
        self.drop_oldest = drop_oldest
        self.leave = leave


class Members:
    """Some connections that are told things together; in the order of joining.

    Args:
        emptied: called when the last one has left.
    """

    def __init__(self, emptied: Callable[[], None] | None = None) -> None:
        self._emptied = emptied
        self._memberships: dict[Websocket, _Membership] = {}
        self._ways: _Ways | None = None  # to them all, until somebody comes or goes

    def __len__(self) -> int:
        return len(self._memberships)

    def __iter__(self) -> Iterator[Member]:
        return iter([one.member for one in list(self._memberships.values())])

    def __contains__(self, websocket: object) -> bool:
        return websocket in self._memberships

    def add(self, member: Member, policy: SlowPolicy) -> None:
        """Let a connection be told things from now on, until it ends or is discarded.

        Args:
            member: open, and not among them.
            policy: what happens when it is too slow.
        """
        connection = connection_of(member.ws)
        leave = partial(self.discard, member.ws)
        self._memberships[member.ws] = _Membership(
            member, connection, policy == "drop_oldest", leave
        )
        self._ways = None
        connection.on_shut.add(leave)

    def discard(self, websocket: Websocket) -> None:
        """Tell a connection nothing any more; one that is not among them is none of ours."""
        membership = self._memberships.pop(websocket, None)
        if membership is None:
            return
        self._ways = None
        membership.connection.on_shut.discard(membership.leave)
        if not self._memberships and self._emptied is not None:
            self._emptied()

    def broadcast(
        self,
        message: PreparedMessage,
        *,
        exclude: AbstractSet[Websocket] = frozenset(),
        key: Hashable = None,
    ) -> BroadcastResult:
        """Hand a message to every member; waits for nobody.

        Args:
            message: encoded once for all.
            exclude: who is not told.
            key: of the queued message that it replaces.
        """
        if self._ways is None:
            everybody = list(self._memberships.values())
            self._ways = [one.connection.outbox for one in everybody], everybody
        outboxes, memberships = self._ways
        if exclude:
            memberships = [one for one in memberships if one.member.ws not in exclude]
            outboxes = [one.connection.outbox for one in memberships]
        if not memberships:
            return NOBODY
        fanout, now = memberships[0].connection.fanout, trio.current_time()
        others = write_at_once(outboxes, message, fanout, now, or_leave=key is None)
        sent, dropped, closed = len(outboxes) - len(others), 0, 0
        for place in others:
            membership = memberships[place]
            connection, outbox = membership.connection, outboxes[place]
            before = outbox.dropped
            if connection.offer(message, key=key, drop_oldest=membership.drop_oldest, now=now):
                sent += 1
                dropped += outbox.dropped - before
            else:
                closed += 1
        fanout.has_handed_out()
        Budget.of_this_run().charge(len(outboxes) * BYTES_PER_OPERATION)
        return BroadcastResult(sent, dropped, closed)

    async def flush(self) -> None:
        """Wait until all that was queued for the members is with the operating system, or gone."""
        connections = [one.connection for one in self._memberships.values()]
        markers = [one.mark() for one in connections if one.outbox.waiting]
        await trio.lowlevel.checkpoint()
        for marker in markers:
            if not marker.reached.is_set():
                await marker.reached.wait()

    def close(self, code: int, reason: str) -> None:
        """Begin to close every member; waits for nobody."""
        for membership in list(self._memberships.values()):
            membership.connection.begin_close(code, reason)


NOBODY = BroadcastResult(0, 0, 0)


def check_websocket(websocket: object, what: str) -> None:
    """Refuse what is no WebSocket.

    Args:
        websocket: what was given.
        what: it was given to.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(websocket, Websocket):
        raise TypeError(f"{what} takes a Websocket, not {type(websocket).__name__}")


def check_run(token: trio.lowlevel.TrioToken) -> None:
    """Refuse a call from where connections can't be written to.

    Args:
        token: of the run in which they live.

    Raises:
        RuntimeError: this is another thread.
    """
    try:
        is_there = trio.lowlevel.current_trio_token() is token
    except RuntimeError:
        is_there = False
    if not is_there:
        raise RuntimeError(
            "rooms live in the thread of their application; from another one use "
            "trio.from_thread.run_sync(room.broadcast, data)"
        )

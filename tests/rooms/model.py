"""What rooms should do, in lists and dicts, beside an application in which they do it.

Theory of operation. Whatever changes a room is done by somebody of this module, who tells the model
in the same step; so the model is right at every moment, whatever order tasks run in. Two things
are taken from the connections, which have tests of their own: whether one is open at the moment of
a broadcast (afterwards, the model foretells it), and how the outbox queues (``Wire``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from tests.rooms.wire import BOUND, Wire
from trioweb import BroadcastResult, Member, Websocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Hashable

    from tests.rooms.conftest import Peer, Stage

STALL_TIMEOUT = 30
CONFIG: dict[str, Any] = {
    "WEBSOCKET_SEND_QUEUE_BYTES": BOUND,
    "WEBSOCKET_STALL_TIMEOUT": STALL_TIMEOUT,
    "WEBSOCKET_PING_INTERVAL": None,
}


class Actor:
    """Somebody who does what is asked of it: a handler, or a member within its block.

    Attributes:
        scope: around all that it does.
        is_over: whether it does nothing any more.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.scope = trio.CancelScope()
        self.is_over = False
        self._ask, self._asked = trio.open_memory_channel[Any](math.inf)

    def ask(self, function: Callable[[], Awaitable[None]] | None) -> None:
        """Let it call a function; None: let it return."""
        self._ask.send_nowait(function)

    def forget(self) -> None:
        """Let it not do what it has not begun."""
        while self._asked.statistics().current_buffer_used:
            self._asked.receive_nowait()

    async def act(self) -> None:
        """Do what is asked until told to return."""
        try:
            while (function := await self._asked.receive()) is not None:
                await function()
        finally:
            self.is_over = True


class Membership(Actor):
    """One join of a client."""

    def __init__(self, client: Client, name: str, policy: Any) -> None:
        super().__init__(client)
        self.name = name
        self.policy = policy


class Client:
    """A client, its handler, and what is known of both.

    Attributes:
        codes: with which it may have been closed; none while it is open.
        has_left: it has sent a Close.
        has_vanished: it is not to be looked at any more.
    """

    ws: Websocket
    peer: Peer

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.wire = Wire()
        self.codes: set[int] = set()
        self.has_left = False
        self.has_vanished = False
        self.actor = Actor(self)

    def __repr__(self) -> str:
        return f"client {self.number}"

    @property
    def is_reading(self) -> bool:
        return not self.has_vanished and not self.peer.is_stalled

    async def handle(self, ws: Websocket) -> None:
        self.ws = ws
        self.world.clients.append(self)
        self.world.actors.append(self.actor)
        try:
            with self.actor.scope:
                await self.actor.act()
        except Exception as error:
            self.world.check(False, f"{self} crashed: {error!r}")
            raise
        finally:
            self.actor.is_over = True
            if ws.open:
                self.codes.add(1000)

    async def stay(self, membership: Membership) -> None:
        """Be in a room for a while, and say goodbye."""
        world, room = self.world, self.world.app.room(membership.name)
        with membership.scope:
            try:
                async with room.join(self.ws, meta=membership, policy=membership.policy) as joined:
                    world.check(joined == room, f"{self} joined {joined}")
                    world.check(not world.is_member(self, room.name), f"{self} is in {room} twice")
                    world.joined(membership)
                    await membership.act()
            except RuntimeError as error:
                world.check(world.is_member(self, room.name), f"{self} in {room}: {error}")
            finally:
                membership.is_over = True
                if world.left(membership):
                    world.broadcast(membership.name, f"{self} has left")


@dataclass
class Flush:
    """A call of ``room.flush``, and for whom it waits."""

    waits_for: dict[Client, int] = field(default_factory=dict)
    is_done: bool = False

    def forget_gone(self) -> None:
        """It waits no more for whom nothing waits any more."""
        for client, turns in list(self.waits_for.items()):
            if client.has_vanished or client.wire.turns > turns:
                del self.waits_for[client]

    @property
    def is_right(self) -> bool:
        self.forget_gone()
        # Whoever is being closed and reads nothing is gone some time.
        may_be_done = all(client.codes for client in self.waits_for)
        return may_be_done if self.is_done else bool(self.waits_for)


class World:
    """The application and its model."""

    def __init__(self, stage: Stage, clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
        self.app = stage.app
        self.clients: list[Client] = []
        self.actors: list[Actor] = []
        self._stage = stage
        self._clock = clock
        self._nursery = nursery
        self._rooms: dict[str, list[Membership]] = {}
        self._flushes: list[Flush] = []
        self._failures: list[str] = []
        self._texts = 0
        self._tasks = trio.lowlevel.current_statistics().tasks_living

    @property
    def connected(self) -> int:
        """How many clients are."""
        return sum(not client.codes for client in self.clients)

    @property
    def names(self) -> list[str]:
        """Of the rooms in which somebody is."""
        return [name for name in self._rooms if self.members(name)]

    # What actors tell

    def check(self, is_right: bool, what: str) -> None:
        """Remember what was wrong in a handler, where an exception would only close."""
        if not is_right:
            self._failures.append(what)

    def joined(self, membership: Membership) -> None:
        self._rooms.setdefault(membership.name, []).append(membership)
        self.actors.append(membership)

    def left(self, membership: Membership) -> bool:
        """Whether it had joined."""
        memberships = self._rooms.get(membership.name, [])
        if membership not in memberships:
            return False
        memberships.remove(membership)
        return True

    def members(self, name: str) -> list[Membership]:
        """Who has joined and not left, by itself or because its connection ended."""
        return [one for one in self._rooms.get(name, []) if one.client.ws.open]

    def is_member(self, client: Client, name: str) -> bool:
        return client in [one.client for one in self.members(name)]

    # What actors do, and others who are no members

    def make_text(self, word: str, size: int = 0) -> str:
        self._texts += 1
        return f"{self._texts} {word} ".ljust(size, ".")

    def broadcast(
        self,
        name: str,
        word: str,
        size: int = 0,
        *,
        exclude: Collection[Client] = (),
        key: Hashable = None,
    ) -> None:
        room = self.app.room(name)
        members = self.members(name)
        there = [Member(one.client.ws, one) for one in members]
        self.check(list(room.members) == there, f"{room.members}, not {there}")
        text = self.make_text(word, size)
        sent = dropped = closed = 0
        for membership in members:
            client = membership.client
            if client in exclude:
                continue
            if client.has_vanished and client.wire.is_idle:
                closed += 1  # which it is found out by this
                continue
            drop_oldest = membership.policy == "drop_oldest"
            room_key = None if key is None else (name, key)
            taken, for_it = client.wire.offer(text, room_key, drop_oldest=drop_oldest)
            if taken or drop_oldest:
                sent += taken
                dropped += for_it
            else:
                closed += 1
                client.codes.add(1013)
                client.wire.drop_queue()
        result = room.broadcast(text, exclude=[one.ws for one in exclude], key=key)
        expected = BroadcastResult(sent, dropped, closed)
        self.check(result == expected, f"{text}: {result}, not {expected}")

    def close_room(self, name: str, code: int) -> None:
        for membership in self.members(name):
            membership.client.codes.add(code)
        self.app.room(name).close(code)
        self.check(self.members(name) == [], f"{name} is closed and there is somebody in it")

    async def close(self, client: Client, code: int) -> None:
        if client.ws.open:
            client.codes.add(code)
        await client.ws.close(code)

    async def send(self, client: Client, size: int) -> None:
        if client.ws.open and not client.has_vanished and client.wire.has_room:
            text = self.make_text("for you", size)
            await client.ws.send(text)
            self.check(client.wire.has_room, "a send that had to wait")
            client.wire.send(text)

    def flush(self, name: str) -> None:
        self._flushes.append(flush := Flush())

        async def run() -> None:
            for membership in self.members(name):
                if not membership.client.wire.is_idle:
                    flush.waits_for[membership.client] = membership.client.wire.turns
            await self.app.room(name).flush()
            flush.is_done = True

        self._nursery.start_soon(run)

    # What clients do

    def connect(self) -> None:
        client = Client(self, len(self._stage.peers))
        client.peer = self._stage.open(client.handle)

    def leave(self, client: Client, code: int) -> None:
        if not client.has_vanished and not client.has_left and client.peer.close is None:
            client.peer.leave(code)
            client.has_left = True
            client.codes.add(code)

    def abort(self, client: Client) -> None:
        client.peer.abort()
        client.has_vanished = True
        client.codes.add(1006)

    def wake(self, client: Client) -> None:
        if client.peer.is_stalled and not client.has_vanished:
            client.peer.is_stalled = False
            client.wire.has_been_read()

    # Time

    async def settle(self) -> None:
        """Let everything happen that needs no time, then compare."""
        await wait_all_tasks_blocked()
        for client in self.clients:
            if client.has_left or client.has_vanished:
                client.wire.drop_queue()
            elif trio.current_time() - client.wire.busy_since >= STALL_TIMEOUT and not client.codes:
                client.codes.add(1013)
                client.wire.drop_queue()
        await self._stage.settle()
        self.actors = [actor for actor in self.actors if not actor.is_over]
        for actor in self.actors:
            actor.forget()
        for client in self.clients:
            if client.is_reading:
                client.wire.has_been_read()
        self._compare()

    async def wait(self) -> None:
        """Let the time pass that any deadline takes."""
        for _ in range(4):
            self._clock.jump(16)
            await self.settle()
        for client in self.clients:
            if client.peer.is_stalled and client.codes:
                self.abort(client)  # it will not be heard any more
        await self.settle()

    async def end(self) -> None:
        """All leave, each in its way; nothing may be left then."""
        for client in self.clients:
            self.wake(client)
        await self.settle()
        for client in self.clients[::2]:
            self.leave(client, 4999)
        for client in self.clients[1::2]:
            self.abort(client)
        await self.settle()
        await self.wait()
        assert not self.actors
        assert all(flush.is_done for flush in self._flushes)
        assert all(client.peer.handler_ended for client in self.clients)
        assert dict(self.app.rooms) == {}
        assert self.app.connections == frozenset()
        assert trio.lowlevel.current_statistics().tasks_living == self._tasks

    def _compare(self) -> None:
        assert not self._failures, self._failures
        for client in self.clients:
            assert client.ws.open == (not client.codes), (client, client.codes)
            if client.is_reading:
                assert client.peer.messages == client.wire.begun, client
                code = client.peer.close and client.peer.close[0]
                assert code in client.codes if client.codes else code is None, (
                    client,
                    code,
                    client.codes,
                )
            if not client.codes:
                assert client.peer.waiting == client.wire.waiting, client
                assert client.wire.waiting <= 5 * BOUND
        assert self.app.connections == {one.ws for one in self.clients if not one.codes}
        assert set(self.app.rooms) == set(self.names)
        for name in self.names:
            expected = tuple(Member(one.client.ws, one) for one in self.members(name))
            assert self.app.rooms[name].members == expected
        for flush in self._flushes:
            assert flush.is_right, flush

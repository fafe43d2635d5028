"""Rooms against a model, by whatever its actors do, at once and one after the other.

To look longer::

    ROOMS_MODEL_EXAMPLES=5000 pytest -o faulthandler_timeout=0 tests/rooms/test_model.py
"""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from trio.testing import MockClock

from tests.rooms.conftest import StepCounter, open_stage
from tests.rooms.guest import PausedRun
from tests.rooms.model import CONFIG, Actor, Client, Membership, World
from tests.rooms.wire import BUFFER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

EXAMPLES = int(os.environ.get("ROOMS_MODEL_EXAMPLES", "0"))
# What is done at once, and by how many; more would not fit for a client that reads (``model``).
AT_ONCE = 4
CLIENTS = 5  # that are connected
# The number of a room in which nobody is; smaller ones are those of the others.
NOBODYS = 5

# Somebody of those that there are; who it is, is known when it comes to that.
somebody = st.integers(0, 9)
rooms = st.sampled_from(["a", "b"])
some_room = st.integers(0, NOBODYS)
policies = st.sampled_from([None, "disconnect", "drop_oldest"])
keys = st.sampled_from([None, "x", "y"])
sizes = st.sampled_from([400, 100, 0])
excluded = st.sets(somebody, max_size=2)
codes = st.integers(4000, 4003)
# Whether it happens together with what comes next.
together = st.booleans()


class RoomsMachine(RuleBasedStateMachine):
    """Clients come and go, members join and leave, all broadcast, some stall."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self._clock = MockClock()
        self._together: list[Callable[[], object]] = []
        self._arm: list[Callable[[], StepCounter]] = []
        self._has_failed = False
        # So that joining and sending have a step in which others may come between.
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr("trioweb.ws.budget.FREE_OPERATIONS", 1)
        self._run = PausedRun(self._serve, self._clock)
        self._call(trio.lowlevel.checkpoint)  # the world is there then

    async def _serve(self, calls: trio.MemoryReceiveChannel[Any]) -> None:
        async with open_stage(buffer=BUFFER, **CONFIG) as stage, trio.open_nursery() as nursery:
            self.world = World(stage, self._clock, nursery)
            async for call in calls:
                await call()
            nursery.cancel_scope.cancel()

    # How it is done

    def _do(self, together: bool, function: Callable[[], object]) -> None:
        self._together.append(function)
        if not together or len(self._together) == AT_ONCE:
            self._settle()

    def _settle(self) -> None:
        functions, self._together = self._together, []
        arm, self._arm = self._arm, []

        async def run() -> None:
            counters = [make() for make in arm]
            for counter in counters:
                trio.lowlevel.add_instrument(counter)
            try:
                for function in functions:
                    function()
                await self.world.settle()
            finally:
                for counter in counters:
                    trio.lowlevel.remove_instrument(counter)

        self._call(run)

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            self._run.call(function)
        except BaseException:
            self._has_failed = True
            raise

    def _actor(self, number: int) -> Actor | None:
        actors = self.world.actors
        return actors[number % len(actors)] if actors else None

    def _client(self, number: int) -> Client:
        """Of those that are open; of all, if none is."""
        clients = [one for one in self.world.clients if not one.codes] or self.world.clients
        return clients[number % len(clients)]

    def _name(self, number: int) -> str:
        names = self.world.names
        return names[number % len(names)] if names and number < NOBODYS else "nobody's"

    def _ask(self, number: int, make: Callable[[Actor], Any]) -> None:
        actor = self._actor(number)
        if actor is not None:
            actor.ask(make(actor))

    # Members

    @initialize(members=st.lists(st.lists(st.tuples(rooms, policies), max_size=2), min_size=2))
    def begin(self, members: list[list[tuple[str, Any]]]) -> None:
        """Some are there already."""
        for memberships in members[:CLIENTS]:
            self._do(False, self.world.connect)
            for name, policy in memberships:
                self.join(len(self.world.actors) - 1, name, policy, False, False)

    @precondition(lambda self: self.world.connected + len(self._together) < CLIENTS)
    @rule(together=together)
    def connect(self, together: bool) -> None:
        self._do(together, self.world.connect)

    @rule(who=somebody, name=rooms, policy=policies, in_task=st.booleans(), together=together)
    def join(self, who: int, name: str, policy: Any, in_task: bool, together: bool) -> None:
        def make(actor: Actor) -> Any:
            client = actor.client
            membership = Membership(client, name, policy)

            async def join() -> None:
                if in_task and not client.actor.is_over:
                    client.ws.nursery.start_soon(client.stay, membership)
                else:
                    await client.stay(membership)

            return join

        self._do(together, lambda: self._ask(who, make))

    @rule(who=somebody, together=together)
    def leave(self, who: int, together: bool) -> None:
        """A block comes to its end, or a handler does."""
        self._do(together, lambda: self._ask(who, lambda actor: None))

    @rule(who=somebody, step=st.integers(0, 12))
    def cancel(self, who: int, step: int) -> None:
        """A block or a handler is cancelled before a step of what happens next."""

        def make() -> StepCounter:
            actor = self._actor(who)
            return StepCounter(step, actor.scope.cancel if actor else lambda: None)

        self._arm.append(make)

    # Messages

    @rule(room=some_room, size=sizes, key=keys, exclude=excluded, together=together)
    def broadcast(
        self, room: int, size: int, key: str | None, exclude: set[int], together: bool
    ) -> None:
        """By somebody who is no member."""
        self._do(together, lambda: self._broadcast(room, size, key, exclude))

    @rule(who=somebody, room=some_room, size=sizes, key=keys, exclude=excluded, together=together)
    def broadcast_as_actor(
        self, who: int, room: int, size: int, key: str | None, exclude: set[int], together: bool
    ) -> None:
        """By a handler, or in a block."""

        async def broadcast() -> None:
            self._broadcast(room, size, key, exclude)

        self._do(together, lambda: self._ask(who, lambda actor: broadcast))

    @rule(
        room=some_room,
        who=somebody,
        size=st.sampled_from([400, 100]),
        keys=st.lists(keys, min_size=1, max_size=3),
        count=st.integers(5, 20),
    )
    def flood(self, room: int, who: int, size: int, keys: list[str | None], count: int) -> None:
        """A member stalls, and meets its bound soon."""
        self._settle()
        members = self.world.members(self._name(room))
        if not members:
            return
        members[who % len(members)].client.peer.is_stalled = True
        for key in itertools.islice(itertools.cycle(keys), count):
            self._do(False, partial(self._broadcast, room, size, key, ()))

    def _broadcast(self, room: int, size: int, key: str | None, exclude: Collection[int]) -> None:
        clients = [self._client(one) for one in exclude if self.world.clients]
        self.world.broadcast(self._name(room), "for all", size, exclude=clients, key=key)

    @rule(who=somebody, size=sizes)
    def send(self, who: int, size: int) -> None:
        self._settle()
        world = self.world
        self._do(
            False, lambda: self._ask(who, lambda actor: lambda: world.send(actor.client, size))
        )

    @rule(room=some_room, together=together)
    def flush(self, room: int, together: bool) -> None:
        self._do(together, lambda: self.world.flush(self._name(room)))

    # Ends

    @precondition(lambda self: self.world.clients)
    @rule(
        how=st.sampled_from(["close", "close room", "leave", "abort"]),
        who=somebody,
        room=some_room,
        code=codes,
        together=together,
    )
    def end(self, how: str, who: int, room: int, code: int, together: bool) -> None:
        """A connection ends, or all of a room."""
        world = self.world

        def end() -> None:
            if how == "close":
                self._ask(who, lambda actor: lambda: world.close(actor.client, code))
            elif how == "close room":
                world.close_room(self._name(room), code)
            elif how == "leave":
                world.leave(self._client(who), code)
            else:
                world.abort(self._client(who))

        self._do(together, end)

    # Stalling

    @precondition(lambda self: self.world.clients)
    @rule(who=somebody)
    def stall(self, who: int) -> None:
        self._settle()
        self._client(who).peer.is_stalled = True

    @precondition(lambda self: self.world.clients)
    @rule(who=somebody)
    def wake(self, who: int) -> None:
        self._settle()
        self._do(False, lambda: self.world.wake(self._client(who)))

    @rule()
    def let_time_pass(self) -> None:
        self._settle()
        self._call(self.world.wait)

    def teardown(self) -> None:
        try:
            if not self._has_failed:
                self._settle()
                self._call(self.world.end)
                self._run.close()
        finally:
            self._run.cancel()
            self._patch.undo()


TestRooms = RoomsMachine.TestCase
TestRooms.settings = settings(
    max_examples=EXAMPLES or 80,
    stateful_step_count=50,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)

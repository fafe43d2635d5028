"""Membership: the time of a ``join`` block, or less."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from tests.rooms.conftest import StepCounter, idle, open_stage, sockets, staying_in
from trioweb import BroadcastResult, Member, NotAccepted, Room, Websocket

# No operation here takes as many steps; one that does has lost its way.
MAX_STEPS = 200


async def test_the_room_is_what_join_gives() -> None:
    given: list[Room] = []

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room:
            given.append(room)

    async with open_stage() as stage:
        await stage.connect(handler)
        assert given == [stage.app.room("a")]
        assert isinstance(given[0], Room)


@pytest.mark.parametrize("end", ["return", "raise", "cancel", "group"])
async def test_leaving_happens_at_every_exit_of_the_block(end: str) -> None:
    """What the block raises comes out as itself, in no group of ours."""
    seen: list[Any] = []
    error: Exception = ExceptionGroup("mine", [KeyError("mine")])
    if end == "raise":
        error = KeyError("mine")

    async def block(ws: Websocket) -> None:
        room = ws.app.room("a")
        try:
            async with room.join(ws):
                seen.append(len(room.members))
                if end == "cancel":
                    await trio.sleep_forever()
                elif end != "return":
                    raise error
        except (KeyError, ExceptionGroup) as caught:
            seen.append(caught)
        finally:
            seen.append(len(room.members))

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            ws.nursery.start_soon(cancel_when_quiet, scope)
            await block(ws)
        assert ws.open
        seen.append(scope.cancelled_caught)
        await idle(ws)

    async def cancel_when_quiet(scope: trio.CancelScope) -> None:
        await wait_all_tasks_blocked()
        scope.cancel()

    async with open_stage() as stage:
        await stage.connect(handler)
        assert dict(stage.app.rooms) == {}
    caught = [error] if end in ("raise", "group") else []
    assert seen == [1, *caught, 0, end == "cancel"]


async def test_leaving_takes_no_checkpoint() -> None:
    """So nothing can come between the end of the block and the leave, a cancellation least."""
    done = trio.Event()

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            join = ws.app.room("a").join(ws)
            await join.__aenter__()
            scope.cancel()
            with assert_no_checkpoints():
                await join.__aexit__(None, None, None)
            assert dict(ws.app.rooms) == {}
            done.set()

    async with open_stage() as stage:
        await stage.connect(handler)
        assert done.is_set()


async def test_joining_is_a_cancel_point_before_it_joins() -> None:
    was_member: list[bool] = []

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with ws.app.room("a").join(ws):
                was_member.append(True)
        assert scope.cancelled_caught
        await idle(ws)

    async with open_stage() as stage:
        await stage.connect(handler)
        assert dict(stage.app.rooms) == {}
    assert was_member == []


@pytest.mark.parametrize("yields", [True, False])
@pytest.mark.parametrize("others", [0, 1])
async def test_join_cancelled_at_any_step_is_whole_or_not_there(
    others: int, yields: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either the block runs as a member's, or it does not run; behind it there is none."""
    if yields:
        monkeypatch.setattr("trioweb.ws.budget.FREE_OPERATIONS", 1)
    async with open_stage() as stage:
        await stage.connect_all([staying_in("a")] * others)
        room = stage.app.room("a")
        outcomes = set()
        for step in range(MAX_STEPS):
            seen: list[str] = []

            async def handler(ws: Websocket, seen: list[str] = seen, step: int = step) -> None:
                await wait_all_tasks_blocked()
                with trio.CancelScope() as scope:
                    counter = StepCounter(step, scope.cancel)
                    trio.lowlevel.add_instrument(counter)
                    try:
                        async with room.join(ws):
                            seen.append("member" if ws in sockets(room) else "half")
                            await trio.lowlevel.checkpoint()
                            await trio.lowlevel.checkpoint()
                            seen.append("left")
                    finally:
                        trio.lowlevel.remove_instrument(counter)
                        seen.append("member" if ws in sockets(room) else "none")
                if not counter.has_called:
                    seen.append("in time")

            peer = await stage.connect(handler)
            assert peer.handler_ended
            assert len(room.members) == others
            assert ("a" in stage.app.rooms) == bool(others)
            outcomes.add(tuple(seen))
            if seen[-1] == "in time":
                break
        # Cancelled before it has joined, in the block, and not at all.
        assert outcomes - {("member", "left", "none")} == {
            ("none",),
            ("member", "none"),
            ("member", "left", "none", "in time"),
        }


async def test_a_connection_may_be_in_many_rooms() -> None:
    """Nested, or in tasks of its own; each is left by itself."""
    leave_b = trio.Event()

    async def stay(ws: Websocket, name: str, until: trio.Event) -> None:
        async with ws.app.room(name).join(ws, meta=name):
            await until.wait()

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(stay, ws, "b", leave_b)
        await staying_in("a", "c")(ws)

    async with open_stage() as stage:
        app = stage.app
        peer = await stage.connect(handler)
        assert {name: room.members for name, room in app.rooms.items()} == {
            "a": (Member(peer.ws, None),),
            "b": (Member(peer.ws, "b"),),
            "c": (Member(peer.ws, None),),
        }
        for name in "abc":
            app.room(name).broadcast(f"to {name}")
        await stage.settle()
        assert peer.take() == ["to a", "to b", "to c"]
        leave_b.set()
        await stage.settle()
        assert set(app.rooms) == {"a", "c"}
        peer.leave()
        await stage.settle()
        assert set(app.rooms) == set()


async def test_who_has_left_may_join_again() -> None:
    """At the end of the line, with a meta of its own."""
    again = trio.Event()

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws, meta=1):
            await again.wait()
        await staying_in("a", meta=2)(ws)

    async with open_stage() as stage:
        first, second = await stage.connect_all([handler, staying_in("a")])
        again.set()
        await stage.settle()
        assert stage.app.room("a").members == (Member(second.ws, None), Member(first.ws, 2))


async def test_anybody_may_join_a_connection() -> None:
    """A task of the application's, for instance; the handler need not know."""
    async with open_stage() as stage:
        peer = await stage.connect(idle)
        room = stage.app.room("a")
        async with room.join(peer.ws, meta="from outside"):
            assert room.members == (Member(peer.ws, "from outside"),)
            room.broadcast("x")
            await stage.settle()
            assert peer.take() == ["x"]
        assert not room.members
        assert peer.ws.open


@pytest.mark.parametrize("end", ["ours", "theirs", "loss"])
async def test_joining_with_a_connection_that_has_ended_is_no_error(end: str) -> None:
    """The block runs, for what had come is to be handled, but it is no member's."""
    seen: list[Any] = []
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        if end == "ours":
            await ws.close(4000, wait=False)
        await go_on.wait()
        async with ws.app.room("a").join(ws) as room:
            seen.append(room.members)
            seen.append(room.broadcast("x"))
            seen.append(dict(ws.app.rooms))
            seen.extend([message async for message in ws])

    async with open_stage() as stage:
        # Which reads nothing for now, so that its message can still come after our Close.
        peer = await stage.connect(handler)
        if end != "ours":
            peer.say("unread")
        await stage.settle()
        if end == "theirs":
            peer.leave()
        elif end == "loss":
            await peer.hang_up()
        await wait_all_tasks_blocked()
        go_on.set()
        await stage.settle()
        assert peer.handler_ended
        unread = [] if end == "ours" else ["unread"]
        assert seen == [(), BroadcastResult(0, 0, 0), {}, *unread]


async def test_nobody_joins_before_accept() -> None:
    seen: list[Any] = []

    async def handler(ws: Websocket) -> None:
        with pytest.raises(NotAccepted):
            async with ws.app.room("a").join(ws):
                seen.append("joined")
        seen.extend(ws.app.rooms)
        seen.append(ws.app.connections)
        await ws.accept()
        await staying_in("a")(ws)

    async with open_stage() as stage:
        peer = await stage.connect(handler, path="/manual")
        assert seen == [frozenset()]
        assert sockets(stage.app.room("a")) == [peer.ws]


@pytest.mark.parametrize("where", ["nested", "in a task"])
async def test_joining_twice_at_once_is_an_error(where: str) -> None:
    """And takes nothing from the first."""
    errors: list[str] = []

    async def join_again(ws: Websocket) -> None:
        with pytest.raises(RuntimeError) as caught:
            async with ws.app.room("a").join(ws):
                pass
        errors.append(str(caught.value))

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws, meta="first"):
            if where == "nested":
                await join_again(ws)
            else:
                ws.nursery.start_soon(join_again, ws)
            await idle(ws)

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        assert len(errors) == 1
        assert "'a'" in errors[0]
        assert stage.app.room("a").members == (Member(peer.ws, "first"),)
        stage.app.room("a").broadcast("once")
        await stage.settle()
        assert peer.take() == ["once"]


@pytest.mark.parametrize("policy", ["drop_newest", "", 1])
async def test_an_unknown_policy_is_an_error_that_names_what_there_is(policy: Any) -> None:
    async def handler(ws: Websocket) -> None:
        with pytest.raises(ValueError, match="drop_oldest"):
            async with ws.app.room("a").join(ws, policy=policy):
                pass
        assert dict(ws.app.rooms) == {}
        await ws.send("refused")

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        assert peer.take() == ["refused"]


@pytest.mark.parametrize("end", ["leaves", "aborts", "is closed"])
async def test_nothing_holds_a_connection_that_has_ended(end: str) -> None:
    """No room that it was in, though others are there, and no application."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a"), staying_in("a", "b"), idle])
        references = [weakref.ref(peer.ws) for peer in peers]
        for peer in peers[1:]:
            if end == "leaves":
                peer.leave()
            elif end == "aborts":
                peer.abort()
            else:
                await peer.ws.close(4000, wait=False)
            del peer.ws
        del peer
        await stage.settle()
        gc.collect()
        assert [reference() is None for reference in references] == [False, True, True]

"""``room.flush``: all that was broadcast is with the operating system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rooms.conftest import idle, open_stage, staying_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioweb import Websocket


async def test_flush_waits_for_the_sockets_of_all_members() -> None:
    """And not for those of others."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 3 + [staying_in("b")])
        room = stage.app.room("a")
        await room.flush()
        peers[0].is_stalled = peers[2].is_stalled = peers[3].is_stalled = True
        stage.app.room("b").broadcast(bytes(10_000))
        room.broadcast(bytes(10_000))
        flushed = trio.Event()

        async def flush() -> None:
            await room.flush()
            flushed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await stage.settle()
            assert not flushed.is_set()
            assert len(peers[1].take()) == 1
            peers[0].is_stalled = False
            await stage.settle()
            assert not flushed.is_set()
            peers[2].is_stalled = False
            await stage.settle()
            assert flushed.is_set()
        assert peers[3].waiting > 0


async def test_flush_does_not_wait_for_what_is_broadcast_after_it_was_called() -> None:
    async with open_stage() as stage:
        first, second = await stage.connect_all([staying_in("a")] * 2)
        first.is_stalled = second.is_stalled = True
        room = stage.app.room("a")
        room.broadcast(bytes(10_000), exclude=second.ws)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.flush)
            await stage.settle()
            room.broadcast(bytes(10_000), exclude=first.ws)
            first.is_stalled = False
            await stage.settle()
            assert not nursery.child_tasks
        assert second.waiting > 0


@pytest.mark.parametrize("end", ["leaves", "aborts", "is closed"])
async def test_flush_does_not_wait_for_who_is_gone(end: str) -> None:
    """And raises for nobody."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        room = stage.app.room("a")
        peers[0].is_stalled = True
        room.broadcast(bytes(10_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.flush)
            await stage.settle()
            assert nursery.child_tasks
            if end == "leaves":
                peers[0].leave()
            elif end == "aborts":
                peers[0].abort()
            else:
                nursery.start_soon(peers[0].ws.close, 4000)
                await stage.settle()
                peers[0].is_stalled = False
            await stage.settle()
            assert not nursery.child_tasks
        assert len(peers[1].take()) == 1


@pytest.mark.parametrize("members", [0, 1])
async def test_flush_is_a_cancel_point(members: int) -> None:
    async with open_stage() as stage:
        await stage.connect_all([staying_in("a")] * members)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stage.app.room("a").flush()
        assert scope.cancelled_caught


async def test_flush_that_is_cancelled_loses_nothing() -> None:
    async with open_stage() as stage:
        peer = await stage.connect(staying_in("a"))
        room = stage.app.room("a")
        peer.is_stalled = True
        room.broadcast(bytes(10_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.flush)
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            nursery.cancel_scope.cancel()
        peer.is_stalled = False
        await stage.settle()
        assert peer.take() == [bytes(10_000)]


async def test_flush_waits_for_the_end_of_a_fragmented_message_behind_which_it_waits() -> None:
    """Of a member to whom somebody else is sending one; where nothing waits for it, it does not."""
    go_on = trio.Event()

    async def parts() -> AsyncIterator[str]:
        yield "first, "
        await go_on.wait()
        yield "second"

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws):
            await ws.send_fragments(parts())
            await idle(ws)

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        room = stage.app.room("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.flush)
            await stage.settle()
            assert not nursery.child_tasks
            room.broadcast("held back")
            nursery.start_soon(room.flush)
            await stage.settle()
            assert nursery.child_tasks
            go_on.set()
            await stage.settle()
            assert not nursery.child_tasks
        assert peer.take() == ["first, second", "held back"]


async def test_flush_within_ones_own_fragmented_message_does_not_wait_for_its_end() -> None:
    """Which would be for ever; for the other members it waits."""
    flushed: list[bool] = []

    async def parts(ws: Websocket) -> AsyncIterator[str]:
        yield "first, "
        ws.app.room("a").broadcast("x" * 9000)
        await ws.app.room("a").flush()
        flushed.append(True)
        yield "second"

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws):
            await ws.recv()
            await ws.send_fragments(parts(ws))
            await idle(ws)

    async with open_stage() as stage:
        sender, other = await stage.connect_all([handler, staying_in("a")])
        other.is_stalled = True
        sender.say("go")
        await stage.settle()
        assert flushed == []
        other.is_stalled = False
        await stage.settle()
        assert flushed == [True]
        assert sender.take() == ["first, second", "x" * 9000]
        assert other.take() == ["x" * 9000]

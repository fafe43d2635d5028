"""Each member gets broadcasts in their order, and what is sent to it alone in its place."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_no_checkpoints

from tests.rooms.conftest import idle, open_stage, staying_in
from trioweb import BroadcastResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioweb import Websocket

# So many members are written to in one turn of the loop here, and so many there are.
SLICE, MANY = 50, 500


@pytest.fixture(autouse=True)
def _few_are_written_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioweb.ws.fanout.SLICE", SLICE)


async def test_each_of_very_many_members_gets_all_in_order() -> None:
    """Also beside what is sent to it alone, however the writing is divided over the time."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * MANY)
        room = stage.app.room("a")
        with assert_no_checkpoints():
            for number in range(3):
                assert room.broadcast(str(number)) == BroadcastResult(MANY, 0, 0)
        for peer in (peers[0], peers[MANY // 2], peers[-1]):
            await peer.ws.send("sent")
        room.broadcast("3")
        for peer in (peers[0], peers[MANY // 2], peers[-1]):
            await peer.ws.ping()
            await peer.ws.send("sent too")
        await stage.settle()
        for index, peer in enumerate(peers):
            expected = ["0", "1", "2", "3"]
            if index in (0, MANY // 2, MANY - 1):
                expected = ["0", "1", "2", "sent", "3", "sent too"]
            assert peer.take() == expected


async def test_a_broadcast_to_very_many_is_written_while_others_are_served() -> None:
    """Every member has it at once, in its queue or on the wire; others run in between."""
    reached: list[int] = []

    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * MANY)
        for peer in peers:
            peer.take()
        sent_before = [peer.ws._connection.outbox.bytes_sent for peer in peers]
        stage.app.room("a").broadcast("x" * 98)

        def written() -> int:
            return sum(
                peer.ws._connection.outbox.bytes_sent - before == 100
                for peer, before in zip(peers, sent_before, strict=True)
            )

        assert all(
            peer.waiting + peer.ws._connection.outbox.bytes_sent - before == 100
            for peer, before in zip(peers, sent_before, strict=True)
        )
        while not reached or reached[-1] < MANY:
            reached.append(written())
            assert len(reached) < MANY
            await trio.lowlevel.checkpoint()
        # Two slices may lie between two looks, as tasks run in any order.
        assert len(reached) > 1
        assert all(later - earlier <= 2 * SLICE for earlier, later in pairwise([0, *reached]))
        await stage.settle()
        assert all(peer.take() == ["x" * 98] for peer in peers)


async def test_the_order_of_broadcasts_by_many_is_the_same_for_all() -> None:
    """That in which ``broadcast`` was called, in whatever room, by whatever task."""
    called: list[str] = []
    pseudo_random = random.Random(1)

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws), ws.app.room("b").join(ws):
            async for message in ws:
                for number in range(pseudo_random.randrange(4)):
                    called.append(f"{message!r} {number}")
                    ws.app.room(pseudo_random.choice("ab")).broadcast(called[-1])
                    if pseudo_random.random() < 0.5:
                        await trio.lowlevel.checkpoint()

    async with open_stage() as stage:
        peers = await stage.connect_all([handler] * 10)
        for turn in range(10):
            for index, peer in enumerate(peers):
                peer.say(f"{index} in turn {turn}")
            if turn % 3 == 0:
                await stage.settle()
        await stage.settle()
        assert len(called) > 50
        for peer in peers:
            assert peer.take() == called


@pytest.mark.parametrize("is_stalled", [False, True])
async def test_broadcasts_and_sends_come_in_the_order_of_their_calls(is_stalled: bool) -> None:
    """Whether they are written at once or wait."""

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room:
            await ws.recv()
            for number in range(20):
                await ws.send(f"sent {number}".ljust(500, "."))
                for part in range(number % 3):
                    room.broadcast(f"broadcast {number} {part}".ljust(500, "."))
            await idle(ws)

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        peer.is_stalled = is_stalled
        peer.say("go")
        await stage.settle()
        peer.is_stalled = False
        await stage.settle()
        expected: list[str] = []
        for number in range(20):
            expected.append(f"sent {number}")
            expected += [f"broadcast {number} {part}" for part in range(number % 3)]
        assert [message.rstrip(".") for message in peer.take()] == expected


async def test_what_is_sent_to_one_waits_for_nothing_that_is_broadcast_after_it() -> None:
    """A ``send`` above the bound waits in line; the broadcasts of others don't wait with it."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=1000) as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        peers[0].is_stalled = True
        stage.app.room("a").broadcast("x" * 6000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peers[0].ws.send, "sent")
            await stage.settle()
            assert nursery.child_tasks
            assert stage.app.room("a").broadcast("y") == BroadcastResult(2, 0, 0)
            await stage.settle()
            assert peers[1].take() == ["x" * 6000, "y"]
            peers[0].is_stalled = False
            await stage.settle()
        assert sorted(peers[0].take()) == ["sent", "x" * 6000, "y"]


async def test_broadcasts_come_behind_a_fragmented_message_that_is_under_way() -> None:
    """In order, with nothing in its middle; other members have them at once."""
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
        peers = await stage.connect_all([handler, staying_in("a")])
        texts = [str(number) for number in range(5)]
        for text in texts:
            assert stage.app.room("a").broadcast(text) == BroadcastResult(2, 0, 0)
        await stage.settle()
        assert peers[0].take() == []
        assert peers[1].take() == texts
        go_on.set()
        stage.app.room("a").broadcast("last")
        await stage.settle()
        assert peers[0].take() == ["first, second", *texts, "last"]
        assert peers[1].take() == ["last"]

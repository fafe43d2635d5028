"""What the ``finally`` of a handler broadcasts reaches all others, however the handler ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.rooms.conftest import idle, open_stage, sockets, staying_in
from trioweb import BroadcastResult, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.rooms.conftest import Handler, Peer, Stage
    from trioweb import Websocket

BOUND = 1000
# A data frame of a kind that there is not, empty and masked (RFC 6455 §5.2).
RESERVED_OPCODE = b"\x83\x80\0\0\0\0"
# Seconds, in each of which something may be over: the grace, the timeout, the stall time.
STEP, STEPS = 6, 10


class Leaver:
    """A member whose handler says goodbye, and what it found then.

    Attributes:
        scope: around all that the handler does.
        results: of its farewell.
        was_member: whether it was one at that time.
    """

    def __init__(self, position: str, stays: Handler) -> None:
        self.position = position
        self.stays = stays
        self.scope = trio.CancelScope()
        self.results: list[BroadcastResult] = []
        self.was_member: list[bool] = []

    async def handler(self, ws: Websocket) -> None:
        with self.scope:
            if self.position == "inside":
                async with ws.app.room("a").join(ws):
                    try:
                        await self.stays(ws)
                    finally:
                        self.say_goodbye(ws)
            else:
                try:
                    async with ws.app.room("a").join(ws):
                        await self.stays(ws)
                finally:
                    self.say_goodbye(ws)

    def say_goodbye(self, ws: Websocket) -> None:
        room = ws.app.room("a")
        self.was_member.append(ws in sockets(room))
        self.results.append(room.broadcast("bye"))


async def sleep(ws: Websocket) -> None:
    await trio.sleep_forever()


async def crash(ws: Websocket) -> None:
    raise ValueError(await ws.recv())


async def crash_beside(ws: Websocket) -> None:
    ws.nursery.start_soon(crash, ws)
    await trio.sleep_forever()


async def receive_in_vain(ws: Websocket) -> None:
    """As the second seed does, which expects the end of the connection as an exception."""
    try:
        while True:
            await ws.receive_text()
    except WebSocketDisconnect:
        pass


async def say(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.say("now")


async def cancel_own_scope(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    leaver.scope.cancel()


async def cancel_nursery(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.ws.nursery.cancel_scope.cancel()


async def leave(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.leave(4001)


async def abort(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.abort()


async def hang_up(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    await peer.hang_up()


async def break_the_protocol(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.write(RESERVED_OPCODE)


async def read_nothing(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.is_stalled = True
    while peer.ws.open:
        stage.app.room("a").broadcast("x" * BOUND)
        await stage.settle()


async def stall(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    peer.is_stalled = True
    stage.app.room("a").broadcast("x" * 5 * BOUND)


async def close_by_another_task(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    await peer.ws.close(4000, wait=False)


async def close_for_a_while(stage: Stage, leaver: Leaver, peer: Peer) -> None:
    """The client does not answer our Close."""
    peer.answers = False
    await peer.ws.close(4000, wait=False)


ENDS: dict[str, tuple[Handler, Callable[..., Awaitable[None]], bool]] = {
    # How the handler stays, what ends it, and whether it is a member then until its block ends.
    "returns": (lambda ws: ws.recv(), say, True),
    "is cancelled by its own scope": (sleep, cancel_own_scope, True),
    "is cancelled by ws.nursery": (sleep, cancel_nursery, True),
    "crashes": (crash, say, True),
    "has a task that crashes": (crash_beside, say, True),
    "is left by its peer": (idle, leave, False),
    "is told of it by an exception": (receive_in_vain, leave, False),
    "does not notice that its peer has left": (sleep, leave, False),
    "loses its peer": (idle, abort, False),
    "finds the stream ended": (idle, hang_up, False),
    "does not notice that its peer is lost": (sleep, abort, False),
    "hears nonsense": (idle, break_the_protocol, False),
    "does not notice the nonsense": (sleep, break_the_protocol, False),
    "has a peer that is too slow": (idle, read_nothing, False),
    "does not notice that its peer is too slow": (sleep, read_nothing, False),
    "has a peer that stalls": (idle, stall, False),
    "is closed by another task": (idle, close_by_another_task, False),
    "is closed and gets no answer": (sleep, close_for_a_while, False),
}


@pytest.mark.parametrize("position", ["inside", "outside"])
@pytest.mark.parametrize("end", ENDS)
async def test_the_farewell_of_a_handler_that(
    end: str, position: str, mock_clock: trio.testing.MockClock
) -> None:
    """It reaches every other member, once, whether it is said in the block of ``join`` or behind.

    Who can't be told anything any more is no member then.
    """
    stays, happen, is_open_then = ENDS[end]
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=BOUND, WEBSOCKET_PING_INTERVAL=None) as stage:
        leaver = Leaver(position, stays)
        first = await stage.connect(staying_in("a"))
        peer = await stage.connect(leaver.handler)
        last = await stage.connect(staying_in("a"))
        await happen(stage, leaver, peer)
        for _ in range(STEPS):
            await stage.settle()
            if leaver.results:
                break
            mock_clock.jump(STEP)
        is_member = is_open_then and position == "inside"
        assert leaver.was_member == [is_member]
        assert leaver.results == [BroadcastResult(3 if is_member else 2, 0, 0)]
        for _ in range(STEPS):
            mock_clock.jump(STEP)
            await stage.settle()
        assert peer.handler_ended
        for other in (first, last):
            assert other.take()[-1] == "bye"
            assert other.messages.count("bye") == 0
        assert sockets(stage.app.room("a")) == [first.ws, last.ws]
        assert stage.app.connections == {first.ws, last.ws}


async def test_a_handler_that_closes_has_left_before_its_peer_answers() -> None:
    """Within the block of ``join``: a farewell reaches the others, who no longer see it there."""
    seen: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room:
            await ws.recv()
            ws.nursery.start_soon(look, ws)
            await ws.close(4000)
            seen.append(("after", room.broadcast("bye")))

    async def look(ws: Websocket) -> None:
        room = ws.app.room("a")
        seen.append(("while", len(room.members), ws in ws.app.connections))
        seen.append(("while", room.broadcast("it is closing")))

    async with open_stage() as stage:
        other = await stage.connect(staying_in("a"))
        peer = await stage.connect(handler)
        peer.answers = False
        peer.say("close")
        await stage.settle()
        one = BroadcastResult(1, 0, 0)
        assert seen == [("while", 1, False), ("while", one)]
        assert other.take() == ["it is closing"]
        assert peer.close == (4000, "")
        assert peer.take() == []
        peer.answer_close()
        await stage.settle()
        assert seen[2:] == [("after", one)]
        assert other.take() == ["bye"]
        assert peer.handler_ended


async def test_a_close_that_is_not_waited_for_ends_the_membership_in_its_step() -> None:
    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room, ws.app.room("b").join(ws):
            ws.nursery.start_soon(ws.close, 4000)
            while ws.open:
                assert len(room.members) == 1
                await trio.lowlevel.checkpoint()
            assert dict(ws.app.rooms) == {}

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        assert peer.close == (4000, "")


@pytest.mark.parametrize("waits", [0, 3])
async def test_on_shutdown_all_have_left_before_any_handler_hears_of_it(waits: int) -> None:
    """What was broadcast before arrives before Close; a farewell then reaches nobody."""
    heard: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws), ws.app.room("b").join(ws):
            try:
                async for _ in ws:
                    pass
            finally:
                heard.append((dict(ws.app.rooms), set(ws.app.connections)))
                heard.append(ws.app.room("a").broadcast("bye"))

    async with open_stage() as stage:
        peers = await stage.connect_all([handler] * 4)
        for peer in peers[:waits]:
            peer.is_stalled = True
        stage.app.room("a").broadcast("long ".ljust(9000, "."))
        stage.app.room("b").broadcast("last")
        stage.app.shutdown()
        assert dict(stage.app.rooms) == {}
        assert stage.app.connections == frozenset()
        assert stage.app.room("a").broadcast("too late") == BroadcastResult(0, 0, 0)
        await stage.settle()
        for peer in peers:
            peer.is_stalled = False
        await stage.settle()
        for peer in peers:
            assert [message.rstrip(".") for message in peer.take()] == ["long ", "last"]
            assert peer.close == (1001, "server is shutting down")
            assert peer.handler_ended
        assert heard == [({}, set()), BroadcastResult(0, 0, 0)] * 4


async def test_a_member_may_shut_the_server_down() -> None:
    """It is none any more when the call returns."""
    seen: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room:
            await ws.recv()
            room.broadcast("the last word")
            ws.app.shutdown()
            seen.append((room.members, ws.open))

    async with open_stage() as stage:
        peers = await stage.connect_all([handler, staying_in("a")])
        peers[0].say("shut down")
        await stage.settle()
        assert seen == [((), False)]
        for peer in peers:
            assert peer.take() == ["the last word"]
            assert peer.close == (1001, "server is shutting down")


async def test_nothing_is_left_of_a_server_that_is_cancelled() -> None:
    """Its handlers say goodbye to whom it may concern, and crash in nothing."""
    results: list[BroadcastResult] = []

    async def handler(ws: Websocket) -> None:
        try:
            async with ws.app.room("a").join(ws):
                await trio.sleep_forever()
        finally:
            results.append(ws.app.room("a").broadcast("bye"))

    async with open_stage(clients_leave=False) as stage:
        await stage.connect_all([handler] * 5)
        assert len(stage.app.room("a").members) == 5
    assert len(results) == 5
    assert all(0 <= result.sent < 5 and not result.dropped for result in results)


async def test_an_application_can_run_again() -> None:
    """Nothing of the first time is in its rooms."""
    async with open_stage() as stage:
        await stage.connect_all([staying_in("a")] * 2)
    async with stage.run():
        peer = await stage.connect(staying_in("a"))
        assert sockets(stage.app.room("a")) == [peer.ws]
        assert stage.app.room("a").broadcast("x") == BroadcastResult(1, 0, 0)
        await stage.settle()
        assert peer.take() == ["x"]

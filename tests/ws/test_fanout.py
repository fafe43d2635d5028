"""trioweb/ws/fanout.py: broadcasts are written in slices, and whoever comes first writes."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing
from wsproto import events

from trioweb.ws.fanout import BYTES_PER_WRITE, SLICE, Fanout
from trioweb.ws.outbox import write_at_once
from trioweb.ws.prepared import PreparedMessage
from trioweb.ws.websocket import connection_of
from trioweb.ws.writer import FrameWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.ws.conftest import Bench, Peer
    from trioweb import Websocket
    from trioweb.ws.connection import Connection


class Stage:
    """One connection whose handler waits, with a slice that is used up."""

    def __init__(self, bench: Bench) -> None:
        self.fanout = bench.fanout
        self.peer: Peer
        self.connection: Connection
        self.websocket: Websocket
        self.leave = trio.Event()

    async def handler(self, ws: Websocket) -> None:
        self.websocket = ws
        self.connection = connection_of(ws)
        await self.leave.wait()

    def offer(self, text: str, **options: Any) -> bool:
        return self.connection.offer(PreparedMessage(text), **options)

    @asynccontextmanager
    async def turns(self) -> AsyncIterator[None]:
        """Let the fan-out have turns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fanout.loop)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()

    async def messages(self, count: int) -> list[str | bytes]:
        with trio.fail_after(5):
            return [await self.peer.next_message() for _ in range(count)]


@pytest.fixture
async def stage(bench: Bench) -> AsyncIterator[Stage]:
    stage = Stage(bench)
    async with bench.connect(stage.handler) as stage.peer:
        await trio.testing.wait_all_tasks_blocked()
        stage.fanout.left = 0
        yield stage


async def test_what_is_over_the_slice_waits_for_a_turn(stage: Stage) -> None:
    """It is queued at once and written by the fan-out, in order, with nobody else's help."""
    for number in range(3):
        assert stage.offer(str(number))
    await trio.testing.wait_all_tasks_blocked()
    assert stage.connection.outbox.size == 9
    async with stage.turns():
        assert await stage.messages(3) == ["0", "1", "2"]
        assert stage.connection.outbox.size == 0
        assert stage.fanout.left == SLICE


async def test_sending_takes_the_writing_from_the_fanout(stage: Stage) -> None:
    """A message of the handler's own goes out behind the broadcast, without waiting for a turn."""
    assert stage.offer("first")
    await stage.websocket.send("second")
    assert await stage.messages(2) == ["first", "second"]
    async with stage.turns():
        assert stage.offer("third")
        assert await stage.messages(1) == ["third"]


async def test_ping_does_not_wait_for_a_turn(stage: Stage) -> None:
    """Control frames wake the send task: one message at most goes before them."""
    for text in ("one", "two", "three"):
        assert stage.offer(text)
    await stage.peer.send(events.Ping(b"p"))
    with trio.fail_after(5):
        came = [await stage.peer.next_event() for _ in range(4)]
    assert isinstance(came[1], events.Pong)
    assert [event.data for event in came if isinstance(event, events.Message)] == [
        "one",
        "two",
        "three",
    ]


async def test_close_follows_what_waits_for_a_turn(stage: Stage) -> None:
    """Close goes out behind the broadcast, whether or not the fan-out has a turn."""
    assert stage.offer("last words")
    stage.leave.set()
    assert await stage.messages(1) == ["last words"]
    assert await stage.peer.next_close() == (1000, "")


async def test_answer_to_close_does_not_wait_for_a_turn(stage: Stage) -> None:
    """When the peer closes, what waits for a turn is dropped and its Close is answered."""
    for text in ("too late", "much too late"):
        assert stage.offer(text)
    await stage.peer.close(4001)
    with trio.fail_after(5):
        event = await stage.peer.next_event()
    assert isinstance(event, events.CloseConnection)
    assert event.code == 4001
    assert stage.connection.outbox.dropped == 2
    assert stage.connection.messages_sent == 0


async def test_flush_waits_for_the_turn(stage: Stage) -> None:
    """Flushing returns when the fan-out has written, and not before."""
    assert stage.offer("one")
    async with trio.open_nursery() as nursery:
        flushed = trio.Event()

        async def flush() -> None:
            await stage.websocket.flush()
            flushed.set()

        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        assert not flushed.is_set()
        async with stage.turns():
            assert await stage.messages(1) == ["one"]
            await flushed.wait()


async def test_stopped_fanout_leaves_everything_to_the_send_tasks(stage: Stage) -> None:
    """What waits for a turn when there are no turns any more is written all the same."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.fanout.loop)
        await trio.testing.wait_all_tasks_blocked()
        stage.fanout.left = 0
        assert stage.offer("orphan")
        nursery.cancel_scope.cancel()
    assert await stage.messages(1) == ["orphan"]
    assert stage.offer("direct")
    assert await stage.messages(1) == ["direct"]


async def test_what_the_stream_does_not_take_is_the_send_tasks(stage: Stage, bench: Bench) -> None:
    """More than fits arrives whole and in order, with the next broadcast behind it."""
    large = "x" * 200_000
    for text in (large, "small", large + "!"):
        assert stage.offer(text)
    async with stage.turns():
        assert await stage.messages(3) == [large, "small", large + "!"]


async def test_newest_of_a_key_is_written_in_the_turn(stage: Stage) -> None:
    """Conflation and dropping work on what waits for a turn."""
    assert stage.offer("a 1", key="a")
    assert stage.offer("b 1", key="b")
    assert stage.offer("a 2", key="a")
    async with stage.turns():
        assert await stage.messages(2) == ["a 2", "b 1"]


async def test_sender_who_waits_for_room_is_admitted_by_the_turn(bench: Bench) -> None:
    """Over the bound a send waits in line; the fan-out's write lets it in."""
    stage = Stage(bench)
    async with bench.connect(stage.handler, send_queue_bytes=10) as stage.peer:
        await trio.testing.wait_all_tasks_blocked()
        stage.fanout.left = 0
        assert stage.offer("x" * 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.websocket.send, "behind")
            await trio.testing.wait_all_tasks_blocked()
            assert stage.connection.messages_sent == 1
            async with stage.turns():
                assert await stage.messages(2) == ["x" * 20, "behind"]


class Turns(trio.abc.Instrument):
    """Counts what is written in each turn of the event loop."""

    def __init__(self) -> None:
        self.writes = [0]

    def before_io_wait(self, timeout: float) -> None:
        self.writes.append(0)


class Recorder(FrameWriter):
    """Stands in for a connection's writer, of so many bytes."""

    def __init__(self, size: int, turns: Turns) -> None:
        self.queued = size
        self.turns = turns

    def write_in_turn(self, now: float) -> int:
        self.turns.writes[-1] += 1
        return self.queued


@pytest.mark.parametrize(("size", "in_a_turn"), [(64, SLICE), (3 * BYTES_PER_WRITE, SLICE // 4)])
async def test_others_run_between_slices(size: int, in_a_turn: int) -> None:
    """A turn writes no more than a slice, in which large writes count for several."""
    fanout, turns = Fanout(), Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fanout.loop)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(turns)
        for _ in range(3 * in_a_turn):
            fanout.add(Recorder(size, turns))
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
    assert [writes for writes in turns.writes if writes] == [in_a_turn] * 3


async def test_broadcast_to_a_few_does_not_wait_for_one_to_many() -> None:
    """All broadcasts get on together, and so does one that comes when they have begun."""
    fanout, turns = Fanout(), Turns()
    order: list[str] = []

    class Named(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__(64, turns)
            self.name = name

        def write_in_turn(self, now: float) -> int:
            order.append(self.name)
            return super().write_in_turn(now)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fanout.loop)
        await trio.testing.wait_all_tasks_blocked()
        for name, members in (("many", 4 * SLICE), ("few", 3), ("fewer", 1)):
            for _ in range(members):
                fanout.add(Named(name))
            fanout.has_handed_out()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert order[:7] == ["many", "few", "fewer", "many", "few", "many", "few"]
    assert order.count("many") == 4 * SLICE


async def test_what_comes_after_a_broadcast_that_broke_off_has_turns_too() -> None:
    """Nobody said that it was handed out; its writers had their turns."""
    fanout, turns = Fanout(), Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fanout.loop)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            fanout.add(Recorder(64, turns))
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sum(turns.writes) == 2


async def test_stream_that_breaks_in_a_turn_is_counted_right(memory: Bench) -> None:
    """What went out before it broke was sent, all else was not."""
    stage = Stage(memory)
    async with memory.connect(stage.handler) as stage.peer:
        await trio.testing.wait_all_tasks_blocked()
        stage.fanout.left = 0
        outbox = stage.connection.outbox
        taken: list[int] = []

        class Breaking:
            def try_send(self, data: bytes) -> int:
                if taken:
                    raise trio.BrokenResourceError
                taken.append(len(data))
                return len(data)

        for text in ("one", "two", "three"):
            assert stage.offer(text)
        before = outbox.bytes_sent
        outbox._stream = cast("Any", Breaking())
        outbox.write_in_turn(trio.current_time())
        assert outbox.bytes_sent - before == taken[0] == len("one") + 2
        assert stage.connection.messages_sent == 1
        assert not stage.connection.open


async def test_writing_at_once_uses_up_the_slice(memory: Bench) -> None:
    """Beyond it the message is left to the fan-out, if that is the connection's own."""
    stage = Stage(memory)
    async with memory.connect(stage.handler) as stage.peer:
        await trio.testing.wait_all_tasks_blocked()
        outboxes, now = [stage.connection.outbox], trio.current_time()
        for left, expected in ((2, 1), (1, 0)):
            stage.fanout.left = left
            message = PreparedMessage(f"at once {left}")
            assert write_at_once(outboxes, message, stage.fanout, now, or_leave=True) == []
            assert stage.fanout.left == expected
            assert stage.connection.outbox.size == 0
        strange = Fanout()
        strange.left = 0
        for fanout, or_leave in ((stage.fanout, False), (strange, True)):
            message = PreparedMessage("to be offered")
            assert write_at_once(outboxes, message, fanout, now, or_leave=or_leave) == [0]
        message = PreparedMessage("left")
        assert write_at_once(outboxes, message, stage.fanout, now, or_leave=True) == []
        assert stage.connection.outbox.size == len("left") + 2
        async with stage.turns():
            assert await stage.messages(3) == ["at once 2", "at once 1", "left"]


async def test_what_the_send_task_takes_over_has_its_stall_time(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """Without pings there is no other deadline that the heartbeat would wake for."""
    stage = Stage(memory)
    options: dict[str, Any] = {"ping_interval": None, "stall_timeout": 30, "timeout": 5}
    async with memory.connect(stage.handler, **options) as stage.peer:
        await trio.testing.wait_all_tasks_blocked()
        stage.fanout.left = 0
        assert stage.offer("x" * 100_000)
        await stage.websocket.send("wakes the send task")
        await trio.sleep(29)
        assert stage.connection.open
        await trio.sleep(2)
        assert not stage.connection.open
        assert stage.connection.failure is not None
        assert stage.connection.failure.code == 1013


async def test_small_broadcasts_use_up_a_slice_and_get_a_new_one() -> None:
    """What one turn writes is bounded over all broadcasts together; the next has its own slice."""
    fanout = Fanout()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fanout.loop)
        await trio.testing.wait_all_tasks_blocked()
        fanout.left -= SLICE / 2
        fanout.has_handed_out()
        assert fanout.left == SLICE / 2
        await trio.testing.wait_all_tasks_blocked()
        assert fanout.left == SLICE
        nursery.cancel_scope.cancel()
    assert fanout.left == math.inf

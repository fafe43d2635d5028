"""The outbox's policies: what becomes of broadcasts to a peer that is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from trioweb.errors import WebsocketClosed
from trioweb.ws.prepared import PreparedMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.ws.conftest import Bench, Peer
    from trioweb.ws import Websocket
    from trioweb.ws.connection import Connection

SIZE = 1000
BOUND = 10 * SIZE


class Stage:
    """A handler that waits for its peer, and the connection to broadcast to."""

    def __init__(self) -> None:
        self.connection: Connection
        self.ended = trio.Event()

    async def handler(self, ws: Websocket) -> None:
        self.connection = ws._connection
        try:
            async for _ in ws:
                pass
        finally:
            self.ended.set()

    def offer(self, text: str, **options: Any) -> bool:
        return self.connection.offer(PreparedMessage(text.ljust(SIZE, ".")), **options)

    @property
    def size(self) -> int:
        return self.connection.outbox.size


async def read_all(peer: Peer) -> list[str]:
    """All messages that come, by their first word."""
    got: list[str] = []
    with trio.move_on_after(0.2):
        while True:
            message = await peer.next_message()
            assert isinstance(message, str)
            assert len(message) == SIZE, "a torn message"
            got.append(message.rstrip("."))
    return got


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_peer_that_reads_gets_everything(bench: Bench, stage: Stage) -> None:
    async with bench.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        for number in range(100):
            assert stage.offer(str(number))
            assert (await peer.next_message()).rstrip(".") == str(number)  # type: ignore[arg-type]
        assert stage.connection.outbox.dropped == 0


async def test_the_oldest_is_dropped_and_the_newest_seen(bench: Bench, stage: Stage) -> None:
    """Exactly what is counted as dropped does not come; what was begun is finished."""
    async with bench.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        for number in range(3000):
            assert stage.offer(str(number), drop_oldest=True)
            assert stage.size <= 2 * BOUND + SIZE  # half of it is the write in progress
            if number % 100 == 0:
                await wait_all_tasks_blocked()
        dropped = stage.connection.outbox.dropped
        got = [int(word) for word in await read_all(peer)]
        assert stage.connection.messages_sent == len(got)
        assert got == sorted(got)
        assert got[-9:] == list(range(2991, 3000))
        assert dropped == 3000 - len(got) > 100
        assert stage.connection.open


async def test_what_was_sent_is_never_dropped(memory: Bench, stage: Stage) -> None:
    """Whatever fills the bound, the newest broadcast waits beside it."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        websocket: Any = stage.connection.websocket
        for number in range(15):
            await websocket.send(f"sent {number}".ljust(SIZE, "."))
            if stage.size >= BOUND:
                break
        sent = number + 1
        for number in range(5):
            assert stage.offer(f"new {number}", drop_oldest=True)
        assert stage.connection.outbox.dropped == 4
        assert await read_all(peer) == [*(f"sent {n}" for n in range(sent)), "new 4"]


async def test_a_key_keeps_one_message_in_its_place(memory: Bench, stage: Stage) -> None:
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        stage.offer("fills the link")
        for number in range(5):
            stage.offer(f"fills {number}")
        for number in range(50):
            for key in ("a", ("b", 1)):
                assert stage.offer(f"{key} {number}", key=key)
            if number % 20 == 0:
                stage.offer(f"plain {number}")
        assert stage.connection.outbox.replaced == 98
        assert stage.connection.outbox.dropped == 0
        got = await read_all(peer)
        assert got[6:] == ["a 49", "('b', 1) 49", "plain 0", "plain 20", "plain 40"]
        # Once it is written, a key is free again.
        assert stage.offer("a 50", key="a")
        assert await read_all(peer) == ["a 50"]
        assert stage.connection.outbox.replaced == 98


async def test_a_key_may_be_any_hashable_and_is_no_place_of_ours(
    memory: Bench, stage: Stage
) -> None:
    """Nor do numbers collide with the places of messages without a key."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        for number in range(8):
            stage.offer(f"fills {number}")
        for key in range(8):
            stage.offer(f"key {key}", key=key)
        assert stage.connection.outbox.replaced == 0
        assert len(await read_all(peer)) == 16


async def test_a_peer_four_times_over_the_bound_is_disconnected(
    memory: Bench, stage: Stage
) -> None:
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        queued = 0
        while stage.offer(str(queued)):
            queued += 1
            assert stage.size <= 5 * BOUND  # a part of it is the write in progress
        assert queued >= 40
        assert not stage.connection.open
        assert not stage.offer("after")
        received = 0
        while not isinstance(event := await peer.next_event(), events.CloseConnection):
            received += isinstance(event, events.Message)
        assert event.code == 1013
        assert stage.connection.outbox.dropped == queued - received + 1
        assert stage.connection.messages_sent == received


async def test_a_peer_that_takes_something_is_not_disconnected_by_its_queue(
    memory: Bench, stage: Stage, autojump_clock: trio.testing.MockClock
) -> None:
    """Above the bound but below four times: its progress decides, not the length of its queue."""
    async with memory.connect(
        stage.handler, send_queue_bytes=BOUND, stall_timeout=30, ping_interval=None
    ) as peer:
        await wait_all_tasks_blocked()
        for number in range(30):
            assert stage.offer(str(number))
        for _ in range(10):
            await trio.sleep(29)
            await peer.stream.receive_some(1000)
        assert stage.connection.open
        for number in range(20):
            assert stage.offer(str(number))
        await trio.sleep(31)
        assert not stage.connection.open
        await trio.sleep(10)
        assert stage.ended.is_set()


async def test_a_slow_peer_delays_no_other(memory: Bench) -> None:
    """Each of a thousand broadcasts is there at once for the others."""
    stages = [Stage() for _ in range(4)]
    connects = [memory.connect(stage.handler, send_queue_bytes=BOUND) for stage in stages]
    async with connects[0], connects[1], connects[2] as stalled, connects[3] as well:
        await wait_all_tasks_blocked()
        for number in range(1000):
            message = PreparedMessage(str(number).ljust(SIZE, "."))
            for stage in (stages[0], stages[1], stages[2]):
                stage.connection.offer(message, drop_oldest=True)
            assert stages[3].connection.offer(message)
            received = await well.next_message()
            assert isinstance(received, str)
            assert received.rstrip(".") == str(number)
        got = await read_all(stalled)
        assert got[-1] == "999"
        assert len(got) + stages[2].connection.outbox.dropped == 1000


# Broadcasts and a fragmented message


@pytest.mark.parametrize("idle", [True, False])
async def test_broadcasts_wait_for_the_end_of_a_fragmented_message(
    bench: Bench, idle: bool
) -> None:
    begun, go_on = trio.Event(), trio.Event()
    stage = Stage()

    async def parts() -> AsyncIterator[str]:
        yield "a"
        begun.set()
        await go_on.wait()
        yield "b"

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        if not idle:
            stage.offer("before")
        await ws.send_fragments(parts())
        await ws.flush()

    async with bench.connect(handler) as peer:
        await begun.wait()
        for number in range(3):
            stage.offer(f"key {number}", key="k")
            stage.offer(f"plain {number}")
        go_on.set()
        got = []
        for _ in range(5 if idle else 6):
            message = await peer.next_message()
            assert isinstance(message, str)
            got.append(message.rstrip("."))
        assert got == [
            *([] if idle else ["before"]),
            "ab",
            "key 2",
            "plain 0",
            "plain 1",
            "plain 2",
        ]
        assert await peer.next_close() == (1000, "")


async def test_what_is_held_back_is_bounded_and_counted(memory: Bench) -> None:
    begun = trio.Event()
    stage = Stage()

    async def parts() -> AsyncIterator[str]:
        yield "a"
        begun.set()
        await trio.sleep_forever()

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        await ws.send_fragments(parts())

    async with memory.connect(handler, send_queue_bytes=BOUND) as peer:
        await begun.wait()
        for number in range(100):
            assert stage.offer(str(number), drop_oldest=True)
        assert stage.connection.outbox.dropped == 91
        await peer.close()
        await wait_all_tasks_blocked()
        assert not stage.connection.open


async def test_what_is_held_back_is_not_written_behind_close(bench: Bench) -> None:
    """Nor does a task that waited to send get in there."""
    begun, go_on = trio.Event(), trio.Event()
    stage = Stage()
    codes: list[int] = []

    async def parts() -> AsyncIterator[str]:
        yield "a"
        begun.set()
        await go_on.wait()
        yield "b"

    async def push(ws: Websocket) -> None:
        try:
            await ws.send("pushed")
        except WebsocketClosed as closed:
            codes.append(closed.code)

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        try:
            await ws.send_fragments(parts())
        except WebsocketClosed as closed:
            codes.append(closed.code)

    async with bench.connect(handler) as peer:
        await begun.wait()
        websocket: Any = stage.connection.websocket
        websocket.nursery.start_soon(push, websocket)
        await wait_all_tasks_blocked()
        assert stage.offer("held")
        await websocket.close(4000, wait=False)
        go_on.set()
        assert await peer.next_frame() == events.TextMessage("a", message_finished=False)
        close = await peer.next_frame()
        assert isinstance(close, events.CloseConnection)
        await peer.answer(close)
        assert await peer.next_frame() is None
    assert codes == [4000, 4000]


async def test_the_oldest_is_dropped_before_and_behind_a_fragmented_message(memory: Bench) -> None:
    """What was queued before it first, then what is held back; and afterwards in order again."""
    begun, go_on = trio.Event(), trio.Event()
    stage = Stage()

    async def parts() -> AsyncIterator[str]:
        yield "fragment".ljust(SIZE, ".")
        begun.set()
        await go_on.wait()

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        await wait_all_tasks_blocked()  # the client reads the head, and nothing more
        for number in range(12):
            stage.offer(f"before {number}", drop_oldest=True)
        await ws.send_fragments(parts())
        await trio.sleep_forever()

    async with memory.connect(handler, send_queue_bytes=BOUND) as peer:
        await begun.wait()
        in_queue = stage.connection.outbox.dropped
        for number in range(9):
            assert stage.offer(f"held {number}", drop_oldest=True)
        assert stage.offer("key 1", key="k", drop_oldest=True)
        go_on.set()
        await wait_all_tasks_blocked()
        assert stage.offer("key 2", key="k", drop_oldest=True)
        assert stage.offer("last", drop_oldest=True)
        dropped = stage.connection.outbox.dropped
        assert dropped > in_queue
        got = await read_all(peer)
        assert got[-2:] == ["key 2", "last"]
        order = [*(f"before {n}" for n in range(12)), "fragment"]
        order += [*(f"held {n}" for n in range(9)), "key 2", "last"]
        assert got == [word for word in order if word in got]
        assert len(got) == len(order) - dropped
        droppable = [word for word in order if word.startswith(("before", "held"))]
        first = next(n for n, word in enumerate(droppable) if word not in got)
        assert not set(got) & set(droppable[first : first + dropped]), "not the oldest"


async def test_a_slow_generator_is_no_slow_peer(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """What is held back until the message's end does not wait for the peer."""
    stage = Stage()

    async def parts() -> AsyncIterator[str]:
        for _ in range(5):
            yield "a"
            await trio.sleep(100)

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        await ws.send_fragments(parts())

    async with memory.connect(handler, stall_timeout=30, ping_interval=None) as peer:
        await wait_all_tasks_blocked()
        stage.offer("held")
        assert await peer.next_message() == "aaaaa"
        assert (await peer.next_message()).rstrip(".") == "held"  # type: ignore[arg-type]
        assert await peer.next_close() == (1000, "")


async def test_a_bound_of_nothing_lets_one_message_wait(memory: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        for number in range(3):
            await ws.send(str(number).ljust(10 * SIZE))

    async with memory.connect(handler, send_queue_bytes=0) as peer:
        for number in range(3):
            assert await peer.next_message() == str(number).ljust(10 * SIZE)
        assert await peer.next_close() == (1000, "")


# Keys and the bound


async def read_sizes(peer: Peer) -> list[int]:
    """How large the messages are that come, to the last, or to the server's Close."""
    sizes: list[int] = []
    with trio.move_on_after(0.2):
        while not isinstance(event := await peer.next_event(), events.CloseConnection):
            assert isinstance(event, events.Message)
            sizes.append(len(event.data))
    return sizes


KEYS = 10
SMALL, LARGE = 10, 3 * SIZE


@pytest.mark.parametrize("drop_oldest", [True, False])
async def test_small_messages_are_not_replaced_by_large_ones_beyond_the_bound(
    memory: Bench, stage: Stage, drop_oldest: bool
) -> None:
    """The bound, or four times that and one message; every message offered is accounted for."""
    bound = BOUND if drop_oldest else 4 * BOUND + LARGE
    offered = refused = 0

    def offer(size: int, key: Any = None) -> None:
        nonlocal offered, refused
        offered += 1
        message = PreparedMessage("x" * size)
        refused += not stage.connection.offer(message, key=key, drop_oldest=drop_oldest)
        # What was begun is in nobody's way.
        assert stage.size <= bound + SIZE

    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        for _ in range(5):  # fill the link
            offer(SIZE)
        await wait_all_tasks_blocked()
        for key in range(2 * KEYS):
            offer(SMALL, key)
        outbox = stage.connection.outbox
        assert (outbox.dropped, outbox.replaced) == (0, 0)
        for key in range(2 * KEYS):
            if stage.connection.open:
                offer(LARGE, key)
        assert stage.connection.open == drop_oldest
        assert outbox.replaced > 0
        sizes = await read_sizes(peer)
        assert len(sizes) + outbox.dropped + outbox.replaced == offered
        assert stage.connection.messages_sent == len(sizes)
        assert refused == (0 if drop_oldest else 1)
        if drop_oldest:
            assert sizes == [SIZE] * 5 + [LARGE] * (BOUND // LARGE)


async def test_a_large_message_takes_the_place_of_a_large_one_at_the_bound(
    memory: Bench, stage: Stage
) -> None:
    """What it replaces does not count against it, and nothing else is dropped for it."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        for number in range(5):  # fill the link
            stage.offer(str(number))
        await wait_all_tasks_blocked()
        for key in range(9):
            assert stage.offer(f"old {key}", key=key, drop_oldest=True)
        for key in range(9):
            assert stage.offer(f"new {key}", key=key, drop_oldest=True)
        outbox = stage.connection.outbox
        assert (outbox.dropped, outbox.replaced) == (0, 9)
        got = await read_all(peer)
        assert got == [*map(str, range(5)), *(f"new {key}" for key in range(9))]


# Control frames


@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_pongs_of_ones_own_and_answers_to_pings_leave_each_other_in_place(
    memory: Bench, first: str
) -> None:
    """Also while all of them wait behind a peer that is slow to read."""
    done = trio.Event()

    async def handler(ws: Websocket) -> None:
        await ws.send(b"x" * 20_000)
        for message in ("one", "two"):
            if first == "theirs":
                await ws.recv()
            await ws.pong(message.encode())
        if first == "ours":
            await ws.recv()
        done.set()
        await ws.recv()

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        await peer.send(events.Ping(b"theirs"), "now", "now")
        await done.wait()
        assert await peer.next_event() == events.BytesMessage(bytearray(b"x" * 20_000))
        pongs = [await peer.next_event() for _ in range(3)]
        assert sorted(bytes(getattr(pong, "payload", b"")) for pong in pongs) == [
            b"one",
            b"theirs",
            b"two",
        ]
        assert {type(pong) for pong in pongs} == {events.Pong}
        await peer.close()
        assert await peer.next_close() == (1000, "")


@pytest.mark.parametrize("operation", ["flush", "ping", "pong"])
async def test_nothing_within_ones_own_fragments_waits_for_their_end(
    memory: Bench, operation: str
) -> None:
    """Nor for a broadcast that is held back until then."""
    stage = Stage()

    async def parts(ws: Websocket) -> AsyncIterator[str]:
        yield "a"
        assert stage.offer("held")
        yield "b" * 30_000  # over the bound, until the peer reads
        assert ws._connection.outbox.is_over_bound
        with trio.fail_after(5):
            await getattr(ws, operation)()
        yield "c"

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        await ws.send_fragments(parts(ws))

    async with memory.connect(handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        assert await peer.next_message() == "a" + "b" * 30_000 + "c"
        assert await peer.next_message() == "held".ljust(SIZE, ".")
        assert await peer.next_close() == (1000, "")


async def test_a_message_of_a_key_is_not_dropped_to_make_room_for_its_successor(
    memory: Bench, stage: Stage
) -> None:
    """The oldest of the others is, and the successor takes its place."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await wait_all_tasks_blocked()
        for number in range(5):
            stage.offer(f"fills {number}")
        await wait_all_tasks_blocked()
        stage.connection.offer(PreparedMessage("k".ljust(100, ".")), key="k", drop_oldest=True)
        for number in range(9):
            assert stage.offer(f"plain {number}", drop_oldest=True)
        assert stage.connection.outbox.dropped == 0
        assert stage.offer("key", key="k", drop_oldest=True)
        assert (stage.connection.outbox.dropped, stage.connection.outbox.replaced) == (1, 1)
        got = await read_all(peer)
        assert got[5:] == ["key", *(f"plain {number}" for number in range(1, 9))]


async def test_a_broadcast_that_finds_the_stream_broken_is_not_counted(memory: Bench) -> None:
    stage = Stage()

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        await trio.sleep_forever()

    async with memory.connect(handler, max_queue=1) as peer:
        await peer.send("fills", "the inbox")  # so that the loss is not read
        await wait_all_tasks_blocked()
        await peer.stream.aclose()
        assert stage.connection.open
        assert not stage.offer("lost")
        assert stage.connection.messages_sent == 0
        assert not stage.connection.open


async def stall(stage: Stage) -> None:
    """Broadcast until something waits that can't be taken back."""
    await wait_all_tasks_blocked()
    for number in range(5):
        assert stage.offer(f"fills {number}")
    await wait_all_tasks_blocked()
    assert stage.size


async def test_what_was_sent_keeps_no_stale_message_of_a_key(memory: Bench, stage: Stage) -> None:
    """Though it fills the bound by itself: the successor makes the queue longer by one at most."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await stall(stage)
        assert stage.offer("score 1:0", key="score", drop_oldest=True)
        await stage.connection.send(1, b"sent".ljust(BOUND, b"."))
        assert stage.offer("score 1:1", key="score", drop_oldest=True)
        got = [str(await peer.next_message()).rstrip(".") for _ in range(7)]
        assert got[5:] == ["score 1:1", "sent"]


async def test_a_message_that_took_a_place_is_as_young_as_it_is(
    memory: Bench, stage: Stage
) -> None:
    """Though its place is old: others go before it."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await stall(stage)
        assert stage.offer("score 1:0", key="score", drop_oldest=True)
        for number in range(8):
            assert stage.offer(f"chat {number}", drop_oldest=True)
        assert stage.offer("score 1:1", key="score", drop_oldest=True)
        for number in range(8, 11):
            assert stage.offer(f"chat {number}", drop_oldest=True)
        got = (await read_all(peer))[5:]
        assert got[0] == "score 1:1"
        assert got[1:] == [f"chat {number}" for number in range(11 - len(got[1:]), 11)]
        assert len(got) < 12


async def test_one_policy_drops_nothing_of_the_other(memory: Bench, stage: Stage) -> None:
    """What was offered without ``drop_oldest`` stays."""
    async with memory.connect(stage.handler, send_queue_bytes=BOUND) as peer:
        await stall(stage)
        for number in range(12):
            assert stage.offer(f"money {number}")
        for number in range(3):
            assert stage.offer(f"cursor {number}", drop_oldest=True)
        assert stage.connection.outbox.dropped == 2
        expected = [*(f"money {number}" for number in range(12)), "cursor 2"]
        assert (await read_all(peer))[5:] == expected


@pytest.mark.parametrize("drop_oldest", [True, False])
async def test_a_queue_of_tiny_messages_is_bounded_by_their_number(
    memory: Bench, stage: Stage, drop_oldest: bool
) -> None:
    """Each costs a place, which is more than its few bytes."""
    message = PreparedMessage("1")
    async with memory.connect(stage.handler, send_queue_bytes=100_000):
        await stall(stage)
        waiting = 0
        for key in range(2000):
            if not stage.connection.offer(message, key=key, drop_oldest=drop_oldest):
                break
            waiting += 1
        outbox = stage.connection.outbox
        if drop_oldest:
            assert waiting == 2000
            assert 1500 < outbox.dropped < 2000
        else:
            assert 1500 < waiting < 1600
            assert not stage.connection.open
        assert outbox.waiting < 10 * SIZE


async def test_a_queue_that_a_fragmented_message_holds_back_is_named_so(
    memory: Bench, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer is not slow: its own handler keeps the others waiting."""
    is_sending = trio.Event()

    async def parts() -> AsyncIterator[str]:
        yield "begun"
        is_sending.set()
        await trio.sleep_forever()

    async def handler(ws: Websocket) -> None:
        stage.connection = ws._connection
        await ws.send_fragments(parts())

    async with memory.connect(handler, send_queue_bytes=BOUND):
        await is_sending.wait()
        while stage.offer("held"):
            pass
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "bytes are waiting to be sent behind a fragmented message" in record.getMessage()

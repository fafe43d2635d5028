"""Pings, their waiters, dead peers and stalled ones, on the virtual clock.

The sockets' part of it, which needs a kernel to be asked, takes real time: a few hundredths of a
second.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from tests.ws.conftest import Bench
from trioweb.errors import PingTimeout, SlowConsumer, WebsocketClosed
from trioweb.testing import Link
from trioweb.ws.groups import leaves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.ws.conftest import Peer
    from trioweb.ws import Websocket
    from trioweb.ws.heartbeat import PingWaiter

Clock = trio.testing.MockClock


@pytest.fixture(params=["link", "adapter"])
def timed(request: pytest.FixtureRequest) -> Bench:
    """The byte streams that need no kernel, the direct one and the adapter."""
    return Bench(request.param)


def vanish(peer: Peer) -> None:
    """Take nothing more, as a machine does whose plug was pulled."""
    assert isinstance(peer.stream, Link)
    peer.stream.stall()


async def answer_pings(peer: Peer, after: float = 0) -> None:
    """A peer that is well: it reads, and answers each ping in its time."""
    while (event := await peer.next_event()) is not None:
        if isinstance(event, events.Ping):
            await trio.sleep(after)
            await peer.send(event.response())


async def note_end(ws: Websocket, into: list[Any]) -> None:
    """Receive to the end, and keep when and how it came."""
    async for _ in ws:
        pass
    assert ws.close_info is not None
    into.append((trio.current_time(), ws.close_info.code, ws.close_info.by, ws.close_info.clean))


# Heartbeats


async def test_an_hour_of_heartbeats_takes_milliseconds(
    timed: Bench, autojump_clock: Clock
) -> None:
    """One ping in each interval, and none is missing."""
    pings: list[float] = []

    async def handler(ws: Websocket) -> None:
        await trio.sleep(3601)
        assert ws.open

    began = time.perf_counter()
    async with timed.connect(handler) as peer:
        while not isinstance(event := await peer.next_event(), events.CloseConnection):
            assert isinstance(event, events.Ping)
            pings.append(trio.current_time())
            await peer.send(event.response())
        await peer.send(event.response())
    assert pings == [20.0 * n for n in range(1, 181)]
    assert time.perf_counter() - began < 10  # milliseconds, on a machine that is not busy


@pytest.mark.parametrize(("interval", "timeout"), [(20, 20), (7, 3), (3, 7), (5, 60)])
async def test_a_dead_peer_on_an_idle_connection_is_found_on_time(
    timed: Bench, autojump_clock: Clock, interval: float, timeout: float
) -> None:
    ended: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await note_end(ws, ended)
        with pytest.raises(PingTimeout, match="no sign of life"):
            ws.raise_for_close()

    async with timed.connect(handler, ping_interval=interval, ping_timeout=timeout) as peer:
        vanish(peer)
        await trio.sleep(100)
    assert ended == [(interval + timeout, 1011, "us", False)]


@pytest.mark.parametrize(
    "life",
    [
        events.TextMessage("x"),
        events.TextMessage("a part", message_finished=False),
        events.Ping(b"x"),
        events.Pong(b"unasked for"),
    ],
)
async def test_any_byte_that_comes_is_life(
    timed: Bench, autojump_clock: Clock, life: events.Event
) -> None:
    ended: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await note_end(ws, ended)

    async with timed.connect(handler) as peer:
        for _ in range(3):
            await trio.sleep(12.25)
            await peer.send(life)
        vanish(peer)
        await trio.sleep(100)
    assert [at for at, *_ in ended] == [3 * 12.25 + 40]


async def test_what_the_peer_takes_is_life_for_a_stall_time_at_most(
    timed: Bench, autojump_clock: Clock
) -> None:
    """A kernel may go on taking data for a peer that is gone."""
    ended: list[Any] = []

    async def push(ws: Websocket) -> None:
        while True:
            await ws.send("x")
            await trio.sleep(1)

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(push, ws)
        await note_end(ws, ended)

    async with timed.connect(handler) as peer:
        vanish(peer)
        await trio.sleep(200)
    assert ended == [(30 + 40, 1011, "us", False)]


@pytest.mark.parametrize("off", ["ping_timeout", "ping_interval"])
async def test_a_dead_peer_is_not_looked_for_where_that_is_turned_off(
    timed: Bench, autojump_clock: Clock, off: str
) -> None:
    was_open: list[bool] = []

    async def handler(ws: Websocket) -> None:
        await trio.sleep(3600)
        was_open.append(ws.open)

    options: dict[str, Any] = {off: None}
    async with timed.connect(handler, **options) as peer:
        vanish(peer)
        await trio.sleep(3601)
    assert was_open == [True]


# While we are the ones who don't read


async def test_no_kill_while_messages_lie_unread_for_an_hour_and_the_peer_is_well(
    memory: Bench, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A Link tells whether its peer is there, as the kernel does for a socket."""
    received: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await trio.sleep(3600)
        assert ws.open
        received.extend([await ws.recv(), await ws.recv()])

    async with memory.connect(handler, max_queue=1) as peer:
        await peer.send("1", "2")
        assert await peer.next_close() == (1000, "")
    assert received == ["1", "2"]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].startswith("handler: messages from memory have been waiting unread for 30 s")


async def test_where_nobody_can_be_asked_ten_stall_times_unread_are_the_end(
    autojump_clock: Clock,
) -> None:
    ended: list[float] = []

    async def handler(ws: Websocket) -> None:
        while ws.open:
            await trio.sleep(1)
        ended.append(trio.current_time())

    async with Bench("adapter").connect(handler, max_queue=1) as peer:
        await peer.send("1", "2")
        await trio.sleep(400)
    assert len(ended) == 1
    assert 300 <= ended[0] <= 301


async def test_a_peer_that_leaves_behind_a_full_inbox_is_found(bench: Bench) -> None:
    found = trio.Event()

    async def handler(ws: Websocket) -> None:
        try:
            while ws.open:
                await trio.sleep(0.01)
            with pytest.raises(WebsocketClosed):
                await ws.send("x")
            assert await ws.recv() == "1"
            assert await ws.recv() == "2"
        finally:
            found.set()

    async with bench.connect(
        handler, max_queue=1, ping_interval=0.05, ping_timeout=0.05, stall_timeout=0.05
    ) as peer:
        await peer.send("1", "2")
        await wait_all_tasks_blocked()
        await peer.stream.aclose()
        with trio.fail_after(5):
            await found.wait()


async def test_a_peer_is_given_its_time_again_when_reading_resumes(
    memory: Bench, autojump_clock: Clock
) -> None:
    """What we did not read for a while proves nothing against the peer."""
    ended: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await trio.sleep(100)
        await note_end(ws, ended)

    async with memory.connect(handler, max_queue=1) as peer:
        await peer.send("1", "2", "3")
        vanish(peer)
        await trio.sleep(200)
    assert ended == [(100 + 40, 1011, "us", False)]


# Latency and the waiters of pings


async def test_latency_is_the_last_round_trip(timed: Bench, autojump_clock: Clock) -> None:
    async def handler(ws: Websocket) -> None:
        assert ws.latency is None
        waiter = await ws.ping(b"mine")
        assert await waiter == ws.latency == 1.5
        await trio.sleep(25)  # the heartbeat's own ping counts as well
        assert ws.latency == 1.5
        assert await waiter == 1.5

    async with timed.connect(handler) as peer, trio.open_nursery() as nursery:
        await peer.send(events.Pong(b"unasked for"))
        nursery.start_soon(answer_pings, peer, 1.5)


async def test_the_heartbeat_measures_latency_without_being_asked(
    memory: Bench, autojump_clock: Clock
) -> None:
    async def handler(ws: Websocket) -> None:
        await trio.sleep(20)
        assert ws.latency is None
        await trio.sleep(1)
        assert ws.latency == 0.75

    async with memory.connect(handler) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, peer, 0.75)


async def test_a_waiter_may_be_awaited_again_and_by_several(
    memory: Bench, autojump_clock: Clock
) -> None:
    trips: list[float] = []

    async def handler(ws: Websocket) -> None:
        waiter = await ws.ping(b"a")

        async def keep() -> None:
            trips.append(await waiter)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep)
        await keep()

    async with memory.connect(handler) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, peer, 2)
    assert trips == [2, 2, 2, 2]


async def test_a_cancelled_waiter_takes_nothing_from_the_others(
    memory: Bench, autojump_clock: Clock
) -> None:
    async def handler(ws: Websocket) -> None:
        waiter = await ws.ping(b"a")
        with trio.move_on_after(1) as scope:
            await waiter
        assert scope.cancelled_caught
        assert await waiter == 2

    async with memory.connect(handler) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, peer, 2)


async def test_a_cancelled_ping_is_sent_all_the_same(bench: Bench) -> None:
    may_answer = trio.Event()

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.ping(b"sent")
        assert scope.cancelled_caught
        with pytest.raises(ValueError, match="in flight"):
            await ws.ping(b"sent")
        may_answer.set()
        await ws.recv()
        await ws.ping(b"sent")  # it is answered, so it may be used again

    async with bench.connect(handler) as peer:
        ping = await peer.next_event()
        assert isinstance(ping, events.Ping)
        assert ping.payload == b"sent"
        await may_answer.wait()
        await peer.send(ping.response(), "go on")
        assert isinstance(await peer.next_event(), events.Ping)
        assert await peer.next_close() == (1000, "")


async def test_a_pong_answers_its_ping_and_older_ones_only(
    memory: Bench, autojump_clock: Clock
) -> None:
    """RFC 6455 §5.5.3: a peer may answer the newest of several pings alone."""
    ended: list[str] = []

    async def handler(ws: Websocket) -> None:
        older = await ws.ping(b"1")
        await trio.sleep(1)
        middle, newer = await ws.ping(b"2"), await ws.ping(b"3")
        assert await older == 5
        assert await middle == 4
        assert ws.latency == 4
        with trio.CancelScope() as scope:
            scope.cancel()
            await newer
        assert scope.cancelled_caught
        async for _ in ws:
            pass
        with pytest.raises(WebsocketClosed):
            await newer
        ended.append("unanswered")

    async with memory.connect(handler) as peer:
        for _ in range(3):
            assert isinstance(await peer.next_event(), events.Ping)
        await trio.sleep(4)
        await peer.send(events.Pong(b"2"))
        await peer.send(events.Pong(b"1"))  # late, and answers nothing any more
        await peer.send(events.Pong(b"unknown"))
        await wait_all_tasks_blocked()
        await peer.close()
        assert (await peer.next_close())[0] == 1000
        await wait_all_tasks_blocked()
    assert ended == ["unanswered"]


async def test_what_a_ping_carries(memory: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
            await ws.ping(b"x" * 126)
        with pytest.raises(TypeError, match="bytes, not str"):
            await ws.ping("x")  # type: ignore[arg-type]
        await ws.ping(b"x" * 125)
        await ws.ping()
        await ws.ping()

    async with memory.connect(handler) as peer:
        carried: list[bytes] = []
        while isinstance(event := await peer.next_event(), events.Ping):
            carried.append(bytes(event.payload))
    assert carried[0] == b"x" * 125
    assert all(carried)
    assert len(set(carried)) == 3


async def peer_closes(peer: Peer, ws: Websocket) -> None:
    await peer.close(4001)


async def we_close(peer: Peer, ws: Websocket) -> None:
    await ws.close(4000)


async def the_stream_ends(peer: Peer, ws: Websocket) -> None:
    await peer.stream.aclose()


async def the_stream_breaks(peer: Peer, ws: Websocket) -> None:
    assert isinstance(peer.stream, Link)
    peer.stream.abort()


async def the_peer_vanishes(peer: Peer, ws: Websocket) -> None:
    vanish(peer)


async def the_protocol_breaks(peer: Peer, ws: Websocket) -> None:
    await peer.stream.send_all(b"\x83\x80\0\0\0\0")


async def the_handler_is_cancelled(peer: Peer, ws: Websocket) -> None:
    ws.nursery.cancel_scope.cancel()


async def the_server_is_cancelled(peer: Peer, ws: Websocket) -> None:
    peer.cancel_server()


@pytest.mark.parametrize(
    ("end", "code", "within"),
    [
        (peer_closes, 4001, 0),
        (we_close, 4000, 10),
        (the_stream_ends, 1006, 0),
        (the_stream_breaks, 1006, 0),
        (the_peer_vanishes, 1011, 40),
        (the_protocol_breaks, 1002, 1),
        (the_handler_is_cancelled, 1000, 10),
        (the_server_is_cancelled, 1001, 0),
    ],
)
async def test_every_end_releases_who_waits_for_a_pong(
    timed: Bench,
    autojump_clock: Clock,
    end: Callable[[Peer, Websocket], Awaitable[None]],
    code: int,
    within: float,
) -> None:
    """The peer answers nothing. Who asks again, asks in vain again."""
    connected: list[Websocket] = []
    waiters: list[PingWaiter] = []
    raised: list[tuple[int, float]] = []

    async def handler(ws: Websocket) -> None:
        waiters.extend([await ws.ping(), await ws.ping()])
        connected.append(ws)
        await trio.sleep_forever()

    async def wait_for(waiter: PingWaiter) -> None:
        with pytest.raises(WebsocketClosed) as caught:
            await waiter
        assert caught.value.websocket is connected[0]
        raised.append((caught.value.code, trio.current_time()))

    async with trio.open_nursery() as outside, timed.connect(handler) as peer:
        await wait_all_tasks_blocked()
        with trio.CancelScope(shield=True):  # from the cancellation of the server
            for waiter in waiters:
                outside.start_soon(wait_for, waiter)
            await wait_all_tasks_blocked()
            await end(peer, connected[0])
            await trio.sleep(100)
            for waiter in waiters:
                await wait_for(waiter)
            with pytest.raises(WebsocketClosed):
                await connected[0].ping()
    assert raised == [(code, within)] * 2 + [(code, 100 + (we_close is end) * within)] * 2


async def test_pings_of_a_peer_that_reads_nothing_cost_a_few_pongs(memory: Bench) -> None:
    """Those of the last read, 16 at most; RFC 6455 §5.5.3 allows to answer the newest alone."""
    connected: list[Websocket] = []

    async def handler(ws: Websocket) -> None:
        connected.append(ws)
        await ws.send(b"x" * 100_000)
        await trio.sleep_forever()

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        for n in range(1000):
            await peer.send(events.Ping(b"%d" % n))
        await wait_all_tasks_blocked()
        assert connected[0]._connection.outbox.size < 101_000
        assert await peer.next_message() == b"x" * 100_000
        pongs: list[bytes] = []
        while not pongs or pongs[-1] != b"999":
            pong = await peer.next_event()
            assert isinstance(pong, events.Pong)
            pongs.append(bytes(pong.payload))
        assert pongs == [b"%d" % n for n in range(1000 - len(pongs), 1000)]
        assert len(pongs) <= 16


async def test_a_crash_of_the_heartbeat_ends_its_connection_only(
    memory: Bench, autojump_clock: Clock
) -> None:
    """As if a task of the connection had crashed: the handler is cancelled, the stream closed."""
    cancelled: list[float] = []

    def crash() -> None:
        raise ZeroDivisionError

    async def handler(ws: Websocket) -> None:
        ws._connection.on_shut.add(crash)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(trio.current_time())
            raise

    async def echo(ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    async def vanish_and_wait() -> None:
        async with memory.connect(handler) as peer:
            vanish(peer)  # which the heartbeat finds out after the ping time
            await trio.sleep(100)

    async with memory.connect(echo, ping_interval=None) as other:
        start = trio.current_time()
        with pytest.raises(ExceptionGroup) as caught:
            await vanish_and_wait()
        assert [type(leaf) for leaf in leaves(caught.value)] == [ZeroDivisionError]
        assert [at - start for at in cancelled] == [40]
        assert trio.current_time() - start <= 42
        await other.send("a")
        assert await other.next_message() == "a"


# Peers that live and take nothing


async def chatter(peer: Peer) -> None:
    """Live, loudly."""
    with suppress(trio.BrokenResourceError):
        while True:
            await trio.sleep(10)
            await peer.send(events.Pong(b"alive"))


async def test_a_reader_that_is_slow_but_reads_is_not_stalled(
    timed: Bench, autojump_clock: Clock
) -> None:
    """A message takes an hour, but never a stall timeout without progress."""
    outcome: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await ws.send(b"x" * 500_000)
        await ws.flush()
        outcome.append(trio.current_time())

    async with timed.connect(handler, timeout=5000, ping_interval=None) as peer:
        while not outcome:
            # Over an adapter only a write that has ended, of 64 KiB at most, shows progress.
            await trio.sleep(29 / 17)
            await peer.stream.receive_some(4096)
    assert outcome[0] > 180


async def test_a_reader_that_takes_nothing_is_1013(timed: Bench, autojump_clock: Clock) -> None:
    """Whatever it says meanwhile; the senders who wait in line are told."""
    ended: list[Any] = []
    refused: list[tuple[int, float]] = []

    async def push(ws: Websocket) -> None:
        with pytest.raises(WebsocketClosed) as caught:
            await ws.send(b"y" * 500_000)
        refused.append((caught.value.code, trio.current_time()))

    async def handler(ws: Websocket) -> None:
        await ws.send(b"x" * 500_000)
        ws.nursery.start_soon(push, ws)
        ws.nursery.start_soon(push, ws)
        with pytest.raises(SlowConsumer, match="for 30 s"):
            await note_end(ws, ended)
        assert ws.close_info is not None
        ended.append((trio.current_time(), ws.close_info.code))

    async with (
        timed.connect(handler, send_queue_bytes=400_000) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(chatter, peer)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert ended == [(30 + 10, 1013)]  # after the closing handshake's time
    assert refused == [(1013, 30)] * 2


async def test_the_stall_time_counts_from_the_last_progress(
    memory: Bench, autojump_clock: Clock
) -> None:
    """Not from when the message was sent, and not from an earlier queue."""
    ended: list[float] = []

    async def handler(ws: Websocket) -> None:
        await ws.send(b"x" * 10_000)
        await ws.flush()
        await trio.sleep(100)  # nothing waits to be sent: no progress is needed
        await ws.send(b"y" * 50_000)
        with pytest.raises(SlowConsumer):
            async for _ in ws:
                pass
        ended.append(trio.current_time())

    async with memory.connect(handler) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(chatter, peer)
        await peer.next_message()
        await trio.sleep(115)
        await peer.stream.receive_some(1000)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert ended == [115 + 30 + 10]  # and the closing handshake's time


async def test_pings_that_are_never_answered_are_bounded(
    memory: Bench, autojump_clock: Clock
) -> None:
    most = 0

    async def handler(ws: Websocket) -> None:
        nonlocal most
        async for _ in ws:
            most = max(most, len(ws._connection.heartbeat._pings))

    async with memory.connect(handler) as peer, trio.open_nursery() as nursery:

        async def read() -> None:
            while await peer.next_event() is not None:
                pass

        nursery.start_soon(read)
        for _ in range(1000):
            await trio.sleep(25)
            await peer.send("alive")
        nursery.cancel_scope.cancel()
    assert most == 1


async def test_pings_to_a_peer_that_reads_nothing_wait_for_room(
    memory: Bench, autojump_clock: Clock
) -> None:
    """As ``send`` does, but once they are queued."""
    pings = 0

    async def handler(ws: Websocket) -> None:
        nonlocal pings
        while True:
            await ws.ping(b"%100d" % pings)
            pings += 1

    async with memory.connect(handler, send_queue_bytes=10_000):
        await wait_all_tasks_blocked()
        assert 100 < pings < 300
        await trio.sleep(100)
        assert pings < 300


async def test_taking_gathered_answers_is_life(autojump_clock: Clock) -> None:
    """Also if they are the first that the socket did not take at once."""
    ended: list[Any] = []

    async def handler(ws: Websocket) -> None:
        assert await ws.recv() == "warm"
        for _ in range(2):
            await ws.recv()
            await ws.send(bytes(60_000))
        await note_end(ws, ended)

    options: dict[str, Any] = {"ping_interval": 20.0, "ping_timeout": 20.0, "stall_timeout": 30.0}
    async with Bench("link").connect(handler, send_queue_bytes=1 << 20, **options) as peer:
        assert isinstance(peer.stream, Link)
        await peer.send("warm")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await peer.send("a", "b")
        while not ended:
            peer.stream.try_receive(500)
            await trio.sleep(1)
    # Life for as long as the stall timeout after its last word, then the ping's time runs.
    assert ended[0][0] - began == pytest.approx(71, abs=1)

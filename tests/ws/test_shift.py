"""Who reads: the handler while it waits for a message, else the receive task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from tests.ws.conftest import Bench
from trioweb.errors import PingTimeout, WebsocketClosed
from trioweb.testing.link import Link
from trioweb.ws.encoding import PING, TEXT, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ws.conftest import Peer
    from trioweb.net.stream import Data
    from trioweb.ws import Websocket

MASK = b"\x01\x02\x03\x04"


def ping(data: bytes) -> bytes:
    return encode_frame(PING, data, mask=MASK)


def text(data: bytes) -> bytes:
    return encode_frame(TEXT, data, mask=MASK)


async def next_pong(peer: Peer) -> bytes:
    event = await peer.next_event()
    assert isinstance(event, events.Pong), event
    return bytes(event.payload)


async def test_the_handler_reads_while_it_waits(bench: Bench) -> None:
    """From the second message on, and not over an adapter, which can't be waited at."""
    resting: list[bool] = []

    async def handler(ws: Websocket) -> None:
        while await ws.recv():
            shift = ws._connection.outbox.shift
            resting.append(shift is not None and shift.is_resting)

    async with bench.connect(handler) as peer:
        for _ in range(3):
            await peer.send("message")
            await wait_all_tasks_blocked()
            await peer.send(events.Ping(b"now"))
            assert await next_pong(peer) == b"now"
    assert resting == [bench.kind != "adapter"] * 3


async def test_a_ping_is_answered_wherever_the_handler_is(bench: Bench) -> None:
    """In recv, away for a while, away for ever; with and without messages of the same read."""
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        assert await ws.recv() == "first"
        assert await ws.recv() == "second"
        await go_on.wait()
        assert await ws.recv() == "third"
        await trio.sleep_forever()

    async with bench.connect(handler) as peer:
        with trio.fail_after(5):
            for place, data in enumerate((b"first", b"second", b"third", b"fourth")):
                await peer.stream.send_all(ping(b"before") + text(data) + ping(b"%d" % place))
                assert await next_pong(peer) == b"before"
                assert await next_pong(peer) == b"%d" % place
                await wait_all_tasks_blocked()
                await peer.stream.send_all(ping(b"later"))
                assert await next_pong(peer) == b"later"
                if data == b"third":
                    go_on.set()
                    await wait_all_tasks_blocked()


ENDS: dict[str, tuple[Callable[[Websocket], None], list[int], int | None]] = {
    # What the other task does: what the reader sees, and what the peer.
    "close": (lambda ws: ws._connection.begin_close(4000, ""), [4000], 4000),
    "hurry": (lambda ws: ws._connection.hurry(), [1001], 1001),
    "give up": (lambda ws: ws._connection.receiver.give_up(), [1006], None),
    "lose": (lambda ws: ws._connection.lose(PingTimeout("for the test")), [1011], 1011),
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_reader_hears_of_the_end(
    bench: Bench, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what others do while it waits at the stream; and who closes may read there then."""
    end, expected, close_code = ENDS[how]
    seen: list[object] = []
    go_on, ended = trio.Event(), trio.Event()

    async def read(ws: Websocket) -> None:
        try:
            while True:
                seen.append(await ws.recv())
        except WebsocketClosed as closed:
            seen.append(closed.code)
        ended.set()

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, ws)
            await go_on.wait()
            end(ws)

    async with bench.connect(handler) as peer:
        with trio.fail_after(5):
            await peer.send("first", "second")
            await wait_all_tasks_blocked()
            await peer.send("third")
            await wait_all_tasks_blocked()
            go_on.set()
            if close_code is None:
                while await peer.stream.receive_some(1000):
                    pass
            else:
                assert (await peer.next_close())[0] == close_code
            await ended.wait()
            assert not await peer.stream.receive_some(1000)
    assert seen == ["first", "second", "third", *expected]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_whoever_looks_after_others_does_so_when_it_ends_itself() -> None:
    """The first whose handler goes away looks after all who do so in this turn."""
    both = Bench("link")

    async def receive(ws: Websocket) -> None:
        async for _ in ws:
            pass

    async def go_away(ws: Websocket) -> None:
        async for message in ws:
            if message == "go":
                await trio.sleep_forever()

    connections: list[Websocket] = []

    async def ending(ws: Websocket) -> None:
        connections.append(ws)
        await receive(ws)

    for _ in range(40):  # tasks have their turns in any order
        async with both.connect(ending) as first, both.connect(go_away) as second:
            with trio.fail_after(5):
                for peer in (first, second):
                    await peer.send("warm")
                await wait_all_tasks_blocked()
                # In one turn: both have a message, and the first one's receive task is cancelled.
                for peer in (first, second):
                    wire = peer.encode(events.TextMessage("go"))
                    assert peer.stream.try_send(wire) == len(wire)  # type: ignore[attr-defined]
                connections.pop()._connection.receiver.give_up()
                await wait_all_tasks_blocked()
                await second.send(events.Ping(b"still"))
                assert await next_pong(second) == b"still"


@pytest.mark.parametrize("afterwards", ["sleep", "flush", "recv", "return"])
async def test_an_answer_goes_out_whatever_the_handler_does_then(
    bench: Bench, afterwards: str
) -> None:
    """Though more messages wait, of which the answers could share a write with it."""

    async def handler(ws: Websocket) -> None:
        assert await ws.recv() == "warm"
        while True:
            message = await ws.recv()
            await ws.send(message)
            assert ws._connection._decoder.waiting == 2
            if afterwards == "flush":
                await ws.flush()
            if afterwards in ("flush", "sleep"):
                await trio.sleep_forever()
            if afterwards == "return":
                return
            await ws.recv()
            await ws.recv()

    async with bench.connect(handler) as peer:
        with trio.fail_after(5):
            await peer.send("warm")
            await wait_all_tasks_blocked()
            for _ in range(2 if afterwards == "recv" else 1):
                await peer.send("one", "two", "three")
                assert await peer.next_message() == "one"


async def test_what_is_gathered_is_not_torn(memory: Bench) -> None:
    """Nobody writes into the middle of what the send task has begun, though there is room again."""
    messages = ["a" * 20_000, "b" * 20_000]
    peers: list[Peer] = []

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked(0.01)  # the receive task reads, so the send task has to write
        await ws.recv()
        await ws.send(messages[0])
        await wait_all_tasks_blocked()
        stream = peers[0].stream
        assert isinstance(stream, Link)
        begun = stream.try_receive(1000)
        assert begun
        peers[0]._feed(begun)
        await ws.recv()
        await ws.send(messages[1])

    async with memory.connect(handler, send_queue_bytes=1 << 20) as peer:
        peers.append(peer)
        with trio.fail_after(5):
            await peer.send("one", "two")
            await wait_all_tasks_blocked(0.02)
            assert [await peer.next_message() for _ in messages] == messages


async def test_answers_of_one_read_share_a_write(memory: Bench) -> None:
    """The last one takes the others along."""
    writes: list[int] = []

    async def handler(ws: Websocket) -> None:
        stream = ws._connection.stream
        try_send = stream.try_send

        def count(data: Data) -> int:
            writes.append(len(data))
            return try_send(data)

        ws._connection.outbox._stream.try_send = count  # type: ignore[method-assign]
        async for message in ws:
            await ws.send(message)

    async with memory.connect(handler) as peer:
        for _ in range(2):
            await peer.send(*("x" * 10 for _ in range(20)))
            for _ in range(20):
                assert await peer.next_message() == "x" * 10
    assert writes[:2] == [20 * 12] * 2  # Close comes behind them

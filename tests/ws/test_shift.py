"""Who reads: the handler while it waits for a message, the receive task while it does anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from trioweb.errors import WebsocketClosed
from trioweb.ws.encoding import PING, TEXT, encode_frame

if TYPE_CHECKING:
    from tests.ws.conftest import Bench, Peer
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
        async for _ in ws:
            resting.append(ws._connection.receiver.writes_what_is_left)

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


@pytest.mark.parametrize("how", ["close", "lost", "given up", "cancelled"])
async def test_a_reader_hears_of_the_end(bench: Bench, how: str) -> None:
    """Of what others do while the handler itself waits at the stream."""
    seen: list[object] = []

    async def read(ws: Websocket) -> None:
        try:
            while True:
                seen.append(await ws.recv())
        except WebsocketClosed as closed:
            seen.append(closed.code)

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, ws)
            await wait_all_tasks_blocked()
            await go_on.wait()
            if how == "close":
                await ws.close(4000, wait=False)
            elif how == "lost":
                ws._connection.send_side_lost()
            elif how == "given up":
                ws._connection.receiver.give_up()
            else:
                nursery.cancel_scope.cancel()

    go_on = trio.Event()
    async with bench.connect(handler) as peer:
        await peer.send("first", "second")
        await wait_all_tasks_blocked()
        await peer.send("third")
        await wait_all_tasks_blocked()
        go_on.set()
        if how == "lost":
            await peer.send("fourth")
            await wait_all_tasks_blocked()
            await peer.stream.aclose()
        elif how == "given up":
            while await peer.stream.receive_some(1000):
                pass
        else:
            assert (await peer.next_close())[0] == {"close": 4000, "cancelled": 1000}[how]
        with trio.fail_after(5):
            while len(seen) < {"lost": 5, "cancelled": 3}.get(how, 4):
                await trio.sleep(0.01)
    messages = ["first", "second", "third", "fourth"][: 4 if how == "lost" else 3]
    ends = {"close": [4000], "lost": [1006], "given up": [1006], "cancelled": []}[how]
    assert seen == [*messages, *ends]


async def test_whoever_looks_after_others_does_so_when_it_ends_itself(bench: Bench) -> None:
    """The first whose handler goes away looks after all who do so in this turn."""

    async def give_up(ws: Websocket) -> None:
        async for _ in ws:
            ws._connection.receiver.give_up()

    async def go_away(ws: Websocket) -> None:
        async for message in ws:
            if message == "go":
                await trio.sleep_forever()

    for _ in range(10):  # tasks have their turns in any order
        async with bench.connect(give_up) as first:
            async with bench.connect(go_away) as second:
                await second.send("stay")
                await first.send(events.Ping(b"there"))
                assert await next_pong(first) == b"there"
                await wait_all_tasks_blocked()
                await first.send("end")
                await second.send("go")
                await wait_all_tasks_blocked()
                await second.send(events.Ping(b"still"))
                with trio.fail_after(5):
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
        await peer.send("warm")
        await wait_all_tasks_blocked()
        for _ in range(2 if afterwards == "recv" else 1):
            await peer.send("one", "two", "three")
            assert await peer.next_message() == "one"


async def test_answers_of_one_read_share_a_write(memory: Bench) -> None:
    """The last one takes the others along."""
    writes: list[int] = []

    async def handler(ws: Websocket) -> None:
        stream = ws._connection.stream
        try_send = stream.try_send

        def count(data: bytes) -> int:
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

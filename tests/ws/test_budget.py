"""Who has much to do lets others run: loops over what is there already, and floods of a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from trioweb.ws.encoding import BINARY, PING, encode_frame
from trioweb.ws.receiver import READ_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ws.conftest import Bench
    from trioweb.ws import Websocket

MASK = b"\x01\x02\x03\x04"
KIB = 1024
READ = READ_SIZE


class Progress:
    """A task that looks, at each of its turns, how far the others have got."""

    def __init__(self, measure: Callable[[], int]) -> None:
        self._measure = measure
        self.largest = 0
        self.turns = 0

    async def loop(self) -> None:
        before = self._measure()
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1
            now = self._measure()
            self.largest = max(self.largest, now - before)
            before = now


@pytest.mark.parametrize("how", ["recv", "iteration", "recv_streaming"])
async def test_a_loop_over_large_messages_that_are_there_lets_others_run(
    memory: Bench, how: str
) -> None:
    """After 256 KiB, which one of these messages has, though none is waited for."""
    count = 12
    taken = 0
    progress = Progress(lambda: taken)

    async def handler(ws: Websocket) -> None:
        nonlocal taken
        await wait_all_tasks_blocked(0.01)
        assert ws._connection.inbox._decoder.waiting == count
        ws.nursery.start_soon(progress.loop)
        await trio.lowlevel.checkpoint()
        if how == "iteration":
            async for message in ws:
                taken += 1
                assert len(message) == 256 * KIB
                if taken == count:
                    break
        while taken < count:
            if how == "recv":
                await ws.recv()
            else:
                async for _ in ws.recv_streaming():
                    pass
            taken += 1

    async with memory.connect(handler, max_size=1 << 20) as peer:
        wire = encode_frame(BINARY, bytes(256 * KIB), mask=MASK)
        await peer.stream.send_all(wire * count)
        assert (await peer.next_close())[0] == 1000
    assert taken == count
    assert 1 <= progress.largest <= 2  # tasks have their turns in any order


async def take_small(memory: Bench, limit: int) -> Progress:
    """Let a handler take a thousand small messages that are there, in bursts if limit is not 0."""
    memory.buffer = READ
    taken = 0
    progress = Progress(lambda: taken)

    async def handler(ws: Websocket) -> None:
        nonlocal taken
        await wait_all_tasks_blocked(0.01)
        assert ws._connection.inbox._decoder.waiting == 1000
        ws.nursery.start_soon(progress.loop)
        await trio.lowlevel.checkpoint()
        while taken < 1000:
            taken += len(await ws.recv_burst(limit)) if limit else len(await ws.recv())

    async with memory.connect(handler) as peer:
        await peer.stream.send_all(encode_frame(BINARY, b"x", mask=MASK) * 1000)
        assert (await peer.next_close())[0] == 1000
    return progress


async def test_a_loop_of_bursts_lets_others_run(memory: Bench) -> None:
    """Each message of a burst counts, small as it is."""
    progress = await take_small(memory, 100)
    assert 100 <= progress.largest <= 200


async def test_a_loop_over_small_messages_yields_now_and_then_only(memory: Bench) -> None:
    """After 64 operations, as a yield costs more than one of them; also after the first time."""
    progress = await take_small(memory, 0)
    assert 60 <= progress.largest <= 2 * 64
    assert progress.turns <= 1000 / 64 * 2 + 2


@pytest.mark.parametrize(
    ("size", "reads"),
    # Of small ones a read brings thousands.
    [(0, 1), (1, 1), (60, 1), (READ, 4)],
)
async def test_a_flood_that_is_thrown_away_lets_others_run_after_a_few_reads(
    memory: Bench, size: int, reads: int
) -> None:
    """All of it is there, so that nothing has to be waited for."""
    memory.buffer = 40 * READ
    connected: list[Websocket] = []
    progress = Progress(lambda: connected[0]._connection.receiver.bytes_received)
    ended = trio.Event()
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        connected.append(ws)
        await go_on.wait()
        ws.nursery.start_soon(progress.loop)
        await trio.lowlevel.checkpoint()
        await ws.wait_closed()
        ended.set()

    async with memory.connect(handler, max_queue=1) as peer:
        await peer.send("fills the inbox")
        await wait_all_tasks_blocked()
        message = encode_frame(BINARY, bytes(size), mask=MASK)
        flood = message * (32 * READ // len(message))
        await peer.stream.send_all(flood)
        await wait_all_tasks_blocked()
        assert connected[0]._connection.receiver.bytes_received <= READ
        go_on.set()
        await peer.close()
        assert (await peer.next_close())[0] == 1000
        await peer.stream.aclose()
        await ended.wait()
        assert connected[0]._connection.receiver.bytes_received > len(flood)
    # Twice, since tasks have their turns in any order.
    assert READ <= progress.largest <= 2 * reads * READ


async def test_of_the_pings_of_one_read_the_sixteen_newest_are_answered(memory: Bench) -> None:
    memory.buffer = READ

    async def handler(ws: Websocket) -> None:
        await ws.wait_closed()

    pings = b"".join(encode_frame(PING, b"%03d" % n, mask=MASK) for n in range(1000))
    assert len(pings) < READ
    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        await peer.stream.send_all(pings)
        await wait_all_tasks_blocked()
        await peer.close()
        pongs: list[bytes] = []
        while isinstance(event := await peer.next_event(), events.Pong):
            pongs.append(bytes(event.payload))
        assert isinstance(event, events.CloseConnection)
    assert pongs == [b"%03d" % n for n in range(984, 1000)]


@pytest.mark.parametrize("operations", [1, 64])
async def test_a_reader_that_yielded_looks_again_for_another_one(
    bench: Bench, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has taken its message meanwhile, and waits for the next."""
    monkeypatch.setattr("trioweb.ws.budget.FREE_OPERATIONS", operations)
    outcomes: list[object] = []

    async def receive(ws: Websocket) -> None:
        try:
            while True:
                outcomes.append(await ws.recv())
        except trio.BusyResourceError:
            outcomes.append("busy")

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked(0.01)
        for _ in range(2):
            ws.nursery.start_soon(receive, ws)
        await trio.sleep_forever()

    async with bench.connect(handler) as peer:
        await peer.send("only one")
        await wait_all_tasks_blocked(0.02)
    assert sorted(outcomes, key=str) == ["busy", "only one"]

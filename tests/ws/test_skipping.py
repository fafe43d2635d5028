"""What nobody wants of what has come: inflated where later messages refer to it, and only there."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events
from wsproto.extensions import PerMessageDeflate

from trioweb.ws.encoding import BINARY, CONTINUATION, RSV1, TEXT, encode_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.ws.conftest import Bench
    from trioweb.ws import Websocket

MASK = b"\x01\x02\x03\x04"
MIB = 1 << 20
AT_ONCE = MIB // 2  # what may be inflated before others have their turn
# No deflate stream: a block of a type that there is not.
INVALID = b"\xff" * 50


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return encode_frame(opcode, data, fin=fin, mask=MASK)


def deflated(*parts: bytes) -> list[bytes]:
    """Fragments of one message."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    wire = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*wire[:-1], wire[-1][:-4]]


@pytest.fixture(params=["leaving a stream", "wait_closed"])
def how(request: pytest.FixtureRequest) -> str:
    """How a handler comes to skip what has come."""
    skipping: str = request.param
    return skipping


async def skip_one(ws: Websocket, how: str) -> None:
    """Skip the first message, all of which is there or will come."""
    if how == "leaving a stream":
        async for _ in ws.recv_streaming():
            break
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.wait_closed)
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()


async def test_without_takeover_what_is_skipped_is_not_inflated(bench: Bench, how: str) -> None:
    """So it does not matter that it can't be."""
    got: list[str | bytes] = []

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked(0.01)
        await skip_one(ws, how)
        await ws.send("skipped")
        got.extend([part async for part in ws.recv_streaming()])

    first, _ = deflated(b"taken", b"")
    async with bench.connect(
        handler, deflate=PerMessageDeflate(), compression="deflate", stream=True, max_queue=1
    ) as peer:
        wire = frame(TEXT | RSV1, first, fin=False)
        await peer.stream.send_all(wire + frame(CONTINUATION, INVALID))
        assert await peer.next_message() == "skipped"
        (last,) = deflated(b"last")
        await peer.stream.send_all(frame(TEXT | RSV1, last))
        assert (await peer.next_close())[0] == 1000
    assert got == ["last"]


async def test_a_message_that_was_half_skipped_leaves_nothing_in_the_next(memory: Bench) -> None:
    """Its own inflater is thrown away with it, in the middle of a block."""
    got: list[str | bytes] = []

    async def handler(ws: Websocket) -> None:
        for number in range(3):
            async for part in ws.recv_streaming():
                got.append(part)
                if number < 2:
                    break

    noise = random.Random(1).randbytes(3000)
    (whole,) = deflated(noise)
    async with memory.connect(
        handler, deflate=PerMessageDeflate(), compression="deflate", stream=True
    ) as peer:
        for _ in range(2):
            await peer.stream.send_all(frame(BINARY | RSV1, whole[:1500], fin=False))
            await wait_all_tasks_blocked()
            await peer.stream.send_all(frame(CONTINUATION, whole[1500:]))
        await peer.stream.send_all(frame(BINARY | RSV1, whole))
        assert (await peer.next_close())[0] == 1000
    assert noise.startswith(bytes(got[0]))  # type: ignore[arg-type]
    assert got[0] == got[1]
    assert b"".join(got[2:]) == noise  # type: ignore[arg-type]


async def test_with_takeover_what_is_skipped_is_inflated_so_that_later_messages_are_right(
    bench: Bench, how: str
) -> None:
    """The peer's later messages are copies of those that were skipped."""
    got: list[str | bytes] = []
    noise = random.Random(1)
    texts = ["".join(chr(noise.randrange(32, 127)) for _ in range(500)) for _ in range(3)]

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked(0.01)
        await skip_one(ws, how)
        await ws.send("skipped")
        got.append("".join([str(part) async for part in ws.recv_streaming()]))

    async with bench.connect(
        handler,
        deflate=PerMessageDeflate(),
        compression="deflate-context",
        stream=True,
        max_queue=1,
    ) as peer:
        for text in texts[:2]:
            await peer.send(events.TextMessage(text, message_finished=False))
        await peer.send(texts[2])
        assert await peer.next_message() == "skipped"
        again = peer.encode(events.TextMessage("".join(texts)))
        assert len(again) < 500, "it does not refer to what was skipped"
        await peer.stream.send_all(again)
        assert (await peer.next_close())[0] == 1000
    assert got == ["".join(texts)]


class Ticks:
    """A task that counts how often it had its turn."""

    def __init__(self) -> None:
        self.count = 0

    async def loop(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


async def test_others_run_while_a_stream_is_skipped_that_has_to_be_inflated(
    memory: Bench,
) -> None:
    """16 KiB on the wire, 16 MiB inflated; all of it is there."""
    ticks = Ticks()
    taken: list[int] = []
    size = 16 * MIB

    async def handler(ws: Websocket) -> None:
        async for _ in ws.recv_streaming():
            break
        await ws.send("left")
        await wait_all_tasks_blocked()
        ws.nursery.start_soon(ticks.loop)
        before = ticks.count
        async for part in ws.recv_streaming():
            taken.append(ticks.count - before)
            assert part == "next"

    (bomb,) = deflated(bytes(size))
    async with memory.connect(
        handler,
        deflate=PerMessageDeflate(),
        compression="deflate-context",
        stream=True,
        max_size=2 * size,
    ) as peer:
        await peer.stream.send_all(frame(BINARY | RSV1, bomb) + frame(TEXT, b"next"))
        assert await peer.next_message() == "left"
        assert (await peer.next_close())[0] == 1000
    assert taken[0] >= 0.9 * size / AT_ONCE


async def test_others_run_while_wait_closed_inflates_what_it_throws_away(memory: Bench) -> None:
    ticks = Ticks()
    ended = trio.Event()
    sizes = [4 * MIB] * 5
    received = 0

    async def handler(ws: Websocket) -> None:
        nonlocal received
        await wait_all_tasks_blocked()
        ws.nursery.start_soon(ticks.loop)
        await ws.wait_closed()
        received = ws._connection.inbox.messages_received
        ended.set()

    async with memory.connect(
        handler,
        deflate=PerMessageDeflate(),
        compression="deflate-context",
        max_size=4 * MIB,
        max_queue=1,
    ) as peer:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        for size in sizes:
            data = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
            await peer.stream.send_all(frame(BINARY | RSV1, data[:-4]))
        await peer.close()
        assert (await peer.next_close())[0] == 1000
        await peer.stream.aclose()
        await ended.wait()
    # The last one was complete when the peer's Close came: a reader could still have it.
    assert received >= len(sizes) - 1
    assert ticks.count >= 0.9 * sum(sizes[1:]) / AT_ONCE


# Two who take parts


async def one_at_a_time(parts: AsyncIterator[str | bytes], got: list[str | bytes]) -> None:
    got.append(await anext(parts))


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_who_took_parts_does_not_go_on_behind_a_gap(bench: Bench, is_cancelled: bool) -> None:
    """Once a second one has begun to skip, even if it was cancelled before it had anything."""
    got: list[str | bytes] = []

    async def handler(ws: Websocket) -> None:
        first, second = ws.recv_streaming(), ws.recv_streaming()
        got.append(await anext(first))
        await ws.send("A taken")
        await wait_all_tasks_blocked(0.01)  # B has come
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_at_a_time, second, got)
            await wait_all_tasks_blocked(0.01)
            if is_cancelled:
                nursery.cancel_scope.cancel()
            else:
                await ws.send("B skipped")
        if is_cancelled:
            await ws.send("B skipped")
        with pytest.raises(RuntimeError, match="skipped"):
            await anext(first)
        if is_cancelled:
            await one_at_a_time(second, got)

    async with bench.connect(handler, stream=True) as peer:
        await peer.send(events.TextMessage("A", message_finished=False))
        assert await peer.next_message() == "A taken"
        await peer.send(events.TextMessage("B", message_finished=False))
        assert await peer.next_message() == "B skipped"
        await peer.send("C", "D")
        assert (await peer.next_close())[0] == 1000
    assert got == ["A", "D"]

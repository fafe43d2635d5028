"""permessage-deflate on a connection; wsproto's own implementation is the peer."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events
from wsproto.extensions import PerMessageDeflate

from trioweb.errors import InvalidMessage, MessageTooBig, WebsocketClosed
from trioweb.ws.encoding import BINARY, CONTINUATION, RSV1, TEXT, encode_frame
from trioweb.ws.prepared import PreparedMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.ws.conftest import Bench, Peer
    from trioweb.ws import Websocket

MASK = b"\x01\x02\x03\x04"
MODES = ["deflate", "deflate-context"]
# Repeats itself, and is different each time.
TEXTS = [f"{n}: " + "the quick brown fox " * 60 for n in range(5)]


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return encode_frame(opcode, data, fin=fin, mask=MASK)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def echo(ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.parametrize("mode", MODES)
async def test_messages_are_compressed_both_ways(bench: Bench, mode: str) -> None:
    async with bench.connect(echo, deflate=PerMessageDeflate(), compression=mode) as peer:
        sent = 0
        for text in (*TEXTS, "", "ß" * 3000, "a" * 100_000):
            for message in (text, text.encode()):
                await peer.send(message)
                sent += len(message)
                assert await peer.next_message() == message
        await peer.close()
        assert await peer.next_close() == (1000, "")
        assert peer.bytes_received < sent / 20


async def test_takeover_is_not_there_unless_it_is_asked_for(memory: Bench) -> None:
    async with memory.connect(echo, deflate=PerMessageDeflate(), compression="deflate") as peer:
        assert b"server_no_context_takeover" in peer.head
        assert b"client_no_context_takeover" in peer.head
    async with memory.connect(
        echo, deflate=PerMessageDeflate(), compression="deflate-context"
    ) as peer:
        assert b"context_takeover" not in peer.head
        assert b"server_max_window_bits=12" in peer.head
    async with memory.connect(echo, compression="deflate") as peer:
        assert b"extensions" not in peer.head.lower()


async def test_small_messages_go_plain(memory: Bench) -> None:
    taken: list[int] = []

    async def handler(ws: Websocket) -> None:
        for message in ("a" * 99, "a" * 100, os.urandom(1000)):  # the last one gains nothing
            sent = ws._connection.outbox.bytes_sent
            await ws.send(message)
            taken.append(ws._connection.outbox.bytes_sent - sent)

    async with memory.connect(
        handler, deflate=PerMessageDeflate(), compression="deflate", compression_threshold=100
    ) as peer:
        assert await peer.next_message() == "a" * 99
        assert await peer.next_message() == "a" * 100
        assert len(await peer.next_message()) == 1000
    assert taken[0] == 101
    assert taken[1] < 10
    assert taken[2] == 1004


async def test_without_an_agreement_a_compressed_frame_breaks_the_protocol(memory: Bench) -> None:
    async with memory.connect(echo) as peer:
        await peer.stream.send_all(frame(TEXT | RSV1, deflated(b"a")))
        assert (await peer.next_close())[0] == 1002


@pytest.mark.parametrize("mode", MODES)
async def test_fragmented_messages_are_compressed_too(bench: Bench, mode: str) -> None:
    async def handler(ws: Websocket) -> None:
        for _ in range(2):
            await ws.send_fragments(TEXTS)
            await ws.send(TEXTS[0])
            await ws.send_fragments(["", ""])

    async with bench.connect(handler, deflate=PerMessageDeflate(), compression=mode) as peer:
        for _ in range(2):
            assert await peer.next_message() == "".join(TEXTS)
            assert await peer.next_message() == TEXTS[0]
            assert await peer.next_message() == ""
        assert await peer.next_close() == (1000, "")
        assert peer.bytes_received < 1500


@pytest.mark.parametrize("mode", MODES)
async def test_cancelled_sends_leave_the_context_whole(bench: Bench, mode: str) -> None:
    """A message that is not sent must not be in the context that the peer shares."""

    async def handler(ws: Websocket) -> None:
        await ws.send(os.urandom(200_000))  # fills the outbox
        async with trio.open_nursery() as nursery:
            for text in TEXTS:
                nursery.start_soon(ws.send, text)
            nursery.start_soon(ws.send_fragments, TEXTS)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        for text in reversed(TEXTS):
            await ws.send(text)
        await ws.send_fragments(TEXTS)

    async with bench.connect(
        handler, deflate=PerMessageDeflate(), compression=mode, send_queue_bytes=1000
    ) as peer:
        await wait_all_tasks_blocked(0.02)
        assert len(await peer.next_message()) == 200_000
        for text in reversed(TEXTS):
            assert await peer.next_message() == text
        assert await peer.next_message() == "".join(TEXTS)
        assert await peer.next_close() == (1000, "")


@pytest.mark.parametrize("mode", MODES)
async def test_a_part_that_waits_for_room_is_not_in_the_context(bench: Bench, mode: str) -> None:
    """The first fragment can be given up without closing the connection."""

    async def handler(ws: Websocket) -> None:
        await ws.send(TEXTS[0])
        in_turn = trio.Event()

        async def parts() -> AsyncIterator[str]:
            await ws.ping()
            frame = b"\x82\x7f" + (300_000).to_bytes(8, "big") + bytes(300_000)
            ws._connection.outbox.offer(frame, trio.current_time())
            in_turn.set()
            yield TEXTS[1]

        ws._connection.outbox.put(b"\x82\x7f" + (300_000).to_bytes(8, "big") + bytes(300_000))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.send_fragments, parts())
                await wait_all_tasks_blocked()
                scope.cancel()
        await ws.send(TEXTS[1])

    async with bench.connect(
        handler, deflate=PerMessageDeflate(), compression=mode, send_queue_bytes=1000
    ) as peer:
        await wait_all_tasks_blocked(0.02)
        got = []
        while not isinstance(event := await peer.next_event(), events.CloseConnection):
            if isinstance(event, events.Message):
                got.append(event.data)
        assert [message for message in got if isinstance(message, str)] == TEXTS[:2]


# Hostile input


@cache
def bomb(size: int) -> bytes:
    """A message that inflates to ``size`` zeros."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(1 << 20)
    wire = b"".join(compressor.compress(block) for _ in range(size >> 20))
    return wire + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


@pytest.mark.parametrize("mode", MODES)
async def test_a_deflate_bomb_is_1009_and_costs_little_memory(memory: Bench, mode: str) -> None:
    """256 KiB on the wire, 256 MiB inflated."""
    errors: list[Exception] = []

    async def handler(ws: Websocket) -> None:
        try:
            async for _ in ws:
                pass
        except MessageTooBig as error:
            errors.append(error)

    wire = frame(BINARY | RSV1, bomb(256 << 20))
    assert 200_000 < len(wire) < 300_000
    async with memory.connect(handler, deflate=PerMessageDeflate(), compression=mode) as peer:
        await wait_all_tasks_blocked()
        tracemalloc.start()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.stream.send_all, wire)
                event = await peer.next_event()
                nursery.cancel_scope.cancel()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(event, events.CloseConnection)
    assert event.code == 1009
    assert peak < 10_000_000
    assert len(errors) == 1


async def test_a_bomb_in_parts_comes_in_small_parts(memory: Bench) -> None:
    """Bounded by max_size alone, and never more than a part of it in memory."""
    largest = total = 0

    async def handler(ws: Websocket) -> None:
        nonlocal largest, total
        async for part in ws.recv_streaming():
            total += len(part)
            largest = max(largest, len(part))

    async with (
        memory.connect(
            handler,
            deflate=PerMessageDeflate(),
            compression="deflate",
            stream=True,
            max_size=100 << 20,
        ) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.stream.send_all, frame(BINARY | RSV1, bomb(64 << 20)))
        assert (await peer.next_close())[0] == 1000
    assert total == 64 << 20
    assert largest <= 65536


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frame(TEXT | RSV1, b"\xff\xff\xff"), id="no deflate data"),
        pytest.param(frame(TEXT | RSV1, b""), id="nothing at all"),
        pytest.param(frame(TEXT | RSV1, deflated(b"\xff")), id="invalid text"),
        pytest.param(
            frame(TEXT | RSV1, deflated(b"\xc3"), fin=False) + frame(CONTINUATION, b"\x00"),
            id="text cut in a character",
        ),
    ],
)
async def test_what_cannot_be_inflated_is_1007(memory: Bench, wire: bytes) -> None:
    got: list[str | bytes] = []

    async def handler(ws: Websocket) -> None:
        try:
            while True:
                got.append(await ws.recv())
        except WebsocketClosed:
            with pytest.raises(InvalidMessage):
                ws.raise_for_close()

    async with memory.connect(handler, deflate=PerMessageDeflate(), compression="deflate") as peer:
        await peer.stream.send_all(frame(TEXT | RSV1, deflated(b"before")) + wire)
        assert (await peer.next_close())[0] == 1007
    assert got == ["before"]


async def test_a_stream_may_end_within_a_message(memory: Bench) -> None:
    """BFINAL, RFC 7692 §7.2.3.5."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    ended = compressor.compress(b"Hello") + compressor.flush(zlib.Z_FINISH) + b"\x00"
    async with memory.connect(
        echo, deflate=PerMessageDeflate(), compression="deflate-context"
    ) as peer:
        await peer.stream.send_all(
            frame(TEXT | RSV1, ended) * 2 + frame(TEXT | RSV1, deflated(b"x"))
        )
        assert [await peer.next_message() for _ in range(3)] == ["Hello", "Hello", "x"]


# Prepared messages


async def test_a_prepared_message_is_compressed_once_for_all_that_can_share_it(
    memory: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    from trioweb.ws.deflate import Compressors

    compress = Compressors.compress

    def counted(self: Compressors, payload: bytes, bits: int) -> bytes:
        calls.append(bits)
        return compress(self, payload, bits)

    monkeypatch.setattr(Compressors, "compress", counted)
    connected: list[Any] = []

    async def handler(ws: Websocket) -> None:
        connected.append(ws._connection)
        with pytest.raises(WebsocketClosed):
            await ws.recv()

    message = PreparedMessage({"text": TEXTS[0]})
    async with (
        memory.connect(handler) as plain,
        memory.connect(handler, deflate=PerMessageDeflate(), compression="deflate") as one,
        memory.connect(handler, deflate=PerMessageDeflate(), compression="deflate") as two,
        memory.connect(
            handler, deflate=PerMessageDeflate(server_max_window_bits=10), compression="deflate"
        ) as small,
        memory.connect(
            handler, deflate=PerMessageDeflate(), compression="deflate-context"
        ) as context,
    ):
        await wait_all_tasks_blocked()
        peers: list[Peer] = [plain, one, two, small, context]
        before = [peer.bytes_received for peer in peers]
        for connection in connected:
            assert connection.offer(message)
        got = [await peer.next_message() for peer in peers]
        assert got == ['{"text":"' + TEXTS[0] + '"}'] * 5
        taken = [peer.bytes_received - b for peer, b in zip(peers, before, strict=True)]
        assert sorted(calls) == [10, 15]
        assert taken[0] == taken[4] > 1000  # plain
        assert max(taken[1:4]) < 200
        for peer in peers:
            await peer.close()

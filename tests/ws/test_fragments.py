"""``send_fragments`` and ``recv_streaming``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from trioweb.errors import HTTPException, WebsocketClosed, WebSocketException
from trioweb.ws.encoding import BINARY, CONTINUATION, TEXT, encode_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.ws.conftest import Bench, Peer
    from trioweb.ws import Websocket

MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, data: bytes, *, fin: bool) -> bytes:
    return encode_frame(opcode, data, fin=fin, mask=MASK)


async def wire(peer: Peer) -> list[Any]:
    """What the server sends to its end: fragments as (data, whether it is the last), the code."""
    got: list[Any] = []
    while True:
        event = await peer.next_frame()
        if event is None:
            return got
        if isinstance(event, events.Message):
            got.append((event.data, event.message_finished))
        elif isinstance(event, events.CloseConnection):
            got.append(event.code)
            await peer.answer(event)


async def ticks(*parts: Any) -> AsyncIterator[Any]:
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


@pytest.mark.parametrize("make", [lambda *parts: parts, ticks], ids=["iterable", "async"])
async def test_parts_are_fragments_of_one_message(bench: Bench, make: Any) -> None:
    async def handler(ws: Websocket) -> None:
        await ws.send_fragments(make("a", "", "ß"))
        await ws.send_fragments(make(b"1", bytearray(b"2"), memoryview(b"3")))
        await ws.send_fragments(make("", ""))
        await ws.send_fragments(make())

    async with bench.connect(handler) as peer:
        assert await wire(peer) == [
            *[("a", False), ("ß", False), ("", True)],
            *[(bytearray(b"1"), False), (bytearray(b"2"), False), (bytearray(b"3"), False)],
            *[(bytearray(b""), True), ("", True), 1000],
        ]


async def test_others_wait_for_the_end_of_a_fragmented_message(bench: Bench) -> None:
    """In the order in which they came; pings and pongs do not wait."""
    go_on = trio.Event()

    async def parts() -> AsyncIterator[str]:
        yield "a"
        await go_on.wait()
        yield "b"

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send_fragments, parts())
            await wait_all_tasks_blocked()
            nursery.start_soon(ws.send, "second")
            await wait_all_tasks_blocked()
            nursery.start_soon(ws.send_fragments, ["third"])
            await wait_all_tasks_blocked()
            nursery.start_soon(ws.send, "fourth")
            await wait_all_tasks_blocked()
            await ws.ping(b"meanwhile")
            go_on.set()

    async with bench.connect(handler) as peer:
        got = [await peer.next_frame() for _ in range(7)]
    assert [event.data if isinstance(event, events.Message) else event for event in got] == [
        "a",
        events.Ping(payload=b"meanwhile"),
        "b",
        "",
        "second",
        "third",
        "",
    ]


async def test_fragments_wait_for_room(bench: Bench) -> None:
    """A peer that does not read holds the generator back."""
    made: list[int] = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(100):
            made.append(number)
            yield bytes(100_000)

    async def handler(ws: Websocket) -> None:
        await ws.send_fragments(parts())

    async with bench.connect(handler, send_queue_bytes=100_000) as peer:
        await wait_all_tasks_blocked(0.02)
        assert len(made) < 60
        assert await peer.next_message() == bytes(10_000_000)
        assert await peer.next_close() == (1000, "")


def raising(error: BaseException) -> Callable[[], AsyncIterator[str]]:
    async def parts() -> AsyncIterator[str]:
        yield "a"
        raise error

    return parts


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("internals"), 1011),
        (WebSocketException(4001, "mine"), 4001),
        (HTTPException("not here", 404), 4404),
    ],
)
async def test_parts_that_raise_close_the_connection(
    bench: Bench, error: Exception, code: int
) -> None:
    async def handler(ws: Websocket) -> None:
        await ws.send_fragments(raising(error)())

    async with bench.connect(handler) as peer:
        assert await wire(peer) == [("a", False), code]


async def test_a_handler_that_goes_on_after_its_parts_raised_finds_the_connection_closed(
    bench: Bench,
) -> None:
    seen: list[Any] = []

    async def handler(ws: Websocket) -> None:
        with pytest.raises(KeyError):
            await ws.send_fragments(raising(KeyError())())
        seen.append(ws.open)
        with pytest.raises(WebsocketClosed, match="1011"):
            await ws.send("b")
        await ws.wait_closed()
        seen.append(ws.close_info)

    async with bench.connect(handler) as peer:
        assert await wire(peer) == [("a", False), 1011]
        await peer.stream.aclose()
        await wait_all_tasks_blocked(0.02)
    assert seen == [False, (1011, "a message was cut short", "us", True)]


async def test_a_sender_who_waits_gets_the_end_of_a_message_that_was_cut_short(
    bench: Bench,
) -> None:
    outcomes: list[str] = []

    async def handler(ws: Websocket) -> None:
        async def other() -> None:
            try:
                await ws.send("other")
                outcomes.append("sent")
            except WebsocketClosed as closed:
                outcomes.append(str(closed.code))

        async def parts() -> AsyncIterator[str]:
            yield "begun"
            ws.nursery.start_soon(other)
            await wait_all_tasks_blocked()
            raise KeyError

        with pytest.raises(KeyError):
            await ws.send_fragments(parts())
        await wait_all_tasks_blocked()

    async with bench.connect(handler) as peer:
        assert await wire(peer) == [("begun", False), 1011]
    assert outcomes == ["1011"]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_message_is_not_torn_by_a_cancellation(bench: Bench, before: bool) -> None:
    """Before its first fragment nothing of it is there; afterwards the connection is closed."""

    async def parts() -> AsyncIterator[str]:
        if before:
            await trio.sleep_forever()
        yield "a"
        await trio.sleep_forever()

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.send_fragments, parts())
                await wait_all_tasks_blocked()
                scope.cancel()
        await ws.send("b")

    async with bench.connect(handler) as peer:
        expected = [("b", True), 1000] if before else [("a", False), 1011]
        assert await wire(peer) == expected


async def test_a_cancelled_server_says_1001_in_the_middle_of_a_message(bench: Bench) -> None:
    async def parts() -> AsyncIterator[str]:
        yield "a"
        await trio.sleep_forever()

    async def handler(ws: Websocket) -> None:
        await ws.send_fragments(parts())

    async with bench.connect(handler) as peer:
        await wait_all_tasks_blocked()
        peer.cancel_server()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            assert await wire(peer) == [("a", False), 1001]


async def test_sending_within_ones_own_fragments_is_an_error_and_no_deadlock(
    memory: Bench,
) -> None:
    async def handler(ws: Websocket) -> None:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            await ws.send("b")

        with pytest.raises(RuntimeError, match="wait for itself") as caught:
            await ws.send_fragments(parts())
        errors.append(caught.value)

    errors: list[RuntimeError] = []
    async with memory.connect(handler) as peer:
        assert await wire(peer) == [("a", False), 1011]
    assert errors


async def test_a_generator_of_parts_is_closed(memory: Bench) -> None:
    closed: list[bool] = []

    async def parts() -> AsyncIterator[Any]:
        try:
            yield "a"
            yield b"b"
        finally:
            closed.append(True)

    async def handler(ws: Websocket) -> None:
        with pytest.raises(TypeError, match="all str or all bytes"):
            await ws.send_fragments(parts())
        assert closed

    async with memory.connect(handler) as peer:
        assert await wire(peer) == [("a", False), 1011]


@pytest.mark.parametrize("parts", ["text", b"bytes", {"a": 1}, [1], ["\udc00"]])
async def test_what_are_no_parts_is_refused_and_nothing_is_sent(memory: Bench, parts: Any) -> None:
    async def handler(ws: Websocket) -> None:
        with pytest.raises((TypeError, ValueError)):
            await ws.send_fragments(parts)
        await ws.send("ok")

    async with memory.connect(handler) as peer:
        assert await wire(peer) == [("ok", True), 1000]


# Receiving


def collecting(into: list[Any]) -> Callable[[Websocket], Awaitable[None]]:
    async def handler(ws: Websocket) -> None:
        try:
            while True:
                into.append([part async for part in ws.recv_streaming()])
        except WebsocketClosed as closed:
            into.append(closed.code)

    return handler


@pytest.mark.parametrize("stream", [True, False])
async def test_parts_are_received_as_they_come(bench: Bench, stream: bool) -> None:
    got: list[Any] = []
    async with bench.connect(collecting(got), stream=stream) as peer:
        await peer.stream.send_all(
            frame(TEXT, b"a\xc3", fin=False)
            + frame(CONTINUATION, b"\x9fb", fin=False)
            + frame(CONTINUATION, b"", fin=True)
            + frame(BINARY, b"whole", fin=True)
            + frame(TEXT, b"", fin=True)
        )
        await peer.close(4000)
        await wait_all_tasks_blocked(0.02)
    assert ["".join(got[0]), got[1:]] == ["aßb", [[b"whole"], [""], 4000]]


async def test_a_part_comes_before_its_message_is_complete(bench: Bench) -> None:
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async for part in ws.recv_streaming():
            got.append(part)  # noqa: PERF401 -- one by one

    async with bench.connect(handler, stream=True) as peer:
        await peer.stream.send_all(frame(TEXT, b"a", fin=False))
        await wait_all_tasks_blocked(0.02)
        assert got == ["a"]
        # The rest of a frame whose header says that it is longer comes in parts as well.
        long = frame(CONTINUATION, b"b" * 100, fin=True)
        await peer.stream.send_all(long[:20])
        await wait_all_tasks_blocked(0.02)
        assert "".join(got[1:]) == "b" * (20 - 6)
        await peer.stream.send_all(long[20:])
        await wait_all_tasks_blocked(0.02)
        assert "".join(got) == "a" + "b" * 100


@pytest.mark.parametrize("end", ["close", "loss"])
async def test_a_message_cut_off_is_an_error(bench: Bench, end: str) -> None:
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        try:
            async for part in ws.recv_streaming():
                got.append(part)  # noqa: PERF401 -- one by one
        except WebsocketClosed as closed:
            got.append(closed.code)

    async with bench.connect(handler, stream=True) as peer:
        await peer.stream.send_all(frame(TEXT, b"a", fin=False))
        if end == "close":
            await peer.close(1001)
        else:
            await peer.stream.aclose()
        await wait_all_tasks_blocked(0.02)
    assert got == ["a", 1001 if end == "close" else 1006]


async def test_a_stream_larger_than_memory_waits_in_the_network(memory: Bench) -> None:
    """No size but max_size binds a message in parts, and little of it waits."""
    total = 0
    buffered: list[int] = []
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        nonlocal total
        await go_on.wait()
        async for part in ws.recv_streaming():
            total += len(part)
            buffered.append(ws._connection._decoder.buffered)
            await trio.lowlevel.checkpoint()

    sent = 0

    async def write(peer: Peer) -> None:
        nonlocal sent
        await peer.stream.send_all(frame(BINARY, b"", fin=False))
        for _ in range(200):
            await peer.stream.send_all(frame(CONTINUATION, bytes(100_000), fin=False))
            sent += 1
        await peer.stream.send_all(frame(CONTINUATION, b"", fin=True))

    async with memory.connect(handler, stream=True, max_size=1 << 40) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, peer)
            await wait_all_tasks_blocked()
            assert sent < 5
            go_on.set()
        await wait_all_tasks_blocked()
        assert total == 20_000_000
        assert max(buffered) < 400_000


async def test_a_stream_over_its_limit_is_1009(bench: Bench) -> None:
    got: list[Any] = []
    async with bench.connect(collecting(got), stream=True, max_size=1000) as peer:
        await peer.stream.send_all(frame(BINARY, bytes(600), fin=False))
        await peer.stream.send_all(frame(CONTINUATION, bytes(600), fin=False))
        assert (await peer.next_close())[0] == 1009
        await wait_all_tasks_blocked(0.02)
    assert got == [1009]


@pytest.mark.parametrize("next_call", ["recv", "recv_streaming"])
async def test_leaving_a_message_early_skips_the_rest_of_it(bench: Bench, next_call: str) -> None:
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        parts = ws.recv_streaming()
        async for part in parts:
            got.append(part)
            break
        if next_call == "recv":
            got.append(await ws.recv())
        else:
            got.extend([part async for part in ws.recv_streaming()])
        with pytest.raises(RuntimeError, match="skipped"):
            await anext(parts)

    async with bench.connect(handler) as peer:
        await peer.stream.send_all(frame(TEXT, b"a", fin=False))
        await wait_all_tasks_blocked(0.02)
        await peer.stream.send_all(frame(CONTINUATION, b"b", fin=False))
        await wait_all_tasks_blocked(0.02)
        await peer.stream.send_all(
            frame(CONTINUATION, b"c", fin=True) + frame(TEXT, b"d", fin=True)
        )
        assert await peer.next_close() == (1000, "")
    assert got == ["a", "d"]


async def test_a_cancelled_recv_leaves_what_had_come_to_the_stream(bench: Bench) -> None:
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.recv)
                await wait_all_tasks_blocked(0.05)
                scope.cancel()
        got.extend([part async for part in ws.recv_streaming()])

    async with bench.connect(handler) as peer:
        await peer.stream.send_all(frame(TEXT, b"a", fin=False))
        await wait_all_tasks_blocked(0.1)
        await peer.stream.send_all(frame(CONTINUATION, b"b", fin=True))
        assert await peer.next_close() == (1000, "")
    assert "".join(got) == "ab"


@pytest.mark.parametrize(
    "receive",
    [
        lambda ws: ws.recv(),
        lambda ws: ws.recv(0),
        lambda ws: ws.recv_burst(2),
        lambda ws: ws.receive_text(),
        lambda ws: anext(ws),
    ],
)
async def test_a_route_that_streams_has_no_whole_messages(memory: Bench, receive: Any) -> None:
    async def handler(ws: Websocket) -> None:
        with pytest.raises(RuntimeError, match="recv_streaming"):
            await receive(ws)
        with pytest.raises(RuntimeError, match="recv_streaming"):
            ws.recv_nowait()

    async with memory.connect(handler, stream=True) as peer:
        assert await peer.next_close() == (1000, "")


async def test_a_burst_is_what_is_waiting(bench: Bench) -> None:
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        got.append(await ws.recv_burst(100))
        await wait_all_tasks_blocked(0.05)
        got.append(await ws.recv_burst(2))
        got.append(await ws.recv_burst(100))
        with pytest.raises(WebsocketClosed):
            await ws.recv_burst(1)
        with pytest.raises(ValueError, match="1 message"):
            await ws.recv_burst(0)

    async with bench.connect(handler) as peer:
        await wait_all_tasks_blocked()
        await peer.send("a")
        await wait_all_tasks_blocked(0.01)
        await peer.send("b", b"c", "d", "e")
        await peer.close()
        await wait_all_tasks_blocked(0.1)
    assert got == [["a"], ["b", b"c"], ["d", "e"]]


async def test_a_burst_is_bounded_in_bytes(memory: Bench) -> None:
    got: list[int] = []

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked()
        while True:
            burst = await ws.recv_burst(100)
            got.append(len(burst))

    async with memory.connect(handler, max_size=100) as peer:
        await peer.send(*["x" * 99] * 40)
        await peer.close()
        await wait_all_tasks_blocked(0.01)
    assert sum(got) == 40
    assert max(got) == 5

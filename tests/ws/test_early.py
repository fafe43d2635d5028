"""Frames of a client that does not wait for the 101."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from tests.app.conftest import HANDSHAKE
from tests.ws.conftest import Bench
from trioweb import TrioWeb, Websocket
from trioweb.errors import ProtocolError, WebsocketClosed
from trioweb.testing import open_server
from trioweb.ws.encoding import CLOSE, PING, TEXT, encode_frame

MASK = b"\x01\x02\x03\x04"
BROKEN = b"\xff\xff\xff\xff"


def frame(opcode: int, data: bytes = b"") -> bytes:
    return encode_frame(opcode, data, mask=MASK)


MESSAGES = frame(TEXT, b"one") + frame(TEXT, b"two")


async def break_off(bench: Bench, when: str) -> tuple[list[str | bytes], list[str | bytes], int]:
    """Send messages and a broken frame together.

    Returns:
        What the handler received, what it answered as far as the peer got it, and the close code.
    """
    got: list[str | bytes] = []
    answers: list[str | bytes] = []
    wire = MESSAGES + BROKEN

    async def handler(ws: Websocket) -> None:
        if when == "before accept":
            await bench.last_client.send_all(wire)
            await wait_all_tasks_blocked(0.001)
        await ws.accept()
        try:
            async for message in ws:
                got.append(message)
                await ws.send(f"echo {message!s}")
        except ProtocolError:
            pass

    early = wire if when == "with the request" else b""
    async with bench.connect(handler, auto=False, early=early) as peer:
        if when == "after accept":
            await peer.stream.send_all(wire)
        while True:
            event = await peer.next_event()
            assert event is not None, "the stream ended without a Close"
            if isinstance(event, events.CloseConnection):
                return got, answers, int(event.code)
            assert isinstance(event, events.Message)
            answers.append(event.data)


TIMES = ["with the request", "before accept", "after accept"]


@pytest.mark.parametrize("when", TIMES)
async def test_messages_before_a_broken_frame_are_received_before_the_close(
    bench: Bench, when: str
) -> None:
    """Together they are treated as if the broken frame had come a moment later."""
    got, _, code = await break_off(bench, when)
    assert (got, code) == (["one", "two"], 1002)


@pytest.mark.parametrize("when", TIMES)
async def test_messages_before_a_broken_frame_are_answered_before_the_close(
    bench: Bench, when: str
) -> None:
    _, answers, code = await break_off(bench, when)
    assert (answers, code) == (["echo one", "echo two"], 1002)


async def test_answers_that_wait_for_a_slow_peer_go_out_before_a_broken_frame_is_told(
    memory: Bench,
) -> None:
    """The handler waits for the next message when the broken frame comes, all by itself."""
    answers = ["1" * 10_000, "2" * 10_000]

    async def handler(ws: Websocket) -> None:
        for answer in answers:
            await ws.send(answer)
        await ws.recv()

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        await peer.stream.send_all(BROKEN)
        await wait_all_tasks_blocked()
        for answer in answers:
            assert await peer.next_message() == answer
        assert (await peer.next_close())[0] == 1002


async def test_a_peer_that_breaks_the_wire_and_reads_nothing_is_closed_in_a_second(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    ended: list[float] = []

    async def handler(ws: Websocket) -> None:
        await ws.send("1" * 10_000)
        await ws.send("2" * 10_000)
        with pytest.raises(WebsocketClosed):
            await ws.recv()
        ended.append(trio.current_time())

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await peer.stream.send_all(BROKEN)
        await trio.sleep(100)
    assert ended == [began + 1]


async def test_early_bytes_that_nobody_takes_are_1002_all_the_same(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """A handler that does not receive has a second to send what it has to say."""

    async def handler(ws: Websocket) -> None:
        await ws.send("first")
        await trio.sleep(100)

    async with memory.connect(handler, early=MESSAGES + BROKEN) as peer:
        assert await peer.next_message() == "first"
        assert (await peer.next_close())[0] == 1002
        assert trio.current_time() <= 2


async def test_early_frames_are_no_different_from_others(bench: Bench) -> None:
    """Cut anywhere, with the rest behind the 101; controls and a Close included."""
    wire = MESSAGES + frame(PING, b"p") + frame(TEXT, b"three") + frame(CLOSE, b"\x0f\xa0")

    for cut in range(0, len(wire) + 1, 3):
        got: list[str | bytes] = []
        ended = trio.Event()

        async def handler(
            ws: Websocket, got: list[str | bytes] = got, ended: trio.Event = ended
        ) -> None:
            got.extend([message async for message in ws])
            got.append(str(ws.close_info and ws.close_info.code))
            ended.set()

        async with bench.connect(handler, early=wire[:cut]) as peer:
            await peer.stream.send_all(wire[cut:])
            seen = []
            while (event := await peer.next_event()) is not None:
                seen.append(type(event).__name__)
            assert seen == ["Pong", "CloseConnection"]
            await ended.wait()
        assert got == ["one", "two", "three", "4000"]


@pytest.mark.parametrize("when", ["with the request", "after accept"])
@pytest.mark.parametrize("pings", [2500, 5000])
async def test_what_is_behind_a_flood_is_found_without_another_read(when: str, pings: int) -> None:
    """A flood is looked through in steps, also when nothing comes any more.

    Of what came with the request the smaller one is less than what is read before accept.
    """
    flood = frame(PING) * pings + frame(TEXT, b"end")
    got: list[str | bytes] = []

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked()  # the receive task waits for more by now
        await ws.accept()
        got.append(await ws.recv())

    early = flood if when == "with the request" else b""
    async with Bench("socket").connect(handler, auto=False, early=early) as peer:
        if when == "after accept":
            await peer.stream.send_all(flood)
        with trio.fail_after(5):
            assert (await peer.next_close())[0] == 1000
    assert got == ["end"]


async def test_a_client_that_talks_a_lot_and_leaves_before_accept_is_noticed() -> None:
    """What it says is not read to its end, so the kernel is asked."""
    app = TrioWeb(config={"WEBSOCKET_TIMEOUT": 60})
    entered, cancelled = trio.Event(), trio.Event()

    @app.websocket("/", accept="manual")
    async def handler(ws: Websocket) -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with open_server(app) as server:
        stream = await trio.open_tcp_stream(server.host, server.port)
        await stream.send_all(HANDSHAKE % b"/" + frame(PING) * 20_000)
        await entered.wait()
        await stream.aclose()
        with trio.fail_after(10):
            await cancelled.wait()

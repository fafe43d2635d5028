"""A connection's promises, over all three byte streams where the stream matters."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from trioweb.errors import (
    HTTPException,
    InvalidMessage,
    MessageTooBig,
    NotAccepted,
    RecvTimeout,
    WebsocketClosed,
    WebSocketException,
)
from trioweb.http import Response
from trioweb.ws import State, Websocket
from trioweb.ws.encoding import TEXT, encode_frame

if TYPE_CHECKING:
    from tests.ws.conftest import Bench

BIG = 16 * 1024 * 1024


async def echo(ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


async def collect(ws: Websocket, into: list[Any]) -> None:
    async for message in ws:
        into.append(message)  # noqa: PERF401 - what came before a cancellation or error counts


async def test_messages_come_back_and_the_peers_close_is_answered(bench: Bench) -> None:
    async with bench.connect(echo) as peer:
        assert peer.head.startswith(b"HTTP/1.1 101 ")
        await peer.send("hello", b"\x00\xff", "größer" * 5000)
        assert await peer.next_message() == "hello"
        assert await peer.next_message() == b"\x00\xff"
        assert await peer.next_message() == "größer" * 5000
        await peer.close(4001, "bye")
        assert await peer.next_close() == (4001, "")
        assert await peer.next_event() is None


@pytest.mark.parametrize("cancelled", ["second", "first"])
async def test_a_cancelled_send_leaves_whole_frames_only(bench: Bench, cancelled: str) -> None:
    """16 MB to a slow reader, a send that waits and is cancelled, then hello."""
    results: list[str] = []
    may_read = trio.Event()

    async def handler(ws: Websocket) -> None:
        async def send(name: str, scope: trio.CancelScope) -> None:
            with scope:
                await ws.send(name[0].encode() * BIG)
                results.append(name)

        scopes = {"first": trio.CancelScope(), "second": trio.CancelScope()}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, "first", scopes["first"])
            await wait_all_tasks_blocked()
            nursery.start_soon(send, "second", scopes["second"])
            await wait_all_tasks_blocked()
            scopes[cancelled].cancel()
            await wait_all_tasks_blocked()
            may_read.set()
        await ws.send("hello")

    async with bench.connect(handler) as peer:
        with trio.fail_after(60):
            await may_read.wait()
            messages: list[Any] = []
            while not messages or messages[-1] != "hello":
                messages.append(await peer.next_message())
            expected: list[Any] = [b"f" * BIG]
            if cancelled == "first":
                expected.append(b"s" * BIG)
            assert messages == [*expected, "hello"]
            assert await peer.next_close() == (1000, "")
    # The first was admitted before it could be cancelled, so it never raised.
    assert results == (["first", "second"] if cancelled == "first" else ["first"])


async def test_messages_before_the_peers_close_are_all_received(bench: Bench) -> None:
    received: list[Any] = []
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        await go_on.wait()
        await collect(ws, received)
        received.append(ws.close_info)

    async with bench.connect(handler) as peer:
        await peer.send("1", "2", "3", "4", "5", events.CloseConnection(4000, "done"))
        assert await peer.next_close() == (4000, "")
        assert await peer.next_event() is None
        go_on.set()
        await wait_all_tasks_blocked()
    assert received == ["1", "2", "3", "4", "5", (4000, "done", "peer", True)]


async def test_a_ping_behind_the_message_that_fills_the_inbox_is_answered(bench: Bench) -> None:
    go_on = trio.Event()
    received: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await go_on.wait()
        await collect(ws, received)

    async with bench.connect(handler, max_queue=2) as peer:
        await peer.send("1", "2", "3", events.Ping(b"x"), "4")
        event = await peer.next_event()
        assert isinstance(event, events.Pong)
        assert event.payload == b"x"
        go_on.set()
        await peer.send("5", events.CloseConnection(1000))
        await peer.next_close()
        await wait_all_tasks_blocked()
    assert received == ["1", "2", "3", "4", "5"]


async def test_pings_are_answered_where_only_empty_messages_may_come(bench: Bench) -> None:
    """A limit of 0 leaves room for what counts nothing."""
    received: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await collect(ws, received)

    async with bench.connect(handler, max_size=0) as peer:
        for number in range(3):
            await peer.send("", events.Ping(b"%d" % number))
            assert await peer.next_event() == events.Pong(b"%d" % number)
        await peer.send("a")
        assert (await peer.next_close())[0] == 1009
        await wait_all_tasks_blocked()
    assert received[:3] == [""] * 3


async def test_a_full_inbox_stops_reading_until_messages_are_taken(memory: Bench) -> None:
    take = trio.Event()
    received: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await take.wait()
        await collect(ws, received)

    async with memory.connect(handler, max_queue=4) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, *[f"{n}" * 1000 for n in range(100)])
            await wait_all_tasks_blocked()
            assert not received
            take.set()
        await peer.close()
        await peer.next_close()
        await wait_all_tasks_blocked()
    assert received == [f"{n}" * 1000 for n in range(100)]


async def test_a_message_over_the_limit_is_1009(bench: Bench) -> None:
    raised: list[BaseException] = []

    async def handler(ws: Websocket) -> None:
        try:
            async for _ in ws:
                pass
        except MessageTooBig as error:
            raised.append(error)

    async with bench.connect(handler, max_size=1000) as peer:
        await peer.send("x" * 1001)
        code, _ = await peer.next_close()
        assert code == 1009
    assert len(raised) == 1


async def test_invalid_utf8_is_1007_after_the_messages_before_it(bench: Bench) -> None:
    seen: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked()
        try:
            await collect(ws, seen)
        except InvalidMessage:
            seen.append("invalid")

    async with bench.connect(handler) as peer:
        bad = b"\x81\x82\0\0\0\0\xff\xff"
        await peer.stream.send_all(peer.encode(events.TextMessage("good")) + bad)
        code, _ = await peer.next_close()
        assert code == 1007
    assert seen == ["good", "invalid"]


@pytest.mark.parametrize(
    ("raised", "code", "reason", "logged"),
    [
        (ValueError("secret"), 1011, "internal error", 1),
        (WebSocketException(4242, "mine"), 4242, "mine", 0),
        (HTTPException("no", 403), 1008, "no", 0),
        (HTTPException("gone", 410), 4410, "gone", 0),
        (HTTPException("secret", 500), 1011, "internal error", 1),
        (RecvTimeout("secret"), 1011, "internal error", 1),
        (WebsocketClosed(1000, "of another"), 1011, "internal error", 1),
        (ExceptionGroup("g", [ValueError("secret")]), 1011, "internal error", 1),
        (ExceptionGroup("g", [WebSocketException(4001), KeyError(1)]), 1011, "internal error", 1),
    ],
)
async def test_what_a_handler_raises_decides_the_close(
    memory: Bench,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    code: int,
    reason: str,
    logged: int,
) -> None:
    async def handler(ws: Websocket) -> None:
        raise raised

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (code, reason)
        assert await peer.next_event() is None
    errors = [r for r in caplog.records if r.name == "trioweb" and r.levelname == "ERROR"]
    assert len(errors) == logged


async def test_a_crash_in_the_connections_nursery_counts_as_the_handlers(memory: Bench) -> None:
    cancelled = trio.Event()

    async def crash() -> None:
        raise WebSocketException(4009, "child")

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(crash)
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4009, "child")
        assert cancelled.is_set()


async def test_a_pusher_in_the_nursery_does_not_take_the_farewell_with_it(bench: Bench) -> None:
    said: list[str] = []

    async def push(ws: Websocket) -> None:
        while True:
            await ws.send("tick")

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(push, ws)
        try:
            async for _ in ws:
                pass
        finally:
            await trio.lowlevel.checkpoint()
            said.append("farewell")

    async with bench.connect(handler) as peer:
        assert await peer.next_message() == "tick"
        await peer.stream.aclose()
        with trio.fail_after(5):
            while not said:
                await trio.sleep(0.01)


@pytest.mark.parametrize("pushes", [True, False])
async def test_handlers_that_do_not_receive_end_after_their_peer(
    memory: Bench, autojump_clock: trio.testing.MockClock, pushes: bool
) -> None:
    ended: list[float] = []

    async def handler(ws: Websocket) -> None:
        try:
            while True:
                await trio.sleep(1)
                if pushes:
                    await ws.send("x")
        finally:
            ended.append(trio.current_time())

    async with memory.connect(handler) as peer:
        await peer.stream.aclose()
        left_at = trio.current_time()
        await trio.sleep(20)
    assert len(ended) == 1
    assert ended[0] - left_at <= 5


async def test_a_cancelled_server_says_1001_and_ends_in_a_second(bench: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        await trio.sleep_forever()

    start = trio.current_time()
    for _ in range(10):
        async with bench.connect(handler) as peer:
            await wait_all_tasks_blocked()
            peer.cancel_server()
            with trio.CancelScope(shield=True):
                assert (await peer.next_close())[0] == 1001
    assert trio.current_time() - start < 2


async def test_the_close_before_a_cancelled_checkpoint_is_still_sent(bench: Bench) -> None:
    async with bench.connect(_close_in_cancelled_finally) as peer:
        assert await peer.next_close() == (4000, "")


async def _close_in_cancelled_finally(ws: Websocket) -> None:
    try:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                await ws.close(4000)
    finally:
        assert ws.closed


async def test_cancelling_recv_loses_nothing(bench: Bench) -> None:
    received: list[Any] = []

    async def handler(ws: Websocket) -> None:
        while len(received) < 200:
            with trio.move_on_after(0.0001):
                received.append(await ws.recv())

    async with bench.connect(handler) as peer:
        for n in range(200):
            await peer.send(str(n))
        await peer.next_close()
    assert received == [str(n) for n in range(200)]


async def test_a_second_reader_is_refused(memory: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.recv)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await ws.recv()
            nursery.cancel_scope.cancel()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (1000, "")


async def test_recv_timeout_is_both_seeds_timeout(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(ws: Websocket) -> None:
        with pytest.raises(TimeoutError):
            await ws.recv(timeout=3)
        with pytest.raises(trio.TooSlowError):
            await ws.recv(timeout=0)
        with pytest.raises(trio.WouldBlock):
            ws.recv_nowait()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (1000, "")


async def test_before_accept_nothing_can_be_sent(memory: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        assert ws.client_state is State.CONNECTING
        assert not ws.open
        assert not ws.closed
        with pytest.raises(NotAccepted):
            await ws.send("x")
        with pytest.raises(NotAccepted):
            await ws.recv()
        await ws.accept()
        assert ws.open
        await ws.send("now")

    async with memory.connect(handler, auto=False) as peer:
        assert await peer.next_message() == "now"
        await peer.next_close()


async def _close(ws: Websocket) -> None:
    await ws.close()


async def _deny(ws: Websocket) -> None:
    await ws.deny(418, "teapot")


async def _respond(ws: Websocket) -> Response:
    return Response("no", 451)


async def _forget(ws: Websocket) -> None:
    pass


async def _sleep(ws: Websocket) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "status"),
    [(_close, 403), (_deny, 418), (_respond, 451), (_forget, 500), (_sleep, 503)],
)
async def test_ways_to_deny(
    memory: Bench, autojump_clock: trio.testing.MockClock, handler: Any, status: int
) -> None:
    async with memory.connect(handler, auto=False) as peer:
        assert peer.head.startswith(b"HTTP/1.1 %d " % status)


async def test_wait_closed_throws_messages_away(bench: Bench) -> None:
    done = trio.Event()

    async def handler(ws: Websocket) -> None:
        await ws.wait_closed()
        assert ws.close_info == (1000, "", "peer", True)
        done.set()

    async with bench.connect(handler, max_queue=1) as peer:
        for _ in range(50):
            await peer.send("x" * 100)
        await peer.close()
        await peer.next_close()
        assert await peer.next_event() is None
        await peer.stream.aclose()
        with trio.fail_after(5):
            await done.wait()


async def test_no_task_is_left_when_a_connection_has_ended(bench: Bench) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(20):
        async with bench.connect(echo) as peer:
            await peer.send("x")
            await peer.next_message()
    gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_text_that_can_t_become_valid_is_found_before_its_message_is_whole(
    bench: Bench,
) -> None:
    """When the handler asks for it, though it came while nobody received."""

    async def handler(ws: Websocket) -> None:
        await wait_all_tasks_blocked(0.01)
        await ws.recv()

    async with bench.connect(handler) as peer:
        await peer.stream.send_all(encode_frame(TEXT, b"\xff", fin=False, mask=b"abcd"))
        with trio.fail_after(5):
            assert (await peer.next_close())[0] == 1007

"""How connections end in awkward company: late middleware, floods, groups, signals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from tests.app.conftest import HANDSHAKE
from trioweb import TrioWeb, wait_any
from trioweb.errors import ProtocolError, SendFailed, WebsocketClosed, WebSocketException

if TYPE_CHECKING:
    from tests.ws.conftest import Bench
    from trioweb.http import Response
    from trioweb.ws import Websocket


async def test_a_client_that_says_goodbye_and_is_gone_leaves_the_handler_its_grace(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    farewells: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async for _ in ws:
            pass
        await wait_all_tasks_blocked()
        farewells.append(ws.close_info)

    async with bench.connect(handler) as peer:
        await peer.close()
        await peer.stream.aclose()
        with trio.fail_after(5):
            while not farewells:
                await wait_all_tasks_blocked(0.001)
    # Over a Link it is known at once that nobody took our answer.
    assert farewells == [(1000, "", "peer", bench.kind != "link")]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_client_that_leaves_during_response_middleware_is_not_accepted(
    memory: Bench,
) -> None:
    in_middleware, go_on = trio.Event(), trio.Event()
    reached: list[str] = []

    async def finish(response: Response) -> Response:
        in_middleware.set()
        with trio.CancelScope(shield=True):
            await go_on.wait()
        return response

    async def handler(ws: Websocket) -> None:
        reached.append("handler")

    async def leave(nursery: trio.Nursery) -> None:
        await in_middleware.wait()
        await memory.last_client.aclose()
        await wait_all_tasks_blocked()
        go_on.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    with pytest.RaisesGroup(trio.ClosedResourceError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, nursery)
            async with memory.connect(handler, finish=finish):
                pass
    assert not reached


async def test_no_grace_means_at_once(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    ended: list[float] = []

    async def handler(ws: Websocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with memory.connect(handler, disconnect_grace=0) as peer:
        await peer.close()
        await trio.sleep(1)
    assert ended == [0.0]


async def test_a_flood_after_our_close_is_thrown_away(memory: Bench) -> None:
    """Also while a reader waits, who has nothing more to get."""

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(ws.close, 4000)
        async for _ in ws:
            raise AssertionError("a message after our Close")

    async with memory.connect(handler) as peer:
        event = await peer.next_event()
        assert isinstance(event, events.CloseConnection)
        wire = b"\x82\xfe\x04\x00" + bytes(4) + bytes(1024)
        with trio.fail_after(5):
            for _ in range(100):
                await peer.stream.send_all(wire)
            await peer.stream.send_all(b"\x88\x82" + bytes(4) + (4000).to_bytes(2, "big"))
            assert await peer.next_event() is None


async def test_a_protocol_error_is_told_before_any_reader_wakes(bench: Bench) -> None:
    seen: list[Any] = []

    async def handler(ws: Websocket) -> None:
        with pytest.raises(WebsocketClosed):
            await ws.recv()
        seen.append(ws.close_info)
        with pytest.raises(ProtocolError):
            async for _ in ws:
                pass

    async with bench.connect(handler) as peer:
        await peer.stream.send_all(b"\x83\x80\0\0\0\0")
        assert (await peer.next_close())[0] == 1002
        await wait_all_tasks_blocked()
    assert seen[0][0] == 1002


async def test_flush_does_not_claim_what_was_dropped(memory: Bench) -> None:
    raised: list[WebsocketClosed] = []

    async def handler(ws: Websocket) -> None:
        await ws.send(b"x" * 100_000)
        await ws.send(b"y")
        with pytest.raises(WebsocketClosed) as caught:
            await ws.flush()
        raised.append(caught.value)

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        await peer.close(4001)
        await wait_all_tasks_blocked()
    assert raised[0].code == 4001


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_goes_through(
    memory: Bench, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def crash() -> None:
        raise kind

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)

    with pytest.RaisesGroup(kind, flatten_subgroups=True):
        async with memory.connect(handler) as peer:
            assert (await peer.next_close())[0] == 1011
            await trio.sleep_forever()


async def test_one_leaf_of_a_group_counts_as_itself(memory: Bench) -> None:
    """Beside this connection's own end, which is split off."""

    async def lost(ws: Websocket) -> None:
        raise WebsocketClosed(1006, "", ws)

    async def fail() -> None:
        raise WebSocketException(4321, "leaf")

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lost, ws)
            nursery.start_soon(fail)

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4321, "leaf")


async def test_wait_any_ends_with_the_first_and_raises_it_as_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def short() -> None:
        ended.append("short")

    async def long() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("long")

    async def fail() -> None:
        raise KeyError("itself")

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("late")

    await wait_any(short, long)
    assert sorted(ended) == ["long", "short"]
    with pytest.raises(KeyError, match="itself"):
        await wait_any(fail, fail_late)
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["late"]
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled):
            await wait_any(long, long)
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(ValueError, match="late"):
            await wait_any(fail_late, long)


@pytest.mark.parametrize("operation", ["recv", "pong", "send"])
async def test_operations_that_never_wait_let_others_run(memory: Bench, operation: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(tick)
        for _ in range(1000):
            if operation == "recv":
                with pytest.raises(TimeoutError):
                    await ws.recv(timeout=0)
            elif operation == "pong":
                await ws.pong()
            else:
                await ws.send("x")

    async with memory.connect(handler) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.next_close)
    assert ticks >= 10


async def test_a_second_accept_meanwhile_writes_no_second_101(memory: Bench) -> None:
    refused: list[str] = []

    async def finish(response: Response) -> Response:
        await wait_all_tasks_blocked()
        return response

    async def accept(ws: Websocket) -> None:
        try:
            await ws.accept()
        except RuntimeError as error:
            refused.append(str(error))

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, ws)
            nursery.start_soon(accept, ws)
        await ws.send("once")

    async with memory.connect(handler, auto=False, finish=finish) as peer:
        assert await peer.next_message() == "once"
    assert len(refused) == 1


@pytest.mark.parametrize("status", [42, 101, 600])
async def test_a_denial_needs_a_final_status(memory: Bench, status: int) -> None:
    async def handler(ws: Websocket) -> None:
        with pytest.raises(ValueError, match="200-599"):
            await ws.deny(status)
        await ws.deny(409)

    async with memory.connect(handler, auto=False) as peer:
        assert peer.head.startswith(b"HTTP/1.1 409 ")


async def test_response_middleware_that_refuses_sees_its_answer_once(memory: Bench) -> None:
    seen: list[int] = []

    async def finish(response: Response) -> Response:
        seen.append(response.status)
        response.status = 402
        return response

    async def handler(ws: Websocket) -> None:
        await ws.accept()

    async with memory.connect(handler, auto=False, finish=finish) as peer:
        assert peer.head.startswith(b"HTTP/1.1 402 ")
    assert seen == [101]


async def test_a_cancelled_server_does_not_wait_for_what_is_queued_before_close(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """The handler has returned, a slow reader has two messages before it: one is finished."""

    async def handler(ws: Websocket) -> None:
        await ws.send(b"1" * 10_000)
        await ws.send(b"2" * 900_000)

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        peer.cancel_server()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            assert await peer.next_message() == b"1" * 10_000
            event = await peer.next_event()
            assert isinstance(event, events.CloseConnection)
            assert event.code == 1000


async def test_start_raises_to_its_caller_before_started_and_counts_after(memory: Bench) -> None:
    async def fail_first(task_status: trio.TaskStatus[int]) -> None:
        raise KeyError("first")

    async def fail_later(task_status: trio.TaskStatus[int]) -> None:
        task_status.started(7)
        await wait_all_tasks_blocked()
        raise WebSocketException(4007, "later")

    async def handler(ws: Websocket) -> None:
        with pytest.raises(KeyError, match="first"):
            await ws.nursery.start(fail_first)
        assert await ws.nursery.start(fail_later) == 7
        await trio.sleep_forever()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4007, "later")


@pytest.mark.parametrize("grace", [None, 60])
async def test_a_slow_handler_gets_all_that_had_come_before_the_peer_was_lost(
    memory: Bench, grace: float | None, autojump_clock: trio.testing.MockClock
) -> None:
    """Also what is still in the network, because the inbox is full."""
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async for message in ws:
            got.append(int(message))
            await trio.sleep(12)
        got.append(ws.close_info and ws.close_info.by)

    async with memory.connect(handler, max_queue=2, disconnect_grace=grace) as peer:
        for number in range(20):
            await peer.send(str(number).zfill(2000))
            await trio.sleep(0.01)
        await peer.stream.aclose()
        await trio.sleep(1000)
    assert got == [*range(20), "lost"]


async def test_an_end_is_not_clean_when_our_answer_is_known_not_to_be_written(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """The peer has left behind its Close, which was found much later."""
    infos: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await trio.sleep(100)
        assert await ws.recv() == "fills the inbox"
        with pytest.raises(WebsocketClosed):
            await ws.recv()
        infos.append(ws.close_info)

    async with memory.connect(handler, max_queue=1, disconnect_grace=None) as peer:
        await peer.send("fills the inbox")
        await wait_all_tasks_blocked()
        await peer.close(4001, "bye")
        await peer.stream.aclose()
        await trio.sleep(200)
    assert infos == [(4001, "bye", "peer", False)]


async def test_after_a_loss_nobody_waits_for_a_pong_or_an_answer_while_messages_lie_unread(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """The stream is still read, for the handler's sake; what was sent on it gets no answer."""
    seen: list[Any] = []

    async def push(ws: Websocket) -> None:
        while True:
            await ws.send("x" * 1000)

    async def handler(ws: Websocket) -> None:
        waiter = await ws.ping()
        await trio.sleep(1)  # the inbox is full, and the peer has gone
        with pytest.raises(SendFailed):
            await push(ws)
        with pytest.raises(WebsocketClosed):
            await waiter
        await ws.close()
        seen.append(trio.current_time())
        seen.append([message async for message in ws])

    async with memory.connect(handler, max_queue=2, disconnect_grace=None) as peer:
        await peer.send(*map(str, range(5)))
        await peer.stream.aclose()
        await trio.sleep(100)
    assert seen[0] < 2
    assert seen[1] == list(map(str, range(5)))


async def test_a_second_reader_is_refused_while_the_first_waits_for_its_answers_to_go_out(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """The first has asked for more than there is before a broken frame."""
    ends: list[Any] = []

    async def read(ws: Websocket) -> None:
        try:
            while True:
                ends.append(await ws.recv())
        except (WebsocketClosed, trio.BusyResourceError) as error:
            ends.append(type(error))

    async def handler(ws: Websocket) -> None:
        await ws.send(b"x" * 100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, ws)
            await wait_all_tasks_blocked()
            nursery.start_soon(read, ws)

    async with memory.connect(handler) as peer:
        await peer.stream.send_all(peer.encode(events.TextMessage("a")) + b"\xff\xff")
        await trio.sleep(100)
    assert ends == ["a", trio.BusyResourceError, WebsocketClosed]


async def test_accept_is_too_late_when_the_handler_has_returned(memory: Bench) -> None:
    """There would be nobody to serve the connection, and nobody to end it."""
    go_on = trio.Event()

    async def finish(response: Response) -> Response:
        if response.status == 101:
            with trio.CancelScope(shield=True):
                await go_on.wait()
        return response

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(ws.accept)
        await wait_all_tasks_blocked()
        go_on.set()

    async with memory.connect(handler, auto=False, finish=finish) as peer:
        assert peer.head.startswith(b"HTTP/1.1 500")


async def test_a_write_that_breaks_while_we_close_leaves_closing_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """On a stream whose halves break apart, and with a handler that may run for ever."""
    app = TrioWeb(config={"WEBSOCKET_DISCONNECT_GRACE": None, "WEBSOCKET_PING_INTERVAL": None})
    closed: list[float] = []

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        await trio.sleep(1)
        await ws.close(4000)
        await ws.wait_closed()
        closed.append(trio.current_time())

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, ours)
        await theirs.send_all(HANDSHAKE % b"/")
        assert (await theirs.receive_some(4096)).startswith(b"HTTP/1.1 101")
        theirs.receive_stream.close()
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert closed
    assert closed[0] <= 1 + 10

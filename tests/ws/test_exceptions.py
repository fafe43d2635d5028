"""What becomes of several failures of one connection, of its own end, and of failures too late."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb.errors import SendFailed, WebsocketClosed, WebSocketException

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.ws.conftest import Bench
    from trioweb.ws import Websocket


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The exceptions that were logged, by their texts, and what was warned of."""

    def texts() -> list[str]:
        records = [record for record in caplog.records if record.levelno >= logging.WARNING]
        return [
            str(record.exc_info[1]) if record.exc_info else record.getMessage()
            for record in records
        ]

    return texts


async def fail(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def fail_when_cancelled(error: BaseException) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise error


def own_end(ws: Websocket) -> Exception:
    return WebsocketClosed(1001, "", ws)


def own_loss(ws: Websocket) -> Exception:
    return SendFailed(1006, "", ws)


def own_ends(ws: Websocket) -> Exception:
    return ExceptionGroup("", [own_end(ws), ExceptionGroup("", [own_loss(ws)])])


@pytest.mark.parametrize("error", [own_end, own_loss, own_ends])
@pytest.mark.parametrize("is_started", [True, False])
async def test_a_task_of_ws_nursery_may_end_with_its_connections_end(
    memory: Bench,
    logged: Callable[[], list[str]],
    error: Callable[[Websocket], Exception],
    is_started: bool,
) -> None:
    """The task just ends, and the handler goes on."""

    async def run(
        ws: Websocket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await fail(error(ws))

    async def handler(ws: Websocket) -> None:
        if is_started:
            await ws.nursery.start(run, ws)
        else:
            ws.nursery.start_soon(run, ws)
        await wait_all_tasks_blocked()
        await ws.send("goes on")

    async with memory.connect(handler) as peer:
        assert await peer.next_message() == "goes on"
        assert await peer.next_close() == (1000, "")
    assert logged() == []


async def test_the_first_failure_decides_and_the_others_are_logged(
    memory: Bench, logged: Callable[[], list[str]]
) -> None:
    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(fail_when_cancelled, KeyError("at the end"))
        try:
            await wait_all_tasks_blocked()
            ws.nursery.start_soon(fail, WebSocketException(4001, "first"))
            await trio.sleep_forever()
        finally:
            raise ValueError("second")

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4001, "first")
        assert await peer.next_event() is None
    assert logged() == ["second", "'at the end'"]


async def test_two_tasks_that_fail_in_one_step_are_told_apart(
    memory: Bench, logged: Callable[[], list[str]]
) -> None:
    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(fail, ValueError("one"))
        ws.nursery.start_soon(fail, ValueError("other"))
        await trio.sleep_forever()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (1011, "internal error")
    assert sorted(logged()) == ["one", "other"]


async def test_a_failure_behind_a_close_changes_no_code(
    memory: Bench, logged: Callable[[], list[str]]
) -> None:
    async def handler(ws: Websocket) -> None:
        await ws.close(4000, "mine")
        raise ValueError("late")

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4000, "mine")
        assert await peer.next_event() is None
        await peer.stream.aclose()
        await wait_all_tasks_blocked()
    assert logged() == ["late"]


@pytest.mark.parametrize("end", ["close", "loss"])
async def test_a_failure_behind_the_peers_end_is_logged(
    bench: Bench, logged: Callable[[], list[str]], end: str
) -> None:
    done = trio.Event()

    async def handler(ws: Websocket) -> None:
        try:
            async for _ in ws:
                pass
            raise ValueError("farewell")
        finally:
            done.set()

    async with bench.connect(handler) as peer:
        if end == "close":
            await peer.close(4001)
            assert await peer.next_close() == (4001, "")
        await peer.stream.aclose()
        with trio.fail_after(5):
            await done.wait()
        await wait_all_tasks_blocked()
    assert logged() == ["farewell"]


async def test_a_failure_at_the_end_of_the_grace_is_logged(
    memory: Bench, autojump_clock: trio.testing.MockClock, logged: Callable[[], list[str]]
) -> None:
    async def handler(ws: Websocket) -> None:
        await fail_when_cancelled(ValueError("grace"))

    async with memory.connect(handler) as peer:
        await peer.stream.aclose()
        await trio.sleep(10)
    assert logged() == ["grace"]


@pytest.mark.parametrize("error", [own_end, own_loss, own_ends])
async def test_its_own_end_in_a_nursery_beside_others_is_quiet(
    memory: Bench, logged: Callable[[], list[str]], error: Callable[[Websocket], Exception]
) -> None:
    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, error(ws))
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (1000, "")
    assert logged() == []


async def test_sends_that_fail_in_a_nursery_when_the_peer_leaves_end_it_quietly(
    bench: Bench, logged: Callable[[], list[str]]
) -> None:
    """What users write: two pushers in a nursery of theirs, and nothing caught."""
    ended = trio.Event()

    async def push(ws: Websocket) -> None:
        while True:
            await ws.send("tick")
            await trio.lowlevel.checkpoint()

    async def handler(ws: Websocket) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push, ws)
                nursery.start_soon(push, ws)
        finally:
            ended.set()

    async with bench.connect(handler) as peer:
        assert await peer.next_message() == "tick"
        await peer.close(4001)
        assert await peer.next_close() == (4001, "")
        await peer.stream.aclose()
        with trio.fail_after(5):
            await ended.wait()
        await wait_all_tasks_blocked()
    assert logged() == []


async def test_a_generator_over_a_lost_connection_ends_quietly(
    bench: Bench, logged: Callable[[], list[str]]
) -> None:
    async def texts(ws: Websocket) -> AsyncGenerator[Any, None]:
        while True:
            yield await ws.recv()

    received: list[Any] = []
    ended = trio.Event()

    async def handler(ws: Websocket) -> None:
        try:
            async with aclosing(texts(ws)) as messages:
                async for message in messages:
                    received.append(message)  # noqa: PERF401 - what came before the end counts
        finally:
            ended.set()

    async with bench.connect(handler) as peer:
        await peer.send("1", "2")
        await peer.stream.aclose()
        with trio.fail_after(5):
            await ended.wait()
        await wait_all_tasks_blocked()
    assert received == ["1", "2"]
    assert logged() == []


async def test_an_error_of_ws_nursery_that_the_handler_cannot_catch_is_no_part_of_it(
    memory: Bench, logged: Callable[[], list[str]]
) -> None:
    """It reaches the handler as a cancellation, which it cannot take for its own timeout."""
    caught: list[str] = []

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(fail, WebSocketException(4003, "task"))
        try:
            with trio.move_on_after(60):
                await trio.sleep_forever()
            caught.append("went on")
        except Exception as error:
            caught.append(repr(error))

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4003, "task")
    assert caught == []
    assert logged() == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", ["behind a failure", "at the end", "beside the own end"])
async def test_what_ends_the_process_goes_through_whatever_else_failed(
    memory: Bench, kind: type[BaseException], place: str
) -> None:
    async def handler(ws: Websocket) -> None:
        if place == "behind a failure":
            ws.nursery.start_soon(fail_when_cancelled, kind())
            await wait_all_tasks_blocked()
            raise ValueError("first")
        if place == "at the end":
            ws.nursery.start_soon(fail_when_cancelled, kind())
            await wait_all_tasks_blocked()
        else:
            raise BaseExceptionGroup("", [own_end(ws), kind()])

    async def connect() -> None:
        async with memory.connect(handler) as peer:
            await peer.next_close()
            await peer.stream.aclose()
            await trio.sleep_forever()

    with pytest.RaisesGroup(kind, flatten_subgroups=True):
        await connect()


async def test_a_pusher_with_a_nursery_does_not_take_the_farewell_with_it(memory: Bench) -> None:
    said: list[str] = []

    async def push_all(ws: Websocket) -> None:
        async def push() -> None:
            while True:
                await ws.send("tick")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            nursery.start_soon(push)

    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(push_all, ws)
        async for _ in ws:
            pass
        await wait_all_tasks_blocked()
        said.append("farewell")

    async with memory.connect(handler) as peer:
        await peer.next_message()
        await peer.close()
        await peer.next_close()
        await wait_all_tasks_blocked(0.01)
        await wait_all_tasks_blocked(0.01)
    assert said == ["farewell"]


async def test_a_failure_while_its_own_nursery_is_cancelled_counts(memory: Bench) -> None:
    """One leaf beside the Cancelled in a group of the user's: 4002, not 1011."""

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, WebSocketException(4002, "unwinding"))
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            ws.nursery.cancel_scope.cancel()

    async with memory.connect(handler) as peer:
        assert await peer.next_close() == (4002, "unwinding")


@pytest.mark.parametrize("who", ["serve", "ws.nursery"])
async def test_its_own_end_beside_a_cancellation_is_quiet(
    memory: Bench, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Said as users say goodbye, in a nursery of theirs, while the server is cancelled."""

    async def speak(ws: Websocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                await ws.send("bye")

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, ws)
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            if who == "ws.nursery":
                ws.nursery.start_soon(ws.close)
                await wait_all_tasks_blocked()
                ws.nursery.cancel_scope.cancel()

    async with memory.connect(handler) as peer:
        await wait_all_tasks_blocked()
        if who == "serve":
            peer.cancel_server()
        with trio.CancelScope(shield=True):
            assert (await peer.next_close())[0] == (1001 if who == "serve" else 1000)
            await peer.stream.aclose()
            await wait_all_tasks_blocked(0.01)
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []

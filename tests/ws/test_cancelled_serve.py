"""``serve`` is cancelled: what the peer is told, whatever the handler does meanwhile.

Handler and receive task hear of a cancellation in any order, so each case is repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.ws.conftest import Bench, Handler
    from trioweb.ws import Websocket

# With two orders that are as likely, a wrong one is missed once in a million times.
REPETITIONS = 20


async def goes_on_unwinding(ws: Websocket) -> None:
    await trio.sleep_forever()


async def swallows(ws: Websocket) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        pass


async def swallows_in_recv(ws: Websocket) -> None:
    try:
        await ws.recv()
    except trio.Cancelled:
        pass


async def raises_not_found(ws: Websocket) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise NotFound


async def raises_value_error(ws: Websocket) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError


async def has_a_nursery(ws: Websocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_not_found, ws)
        nursery.start_soon(trio.sleep_forever)


async def has_a_task_in_ws_nursery(ws: Websocket) -> None:
    ws.nursery.start_soon(raises_value_error, ws)
    await trio.sleep_forever()


async def is_amid_a_fragmented_message(ws: Websocket) -> None:
    async def parts() -> AsyncIterator[str]:
        yield "a"
        await trio.sleep_forever()

    await ws.send_fragments(parts())


async def has_a_deadline_of_its_own(ws: Websocket) -> None:
    with trio.move_on_after(1000):
        await trio.sleep_forever()


async def is_shielded(ws: Websocket) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(0.1)


async def close_codes(bench: Bench, handler: Handler) -> list[int]:
    """What the peers of a server that is cancelled are told."""
    codes: list[int] = []
    for _ in range(REPETITIONS):
        async with bench.connect(handler) as peer:
            await wait_all_tasks_blocked()
            peer.cancel_server()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                while True:
                    event = await peer.next_frame()
                    assert event is not None, "the stream ended without a Close"
                    code = getattr(event, "code", None)
                    if code is not None:
                        codes.append(int(code))
                        break
    return codes


@pytest.mark.parametrize(
    "handler",
    [
        goes_on_unwinding,
        swallows,
        swallows_in_recv,
        raises_not_found,
        raises_value_error,
        has_a_nursery,
        has_a_task_in_ws_nursery,
        is_amid_a_fragmented_message,
        has_a_deadline_of_its_own,
        is_shielded,
    ],
)
async def test_the_peer_is_told_1001_whatever_the_handler_does(
    bench: Bench, handler: Handler
) -> None:
    assert await close_codes(bench, handler) == [1001] * REPETITIONS


async def test_a_handler_that_closes_while_it_unwinds_chooses_the_code(bench: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await ws.close(4000)

    assert await close_codes(bench, handler) == [4000] * REPETITIONS


async def test_a_shielded_handler_holds_nobody_up(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """The connection hears of the cancellation by itself, also when it waits to write its Close."""
    for is_closing in (False, True):

        async def handler(ws: Websocket, is_closing: bool = is_closing) -> None:
            with trio.CancelScope(shield=True):
                if is_closing:
                    await ws.send(b"x" * 3 * memory.buffer)
                    await ws.close(4000, wait=False)
                await trio.sleep(100)

        async with memory.connect(handler) as peer:
            await trio.sleep(1)
            start = trio.current_time()
            peer.cancel_server()
            with trio.CancelScope(shield=True):
                if is_closing:
                    await trio.sleep(5)  # and reads nothing
                while await peer.next_frame() is not None:
                    pass
                assert trio.current_time() - start == (5 if is_closing else 0)

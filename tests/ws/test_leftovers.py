"""What is left of a connection that has ended."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from trioweb.errors import WebsocketClosed

if TYPE_CHECKING:
    from tests.ws.conftest import Bench
    from trioweb.ws import Websocket


async def test_it_goes_with_the_last_who_has_it(bench: Bench) -> None:
    """Without the garbage collector, whose runs cost more than to make the connection did."""
    kept: list[Websocket] = []

    async def handler(ws: Websocket) -> None:
        kept.append(ws)
        async for message in ws:
            await ws.send(message)

    gc.collect()
    gc.disable()
    try:
        async with bench.connect(handler) as peer:
            await peer.send("a")
            assert await peer.next_message() == "a"
            await peer.close(4001)
            while await peer.next_event() is not None:
                pass
        references: list[weakref.ref[Any]] = [
            weakref.ref(kept[0]),
            weakref.ref(kept[0]._connection),
        ]
        kept.clear()
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


async def test_who_keeps_it_can_ask_it(memory: Bench) -> None:
    """As before its end: nothing of it is missing that can still be asked for."""
    kept: list[Websocket] = []

    async def handler(ws: Websocket) -> None:
        kept.append(ws)
        await ws.wait_closed()

    async with memory.connect(handler) as peer:
        await peer.send("a", "b")
        await peer.close(4001)
        while await peer.next_event() is not None:
            pass
    (ws,) = kept
    assert await ws.recv() == "a"
    assert ws.recv_nowait() == "b"
    for _ in range(2):
        with pytest.raises(WebsocketClosed) as caught:
            await ws.recv()
        assert (caught.value.code, caught.value.websocket) == (4001, ws)
    for call in (ws.ping, ws.pong, ws.flush):
        with pytest.raises(WebsocketClosed):
            await call()
    with pytest.raises(WebsocketClosed):
        await ws.send("c")
    with pytest.raises(RuntimeError, match="handler has returned"):
        ws.nursery.start_soon(ws.wait_closed)
    with pytest.raises(WebsocketClosed):
        ws.raise_for_close()
    await ws.accept()
    await ws.close()
    await ws.wait_closed()
    assert [message async for message in ws] == []
    assert ws.close_info == (4001, "", "peer", True)
    ws.nursery.cancel_scope.cancel()
    assert ws.latency is None

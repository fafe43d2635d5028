"""Whole conversations over Links that take time and are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trioweb import TrioWeb, Websocket
from trioweb.errors import WebsocketClosed
from trioweb.testing import Link, open_client

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_websocket_is_as_slow_as_its_link(autojump_clock: MockClock) -> None:
    """Each answer takes two latencies and its transmission, and the Close as well."""
    app = TrioWeb("slow")

    @app.websocket("/echo")
    async def echo(ws: Websocket) -> None:
        assert ws.client == ("10.0.0.1", 40000)
        async for message in ws:
            await ws.send(message)

    link = Link(latency=0.25, bandwidth=8192, client=("10.0.0.1", 40000))
    async with open_client(app, link=link) as client, client.websocket("/echo") as ws:
        started = trio.current_time()
        assert 0.5 < started < 0.6
        await ws.send("x" * 4088)
        await ws.expect("x" * 4088)
        # A frame of 4096 bytes there, with its mask, and one of 4092 back, whose transmission
        # begins when the whole message has come.
        assert trio.current_time() - started == 0.5 + (4096 + 4092) / 8192


async def test_a_server_finds_out_that_the_cable_was_pulled(autojump_clock: MockClock) -> None:
    """No end comes and no reset: only its pings tell."""
    app = TrioWeb(config={"WEBSOCKET_PING_INTERVAL": 10, "WEBSOCKET_PING_TIMEOUT": 5})
    ended: list[tuple[float, str]] = []

    @app.websocket("/hush")
    async def hush(ws: Websocket) -> None:
        try:
            await ws.recv()
        except WebsocketClosed as closed:
            ended.append((trio.current_time(), str(closed)))
            raise

    link = Link(latency=0.25, drop_after=32)
    async with open_client(app, link=link) as client, client.websocket("/hush") as ws:
        await trio.sleep(100)
        # Accepted at 0.25, it got a pong half a second after each ping, the last at 31.75.
        [(at, reason)] = ended
        assert at == 31.75 + 10 + 5
        assert "no sign of life for 15 s" in reason
        with pytest.raises(trio.TooSlowError):
            await ws.expect_close(1006)
        ws.abort()

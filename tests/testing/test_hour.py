"""An hour of a room: heartbeats, a reader that stops, a cable that is pulled, a drain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock

from trioweb import TrioWeb, Websocket
from trioweb.testing import Link, Opcode, open_client

if TYPE_CHECKING:
    from trioweb import Room

HOUR = 3600.0
# Seconds between strikes; no multiple of a heartbeat, since what falls due in one moment comes in
# any order.
PERIOD = 53


def make_app() -> TrioWeb:
    app = TrioWeb("hour", config={"WEBSOCKET_STALL_TIMEOUT": 30})

    @app.websocket("/<name>")
    async def join(ws: Websocket, name: str) -> None:
        room = app.room("hour")
        try:
            async with room.join(ws):
                async for message in ws:
                    room.broadcast(f"{name}: {message!s}")
        finally:
            room.broadcast(f"{name} has left")

    @app.room_task("hour")
    async def strike(room: Room) -> None:
        while True:
            await trio.sleep(PERIOD)
            room.broadcast(f"{trio.current_time():g} s")

    return app


async def live_an_hour() -> list[str]:
    """What each connection has said and heard, seen from the client."""
    async with (
        open_client(make_app()) as client,
        client.websocket("/ada") as ada,
        client.websocket("/bob", link=Link(buffer=1000)) as bob,
        client.websocket("/eve", link=Link(latency=0.05, bandwidth=10_000)) as eve,
    ):
        await trio.sleep(1210)
        bob.stall()
        await ada.send("x" * 2000)
        await trio.sleep(590)
        eve.drop()
        await trio.sleep(HOUR - trio.current_time() + 30)
        client.shutdown()
        while (await ada.recv_frame()).opcode != Opcode.CLOSE:
            pass
        assert [ws.path_params["name"] for ws in client.connections] == []
        return [one.transcript() for one in (ada, bob, eve)]


def run() -> list[str]:
    return trio.run(live_an_hour, clock=MockClock(autojump_threshold=0))


def test_an_hour_takes_no_time_and_goes_as_it_should() -> None:
    """Less than a second by far (it is some 0.1 s), with everything at its time."""
    began = time.perf_counter()
    ada, bob, eve = run()
    # Generous, for a machine that has other things to do; without a virtual clock it is an hour.
    assert time.perf_counter() - began < 10
    lines = [line.strip() for line in ada.splitlines()]
    assert lines[:5] == [
        "20.000 < ping #1",
        "20.000 > pong #1",
        "40.000 < ping #2",
        "40.000 > pong #2",
        "53.000 < text '53 s'",
    ]
    # Bob had nothing to take for a while; then 30 s, and 10 s for his Close that did not come.
    assert bob.splitlines()[-1].split() == ["1210.128", ">", "(stalled)"]
    assert "1250.128 < text 'bob has left'" in lines
    # Eve was last heard of at 1802 s, when she took the clock's stroke; 40 s later she is lost.
    assert eve.splitlines()[-1].split() == ["1800.128", ">", "(dropped)"]
    assert "1749.051 < text '1749 s'" in [line.strip() for line in eve.splitlines()]
    assert "1842.000 < text 'eve has left'" in lines
    assert lines[-2:] == [
        "3630.000 < close 1001 'server is shutting down'",
        "3630.000 > close 1001 'server is shutting down'",
    ]


def test_it_is_the_same_a_hundred_times_in_a_row() -> None:
    """Tasks of one moment run in any order; what is said on a connection does not depend on it."""
    first = run()
    for _ in range(99):
        assert run() == first

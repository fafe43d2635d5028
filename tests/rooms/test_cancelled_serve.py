"""Of a server that is cancelled all members have left before any handler, or task, hears of it."""

from __future__ import annotations

from typing import Any

import trio

from tests.app.conftest import HANDSHAKE
from trioweb import BroadcastResult, Room, TrioWeb, Websocket
from trioweb.ws.encoding import encode_close

MEMBERS = 20


async def test_last_words_reach_nobody_when_serve_is_cancelled() -> None:
    """Else a room of a thousand would be told a thousand times that it ends."""
    app = TrioWeb()
    told: list[BroadcastResult] = []
    joined = trio.Event()

    @app.websocket("/join")
    async def member(ws: Websocket) -> None:
        room = app.room("hall")
        try:
            async with room.join(ws):
                if len(room.members) == MEMBERS:
                    joined.set()
                await trio.sleep_forever()
        finally:
            told.append(room.broadcast("goodbye"))

    @app.room_task("hall")
    async def watch(room: Room) -> None:
        try:
            await trio.sleep_forever()
        finally:
            told.append(room.broadcast("the hall closes"))

    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as servers:
            [address] = await servers.start(app.serve, "127.0.0.1", 0)
            for _ in range(MEMBERS):
                clients.start_soon(stay, address)
            await joined.wait()
            servers.cancel_scope.cancel()
        assert told == [BroadcastResult(0, 0, 0)] * (MEMBERS + 1)


async def test_last_words_reach_nobody_when_the_process_is_to_end() -> None:
    """``SystemExit`` in a handler ends the server as a cancellation does."""
    app = TrioWeb()
    told: list[BroadcastResult] = []
    joined, exit_now = trio.Event(), trio.Event()

    @app.websocket("/join")
    async def member(ws: Websocket) -> None:
        room = app.room("hall")
        try:
            async with room.join(ws):
                is_last = len(room.members) == 3
                if is_last:
                    joined.set()
                    await exit_now.wait()
                    raise SystemExit(3)
                await trio.sleep_forever()
        finally:
            told.append(room.broadcast("goodbye"))

    exits: list[object] = []

    async def serve(task_status: Any) -> None:
        try:
            await app.serve("127.0.0.1", 0, task_status=task_status)
        except SystemExit as error:
            exits.append(error.code)

    async with trio.open_nursery() as nursery:
        address = (await nursery.start(serve))[0]
        for _ in range(3):
            nursery.start_soon(linger, address)
        await joined.wait()
        exit_now.set()
    assert exits == [3]
    # The one that exits is still a member's fellow; all others have left.
    assert sorted(result.sent for result in told) == [0, 0, 2]


async def linger(address: tuple[str, int]) -> None:
    """A client that stays until the server closes, whatever it says."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(HANDSHAKE % b"/join")
        async for _ in stream:
            pass


async def stay(address: tuple[str, int]) -> None:
    """A client that stays until the server closes, and is told nothing before."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(HANDSHAKE % b"/join")
        answer = b"".join([bytes(data) async for data in stream])
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == encode_close(1001, "server is shutting down")

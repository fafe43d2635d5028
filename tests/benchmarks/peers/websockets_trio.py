"""``websockets`` with Trio; it has a ``broadcast`` of its own."""

from __future__ import annotations

from functools import partial

import trio
from websockets.trio.connection import broadcast
from websockets.trio.server import ServerConnection, serve

members: set[ServerConnection] = set()


async def handle(websocket: ServerConnection) -> None:
    assert websocket.request is not None
    if websocket.request.path == "/echo":
        async for message in websocket:
            await websocket.send(message)
        return
    members.add(websocket)
    try:
        async for message in websocket:
            await broadcast(members.copy(), message)
    finally:
        members.remove(websocket)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handle, 0, host="127.0.0.1"))
        print("port", server.listeners[0].socket.getsockname()[1], flush=True)


if __name__ == "__main__":
    trio.run(main)

"""trio-websocket, which has no broadcast: a loop."""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

members: set[WebSocketConnection] = set()


async def handle(request: WebSocketRequest) -> None:
    ws = await request.accept()
    try:
        if request.path == "/echo":
            while True:
                await ws.send_message(await ws.get_message())
        members.add(ws)
        while True:
            message = await ws.get_message()
            for member in members.copy():
                await member.send_message(message)
    except ConnectionClosed:
        members.discard(ws)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, handle, "127.0.0.1", 0, None)
        print("port", server.port, flush=True)


if __name__ == "__main__":
    trio.run(main)

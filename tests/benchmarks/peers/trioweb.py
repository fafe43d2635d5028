"""trioweb by ``app.serve``; the argument is WEBSOCKET_COMPRESSION, for clients that offer it."""

from __future__ import annotations

import sys

import trio

from trioweb import TrioWeb, Websocket

app = TrioWeb("benchmark", config={"WEBSOCKET_COMPRESSION": sys.argv[1]})


@app.websocket("/echo")
async def echo(ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/broadcast")
async def broadcast(ws: Websocket) -> None:
    async with app.room("everyone").join(ws) as room:
        async for message in ws:
            room.broadcast(message)


@app.get("/")
async def hello() -> str:
    return "Hello, world!"


async def main() -> None:
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(app.serve, "127.0.0.1", 0)
        print("port", addresses[0][1], flush=True)


trio.run(main)

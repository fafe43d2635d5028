"""Sanic in a single process; it takes uvloop by itself. Its guide has no broadcast: a loop."""

from __future__ import annotations

import socket

from sanic import Request, Sanic, Websocket
from sanic.response import HTTPResponse, text

app = Sanic("benchmark")
members: set[Websocket] = set()


@app.websocket("/echo")
async def echo(request: Request, ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/broadcast")
async def broadcast(request: Request, ws: Websocket) -> None:
    members.add(ws)
    try:
        async for message in ws:
            for member in members.copy():
                await member.send(message)
    finally:
        members.discard(ws)


@app.get("/")
async def hello(request: Request) -> HTTPResponse:
    return text("Hello, world!")


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    app.run(sock=listener, single_process=True, access_log=False, motd=False)

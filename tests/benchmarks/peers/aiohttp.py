"""aiohttp on uvloop; broadcasts are the loop of its ``examples/web_ws.py``."""

from __future__ import annotations

import socket

import uvloop
from aiohttp import web

members: list[web.WebSocketResponse] = []


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    members.append(ws)
    try:
        async for message in ws:
            for member in members:
                await member.send_str(message.data)
    finally:
        members.remove(ws)
    return ws


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello, world!")


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/echo", echo), web.get("/broadcast", broadcast), web.get("/", hello)])
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    web.run_app(app, sock=listener, access_log=None, print=None, loop=uvloop.new_event_loop())

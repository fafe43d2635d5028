"""A server to talk to: each route shows one thing of the client."""

from __future__ import annotations

from trioweb import Request, TrioWeb, Websocket

app = TrioWeb("counterpart")


@app.websocket("/echo")
async def echo(request: Request, ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/greet", subprotocols=["chat.v2", "chat.v1"])
async def greet(request: Request, ws: Websocket, name: str = "nobody") -> None:
    await ws.send(f"hello {name}")
    await ws.recv()


@app.websocket("/close/<code:int>")
async def close(request: Request, ws: Websocket, code: int) -> None:
    await ws.send("last words")
    await ws.close(code, "so it is")


@app.websocket("/header/<name>")
async def header(request: Request, ws: Websocket, name: str) -> None:
    await ws.send(request.headers.get(name, "(missing)"))
    await ws.close()


@app.websocket("/mixed")
async def mixed(request: Request, ws: Websocket) -> None:
    await ws.send(b"\x00\xff" * 6)
    await ws.send('{ "n": 1e400,\n "text": "\\u00e9" }')
    await ws.send("not JSON")
    await ws.close()


@app.websocket("/rude")
async def rude(request: Request, ws: Websocket) -> None:
    await ws.send("\x1b[2J\x07 gone\u202e\nand more")
    await ws.recv()
    await ws.close(1000, "\x1b]0;title\x07")


@app.websocket("/count")
async def count(request: Request, ws: Websocket) -> None:
    """Says how many messages came, and bytes, when it is asked."""
    messages = size = 0
    async for message in ws:
        if message == "how many?":
            await ws.send(f"{messages} messages, {size} characters")
        messages += 1
        size += len(message)


@app.websocket("/endless")
async def endless(request: Request, ws: Websocket) -> None:
    number = 0
    while True:
        await ws.send(f"{number}")
        number += 1

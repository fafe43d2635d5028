"""What the clients talk to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from trioweb import TrioWeb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioweb import Request, Websocket

MAX_SIZE = 1_048_576
STREAM_SIZE = 8 * MAX_SIZE


def split(message: str | bytes) -> Iterator[str] | Iterator[bytes]:
    """Cut a message in three, the last part empty when there are less than 3 characters."""
    third = len(message) // 3 + 1
    if isinstance(message, str):
        return (message[start : start + third] for start in range(0, 3 * third, third))
    return (message[start : start + third] for start in range(0, 3 * third, third))


def make_app(compression: str | None) -> TrioWeb:
    """Build an application; ``app.ctx.ends`` are the ``close_info`` of its connections."""
    app = TrioWeb(
        "interop",
        config={"WEBSOCKET_COMPRESSION": compression, "WEBSOCKET_MAX_SIZE": MAX_SIZE},
    )
    app.ctx.ends = []

    @app.websocket("/echo")
    async def echo(ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)
        app.ctx.ends.append(ws.close_info)

    @app.websocket("/fragments")
    async def fragments(ws: Websocket) -> None:
        """Send each message back in fragments."""
        async for message in ws:
            await ws.send_fragments(split(message))

    @app.websocket("/stream", stream=True, max_size=STREAM_SIZE)
    async def stream(ws: Websocket) -> None:
        """Send the digest of each message, which is never here as a whole, and its longest part."""
        while True:
            digest = hashlib.sha256()
            longest = 0
            async for part in ws.recv_streaming():
                digest.update(part.encode() if isinstance(part, str) else part)
                longest = max(longest, len(part))
            await ws.send({"digest": digest.hexdigest(), "longest": longest})

    @app.websocket("/ping")
    async def ping(ws: Websocket) -> None:
        """Answer each message once the client has answered a ping."""
        async for message in ws:
            await (await ws.ping(b"are you there?"))
            await ws.send(message)

    @app.websocket("/close")
    async def close(ws: Websocket) -> None:
        order = await ws.receive_json()
        await ws.close(order["code"], order["reason"])
        app.ctx.ends.append(ws.close_info)

    @app.websocket("/crash")
    async def crash(ws: Websocket) -> None:
        await ws.recv()
        raise RuntimeError("on purpose")

    @app.websocket("/subprotocol", subprotocols=["chat.v2", "chat.v1"])
    async def tell_subprotocol(ws: Websocket) -> None:
        await ws.send({"subprotocol": ws.subprotocol})

    def refuse(request: Request) -> bool:
        return False

    @app.websocket("/forbidden", guards=[refuse])
    async def forbidden(ws: Websocket) -> None:
        raise AssertionError("guarded")

    return app

"""What the clients talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb import TrioWeb

if TYPE_CHECKING:
    from trioweb import Request, Websocket

MAX_SIZE = 1_048_576


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

"""An echo server for the Autobahn suite, in a process of its own; prints its port.

Its one argument is WEBSOCKET_COMPRESSION, or ``none``.
"""

from __future__ import annotations

import sys

import trio

from trioweb import TrioWeb, Websocket


def make_app(compression: str | None) -> TrioWeb:
    app = TrioWeb(
        "conformance",
        config={
            # The limits of 9.* go to 16 MiB in fragments of 64 bytes; 64 MiB is what DESIGN.md
            # names.
            "WEBSOCKET_MAX_SIZE": 64 * 1024 * 1024,
            # kosoku takes a case for over when it is pinged in it, and the large ones may take
            # longer than the interval.
            "WEBSOCKET_PING_INTERVAL": None,
            "WEBSOCKET_COMPRESSION": compression,
            # 12.* and 13.* begin with messages of 16 bytes, which are to be compressed as well.
            "WEBSOCKET_COMPRESSION_THRESHOLD": 0,
        },
    )

    @app.websocket("/")
    async def echo(ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    return app


async def main(app: TrioWeb) -> None:
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(app.serve, "127.0.0.1", 0)
        print(addresses[0][1], flush=True)


if __name__ == "__main__":
    trio.run(main, make_app(None if sys.argv[1] == "none" else sys.argv[1]))

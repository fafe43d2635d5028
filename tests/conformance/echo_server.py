"""An echo server for the Autobahn suite, in a process of its own; prints its port."""

from __future__ import annotations

import trio

from trioweb import TrioWeb, Websocket

# The limits of 9.* go to 16 MiB in fragments of 64 bytes; 64 MiB is what DESIGN.md names.
app = TrioWeb("conformance", config={"WEBSOCKET_MAX_SIZE": 64 * 1024 * 1024})


@app.websocket("/")
async def echo(ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(app.serve, "127.0.0.1", 0)
        print(addresses[0][1], flush=True)


if __name__ == "__main__":
    trio.run(main)

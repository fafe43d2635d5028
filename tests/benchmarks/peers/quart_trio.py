"""quart-trio on hypercorn; broadcasts are the Broker of Quart's chat tutorial.

The tutorial has a queue for each connection and a task that sends from it; with Trio the queue is
a memory channel.
"""

from __future__ import annotations

import math
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

app = QuartTrio("benchmark")
members: set[trio.MemorySendChannel[str]] = set()


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


@app.websocket("/broadcast")
async def broadcast() -> None:
    await websocket.accept()
    queue, messages = trio.open_memory_channel[str](math.inf)
    members.add(queue)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_loop, messages)
            while True:
                message = await websocket.receive()
                for member in members:
                    member.send_nowait(message)
    finally:
        members.remove(queue)


async def send_loop(messages: trio.MemoryReceiveChannel[str]) -> None:
    async for message in messages:
        await websocket.send(message)


@app.get("/")
async def hello() -> tuple[str, dict[str, str]]:
    return "Hello, world!", {"Content-Type": "text/plain"}


async def main() -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "WARNING"
    config.keep_alive_max_requests = 10**9  # 1000 by default, then it hangs up
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve, app, config))
        print("port", urls[0].rpartition(":")[2], flush=True)


if __name__ == "__main__":
    trio.run(main)

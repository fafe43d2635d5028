"""A relay between a client and the server that keeps what went by.

What was negotiated, fragmented and compressed is read here, whatever a client lets its users see.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    fin: bool
    rsv1: bool
    opcode: int
    payload: bytes

    @property
    def is_data(self) -> bool:
        return self.opcode < CLOSE


class Direction:
    """The bytes of one direction: an HTTP head, then frames."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def head(self) -> bytes:
        return bytes(self.data.partition(b"\r\n\r\n")[0])

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def frames(self) -> list[Frame]:
        """Every frame that went by whole."""
        return list(self._frames())

    def data_frames(self) -> list[Frame]:
        return [frame for frame in self._frames() if frame.is_data]

    def _frames(self) -> Iterator[Frame]:
        data = memoryview(self.data.partition(b"\r\n\r\n")[2])
        while len(data) >= 2:
            first, second = data[:2]
            size, start = second & 0x7F, 2
            if size > 125:
                start = 4 if size == 126 else 10
                size = int.from_bytes(data[2:start], "big")
            mask = b""
            if second & 0x80:
                mask = bytes(data[start : start + 4])
                start += 4
            payload = bytes(data[start : start + size])
            if len(payload) < size:
                return
            if mask:
                key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
                payload = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
            yield Frame(bool(first & 0x80), bool(first & 0x40), first & 0x0F, payload)
            data = data[start + size :]


class Wire:
    """One connection: what the client has sent, and what the server has."""

    def __init__(self) -> None:
        self.client = Direction()
        self.server = Direction()


class Relay:
    """Listens on a port of its own; ``wires`` are its connections, in order."""

    port: int

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self.wires: list[Wire] = []

    async def _relay(self, client: trio.SocketStream) -> None:
        wire = Wire()
        self.wires.append(wire)
        async with (
            client,
            await trio.open_tcp_stream(*self._server) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_pass_on, client, server, wire.client)
            nursery.start_soon(_pass_on, server, client, wire.server)


async def _pass_on(
    source: trio.SocketStream, target: trio.SocketStream, direction: Direction
) -> None:
    try:
        async for data in source:
            direction.data += data
            await target.send_all(data)
        await target.send_eof()
    except trio.BrokenResourceError:
        # One side has left with a reset; so shall the other.
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(target)
    except trio.ClosedResourceError:
        pass


@asynccontextmanager
async def open_relay(server: tuple[str, int]) -> AsyncIterator[Relay]:
    """Relay to a server until left."""
    relay = Relay(server)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        relay.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, relay._relay, listeners)
        yield relay
        nursery.cancel_scope.cancel()

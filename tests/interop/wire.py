"""A relay between a client and the server that keeps what went by.

What was negotiated, fragmented and compressed is read here, whatever a client lets its users see.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trioweb.client.frame import FrameReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioweb.testing import Frame

# Of the first frame of a message that is compressed (RFC 7692 §6).
RSV1 = 0b100


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
        after_the_head = bytes(self.data.partition(b"\r\n\r\n")[2])
        return [frame for _, frame in FrameReader().feed(after_the_head) if frame is not None]

    def data_frames(self) -> list[Frame]:
        return [frame for frame in self.frames() if not frame.is_control]


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

"""The ``websockets`` package's asyncio client."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from tests.interop.clients.conversation import Closed, Refused, converse

if TYPE_CHECKING:
    from collections.abc import Sequence

_OFFERS = {
    "no-takeover": ClientPerMessageDeflateFactory(
        server_no_context_takeover=True, client_no_context_takeover=True
    ),
    "small-windows": ClientPerMessageDeflateFactory(
        server_max_window_bits=10, client_max_window_bits=10
    ),
}


class WebsocketsClient:
    _ws: ClientConnection

    async def open(self, url: str, subprotocols: Sequence[str], deflate: str) -> str | None:
        try:
            self._ws = await connect(
                url,
                subprotocols=[Subprotocol(one) for one in subprotocols] or None,
                compression="deflate" if deflate == "default" else None,
                extensions=[_OFFERS[deflate]] if deflate in _OFFERS else None,
                # Its limit is for what is on the wire too, where noise is larger once it was
                # compressed; by default it is the server's, 1 MiB.
                max_size=2 * 1024 * 1024,
                proxy=None,
            )
        except InvalidStatus as refused:
            raise Refused(refused.response.status_code) from refused
        return self._ws.subprotocol

    async def send(self, message: str | bytes) -> None:
        try:
            await self._ws.send(message)
        except ConnectionClosed as closed:
            raise self._closed() from closed

    async def send_fragments(self, parts: Sequence[str | bytes]) -> None:
        await self._ws.send(parts)

    async def recv(self) -> str | bytes:
        try:
            return await self._ws.recv()
        except ConnectionClosed as closed:
            raise self._closed() from closed

    async def ping(self, data: bytes) -> None:
        await (await self._ws.ping(data))

    async def close(self, code: int, reason: str) -> Closed:
        await self._ws.close(code, reason)
        return self._closed()

    async def drop(self) -> None:
        self._ws.transport.abort()
        await self._ws.wait_closed()

    def _closed(self) -> Closed:
        return Closed(self._ws.close_code, self._ws.close_reason)


if __name__ == "__main__":
    asyncio.run(converse(WebsocketsClient(), lambda: asyncio.to_thread(sys.stdin.buffer.readline)))

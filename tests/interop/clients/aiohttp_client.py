"""aiohttp's client; it can't send a message in fragments."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from tests.interop.clients.conversation import Closed, Refused, converse

if TYPE_CHECKING:
    from collections.abc import Sequence

# Window bits; aiohttp can't ask for no context takeover.
_COMPRESS = {"off": 0, "default": 15, "small-windows": 10}


class AiohttpClient:
    _session: ClientSession
    _ws: ClientWebSocketResponse

    async def open(self, url: str, subprotocols: Sequence[str], deflate: str) -> str | None:
        self._session = ClientSession()
        try:
            self._ws = await self._session.ws_connect(
                url, protocols=subprotocols, compress=_COMPRESS[deflate]
            )
        except WSServerHandshakeError as refused:
            await self._session.close()
            raise Refused(refused.status) from refused
        return self._ws.protocol

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._ws.send_str(message)
        else:
            await self._ws.send_bytes(message)

    async def send_fragments(self, parts: Sequence[str | bytes]) -> None:
        raise NotImplementedError

    async def recv(self) -> str | bytes:
        message = await self._ws.receive()
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            assert isinstance(message.data, (str, bytes))
            return message.data
        if message.type is WSMsgType.CLOSE:
            # Not close_code, which is 1006 where the server has hung up already (behind a 1009).
            raise Closed(message.data, message.extra)
        raise Closed(self._ws.close_code, "")

    async def ping(self, data: bytes) -> None:
        # Its pongs are not for users to see; the test looks at the wire.
        await self._ws.ping(data)

    async def close(self, code: int, reason: str) -> Closed:
        await self._ws.close(code=code, message=reason.encode())
        return Closed(self._ws.close_code, reason)

    async def drop(self) -> None:
        await self._session.close()


if __name__ == "__main__":
    asyncio.run(converse(AiohttpClient(), lambda: asyncio.to_thread(sys.stdin.buffer.readline)))

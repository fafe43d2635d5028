"""trio-websocket's client; it has no compression and can't send a message in fragments."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    open_websocket_url,
)

from tests.interop.clients.conversation import Closed, Refused, converse

if TYPE_CHECKING:
    from collections.abc import Sequence


class TrioClient:
    _ws: WebSocketConnection
    _stack: AsyncExitStack

    async def open(self, url: str, subprotocols: Sequence[str], deflate: str) -> str | None:
        assert deflate == "off"
        self._stack = AsyncExitStack()
        try:
            self._ws = await self._stack.enter_async_context(
                open_websocket_url(url, subprotocols=subprotocols)
            )
        except ConnectionRejected as refused:
            raise Refused(refused.status_code) from refused
        subprotocol = self._ws.subprotocol
        assert subprotocol is None or isinstance(subprotocol, str)
        return subprotocol

    async def send(self, message: str | bytes) -> None:
        try:
            await self._ws.send_message(message)
        except ConnectionClosed as closed:
            raise self._closed() from closed

    async def send_fragments(self, parts: Sequence[str | bytes]) -> None:
        raise NotImplementedError

    async def recv(self) -> str | bytes:
        try:
            message = await self._ws.get_message()
        except ConnectionClosed as closed:
            raise self._closed() from closed
        assert isinstance(message, (str, bytes))
        return message

    async def ping(self, data: bytes) -> None:
        await self._ws.ping(data)

    async def close(self, code: int, reason: str) -> Closed:
        await self._ws.aclose(code, reason)
        return self._closed()

    async def drop(self) -> None:
        # Every command is done by one task, so that a nursery may stay open between two.
        await self._stack.aclose()

    def _closed(self) -> Closed:
        end = self._ws.closed
        assert end is not None
        return Closed(end.code, end.reason or "")


async def main() -> None:
    await converse(TrioClient(), lambda: trio.to_thread.run_sync(sys.stdin.buffer.readline))


if __name__ == "__main__":
    trio.run(main)

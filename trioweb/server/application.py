"""What the server knows of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

    from trioweb.config import Config
    from trioweb.http.request import Request
    from trioweb.http.response import Response
    from trioweb.net.stream import ByteStream
    from trioweb.net.ticker import Ticker


class Application(Protocol):
    """Answers requests; the server calls it from the session task of each connection."""

    @property
    def config(self) -> Config:
        """The settings that the server reads once for each connection."""
        ...

    @property
    def ticker(self) -> Ticker:
        """Minds the deadlines of sessions; its loop runs as long as connections are served."""
        ...

    async def handle(self, request: Request) -> Response:
        """Answer a request; raises nothing below ``Exception``."""
        ...

    def handle_upgrade(
        self,
        request: Request,
        stream: ByteStream,
        trailing: bytes,
        take_scope: Callable[[trio.CancelScope], None],
    ) -> Awaitable[Response | None]:
        """Serve a request that has ``Upgrade: websocket``.

        Args:
            request: the handshake.
            stream: the connection, the application's from now on.
            trailing: what was read behind the handshake already.
            take_scope: to be told of the cancel scope in which this happens, and of the next when
                that has ended: the server has none around it, and cancels that one when a drain
                takes too long.

        Returns:
            A response when the handshake is refused or the route is not a WebSocket: the server
            writes it and closes. None when the WebSocket was served and the stream is closed.
        """
        ...

    def is_being_cancelled(self) -> None:
        """Hear that ``serve`` ends at once, before any connection hears of it."""
        ...

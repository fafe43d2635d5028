"""The in-memory client: an application under test, served over `Link`s in the test's own process.

Theory of operation. Each request and each WebSocket is a connection of its own: a pair of `Link`s,
one end of which the application serves as if it were a socket. All its tasks live in the client's
nursery, inside the application's lifetime; leaving the client cancels them.
"""

from __future__ import annotations

import string
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import trio

from trioweb.http.headers import Headers
from trioweb.testing.link import DEFAULT_BUFFER, Link, link_pair
from trioweb.testing.requests import Requests
from trioweb.testing.session import PATIENCE, WebsocketSession, run_websocket
from trioweb.testing.targets import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from trioweb.net import ByteStream


class Application(Protocol):
    """What an application must have to be tested: `trioweb.TrioWeb` does."""

    def lifetime(self) -> AbstractAsyncContextManager[object]:
        """Run the application's lifespan."""

    async def serve_stream(self, stream: trio.abc.Stream | ByteStream) -> None:
        """Serve one connection to its end."""


class Client(Requests):
    """The client of one application; `open_client` makes it."""

    def __init__(self, app: Application, nursery: trio.Nursery, buffer: int) -> None:
        super().__init__(nursery)
        self._app = app
        self._buffer = buffer

    def connect(self) -> Link:
        """Open a bare connection to the application, for bytes of the test's own."""
        ours, theirs = link_pair(self._buffer)
        self._nursery.start_soon(self._app.serve_stream, theirs)
        return ours

    @asynccontextmanager
    async def websocket(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
    ) -> AsyncGenerator[WebsocketSession]:
        """Open a WebSocket, and close it with 1000 when the block is left.

        Args:
            path: with its query, if any.
            headers: sent with the handshake.
            subprotocols: offered, the preferred one first.
            origin: sent as the Origin header.

        Raises:
            Denied: the application refused the handshake.
            trio.TooSlowError: no answer after 5 s.
        """
        sent = Headers(headers)
        if origin is not None:
            sent["Origin"] = origin
        host = sent.get("host", HOST)
        if "host" in sent:
            del sent["host"]
        link = self.connect()
        session: WebsocketSession | None = None
        try:
            with trio.move_on_after(PATIENCE):
                session = await self._nursery.start(
                    run_websocket, link, host, _quote(path), tuple(subprotocols), sent
                )
            if session is None:
                raise trio.TooSlowError(f"waited {PATIENCE:g} s for the handshake of {path}")
            yield session
        except BaseException as exc:
            if session is not None and not isinstance(exc, trio.Cancelled):
                await _close_after_failure(session)
            raise
        else:
            await session.close()
        finally:
            await link.aclose()


@asynccontextmanager
async def open_client(app: Application, *, link: Link | None = None) -> AsyncGenerator[Client]:
    """Run an application's lifetime and give a client to it; no socket is opened.

    What the block raises comes out as itself, in no group.

    Args:
        app: not running yet.
        link: connections are made like this one, ``Link(buffer=1024)``; it is not used itself.

    Cancellation:
        Leaving the block cancels what the application still serves.
    """
    buffer = DEFAULT_BUFFER if link is None else link.buffer
    failed: BaseException | None = None
    try:
        async with app.lifetime(), trio.open_nursery() as nursery:
            try:
                yield Client(app, nursery, buffer)
            except BaseException as exc:
                failed = exc
                raise
            finally:
                nursery.cancel_scope.cancel(reason="the test has left its client")
    except BaseExceptionGroup as group:
        if group is failed:
            raise
        # Where the test only was cancelled, what cancelled it is what matters.
        if failed is not None and not isinstance(failed, trio.Cancelled):
            raise failed from None
        crashes = [exc for exc in group.exceptions if not isinstance(exc, trio.Cancelled)]
        if len(crashes) != 1:
            raise
        raise crashes[0] from None


async def _close_after_failure(session: WebsocketSession) -> None:
    """Close, without hiding the failure that is under way behind a failure to close."""
    try:
        await session.close()
    except trio.TooSlowError:
        pass


def _quote(path: str) -> str:
    """Percent-encode what may not stand in a request line, and nothing else."""
    return quote(path, safe=string.punctuation)

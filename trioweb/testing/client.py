"""The in-memory client: an application under test, served over `Link`s in the test's own process.

Theory of operation. Each request and each WebSocket is a connection of its own: a pair of `Link`s,
one end of which the application serves as if it were a socket. All its tasks live in the client's
nursery, inside the application's lifetime; leaving the client cancels them.
"""

from __future__ import annotations

import string
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack
from urllib.parse import quote

import h11
import trio

from trioweb.errors import TrioWebError
from trioweb.http import jsoncodec
from trioweb.http.headers import Headers
from trioweb.testing.link import DEFAULT_BUFFER, Link
from trioweb.testing.session import PATIENCE, WebsocketSession, run_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from trioweb.net import ByteStream

# The Host of every request; no name that a resolver could know (RFC 6761 §6.4).
HOST = "app.test"
_MISSING: Any = object()


class Application(Protocol):
    """What an application must have to be tested: `trioweb.TrioWeb` does."""

    def lifetime(self) -> AbstractAsyncContextManager[object]:
        """Run the application's lifespan."""

    async def serve_stream(self, stream: trio.abc.Stream | ByteStream) -> None:
        """Serve one connection to its end."""


@dataclass(frozen=True)
class ClientResponse:
    """What the application answered to a request."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Decode the body as JSON."""
        return jsoncodec.decode(self.body)


class RequestOptions(TypedDict, total=False):
    """What a request may have besides its method and path."""

    headers: Mapping[str, str] | Sequence[tuple[str, str]] | None
    body: bytes | str
    json: Any


class Client:
    """The client of one application; `open_client` makes it."""

    def __init__(self, app: Application, nursery: trio.Nursery, link: Link) -> None:
        self._app = app
        self._nursery = nursery
        self._link = link

    def connect(self) -> Link:
        """Open a bare connection to the application, for bytes of the test's own."""
        ours, theirs = self._link.another_pair()
        self._nursery.start_soon(self._app.serve_stream, theirs)
        return ours

    async def request(
        self, method: str, path: str, **options: Unpack[RequestOptions]
    ) -> ClientResponse:
        """Send a request on a connection of its own and read the whole answer.

        Args:
            method: in capitals.
            path: with its query, if any.
            **options: ``headers``, and ``body`` or ``json``.

        Raises:
            trio.TooSlowError: the answer was not there after 5 s.
            TrioWebError: the answer is no HTTP, or was cut short.
        """
        events = _build_request(method, path, **options)
        link = self.connect()
        try:
            with trio.move_on_after(PATIENCE) as scope:
                return await _exchange(link, events, self._nursery)
        finally:
            await link.aclose()
        assert scope.cancelled_caught
        raise trio.TooSlowError(f"waited {PATIENCE:g} s for the answer to {method} {path}")

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a GET request."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a POST request."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PUT request."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PATCH request."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a DELETE request."""
        return await self.request("DELETE", path, **options)

    async def head(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a HEAD request."""
        return await self.request("HEAD", path, **options)

    async def options(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send an OPTIONS request."""
        return await self.request("OPTIONS", path, **options)

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
    failed: BaseException | None = None
    try:
        async with app.lifetime(), trio.open_nursery() as nursery:
            try:
                yield Client(app, nursery, link or Link())
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


def _build_request(
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    body: bytes | str = b"",
    json: Any = _MISSING,
) -> list[h11.Event]:
    sent = Headers(headers)
    content = body.encode() if isinstance(body, str) else body
    if json is not _MISSING:
        if body:
            raise TypeError("pass either body= or json=")
        content = jsoncodec.encode(json)
        if "content-type" not in sent:
            sent["Content-Type"] = "application/json"
    if "host" not in sent:
        sent["Host"] = HOST
    if content and "content-length" not in sent and "transfer-encoding" not in sent:
        sent["Content-Length"] = str(len(content))
    request = h11.Request(method=method, target=_quote(path), headers=sent.raw)
    return [request, *([h11.Data(data=content)] if content else []), h11.EndOfMessage()]


async def _exchange(link: Link, events: list[h11.Event], nursery: trio.Nursery) -> ClientResponse:
    """Send while reading: the application may answer before it has taken the whole body."""
    wire = h11.Connection(h11.CLIENT)
    data = b"".join(wire.send(event) or b"" for event in events)
    # Ends with the link, which the caller closes.
    nursery.start_soon(_send_quietly, link, data)
    response: h11.Response | None = None
    body = bytearray()
    while True:
        try:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await link.receive_some(DEFAULT_BUFFER))
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as exc:
            raise TrioWebError(f"the answer is no complete HTTP response: {exc}") from exc
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        elif isinstance(event, h11.ConnectionClosed):
            raise TrioWebError("the connection was closed before the answer had come")
    assert response is not None
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
    return ClientResponse(response.status_code, Headers(pairs), bytes(body))


async def _send_quietly(link: Link, data: bytes) -> None:
    try:
        await link.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # The application wanted no more of it; its answer says why.
        pass

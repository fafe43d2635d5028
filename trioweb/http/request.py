"""The request that middleware, guards and handlers see.

A request is made for every line of an echo benchmark's output, so it does nothing at construction:
the query, cookies and namespaces are made when they are first asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from trioweb.errors import BadRequest
from trioweb.http import jsoncodec

if TYPE_CHECKING:
    from trioweb.http.headers import Headers


class Address(NamedTuple):
    """The peer's address."""

    host: str
    port: int


class QueryParams(Mapping[str, str]):
    """The query's parameters; a name shows its first value, ``getlist`` all of them."""

    __slots__ = ("_index", "_items")

    def __init__(self, query_string: str = "") -> None:
        self._items = parse_qsl(query_string, keep_blank_values=True) if query_string else []
        self._index: dict[str, list[str]] = {}
        for name, value in self._items:
            self._index.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._index[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"QueryParams({self._items!r})"

    def getlist(self, name: str) -> list[str]:
        """Every value of a name in order; an empty list when there is none."""
        return list(self._index.get(name, ()))

    getall = getlist

    def multi_items(self) -> list[tuple[str, str]]:
        """Every parameter in order."""
        return list(self._items)


class BodyStream:
    """Iterates over a request's body as it arrives.

    Cancellation: nothing is lost; iterate on.
    """

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._request._receive_chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk


def parse_cookies(values: list[str]) -> dict[str, str]:
    """Parse Cookie fields leniently, as browsers send them; the first of a name counts.

    Source: RFC 6265 §5.4
    """
    cookies: dict[str, str] = {}
    for field in values:
        for part in field.split(";"):
            name, separator, value = part.strip().partition("=")
            if not separator:
                continue
            value = value.strip()
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1]
            cookies.setdefault(name.strip(), unquote(value))
    return cookies


class Request:
    """One HTTP request, or the handshake of a WebSocket.

    The body is read when it is asked for: ``await request.body()``, ``await request.json()`` or
    ``async for chunk in request.stream()``. What a handler leaves unread is discarded by the
    server.

    Args:
        method: in upper case, as the client sent it.
        target: the request line's target: a path with its query, or an absolute URL.
        headers: the header fields.
        client: the peer's address; None where it has none (unix sockets, memory streams).
        scheme: ``"http"`` or ``"https"``.
        http_version: ``"1.1"`` or ``"1.0"``.
        receive_body: gives the body's next piece, ``b""`` at its end; None: there is no body.
        peer: where it comes from, for logs; None: the client's address.
        on_shutdown: see the property.

    Attributes:
        app: the application that serves the request, set by it.
        route: the route that was found, set by the router.
        match_info: path parameters, converted; ``path_params`` is the same dict.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_body",
        "_client",
        "_cookies",
        "_ctx",
        "_id",
        "_on_shutdown",
        "_parts",
        "_peer",
        "_receive_body",
        "_streaming",
        "app",
        "headers",
        "http_version",
        "match_info",
        "method",
        "route",
        "scheme",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        *,
        client: tuple[str, int] | None = None,
        scheme: str = "http",
        http_version: str = "1.1",
        receive_body: Callable[[], Awaitable[bytes]] | None = None,
        peer: str | None = None,
        on_shutdown: set[Callable[[], None]] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.scheme = scheme
        self.http_version = http_version
        self.app: Any = None
        self.route: Any = None
        self.match_info: dict[str, Any] = {}
        self._on_shutdown = on_shutdown
        self._peer = peer
        self._client = client
        self._receive_body = receive_body
        self._streaming = False
        self._parts: tuple[str, str, str] | None = None
        self._body: bytes | None = None
        self._args: QueryParams | None = None
        self._cookies: dict[str, str] | None = None
        self._ctx: SimpleNamespace | None = None
        self._id: str | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"

    # --- where to ---------------------------------------------------------------------------

    def _split_target(self) -> tuple[str, str, str]:
        """Authority, raw path and query of the target."""
        if self._parts is None:
            path, _, query = self.target.partition("?")
            authority = ""
            if not path.startswith("/") and "://" in path:
                # Absolute form: its authority replaces Host (RFC 9112 §3.2.2).
                authority, slash, rest = path.partition("://")[2].partition("/")
                path = slash + rest or "/"
            self._parts = (authority, path, query)
        return self._parts

    @property
    def path(self) -> str:
        """The path without the query, percent-decoded."""
        path = self._split_target()[1]
        return unquote(path) if "%" in path else path

    @property
    def raw_path(self) -> str:
        """The path without the query, as it was sent."""
        return self._split_target()[1]

    @property
    def query_string(self) -> str:
        """What follows the question mark, as it was sent."""
        return self._split_target()[2]

    @property
    def host(self) -> str:
        """Host and port that the client asked for; empty when it did not say."""
        return self._split_target()[0] or self.headers.get("host", "")

    @property
    def url(self) -> str:
        """The whole URL as the client sees it."""
        query = self.query_string
        return f"{self.scheme}://{self.host}{self.raw_path}" + (f"?{query}" if query else "")

    @property
    def args(self) -> QueryParams:
        """The query's parameters; ``args.get(name)`` is the first value."""
        if self._args is None:
            self._args = QueryParams(self.query_string)
        return self._args

    @property
    def query_params(self) -> QueryParams:
        """The same as ``args``."""
        return self.args

    @property
    def path_params(self) -> dict[str, Any]:
        """The same as ``match_info``."""
        return self.match_info

    # --- who --------------------------------------------------------------------------------

    @property
    def client(self) -> Address | None:
        """The peer's address; None where it has none."""
        return None if self._client is None else Address(*self._client[:2])

    @property
    def ip(self) -> str:
        """The peer's address without the port; empty where it has none."""
        return "" if self._client is None else self._client[0]

    @property
    def remote_addr(self) -> str:
        """The client's address; the same as ``ip`` as long as no proxy is configured."""
        return self.ip

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that the client sent."""
        if self._cookies is None:
            self._cookies = parse_cookies(self.headers.getall("cookie"))
        return self._cookies

    @property
    def id(self) -> str:
        """The client's X-Request-ID, else a random one that stays the same."""
        if self._id is None:
            self._id = self.headers.get("x-request-id") or str(uuid.uuid4())
        return self._id

    @property
    def ctx(self) -> SimpleNamespace:
        """A namespace for middleware and handlers; a WebSocket's ``ctx`` is the same one."""
        if self._ctx is None:
            self._ctx = SimpleNamespace()
        return self._ctx

    @property
    def peer(self) -> str:
        """Where the request comes from, for logs."""
        if self._peer is None:
            return f"{self._client[0]}:{self._client[1]}" if self._client else "-"
        return self._peer

    @property
    def on_shutdown(self) -> set[Callable[[], None]]:
        """Functions that the server calls when it begins to drain.

        A WebSocket adds its own while it lives. The server shares one set with all requests.
        """
        if self._on_shutdown is None:
            self._on_shutdown = set()
        return self._on_shutdown

    # --- body -------------------------------------------------------------------------------

    async def _receive_chunk(self) -> bytes:
        if self._body is not None:
            # Read whole before: handed out once more, in one piece.
            if self._streaming:
                return b""
            self._streaming = True
            return self._body
        self._streaming = True
        if self._receive_body is None:
            return b""
        return await self._receive_body()

    def stream(self) -> BodyStream:
        """The body piece by piece, with bounded memory: ``async for chunk in request.stream()``.

        The pieces are as large as they happened to arrive, and never empty.

        Raises:
            PayloadTooLarge: while iterating: the body is larger than REQUEST_MAX_SIZE.
            BadRequest: while iterating: the body is malformed or was cut off.
        """
        return BodyStream(self)

    async def body(self) -> bytes:
        """The whole body; kept, so that it can be asked for again.

        Raises:
            PayloadTooLarge: the body is larger than REQUEST_MAX_SIZE.
            BadRequest: the body is malformed or was cut off.
            RuntimeError: ``stream()`` was iterated before, and what it gave is gone.

        Cancellation: what was read so far is lost, and asking again is a RuntimeError.
        """
        if self._body is None:
            if self._streaming:
                raise RuntimeError("the body was already read by request.stream()")
            if self._receive_body is None:
                self._body = b""
                return b""
            self._streaming = True
            chunks: list[bytes] = []
            while chunk := await self._receive_body():
                chunks.append(chunk)
            self._body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._streaming = False
        return self._body

    async def json(self, type: Any = Any) -> Any:  # noqa: A002
        """The body decoded from JSON, validated against a type where one is given.

        Raises:
            BadRequest: the body is not JSON, or not of the type; uncaught it is a 400.
        """
        body = await self.body()
        try:
            return jsoncodec.decode(body, type)
        except ValueError as error:
            raise BadRequest(f"The body is not the JSON that was expected: {error}") from error

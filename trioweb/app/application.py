"""``TrioWeb``: one application, from its routes to its server."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

import trio

from trioweb.app.dispatch import Dispatch
from trioweb.app.injection import http_injectables, websocket_injectables
from trioweb.app.lifetime import AppNursery, open_lifetime
from trioweb.app.registration import Registration
from trioweb.app.run import run
from trioweb.config import Config
from trioweb.errors import RouteError
from trioweb.net import as_byte_stream
from trioweb.net.listen import open_tcp_listeners, open_unix_listener
from trioweb.net.ticker import Ticker
from trioweb.rooms import Room, Rooms
from trioweb.routing.refusal import refuse_dependencies
from trioweb.server import Server
from trioweb.ws.caps import ConnectionCaps

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from trioweb.http import Request
    from trioweb.net import ByteStream
    from trioweb.routing import Include, Route
    from trioweb.types import Handler, Lifespan
    from trioweb.ws.websocket import Websocket

    Address: TypeAlias = tuple[str, int] | str


class Limiter(Protocol):
    """What bounds worker threads: a ``trio.CapacityLimiter``, or what can stand in its place."""

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a place."""

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give the place back."""


class ListeningStatus(Protocol):
    """The ``task_status`` of ``serve``: told the addresses once the port is open."""

    def started(self, value: list[Address], /) -> None:
        """Take the addresses."""


class TrioWeb(Dispatch, Registration):
    """A web application: WebSockets and HTTP on one port.

    Args:
        name: shown when it starts, and a prefix that ``url_for`` takes.
        routes: what module-level decorators made, and ``Include``.
        config: settings that differ from the defaults.
        lifespan: an async context manager function of the app, entered before the port opens and
            left after the drain.
        middleware: request middleware; ``("response", function)`` for the other kind.
        guards: request middleware for requests that found a route, before the route's own.

    Attributes:
        ctx: a namespace for the application's own things.
        dependency_overrides: what is called instead of a function of ``Depends``, by that function;
            looked at whenever a dependency is made. For tests: the signature may be another.
        limiter: bounds the worker threads in which ``def`` handlers run.
    """

    def __init__(
        self,
        name: str = "trioweb",
        *,
        routes: Iterable[Handler | Route | Include] = (),
        config: Config | Mapping[str, object] | None = None,
        lifespan: Lifespan | None = None,
        middleware: Iterable[Handler | tuple[str, Handler]] = (),
        guards: Sequence[Handler] = (),
    ) -> None:
        kinds = type(self).__mro__
        app_types = kinds[: kinds.index(TrioWeb) + 1]
        super().__init__(http_injectables(self, app_types), websocket_injectables(self, app_types))
        self.name = name
        self.config = config if isinstance(config, Config) else Config(config)
        self.ctx = SimpleNamespace()
        self.dependency_overrides: dict[Handler, Handler] = {}
        # trio's own default, as a limiter of ours, so that a testing kit can put one in its place.
        self.limiter: Limiter = trio.CapacityLimiter(40)
        self._rooms = Rooms(self._room_tasks.find)
        self._websockets: dict[Request, Websocket] = {}  # by their handshakes
        self._caps = ConnectionCaps()
        self._ticker = Ticker()
        self._guards = tuple(guards)
        for guard in self._guards:
            refuse_dependencies(guard, "guards")
        self._lifespan = lifespan
        self._nursery: AppNursery | None = None
        self._server: Server | None = None
        for one in middleware:
            if isinstance(one, tuple):
                self._middleware.add(*one)
            else:
                self._middleware.add("request", one)
        self._register_all(routes)

    def __repr__(self) -> str:
        return f"<TrioWeb {self.name}>"

    @property
    def nursery(self) -> AppNursery:
        """The application's nursery, open from the lifespan's start to the drain's end.

        Raises:
            RuntimeError: the application does not run.
        """
        if self._nursery is None:
            raise RuntimeError("app.nursery is open from the lifespan's start to the drain's end")
        return self._nursery

    @property
    def connection_count(self) -> int:
        """How many connections are open, HTTP's included."""
        return self._server.connections if self._server is not None else 0

    @property
    def is_draining(self) -> bool:
        """Whether ``shutdown`` was called and the server has not ended yet."""
        return self._server is not None and self._server.draining

    @property
    def rooms(self) -> Rooms:
        """The rooms that exist, by name: a mapping that can't be changed."""
        return self._rooms

    @property
    def is_running(self) -> bool:
        """Whether it is served, or within ``lifetime``."""
        return self._server is not None

    @property
    def connections(self) -> frozenset[Websocket]:
        """The WebSockets that are open now."""
        return frozenset(ws for ws in self.websockets if ws.open)

    @property
    def websockets(self) -> frozenset[Websocket]:
        """The WebSockets whose handlers have not ended, whether they are open or not."""
        # A list first: a thread may ask while connections come and go.
        return frozenset(list(self._websockets.values()))

    def room(self, name: str) -> Room:
        """A handle of a room, to join it or to tell its members something.

        It creates nothing, and works from anywhere: handlers of HTTP, tasks of ``app.nursery``, and
        other threads by way of ``trio.from_thread``.

        Args:
            name: any text.

        Raises:
            TypeError: it is no text.
        """
        if not isinstance(name, str):
            raise TypeError(f"a room's name is a str, not {type(name).__name__}: {name!r}")
        return Room(self._rooms, name)

    def url_for(
        self,
        name: str,
        *,
        _external: bool = False,
        _scheme: str | None = None,
        _host: str | None = None,
        _anchor: str | None = None,
        **params: object,
    ) -> str:
        """Write the URL of a named route; what is no path parameter becomes query.

        Args:
            name: the route's; with the app's name and a dot before it, it works too.
            _external: with scheme and host: ``ws`` or ``wss`` for a WebSocket.
            _scheme: "http" (default) or "https", or "ws" and "wss".
            _host: of an external URL; by default the route's first, else the config's SERVER_NAME.
            _anchor: the fragment.
            params: path parameters and query.

        Raises:
            RouteError: no route has the name, a parameter is missing or can't be, or no host is
                known.
        """
        route, url = self.router.url_for(name.removeprefix(f"{self.name}."), params)
        if _anchor:
            url += f"#{_anchor}"
        if not (_external or _scheme or _host):
            return url
        named = [host for host in route.hosts if not host.startswith("*")]
        host = _host or (named[0] if named else self.config.get("SERVER_NAME"))
        if not host:
            raise RouteError(
                f"the external URL of {name!r} needs a host: give _host= or set SERVER_NAME"
            )
        is_secure = _scheme in ("https", "wss")
        plain = "ws" if route.websocket else "http"
        return f"{plain}{'s' if is_secure else ''}://{host}{url}"

    @asynccontextmanager
    async def lifetime(self, *, lifespan: bool = True) -> AsyncGenerator[None, None]:
        """Enter the lifespan and open the nursery; connections can be served inside.

        Args:
            lifespan: whether the lifespan is entered; a test may do without.

        Raises:
            RouteError: a handler's annotation can't be resolved, though everything is imported.
            RuntimeError: the application runs already.
            Exception: the first crash of a task of ``app.nursery``, as it was raised.
        """
        if self._server is not None:
            raise RuntimeError(f"{self!r} runs already; serve(listeners=[...]) takes several")
        self._bind_rest()
        # Anew for each run, since it remembers times of the run's clock.
        self._caps = ConnectionCaps()
        self._ticker = Ticker()
        self._nursery = AppNursery(self.shutdown)
        self._server = Server(self)
        try:
            entered = self._lifespan if lifespan else None
            async with open_lifetime(self, entered, self._nursery, self._rooms, self._ticker):
                yield
        finally:
            self._nursery = self._server = None

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        unix: str | os.PathLike[str] | None = None,
        listeners: Sequence[socket.socket] | None = None,
        task_status: ListeningStatus = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``shutdown``; returns when the last connection has ended.

        Args:
            host: name or address to listen at.
            port: 0: the system chooses; ``task_status`` tells.
            unix: the path of a Unix socket to listen at instead.
            listeners: sockets that listen already, instead; closed at the end.
            task_status: ``nursery.start`` returns a list of the addresses, tuples or paths.

        Raises:
            OSError: it can't listen there.
            Exception: what the lifespan or a task of ``app.nursery`` raised, as it was raised.

        Cancellation:
            Ends at once: handlers are cancelled, WebSockets say 1001 within a second.
        """
        if listeners is not None and unix is not None:
            raise ValueError("serve() takes listeners= or unix=, not both")
        opened = list(listeners or ())
        try:
            async with self.lifetime():
                if listeners is not None:
                    for one in opened:
                        one.setblocking(False)
                elif unix is not None:
                    opened = [open_unix_listener(os.fspath(unix))]
                else:
                    opened = await open_tcp_listeners(host, port)
                task_status.started([_address(one) for one in opened])
                server = self._server
                assert server is not None  # made by lifetime()
                await server.serve(opened)
        finally:
            for one in opened:
                one.close()

    async def serve_stream(self, stream: trio.abc.Stream | ByteStream) -> None:
        """Serve one connection on any stream, to its end; the stream is closed then.

        Outside of ``lifetime`` it enters it, for this connection and those that begin meanwhile:
        it returns when all of them have ended.

        Cancellation:
            Ends at once, as ``serve``.
        """
        server = self._server
        if server is None:
            async with self.lifetime():
                await self.serve_stream(stream)
                assert self._server is not None
                await self._server.wait_idle()
            return
        await server.serve_stream(as_byte_stream(stream))

    def shutdown(self) -> None:
        """Begin the drain: no new connections, and those that are open come to their end.

        What remains after GRACEFUL_SHUTDOWN_TIMEOUT is cancelled. Does nothing when the
        application does not run.
        """
        if self._server is not None:
            self._server.shutdown()

    def run(self, host: str = "127.0.0.1", port: int = 8000, *, unix: str | None = None) -> None:
        """Serve until SIGINT or SIGTERM; blocks. A second signal ends it at once.

        Args:
            host: name or address to listen at.
            port: 0: the system chooses; it is printed.
            unix: the path of a Unix socket to listen at instead.
        """
        run(self, host, port, unix)


def _address(listener: socket.socket) -> Address:
    name = listener.getsockname()
    if isinstance(name, bytes):
        return os.fsdecode(name)
    address: Address = name
    return address

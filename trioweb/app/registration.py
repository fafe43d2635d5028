"""The decorators of ``TrioWeb`` that register handlers, middleware and exception handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from trioweb.app.failures import Failures
from trioweb.app.middleware import Middleware
from trioweb.app.room_tasks import RoomTasks
from trioweb.app.shortcuts import Shortcuts
from trioweb.config import check_value
from trioweb.errors import ConfigError, RouteError
from trioweb.routing import Route, Router, UnresolvedAnnotation, bind, flatten
from trioweb.routing.routes import as_hosts, as_methods, as_subprotocols, given
from trioweb.types import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trioweb.app.room_tasks import TaskFunction
    from trioweb.routing.binder import Injectables
    from trioweb.types import Accept, Compression, Handler, Origins, RateLimit, Unset

H = TypeVar("H", bound="Handler")
T = TypeVar("T", bound="TaskFunction")


class Registration(Shortcuts):
    """What is registered on an application.

    Args:
        http_injectables: what handlers of plain HTTP can be given by type.
        websocket_injectables: what handlers of WebSockets can be given by type.
    """

    def __init__(self, http_injectables: Injectables, websocket_injectables: Injectables) -> None:
        self.router = Router()
        self._middleware = Middleware()
        self._failures = Failures()
        self._room_tasks = RoomTasks(
            self, [kind for kind, one in http_injectables.items() if one.label == "app"]
        )
        self._http_injectables = http_injectables
        self._websocket_injectables = websocket_injectables

    def websocket(
        self,
        uri: str,
        host: str | Sequence[str] | None = None,
        strict_slashes: bool | None = None,
        subprotocols: Sequence[str] | None = None,
        name: str | None = None,
        apply: Sequence[Callable[[Handler], Handler]] | bool | None = None,
        version: float | str | None = None,
        version_prefix: str = "/v",
        error_format: str | None = None,
        *,
        accept: Accept | None = None,
        subprotocol_required: bool = False,
        guards: Sequence[Handler] = (),
        max_size: int | Unset = UNSET,
        max_queue: int | Unset = UNSET,
        ping_interval: float | Unset | None = UNSET,
        disconnect_grace: float | Unset | None = UNSET,
        origins: Origins | Unset = UNSET,
        compression: Compression | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        stream: bool = False,
    ) -> Callable[[H], H]:
        """Register a WebSocket handler; returns it unchanged.

        Args:
            uri: the path, with parameters as ``<name:type>`` or ``{name:type}``.
            host: one host name or several that the route is for; ``*.example.com`` works.
            strict_slashes: whether a slash at the end makes another path.
            subprotocols: what the server speaks, what it likes best first.
            name: for ``url_for``; the function's by default.
            apply: decorators, the first outermost; False: don't register.
            version: put before the path, as in ``/v1/ws``.
            version_prefix: what is put before the version.
            error_format: of refusals: "text" (default), "json", "html" or "auto".
            accept: "auto" (default): accepted before the handler runs; "manual": by the handler.
            subprotocol_required: refuse with 400 a client that offers none of ours.
            guards: request middleware of this route.
            max_size: overrides WEBSOCKET_MAX_SIZE, bytes.
            max_queue: overrides WEBSOCKET_MAX_QUEUE, messages.
            ping_interval: overrides WEBSOCKET_PING_INTERVAL, seconds; None: no pings.
            disconnect_grace: overrides WEBSOCKET_DISCONNECT_GRACE, seconds; None: for ever.
            origins: overrides WEBSOCKET_ORIGINS.
            compression: overrides WEBSOCKET_COMPRESSION: "deflate", "deflate-context" or None.
            rate_limit: overrides WEBSOCKET_RATE_LIMIT, (messages, seconds); None: no limit.
            stream: messages are taken by ``recv_streaming`` alone, piece by piece.

        Raises:
            RouteError: at once, when the path, the name or the signature can't be.
            ConfigError: an override has a value that its key can't have.
        """

        def decorate(handler: H) -> H:
            record = Route(
                handler,
                uri,
                websocket=True,
                name=name or "",
                hosts=as_hosts(host),
                strict_slashes=strict_slashes,
                subprotocols=as_subprotocols(subprotocols),
                subprotocol_required=subprotocol_required,
                guards=tuple(guards),
                accept=accept,
                origins=origins,
                overrides=given(
                    max_size=max_size,
                    max_queue=max_queue,
                    ping_interval=ping_interval,
                    disconnect_grace=disconnect_grace,
                    compression=compression,
                    rate_limit=rate_limit,
                ),
                stream=stream,
                apply=apply,
                version=version,
                version_prefix=version_prefix,
                error_format=error_format,
            )
            self._register(record)
            return handler

        return decorate

    def add_websocket_route(
        self,
        handler: Handler,
        uri: str,
        host: str | Sequence[str] | None = None,
        strict_slashes: bool | None = None,
        subprotocols: Sequence[str] | None = None,
        name: str | None = None,
        apply: Sequence[Callable[[Handler], Handler]] | bool | None = None,
        version: float | str | None = None,
        version_prefix: str = "/v",
        error_format: str | None = None,
        *,
        accept: Accept | None = None,
        subprotocol_required: bool = False,
        guards: Sequence[Handler] = (),
        max_size: int | Unset = UNSET,
        max_queue: int | Unset = UNSET,
        ping_interval: float | Unset | None = UNSET,
        disconnect_grace: float | Unset | None = UNSET,
        origins: Origins | Unset = UNSET,
        compression: Compression | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        stream: bool = False,
    ) -> None:
        """Register a WebSocket handler; the arguments are those of ``websocket``."""
        self.websocket(
            uri,
            host,
            strict_slashes,
            subprotocols,
            name,
            apply,
            version,
            version_prefix,
            error_format,
            accept=accept,
            subprotocol_required=subprotocol_required,
            guards=guards,
            max_size=max_size,
            max_queue=max_queue,
            ping_interval=ping_interval,
            disconnect_grace=disconnect_grace,
            origins=origins,
            compression=compression,
            rate_limit=rate_limit,
            stream=stream,
        )(handler)

    def route(
        self,
        uri: str,
        methods: Iterable[str] = ("GET",),
        host: str | Sequence[str] | None = None,
        strict_slashes: bool | None = None,
        name: str | None = None,
        apply: Sequence[Callable[[Handler], Handler]] | bool | None = None,
        version: float | str | None = None,
        version_prefix: str = "/v",
        error_format: str | None = None,
        *,
        guards: Sequence[Handler] = (),
    ) -> Callable[[H], H]:
        """Register a handler of plain HTTP; returns it unchanged.

        A plain ``def`` runs in a worker thread. A GET route answers HEAD too. The arguments are
        those of ``websocket``.

        Raises:
            RouteError: at once, when the path, the name or the signature can't be.
        """
        names = as_methods(methods)

        def decorate(handler: H) -> H:
            record = Route(
                handler,
                uri,
                methods=names,
                name=name or "",
                hosts=as_hosts(host),
                strict_slashes=strict_slashes,
                guards=tuple(guards),
                apply=apply,
                version=version,
                version_prefix=version_prefix,
                error_format=error_format,
            )
            self._register(record)
            return handler

        return decorate

    @overload
    def middleware(self, kind: str = "request") -> Callable[[H], H]: ...
    @overload
    def middleware(self, kind: H) -> H: ...
    def middleware(self, kind: str | H = "request") -> Callable[[H], H] | H:
        """Register ``@app.middleware("request")`` or ``("response")``; bare it is the former.

        Request middleware takes the request; what it returns, unless None or True, is the answer.
        Response middleware takes the request and the response, the 101 of a WebSocket included;
        what it returns replaces the response.
        """
        if not isinstance(kind, str):
            self._middleware.add("request", kind)
            return kind
        wanted = kind
        if wanted not in ("request", "response"):
            raise ConfigError(f'middleware is for "request" or "response", not {wanted!r}')

        def decorate(function: H) -> H:
            self._middleware.add(wanted, function)
            return function

        return decorate

    def on_request(self, function: H) -> H:
        """Register request middleware."""
        self._middleware.add("request", function)
        return function

    def on_response(self, function: H) -> H:
        """Register response middleware."""
        self._middleware.add("response", function)
        return function

    def exception(self, *types: type[Exception]) -> Callable[[H], H]:
        """Register a handler of exceptions of these types and those below them.

        It takes the request and the exception; what it returns is the answer. After a WebSocket
        was accepted it is called too, and what it returns is ignored.
        """
        if not types:
            raise ConfigError("@app.exception needs the exception types that it handles")

        def decorate(function: H) -> H:
            for kind in types:
                self._failures.add(kind, function)
            return function

        return decorate

    def room_task(self, pattern: str, *, name: str | None = None) -> Callable[[T], T]:
        """Register an async function that lives as long as a room does; returns it unchanged.

        It starts with a room's first join, in the lifespan's context, and is cancelled with the
        last leave; the room may exist again before it has ended, and its next run waits for that.
        It may return early. When it crashes, that is logged, and the room's members are closed with
        1011. Several tasks may match one room. One that is registered while the application runs is
        for rooms that come to be from then on.

        Its parameters: those of the pattern by name, converted to what their annotations say;
        ``room``, or what is annotated ``Room``; ``app``, or what is annotated ``TrioWeb``. Others
        keep their defaults.

        Args:
            pattern: of the whole name of a room, with parameters as ``<name:type>`` or
                ``{name:type}``, whose types are those of routes: ``"game:<number:int>"``. It does
                not match where a type or an annotation refuses the value, nor does a parameter take
                a slash, except of the type ``path``.
            name: for logs; the function's by default.

        Raises:
            RouteError: at once, when the pattern or the signature can't be, or the function is no
                ``async def``.
        """
        if not isinstance(pattern, str):
            raise RouteError(
                f'@app.room_task("game:<name>") needs a pattern of room names, not {pattern!r}'
            )

        def decorate(function: T) -> T:
            self._room_tasks.add(pattern, function, name)
            return function

        return decorate

    def _register_all(self, routes: Iterable[object]) -> None:
        for record in flatten(routes):  # type: ignore[arg-type]
            self._register(record)

    def _register(self, route: Route) -> None:
        if route.apply is False:
            return
        route.finish()
        route.overrides = {
            option: check_value(f"WEBSOCKET_{option.upper()}", value)
            for option, value in route.overrides.items()
        }
        if route.origins is not UNSET:
            route.origins = check_value("WEBSOCKET_ORIGINS", route.origins)  # type: ignore[assignment]
        try:
            self._bind(route)
        except UnresolvedAnnotation:
            pass  # _bind_rest tries again at start
        self.router.add(route)

    def _bind_rest(self) -> None:
        """Bind the handlers and room tasks whose annotations could not be resolved before.

        Raises:
            RouteError: an annotation still can't be resolved.
        """
        for route in self.router.routes:
            if route.binding is None:
                self._bind(route)
        self._room_tasks.bind_rest()

    def _bind(self, route: Route) -> None:
        injectables = self._websocket_injectables if route.websocket else self._http_injectables
        route.binding = bind(
            route.handler,
            path=route.uri,
            path_names=route.pattern.names,
            injectables=injectables,
        )

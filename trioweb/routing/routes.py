"""The record of a route, and the module-level decorators that attach records to functions."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trioweb.errors import RouteError
from trioweb.routing.patterns import Pattern
from trioweb.routing.refusal import refuse_dependencies
from trioweb.types import UNSET
from trioweb.ws.handshake import is_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from trioweb.routing.binder import Binding
    from trioweb.types import Accept, Compression, Handler, Origins, RateLimit, Unset

H = TypeVar("H", bound="Handler")

# The attribute under which a decorated function carries its records.
_ATTRIBUTE = "__trioweb_routes__"

ERROR_FORMATS = ("auto", "text", "json", "html")
"""What ``error_format`` may be; "auto" follows the request's Accept header."""


@dataclass(slots=True, eq=False)
class Route:
    """One handler at one path.

    Args:
        handler: what is called, after ``apply``'s decorators.
        path: the path with its version and prefixes.
        methods: of plain HTTP; empty for a WebSocket.
        websocket: whether it is a WebSocket route.
        name: for ``url_for``.
        hosts: host names, ``*.example.com`` included; empty for any.
        strict_slashes: whether a slash at the end makes another path.
        guards: request middleware of this route alone.
        accept: who accepts a WebSocket; None lets the place of registration decide.
        subprotocols: of a WebSocket, the one that the server likes best first.
        subprotocol_required: refuse a client that offers none of them with 400.
        origins: overrides ``WEBSOCKET_ORIGINS``.
        overrides: of the config's WebSocket keys, by the names that ``ConnectionOptions`` has.
        stream: whether a WebSocket's messages are taken by ``recv_streaming`` alone.
        apply: decorators around the handler, the first outermost; False: don't register.
        version: written before the path, as ``version_prefix`` and the version.
        version_prefix: "/v" makes "/v1".
        error_format: how error answers look, one of ``ERROR_FORMATS``.
    """

    handler: Handler
    path: str
    methods: frozenset[str] = frozenset()
    websocket: bool = False
    name: str = ""
    hosts: tuple[str, ...] = ()
    strict_slashes: bool | None = None
    guards: tuple[Handler, ...] = ()
    accept: Accept | None = None
    subprotocols: tuple[str, ...] = ()
    subprotocol_required: bool = False
    origins: Origins | Unset = UNSET
    overrides: Mapping[str, object] = field(default_factory=dict)
    stream: bool = False
    apply: Sequence[Callable[[Handler], Handler]] | bool | None = None
    version: int | float | str | None = None
    version_prefix: str = "/v"
    error_format: str | None = None
    # Made at registration.
    pattern: Pattern = field(init=False, repr=False)
    is_threaded: bool = field(init=False, repr=False, default=False)
    # None until every annotation of the handler could be resolved.
    binding: Binding | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if not callable(self.handler):
            raise RouteError(f"route {self.path!r}: {self.handler!r} can't be called")
        if not self.name:
            self.name = handler_name(self.handler)
        if not all(callable(guard) for guard in self.guards):
            raise RouteError(f"route {self.path!r}: guards must be functions, not {self.guards!r}")
        for guard in self.guards:
            refuse_dependencies(guard, "guards")
        if self.error_format is not None and self.error_format not in ERROR_FORMATS:
            raise RouteError(
                f"route {self.path!r}: error_format must be one of {', '.join(ERROR_FORMATS)}, "
                f"not {self.error_format!r}"
            )
        if self.accept not in (None, "auto", "manual"):
            raise RouteError(
                f'route {self.path!r}: accept must be "auto" or "manual", not {self.accept!r}'
            )
        if not isinstance(self.stream, bool):
            raise RouteError(
                f"route {self.path!r}: stream must be True or False, not {self.stream!r}"
            )
        if self.subprotocol_required and not self.subprotocols:
            raise RouteError(f"route {self.path!r}: subprotocol_required needs subprotocols")

    @property
    def uri(self) -> str:
        """The path with its version."""
        if self.version is None:
            return self.path
        version = str(self.version).removeprefix("v")
        return f"{self.version_prefix}{version}{self.path}"

    def finish(self) -> None:
        """Apply the decorators and compile the pattern; once, at registration.

        Raises:
            RouteError: the path can't be understood.
        """
        if isinstance(self.apply, (list, tuple)):
            for decorator in reversed(self.apply):
                self.handler = decorator(self.handler)
        self.is_threaded = not is_async(self.handler)
        if self.websocket and is_plain_def(self.handler):
            raise RouteError(
                f"route {self.path!r}: {self.name} must be an `async def` function to serve a "
                "WebSocket"
            )
        self.pattern = Pattern(self.uri, strict_slashes=bool(self.strict_slashes))


class Include:
    """Routes under a common prefix.

    Args:
        prefix: a path, which may have parameters.
        routes: functions made routes by a module-level decorator, and further Includes.
        name: put before the routes' names with a dot, so that the same routes can be
            included twice.
    """

    def __init__(
        self,
        prefix: str,
        routes: Iterable[Handler | Route | Include] = (),
        *,
        name: str | None = None,
    ) -> None:
        if not prefix.startswith("/"):
            raise RouteError(f"prefix {prefix!r} must start with a slash")
        self.prefix = prefix
        self.routes = tuple(routes)
        self.name = name


def flatten(routes: Iterable[Handler | Route | Include]) -> Iterator[Route]:
    """Give a fresh record for each route of a list, with the prefixes of its Includes.

    Raises:
        RouteError: an element is no route.
    """
    for item in routes:
        if isinstance(item, Include):
            for inner in flatten(item.routes):
                name = f"{item.name}.{inner.name}" if item.name else inner.name
                path = join_paths(item.prefix, inner.path)
                yield dataclasses.replace(inner, path=path, name=name)
            continue
        records = [item] if isinstance(item, Route) else getattr(item, _ATTRIBUTE, None)
        if not records:
            raise RouteError(
                f"{item!r} is no route; decorate it with @websocket, @get or @route of trioweb"
            )
        for record in records:
            yield dataclasses.replace(record)


def join_paths(prefix: str, path: str) -> str:
    """Put a prefix before a path, with one slash between them."""
    prefix = prefix.rstrip("/")
    if path == "/" and prefix:
        return prefix
    return prefix + path


def handler_name(handler: object) -> str:
    """The name by which a handler is known in logs and to ``url_for``."""
    while not hasattr(handler, "__name__") and hasattr(handler, "func"):
        handler = handler.func
    name = getattr(handler, "__name__", None)
    return name if isinstance(name, str) else type(handler).__name__


def is_async(handler: object) -> bool:
    """Whether a handler runs in the event loop: it, or what it wraps, is an async function."""
    while handler is not None:
        if inspect.iscoroutinefunction(handler):
            return True
        if not inspect.isroutine(handler) and inspect.iscoroutinefunction(
            getattr(type(handler), "__call__", None)  # noqa: B004
        ):
            return True
        handler = getattr(handler, "__wrapped__", None) or getattr(handler, "func", None)
    return False


def is_plain_def(handler: object) -> bool:
    """Whether a handler is a function or method written with ``def``.

    A wrapper, a lambda or a callable object is none: it may return what an async function returns.
    """
    while isinstance(handler, partial):
        handler = handler.func
    if inspect.ismethod(handler):
        handler = handler.__func__
    return (
        inspect.isfunction(handler)
        and not inspect.iscoroutinefunction(handler)
        and not hasattr(handler, "__wrapped__")
        and handler.__name__ != "<lambda>"
    )


def as_hosts(host: str | Sequence[str] | None) -> tuple[str, ...]:
    """One host, several or none, in lower case."""
    if host is None:
        return ()
    return tuple(one.lower() for one in ([host] if isinstance(host, str) else host))


def as_subprotocols(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names, where a lone str is surely a mistake.

    Raises:
        RouteError: a str instead of a list, or a name that no client can offer.
    """
    if isinstance(names, str):
        raise RouteError(f"subprotocols={names!r} must be a list: [{names!r}]")
    for name in names or ():
        if not is_token(name):
            raise RouteError(f"subprotocol {name!r} can't be offered: it is no token (RFC 9110)")
    return tuple(names or ())


def given(**options: object) -> dict[str, object]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not UNSET}


def _attach(handler: H, record: Route) -> H:
    records: list[Route] = [*getattr(handler, _ATTRIBUTE, ()), record]
    try:
        setattr(handler, _ATTRIBUTE, records)
    except AttributeError:
        raise RouteError(
            f"{handler!r} can't carry a route; decorate the function, or register it on the app"
        ) from None
    return handler


def websocket(
    path: str = "/",
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
    """Make a function a WebSocket route for ``TrioWeb(routes=[...])`` and ``Include``.

    The function stays callable. It accepts the connection itself, by ``await ws.accept()``,
    unless ``accept="auto"``. The other arguments are those of ``TrioWeb.websocket``.
    """

    def decorate(handler: H) -> H:
        record = Route(
            handler,
            path,
            websocket=True,
            name=name or "",
            hosts=as_hosts(host),
            strict_slashes=strict_slashes,
            subprotocols=as_subprotocols(subprotocols),
            subprotocol_required=subprotocol_required,
            guards=tuple(guards),
            accept=accept or "manual",
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
        return _attach(handler, record)

    return decorate


def route(
    path: str = "/",
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
    """Make a function an HTTP route for ``TrioWeb(routes=[...])`` and ``Include``.

    The function stays callable. The arguments are those of ``TrioWeb.route``.
    """
    names = as_methods(methods)

    def decorate(handler: H) -> H:
        record = Route(
            handler,
            path,
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
        return _attach(handler, record)

    return decorate


def as_methods(methods: Iterable[str]) -> frozenset[str]:
    """The methods of a route in upper case; there must be one.

    Raises:
        RouteError: there is none.
    """
    names = frozenset(
        method.upper() for method in ([methods] if isinstance(methods, str) else methods)
    )
    if not names:
        raise RouteError("a route needs at least one method")
    return names

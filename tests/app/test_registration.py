"""What is refused when a handler is registered."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from trioweb import ConfigError, Request, RouteError, TrioWeb, Websocket, websocket
from trioweb.app.registration import Registration

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.types import Handler


def on_app(handler: Handler, **options: Any) -> TrioWeb:
    app = TrioWeb()
    app.websocket("/ws", **options)(handler)
    return app


def added(handler: Handler, **options: Any) -> TrioWeb:
    app = TrioWeb()
    app.add_websocket_route(handler, "/ws", **options)
    return app


def in_routes(handler: Handler, **options: Any) -> TrioWeb:
    return TrioWeb(routes=[websocket("/ws", **options)(handler)])


REGISTER = [on_app, added, in_routes]

# In API.md's order: the first nine by position as well, the others by name only.
POSITIONAL = [
    "host",
    "strict_slashes",
    "subprotocols",
    "name",
    "apply",
    "version",
    "version_prefix",
    "error_format",
]
BY_NAME = [
    "accept",
    "subprotocol_required",
    "guards",
    "max_size",
    "max_queue",
    "ping_interval",
    "disconnect_grace",
    "origins",
    "compression",
    "rate_limit",
    "stream",
]


@pytest.mark.parametrize(
    ("function", "first"),
    [
        (Registration.websocket, ["self", "uri"]),
        (Registration.add_websocket_route, ["self", "handler", "uri"]),
        (websocket, ["path"]),
    ],
)
def test_websocket_routes_take_the_same_arguments(
    function: Callable[..., object], first: list[str]
) -> None:
    """By whichever way a handler is registered: same names, order, kinds and defaults."""
    parameters = inspect.signature(function).parameters
    assert list(parameters) == first + POSITIONAL + BY_NAME
    model = inspect.signature(websocket).parameters
    for name in POSITIONAL + BY_NAME:
        assert parameters[name] == model[name]
        assert (parameters[name].kind is inspect.Parameter.KEYWORD_ONLY) == (name in BY_NAME)


@pytest.mark.parametrize("register", REGISTER)
@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ({"max_size": "big"}, "WEBSOCKET_MAX_SIZE='big'.* a number of bytes"),
        ({"max_queue": 0}, "WEBSOCKET_MAX_QUEUE=0.* a count"),
        ({"ping_interval": -1}, "WEBSOCKET_PING_INTERVAL=-1.* seconds"),
        ({"disconnect_grace": "5"}, "WEBSOCKET_DISCONNECT_GRACE='5'.* seconds"),
        ({"origins": 7}, "WEBSOCKET_ORIGINS=7.*same-origin"),
        ({"compression": "gzip"}, "WEBSOCKET_COMPRESSION='gzip'.* \"deflate-context\""),
        ({"compression": True}, "WEBSOCKET_COMPRESSION=True.* None"),
        ({"rate_limit": 10}, r"WEBSOCKET_RATE_LIMIT=10.* \(messages, seconds\)"),
        ({"rate_limit": (10, 0)}, r"WEBSOCKET_RATE_LIMIT=\(10, 0\).* a number > 0"),
    ],
)
def test_overrides_are_checked_like_their_keys(
    register: Callable[..., TrioWeb], override: dict[str, Any], wanted: str
) -> None:
    """A route's own limit is refused at registration, with its key and what that can be."""

    async def handler(request: Request, ws: Websocket) -> None: ...

    with pytest.raises(ConfigError, match=wanted):
        register(handler, **override)


@pytest.mark.parametrize("register", REGISTER)
def test_overrides_are_kept_as_their_keys_would_be(register: Callable[..., TrioWeb]) -> None:
    """None is a value, lists become tuples that nobody changes later, the rest is the config's."""

    async def handler(request: Request, ws: Websocket) -> None: ...

    origins = ["https://a.example"]
    app = register(
        handler, compression=None, rate_limit=[3, 0.5], stream=True, max_queue=2, origins=origins
    )
    origins.append("https://b.example")
    (route,) = app.router.routes
    assert route.overrides == {"compression": None, "rate_limit": (3, 0.5), "max_queue": 2}
    assert route.origins == ("https://a.example",)
    assert route.stream is True

    async def other(request: Request, ws: Websocket) -> None: ...

    (plain,) = register(other).router.routes
    assert (plain.overrides, plain.stream) == ({}, False)


def test_one_function_in_two_apps_keeps_its_overrides() -> None:
    """Checking a module-level route for one application leaves the function as it was."""

    @websocket("/ws", rate_limit=(1, 2), origins=["https://a.example"])
    async def handler(request: Request, ws: Websocket) -> None: ...

    for _ in range(2):
        (route,) = TrioWeb(routes=[handler]).router.routes
        assert route.overrides == {"rate_limit": (1, 2)}
        assert route.origins == ("https://a.example",)


def plain(request: Request, ws: Websocket) -> None: ...


class Plain:
    def handler(self, request: Request, ws: Websocket) -> None: ...


@pytest.mark.parametrize("register", REGISTER)
@pytest.mark.parametrize(
    "handler", [plain, functools.partial(plain), functools.partial(Plain().handler)]
)
def test_def_can_not_serve_a_websocket(register: Callable[..., TrioWeb], handler: Handler) -> None:
    """It is told at registration, also behind a partial or as a method."""
    with pytest.raises(RouteError, match="must be an `async def` function"):
        register(handler)


def test_what_returns_a_coroutine_can_serve_a_websocket() -> None:
    """A wrapper, a lambda or a callable object may, so they are not refused."""

    async def handler(request: Request, ws: Websocket) -> None: ...

    @functools.wraps(handler)
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    class Calling:
        def __call__(self, request: Request, ws: Websocket) -> Any:
            return handler(request, ws)

    for one in (wrapper, lambda request, ws: handler(request, ws), Calling()):
        assert len(on_app(one).router.routes) == 1


@pytest.mark.parametrize(
    "mistake", [{"subprotocols": "chat"}, {"guards": [3]}, {"stream": 1}, {"stream": None}]
)
def test_mistakes_that_would_be_found_late(mistake: dict[str, Any]) -> None:
    app = TrioWeb()
    with pytest.raises(RouteError):

        @app.websocket("/ws", **mistake)
        async def handler(request: Request, ws: Websocket) -> None: ...

"""The binder reads signatures as API.md orders it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from trioweb.errors import BadRequest, RouteError
from trioweb.http import Headers, Request
from trioweb.routing import Injectable, UnresolvedAnnotation, bind

if TYPE_CHECKING:
    from collections.abc import Callable


class Socket:
    """Stands for Websocket."""


class App:
    """Stands for TrioWeb."""


APP = App()
SOCKET = Socket()
HTTP: dict[type, Injectable] = {
    Request: Injectable("request", lambda request, _socket: request),
    App: Injectable("app", lambda _request, _socket: APP),
}
WEBSOCKET = {**HTTP, Socket: Injectable("socket", lambda _request, socket: socket)}


@dataclass
class Item:
    name: str
    count: int = 1


def make_request(target: str = "/", **params: object) -> Request:
    request = Request("GET", target, Headers())
    request.match_info = dict(params)
    return request


def call(
    handler: Callable[..., Any],
    target: str = "/",
    *,
    ws: bool = True,
    body: bytes = b"",
    **params: object,
) -> Any:
    """Bind a handler and call it; the request is shown as "request", the socket as "socket"."""
    binding = bind(
        handler, path="/p", path_names=tuple(params), injectables=WEBSOCKET if ws else HTTP
    )
    request = make_request(target, **params)
    args, kwargs = binding.arguments(request, SOCKET if ws else None, body)
    return show(handler(*args, **kwargs), request)


def show(value: object, request: Request) -> object:
    if isinstance(value, tuple):
        return tuple(show(one, request) for one in value)
    if isinstance(value, dict):
        return {key: show(one, request) for key, one in value.items()}
    return "request" if value is request else "socket" if value is SOCKET else value


def test_by_name() -> None:
    assert call(lambda request, ws, room: (request, ws, room), room="x") == (
        "request",
        "socket",
        "x",
    )


def test_by_type_in_any_order() -> None:
    def handler(room: str, s: Socket, r: Annotated[Request, "doc"], app: App) -> Any:
        return room, s, r, app

    assert call(handler, room="x") == ("x", "socket", "request", APP)


def test_by_place() -> None:
    """Sanic: the first two, whatever their names."""
    assert call(lambda a, b, room: (a, b, room), room="x") == ("request", "socket", "x")
    assert call(lambda _: _, ws=False) == "request"


def test_path_parameter_wins_over_everything() -> None:
    """A path parameter named ws is that one."""
    binding = bind(
        lambda request, socket, ws: None, path="/p", path_names=("ws",), injectables=WEBSOCKET
    )
    args, _ = binding.arguments(make_request(ws="x"), SOCKET)
    assert args[1:] == [SOCKET, "x"]


def test_annotation_converts_path_and_query() -> None:
    def handler(ws: Socket, id: int, n: int = 3, flag: bool | None = None) -> Any:  # noqa: A002
        return id, n, flag

    assert call(handler, "/?flag=true", id="7") == (7, 3, True)
    with pytest.raises(BadRequest, match="'id'"):
        call(handler, id="x")
    with pytest.raises(BadRequest, match="'n'"):
        call(handler, "/?n=x", id="7")


def test_required_and_repeated_query() -> None:
    def handler(ws: Socket, token: str, tags: list[int]) -> Any:
        return token, tags

    assert call(handler, "/?token=t&tags=1&tags=2") == ("t", [1, 2])
    with pytest.raises(BadRequest, match="'token' is missing"):
        call(handler, "/?tags=1")


def test_default_without_annotation_gives_the_type() -> None:
    assert call(lambda request, limit=10: limit, "/?limit=5", ws=False) == 5


def test_json_body() -> None:
    """A dataclass is the JSON body of an HTTP route; bad JSON is a 400."""

    def handler(item: Item) -> Any:
        return item

    assert call(handler, ws=False, body=b'{"name": "x"}') == Item("x")
    with pytest.raises(BadRequest):
        call(handler, ws=False, body=b"{}")


def test_bound_methods_callables_and_partials() -> None:
    class Chat:
        async def on(self, request: Any, ws: Any) -> None: ...

        def __call__(self, request: Any, ws: Any, extra: str = "") -> Any:
            return request, ws, extra

    binding = bind(Chat().on, path="/p", path_names=(), injectables=WEBSOCKET)
    assert len(binding.arguments(make_request(), SOCKET)[0]) == 2
    assert call(Chat()) == ("request", "socket", "")
    assert call(functools.partial(Chat(), extra="e")) == ("request", "socket", "e")


def test_wrapper_gets_what_the_wrapped_one_needs() -> None:
    """A wrapper of Sanic's kind, around handlers of either style."""

    def authorized(handler: Any) -> Any:
        @functools.wraps(handler)
        def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
            assert isinstance(request, Request)
            return handler(request, *args, **kwargs)

        return wrapper

    def passing(handler: Any) -> Any:
        @functools.wraps(handler)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return handler(*args, **kwargs)

        return wrapper

    def sanic(request: Any, ws: Any, room: str) -> Any:
        return request, ws, room

    def ravyn(websocket: Socket, room: str, n: int = 1) -> Any:
        return websocket, room, n

    assert call(authorized(sanic), room="x") == ("request", "socket", "x")
    assert call(passing(authorized(sanic)), room="x") == ("request", "socket", "x")
    assert call(passing(ravyn), "/?n=5", room="x") == ("socket", "x", 5)


def test_wrapper_that_does_not_say() -> None:
    """(request, ws, **path parameters)."""
    assert call(lambda *args, **kwargs: (args, kwargs), room="x") == (
        ("request", "socket"),
        {"room": "x"},
    )


def test_handler_without_a_socket_is_refused() -> None:
    with pytest.raises(RouteError, match="takes no socket"):
        call(lambda request: None)


def test_what_cannot_be_bound_is_named() -> None:
    def handler(request: Any, ws: Any, thing: Any, other: set[str]) -> None: ...

    with pytest.raises(RouteError, match=r"'other: .*could be.*query parameter"):
        call(handler)


def test_unknown_annotation_is_for_later() -> None:
    def handler(ws: Any, x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UnresolvedAnnotation, match="Nowhere"):
        call(handler)

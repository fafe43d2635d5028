"""Depends where nothing makes it is refused: there the marker would be the value."""

from __future__ import annotations

import functools
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from unittest.mock import Mock

import pytest

from trioweb import Depends, Request, Room, RouteError, TrioWeb, Websocket, get, websocket
from trioweb.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from does_not_exist import Missing  # type: ignore[import-not-found]


def find_user() -> str:
    return "Ada"


async def show() -> str:
    return "shown"


async def listen(ws: Websocket) -> None: ...


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def by_default(request: Request, user: str = Depends(find_user)) -> bool:
    return bool(user)


def by_annotation(request: Request, user: Annotated[str, Depends(find_user)] = "") -> bool:
    return bool(user)


def in_a_part(request: Request, user: Annotated[str, Depends(find_user)] | None = None) -> bool:
    return bool(user)


def of_user(request: Request, user: str) -> bool:
    return bool(user)


class DecoratedCall:
    @passing_on
    def __call__(self, request: Request, user: str = Depends(find_user)) -> bool:
        return bool(user)


ASKING: dict[str, Any] = {
    "by default": by_default,
    "by annotation": by_annotation,
    "in a part": in_a_part,
    "wrapped": passing_on(by_default),
    "wrapped twice": passing_on(passing_on(by_default)),
    "an object with a decorated call": DecoratedCall(),
    "partial": partial(of_user, user=Depends(find_user)),
    "partial by place": partial(of_user, Depends(find_user)),
    "partial of a wrapper": partial(passing_on(by_default)),
    "partial through a wrapper": partial(passing_on(of_user), user=Depends(find_user)),
    "cached": functools.cache(by_default),
}

PLACES: dict[str, Callable[[Any], object]] = {
    "app.get": lambda one: TrioWeb().get("/", guards=[one])(show),
    "app.websocket": lambda one: TrioWeb().websocket("/", guards=[one])(listen),
    "@get": lambda one: get("/", guards=[one])(partial(show)),
    "@websocket": lambda one: websocket("/", guards=[one])(partial(listen)),
    "Route": lambda one: Route(show, "/", guards=(one,)),
    "guards=": lambda one: TrioWeb(guards=[one]),
    "middleware=": lambda one: TrioWeb(middleware=[one]),
    "middleware= of responses": lambda one: TrioWeb(middleware=[("response", one)]),
    "@app.middleware": lambda one: TrioWeb().middleware(one),
    "@app.middleware of responses": lambda one: TrioWeb().middleware("response")(one),
    "@app.on_request": lambda one: TrioWeb().on_request(one),
    "@app.on_response": lambda one: TrioWeb().on_response(one),
    "@app.exception": lambda one: TrioWeb().exception(ValueError)(one),
}


@pytest.mark.parametrize("asking", ASKING)
def test_a_guard_that_asks_for_a_dependency_is_refused(asking: str) -> None:
    """However it asks: it would take the marker for a user, and let everybody in."""
    with pytest.raises(RouteError, match=r"Depends is for handlers, not for guards; call what"):
        TrioWeb(guards=[ASKING[asking]])


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_is_not_given_dependencies_may_ask_for_them(place: str) -> None:
    with pytest.raises(
        RouteError, match=r"'by_default': 'user': Depends is for handlers, not for "
    ):
        PLACES[place](by_default)


def a_stranger(request: Missing, mood: Annotated[str, "good"] = "good") -> None: ...


def in_its_own_hands(request: Request) -> bool:
    return by_default(request, user="Eve")


@pytest.mark.parametrize(
    "harmless",
    [
        a_stranger,
        functools.update_wrapper(in_its_own_hands, by_default),
        functools.cache(of_user),
        Mock(),
        max,
    ],
)
def test_what_asks_for_nothing_is_taken(harmless: Any) -> None:
    """Whether its annotations exist or not, and its signature can be read or not."""
    for register in PLACES.values():
        register(harmless)


@pytest.mark.parametrize("asking", [by_default, by_annotation])
def test_a_room_task_that_asks_for_a_dependency_is_refused(asking: Any) -> None:
    async def task(room: Room, user: Any = None) -> None: ...

    task.__annotations__["user"] = asking.__annotations__["user"]
    task.__defaults__ = asking.__defaults__
    with pytest.raises(RouteError, match=r"'user': Depends is for handlers, not for room tasks"):
        TrioWeb().room_task("tea")(task)

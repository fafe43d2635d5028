"""Room tasks: which rooms they are for, what they are given, how long they live."""

from __future__ import annotations

import functools
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from trioweb import Request, Room, RouteError, TrioWeb, Websocket  # noqa: F401 - in annotations as text
from trioweb.app.room_tasks import RoomTasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from decimal import Decimal


class Game(TrioWeb):
    """An application of the user's own class."""


class Color(Enum):
    RED = "red"


APP = Game()


def registered(pattern: str, function: Callable[..., Awaitable[object]]) -> RoomTasks:
    tasks = RoomTasks(APP, [Game, TrioWeb])
    tasks.add(pattern, function)
    return tasks


async def run(pattern: str, function: Callable[..., Awaitable[object]], room_name: str) -> object:
    """Run the one task of a room; what it returns, with the room as "room"."""
    (task,) = registered(pattern, function).find(room_name)
    room = APP.room(room_name)
    result: Any = await task.start(room)
    return tuple("room" if one is room else one for one in result)


@pytest.mark.parametrize(
    ("pattern", "room_name", "params"),
    [
        ("lobby", "lobby", {}),
        ("lobby", "lobby/", None),
        ("lobby", "/lobby", None),
        ("lobby", "a lobby", None),
        ("lobby/", "lobby/", {}),
        ("lobby/", "lobby", None),
        ("/lobby", "/lobby", {}),
        ("game:<x>", "game:7", {"x": "7"}),
        ("game:{x}", "game:7", {"x": "7"}),
        ("game:<x>", "game:", None),
        ("game:<x>", "game:a/b", None),
        ("game:<x>", "game:a\udc2f", {"x": "a\udc2f"}),
        ("game:<x>", "game:a%2Fb", {"x": "a%2Fb"}),
        ("game:<x>", "game:a\nb", {"x": "a\nb"}),
        ("game:<x:path>", "game:a/b/", {"x": "a/b/"}),
        ("game:<x:int>", "game:7", {"x": 7}),
        ("game:<x:int>", "game:x", None),
        ("game:<x:int>", "game:" + "9" * 5000, None),
        ("<x>.<y:alpha>", "a.b", {"x": "a", "y": "b"}),
        ("<x>", "a", {"x": "a"}),
        ("", "", {}),
        ("(.*)", "a", None),
    ],
)
async def test_patterns_match_the_whole_name(
    pattern: str, room_name: str, params: dict[str, object] | None
) -> None:
    """The grammar is the routes', without their slashes and percent signs."""

    async def task(**params: object) -> object:
        return params

    found = registered(pattern, task).find(room_name)
    assert len(found) == (params is not None)
    for one in found:
        room = APP.room(room_name)
        assert await one.start(room) == {"room": room, **(params or {})}


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("game:<x", "'game:<x' opens a parameter and does not close it"),
        ("game:x>", "did not open"),
        ("game:<x:imt>", "did you mean int"),
        ("<x>:<x>", "twice"),
        ("<1x>", "name of a parameter"),
        ("<x:[a-z>", "bad regular expression"),
    ],
)
def test_bad_patterns_are_refused(pattern: str, hint: str) -> None:
    async def task() -> None: ...

    with pytest.raises(RouteError, match=hint):
        TrioWeb().room_task(pattern)(task)


def test_decorator_without_a_pattern_is_refused() -> None:
    """Bare, it would register nothing and say nothing."""

    async def task(room: Room) -> None: ...

    with pytest.raises(RouteError, match="needs a pattern of room names"):
        TrioWeb().room_task(task)  # type: ignore[arg-type]


async def test_parameters_are_bound_by_name_and_type() -> None:
    """The room, the application and the pattern's, in any order; a default is kept."""

    async def by_name(x: Any, app: Any, room: Any, pause: float = 0.5) -> object:
        return x, app, room, pause

    async def unannotated(app, room, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return app, room, x

    async def by_type(a: Room, b: TrioWeb, c: Game, d: Annotated[Room | None, "doc"]) -> object:
        return a, b, c, d

    async def with_defaults(
        room: Room | None = None,
        app: TrioWeb | None = None,
        x: str = "",
        tags: list[int] = [1],  # noqa: B006
    ) -> object:
        return room, app, x, tags

    async def positional(pause: float = 0.5, room: Any = None, /, *, x: str) -> object:
        return pause, room, x

    async def nothing() -> object:
        return ("nothing",)

    assert await run("<x>", by_name, "a") == ("a", APP, "room", 0.5)
    assert await run("<x>", unannotated, "a") == (APP, "room", "a")
    assert await run("<x>", by_type, "a") == ("room", APP, APP, "room")
    assert await run("<x>", with_defaults, "a") == ("room", APP, "a", [1])
    assert await run("<x>", positional, "a") == (0.5, "room", "a")
    assert await run("<x>", nothing, "a") == ("nothing",)


async def test_parameter_of_the_pattern_wins_over_everything() -> None:
    """One that is named room or app is that one; the room is asked for by its type then."""

    async def task(room: str, app: str, this: Room) -> object:
        return room, app, this

    assert await run("<room>:<app>", task, "a:b") == ("a", "b", "room")


@pytest.mark.parametrize(
    ("pattern", "annotation", "room_name", "value"),
    [
        ("<x>", int, "7", 7),
        ("<x>", int, "seven", None),
        ("<x>", int | None, "7", 7),
        ("<x:int>", str, "007", "7"),
        ("<x:int>", int, "007", 7),
        ("<x:float>", int, "1.5", None),
        ("<x>", bool, "yes", True),
        ("<x>", bool, "maybe", None),
        ("<x>", Color, "red", Color.RED),
        ("<x>", Color, "blue", None),
        ("<x>", Literal["a", 7], "7", 7),
        ("<x>", Literal["a", 7], "b", None),
    ],
)
async def test_annotations_convert(
    pattern: str, annotation: Any, room_name: str, value: object
) -> None:
    """As those of path parameters do; what one refuses is a room that the task is not for."""

    async def task(x: Any) -> object:
        return (x,)

    task.__annotations__["x"] = annotation
    if value is None:
        assert registered(pattern, task).find(room_name) == []
    else:
        assert await run(pattern, task, room_name) == (value,)


async def test_refused_value_ends_nothing_but_that_task() -> None:
    """The others that match are found all the same, in the order of registration."""

    async def any_game(name: str) -> None: ...
    async def numbered(name: int) -> None: ...
    async def every(x: str) -> None: ...

    tasks = RoomTasks(APP, [TrioWeb])
    tasks.add("game:<name>", numbered)
    tasks.add("game:<name>", any_game)
    tasks.add("<x>", every, "all")
    assert [task.name for task in tasks.find("game:1")] == ["numbered", "any_game", "all"]
    assert [task.name for task in tasks.find("game:x")] == ["any_game", "all"]
    assert [task.name for task in tasks.find("chat:x")] == ["all"]


async def test_methods_partials_callables_and_lambdas() -> None:
    class Ticker:
        async def tick(self, room: Any, x: str) -> object:
            return room, x

        async def __call__(self, x: str, room: Any, extra: str = "") -> object:
            return room, x, extra

    async def tick(prefix: str, room: Any, x: str, pause: float, app: Any = None) -> object:
        return prefix, room, x, pause, app

    assert await run("<x>", Ticker().tick, "a") == ("room", "a")
    assert await run("<x>", Ticker(), "a") == ("room", "a", "")
    assert await run("<x>", functools.partial(Ticker(), extra="e"), "a") == ("room", "a", "e")
    part = functools.partial(tick, "p", pause=1, app="mine")
    assert await run("<x>", part, "a") == ("p", "room", "a", 1, "mine")
    assert await run("<x>", lambda room, x: tick("p", room, x, 2), "a") == (
        "p",
        "room",
        "a",
        2,
        None,
    )


async def test_wrappers_get_what_they_wrap_needs() -> None:
    """As handlers' do, also where the wrapper gives the room another name."""

    def passing_on(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return args[0], *(await function(*args, **kwargs))

        return wrapper

    def naming(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(lobby: Any, **kwargs: Any) -> Any:
            return function(lobby, **kwargs)

        return wrapper

    def answering(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(room: Any) -> Any:
            return await function(room, "from the wrapper")

        return wrapper

    async def task(r: Room, x: int, pause: float = 0.5) -> object:
        return r, x, pause

    async def odd(r: Room, word: str) -> object:
        return r, word

    async def unsaid(here: Room, *args: object, **params: object) -> object:
        return here, args, params

    assert await run("<x>", passing_on(task), "7") == ("room", "room", 7, 0.5)
    assert await run("<x>", naming(task), "7") == ("room", 7, 0.5)
    assert registered("<x>", naming(task)).find("x") == []
    assert await run("<x>", answering(odd), "7") == ("room", "from the wrapper")
    assert await run("<x>:<y:int>", unsaid, "a:7") == ("room", (), {"x": "a", "y": 7})


@pytest.mark.parametrize(
    ("pattern", "annotation", "wanted"),
    [
        (
            "<y>",
            None,
            r"parameter 'x' can't be bound; it could be a parameter of the pattern \(y\)",
        ),
        ("lobby", None, "<x> in the pattern.*Room, Game, TrioWeb.*named room or app.*a default"),
        ("lobby", "str", "parameter 'x: str' can't be bound"),
        ("lobby", "Request", "parameter 'x: Request'.*annotated with one of Room"),
        ("lobby", "Websocket", "parameter 'x: Websocket'"),
        (
            "<x>",
            "list[int]",
            r"'x: list\[int\]' can't be bound; it could be unannotated.*str, int",
        ),
        ("<x>", "Room", "'x: Room' can't be bound; it could be unannotated"),
        ("<x>", "int | list[int]", "can't be bound"),
    ],
)
def test_wrong_signatures_are_refused(pattern: str, annotation: str | None, wanted: str) -> None:
    """At registration, with the parameter's name and what it could be."""

    async def task(x: Any) -> None: ...

    task.__annotations__.pop("x")
    if annotation is not None:
        task.__annotations__["x"] = annotation
    with pytest.raises(RouteError, match=wanted) as caught:
        registered(pattern, task)
    assert f"room task 'task' of {pattern!r}" in str(caught.value)


def test_function_of_a_class_is_told_from_its_method() -> None:
    class Ticker:
        async def tick(self, room: Room) -> None: ...

    with pytest.raises(RouteError, match=r"'self'.*register the bound method"):
        registered("lobby", Ticker.tick)


def plain(room: Room) -> None: ...


class Plain:
    def tick(self, room: Room) -> None: ...


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (plain, "room task 'plain' of 'lobby' must be an `async def` function"),
        (functools.partial(plain), "'plain' of 'lobby' must be an `async def`"),
        (Plain().tick, "'tick' of 'lobby' must be an `async def`"),
        ("tick", "'tick' can't be called"),
        (len, "'obj' can't be bound"),
    ],
)
def test_what_is_not_async_is_refused(function: Any, wanted: str) -> None:
    """At registration, as far as it can be told."""
    with pytest.raises(RouteError, match=wanted):
        TrioWeb().room_task("lobby")(function)


async def test_forward_references_are_tried_again_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Types of ours are known without an import; another must be there when the app starts."""

    async def later(here: Room, x: Decimal) -> None: ...

    app = TrioWeb()
    app.room_task("<x>")(later)
    with pytest.raises(RouteError, match=r"Decimal.*import it where the handler is defined"):
        async with app.lifetime():
            pass
    monkeypatch.setitem(later.__globals__, "Decimal", int)
    async with app.lifetime():
        assert [task.name for task in app._room_tasks.find("7")] == ["later"]
        assert app._room_tasks.find("x") == []


def test_decorator_returns_the_function_and_takes_a_name() -> None:
    app = TrioWeb()

    async def task(room: Room) -> None: ...

    assert app.room_task("lobby")(task) is task
    assert app.room_task("lobby", name="second")(task) is task
    assert [one.name for one in app._room_tasks.find("lobby")] == ["task", "second"]

"""What Depends asks for is read at registration and made, once, when it is called."""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional, Self
from unittest.mock import AsyncMock, Mock

import pytest

from trioweb.errors import BadRequest, RouteError
from trioweb.http import Headers, Request
from trioweb.routing import Depends, Injectable, Injection, UnresolvedAnnotation, bind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from does_not_exist import Database  # type: ignore[import-not-found]


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
class Pager:
    page: int = 1
    size: int = 10


class Counting:
    """Says how often its signature is read."""

    def __init__(self) -> None:
        self.read = 0

    @property
    def __signature__(self) -> Any:
        self.read += 1
        return None

    def __call__(self) -> str:
        return "fake"


class Mood(Enum):
    """A type that only this module knows."""

    GOOD = "good"


@dataclass
class OfDataclass:
    mood: Mood


class OfNamedTuple(NamedTuple):
    mood: Mood


class OfNew:
    mood: Mood

    def __new__(cls, mood: Mood) -> Self:
        made = super().__new__(cls)
        made.mood = mood
        return made


class Inherited(OfDataclass): ...


def read(handler: Callable[..., Any], *names: str, ws: bool = False) -> Any:
    return bind(handler, path="/p", path_names=names, injectables=WEBSOCKET if ws else HTTP)


def serving(
    target: str = "/",
    *,
    ws: bool = False,
    overrides: dict[Any, Any] | None = None,
    params: dict[str, object] | None = None,
) -> Injection:
    request = Request("GET", target, Headers())
    request.match_info = params or {}
    return Injection(request, SOCKET if ws else None, overrides or {})


async def call(
    handler: Callable[..., Any],
    target: str = "/",
    *,
    ws: bool = False,
    overrides: dict[Any, Any] | None = None,
    **params: object,
) -> Any:
    """Bind a handler, call it with its dependencies, and clean up behind it."""
    binding = read(handler, *params, ws=ws)
    injection = serving(target, ws=ws, overrides=overrides, params=params)
    async with injection.cleanup:
        args, kwargs = await injection.arguments(binding)
        return handler(*args, **kwargs)
    raise AssertionError("what the handler raised was caught")


def plain() -> str:
    return "made"


async def of_async() -> str:
    return "made"


class Maker:
    def __call__(self) -> str:
        return "made"

    def method(self) -> str:
        return "made"


class AsyncMaker:
    async def __call__(self) -> str:
        return "made"


@pytest.mark.parametrize(
    "function",
    [
        plain,
        of_async,
        Maker(),
        AsyncMaker(),
        Maker().method,
        functools.partial(plain),
        lambda: of_async(),
        Mock(return_value="made"),
        AsyncMock(return_value="made"),
    ],
)
async def test_what_can_be_called_makes_a_dependency(function: Callable[..., Any]) -> None:
    """In each of the three ways in which it can be asked for."""

    def by_default(value=Depends(function)) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return value

    def annotated_default(value: str = Depends(function)) -> Any:
        return value

    def in_metadata(value: Annotated[str, "other", Depends(function)]) -> Any:
        return value

    in_metadata.__annotations__["value"] = Annotated[str, "other", Depends(function)]
    for handler in (by_default, annotated_default, in_metadata):
        assert await call(handler) == "made"


async def test_a_class_makes_an_instance() -> None:
    """Its parameters are bound; an instance is given as it is, awaitable or not."""

    class Later:
        def __await__(self) -> Generator[Any, Any, str]:
            raise AssertionError("nobody asked for that")

        def __enter__(self) -> str:
            raise AssertionError("nobody asked for that")

        def __exit__(self, *args: object) -> None: ...

    def handler(pager: Pager = Depends(Pager), later: Any = Depends(Later)) -> Any:
        assert isinstance(later, Later)
        return pager

    assert await call(handler, "/?page=3") == Pager(3)
    with pytest.raises(BadRequest, match="'page'"):
        await call(handler, "/?page=x")


@pytest.mark.parametrize("kind", [OfDataclass, OfNamedTuple, OfNew, Inherited])
async def test_annotations_of_a_class_are_those_of_its_module(kind: Any) -> None:
    """Also where what makes an instance was itself made elsewhere."""

    def handler(made: Any = Depends(kind)) -> Any:
        return made.mood

    assert await call(handler, "/?mood=good") is Mood.GOOD


def test_a_signature_is_read_once_for_a_route() -> None:
    """However many need it: else a chain of diamonds would be read for ever."""
    counting = Counting()
    function: Any = counting
    for _ in range(20):

        def both(a: Any = Depends(function), b: Any = Depends(function)) -> None: ...

        function = both
    read(function)
    assert counting.read == 1


async def test_without_a_function_the_annotation_is_called() -> None:
    def in_metadata(pager: Annotated[Pager, Depends()]) -> Any:
        return pager

    def as_default(pager: Pager = Depends()) -> Any:
        return pager

    assert await call(in_metadata, "/?size=5") == Pager(1, 5)
    assert await call(as_default, "/?size=5") == Pager(1, 5)


class Log:
    """Generators of every kind, that write down what happens to them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def generator(self) -> Generator[str, None, None]:
        with self._noted():
            yield "made"

    async def async_generator(self) -> AsyncGenerator[str, None]:
        with self._noted():
            yield "made"

    @contextmanager
    def _noted(self) -> Generator[None]:
        self.lines.append("enter")
        try:
            yield
        except BaseException as exc:
            self.lines.append(repr(exc))
            raise
        finally:
            self.lines.append("leave")


class GeneratorMaker:
    def __init__(self) -> None:
        self.lines: list[str] = []

    async def __call__(self) -> AsyncGenerator[str, None]:
        try:
            yield "made"
        finally:
            self.lines.append("leave")


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "wrap",
    [
        lambda log: log.generator,
        lambda log: log.async_generator,
        lambda log: functools.partial(log.async_generator),
        lambda log: contextmanager(log.generator),
        lambda log: asynccontextmanager(log.async_generator),
        lambda log: passing_on(log.generator),
        lambda log: passing_on(log.async_generator),
    ],
)
async def test_what_yields_is_left_behind_the_handler(wrap: Callable[[Log], Any]) -> None:
    """Also when the handler raises: the exception itself comes out at the yield, and goes on."""
    log = Log()
    error = ValueError("x")

    function = wrap(log)

    def handler(fail: bool, value: Any = Depends(function)) -> Any:
        log.lines.append(f"handler {value}")
        if fail:
            raise error

    await call(handler, "/?fail=0")
    assert log.lines == ["enter", "handler made", "leave"]
    log.lines.clear()
    with pytest.raises(ValueError, match="x") as caught:
        await call(handler, "/?fail=1")
    assert caught.value is error
    assert log.lines == ["enter", "handler made", "ValueError('x')", "leave"]


@pytest.mark.parametrize("wrap", [lambda maker: maker, functools.partial])
async def test_object_whose_call_yields(wrap: Callable[[Any], Any]) -> None:
    maker = GeneratorMaker()
    function = wrap(maker)

    def handler(value: Any = Depends(function)) -> Any:
        maker.lines.append(value)

    await call(handler)
    assert maker.lines == ["made", "leave"]


async def test_generators_that_are_values() -> None:
    """Only what is seen to yield is entered: a function may return an iterator."""

    def handler(value: Any = Depends(lambda: iter(log.generator()))) -> Any:
        return list(value)

    log = Log()
    assert await call(handler) == ["made"]


async def test_wrapper_that_takes_care_of_the_generator() -> None:
    def first(function: Callable[[], Generator[str]]) -> Callable[[], str]:
        @functools.wraps(function)
        def wrapper() -> str:
            return next(function())

        return wrapper

    function = first(Log().generator)

    def handler(value: Any = Depends(function)) -> Any:
        return value

    assert await call(handler) == "made"


async def test_yielding_never_or_twice_names_the_dependency() -> None:
    """The words of contextlib don't say which of them it was."""

    def never() -> Generator[None]:
        if Log is None:
            yield

    async def twice() -> AsyncGenerator[None]:
        yield
        yield

    def handler_of_never(value: Any = Depends(never)) -> None: ...

    def handler_of_twice(value: Any = Depends(twice)) -> None: ...

    with pytest.raises(RuntimeError, match="didn't yield") as caught:
        await call(handler_of_never)
    assert caught.value.__notes__ == [
        "in the dependency 'never' of handler 'handler_of_never' of '/p'"
    ]
    with pytest.raises(RuntimeError, match="didn't stop") as caught:
        await call(handler_of_twice)
    assert caught.value.__notes__ == [
        "in the cleanup of the dependency 'twice' of handler 'handler_of_twice' of '/p'"
    ]


async def test_no_note_on_what_the_handler_raised() -> None:
    def opened() -> Generator[None]:
        yield

    def handler(value: Any = Depends(opened)) -> None:
        raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x") as caught:
        await call(handler)
    assert not hasattr(caught.value, "__notes__")


async def test_parameters_are_bound_as_those_of_a_handler() -> None:
    def settings(app: App) -> Any:
        return app

    async def user(request: Request, room: str, token: str, known: Any = Depends(settings)) -> Any:
        return request.path, room, token, known

    def handler(ws: Socket, user: Annotated[Any, Depends(user)]) -> Any:
        return user

    handler.__annotations__["user"] = Annotated[Any, Depends(user)]
    made = await call(handler, "/p?token=t", ws=True, room="x")
    assert made == ("/p", "x", "t", APP)
    with pytest.raises(BadRequest, match="'token' is missing"):
        await call(handler, "/p", ws=True, room="x")


async def test_socket_is_there_on_websocket_routes_only() -> None:
    """And only the handler has to take it."""

    def asks(socket: Socket) -> Any:
        return socket

    def by_name(ws, request) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return ws

    def handler(request: Request, ws: Socket, a=Depends(asks), b=Depends(by_name)) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return a, b

    def on_http(a: Any = Depends(asks)) -> None: ...

    assert await call(handler, ws=True) == (SOCKET, SOCKET)
    with pytest.raises(RouteError, match=r"dependency 'asks' of handler 'on_http'.*can't be bound"):
        read(on_http)
    with pytest.raises(RouteError, match=r"'on_http' of WebSocket route.*takes no socket"):
        read(on_http, ws=True)


async def test_made_once_for_a_request() -> None:
    """However many ask; with cache=False anew, for that parameter alone."""
    made: list[int] = []

    def number() -> int:
        made.append(len(made))
        return made[-1]

    def first(n: int = Depends(number)) -> int:
        return n

    def handler(
        a: int = Depends(first),
        b: int = Depends(number),
        c: int = Depends(number, cache=False),
        d: int = Depends(number),
    ) -> Any:
        return a, b, c, d

    assert await call(handler) == (0, 0, 1, 0)
    assert await call(handler) == (2, 2, 3, 2)


async def test_unhashable_callable_is_known_by_identity() -> None:
    @dataclass
    class Limit:
        n: int

        def __call__(self) -> Any:
            return object()

    one, same = Limit(1), Limit(1)

    def handler(a: Any = Depends(one), b: Any = Depends(one), c: Any = Depends(same)) -> Any:
        return a is b, b is c

    assert await call(handler, overrides={plain: plain}) == (True, False)


async def test_function_behind_functools_cache() -> None:
    """As settings are made; methods too."""
    made: list[int] = []

    @functools.cache
    def settings(request: Request, n: int) -> int:
        made.append(n)
        return n

    class Store:
        @functools.lru_cache  # noqa: B019
        def size(self, m: int) -> int:
            return m

    store = Store()

    def handler(a: int = Depends(settings), b: int = Depends(store.size)) -> Any:
        return a, b

    assert await call(handler, "/?n=1&m=2") == (1, 2)
    assert made == [1]
    with pytest.raises(RouteError, match=r"dependency 'dict' of handler .* has no signature"):
        read(lambda request, it=Depends(dict): None)


async def test_last_made_is_first_cleaned() -> None:
    lines: list[str] = []

    def outer() -> Generator[None]:
        lines.append("outer")
        yield
        lines.append("outer left")

    async def inner(o: None = Depends(outer)) -> AsyncGenerator[None]:
        lines.append("inner")
        yield
        lines.append("inner left")

    def beside() -> Generator[None]:
        lines.append("beside")
        yield
        lines.append("beside left")

    def handler(
        i: None = Depends(inner), b: None = Depends(beside), o: None = Depends(outer)
    ) -> Any:
        lines.append("handler")

    await call(handler)
    assert lines == [
        "outer",
        "inner",
        "beside",
        "handler",
        "beside left",
        "inner left",
        "outer left",
    ]


async def test_what_fails_to_be_made_leaves_what_was_made() -> None:
    log = Log()
    error = ValueError("x")

    def fails() -> None:
        raise error

    def handler(a: Any = Depends(log.generator), b: Any = Depends(fails)) -> None: ...

    with pytest.raises(ValueError, match="x") as caught:
        await call(handler)
    assert caught.value is error
    assert log.lines == ["enter", "ValueError('x')", "leave"]


async def test_values_are_refused_before_anything_is_made() -> None:
    def handler(a: Any = Depends(pytest.fail), n: int = 1) -> None: ...

    with pytest.raises(BadRequest, match="'n'"):
        await call(handler, "/?n=x&reason=made")


async def test_wrapper_passes_dependencies_on_by_name() -> None:
    """It may ask for others itself."""
    maker = Maker()

    def inner(request: Any, value: Any = Depends(plain), *, more: Any = Depends(of_async)) -> Any:
        return value, more

    @functools.wraps(inner)
    def wrapper(request: Request, *args: Any, own: Any = Depends(maker), **kwargs: Any) -> Any:
        assert not args
        return own, inner(request, **kwargs)

    assert await call(wrapper) == ("made", ("made", "made"))


def test_circle_is_refused_with_its_members() -> None:
    def first(b: Any) -> None: ...

    def second(a: Any = Depends(first)) -> None: ...

    def handler(request: Any, value: Any = Depends(second)) -> None: ...

    first.__defaults__ = (Depends(second),)
    with pytest.raises(RouteError, match=r"'handler' of '/p'.*circle: second → first → second"):
        read(handler)


def test_what_cannot_be_bound_is_named_with_who_needs_it() -> None:
    def inner(thing: set[str]) -> None: ...

    def outer(i: Any = Depends(inner)) -> None: ...

    def handler(
        request: Any, o: Any = Depends(outer), thing: set[str] = Depends(plain)
    ) -> None: ...

    expected = (
        r"dependency 'inner' of dependency 'outer' of handler 'handler' of '/p': "
        r"the parameter 'thing: set\[str\]' can't be bound; it could be.*Depends\(f\)"
    )
    with pytest.raises(RouteError, match=expected):
        read(handler)


def test_what_is_no_dependency() -> None:
    def not_called(a: Annotated[str, Depends]) -> None: ...

    def two(a: Annotated[str, Depends(plain), Depends(of_async)]) -> None: ...

    def nothing(a=Depends()) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        ...

    def no_class(a: int | str = Depends()) -> None: ...

    with pytest.raises(TypeError, match="callable, not 'x'"):
        Depends("x")  # type: ignore[arg-type]
    for handler, expected in [
        (not_called, r"'not_called'.*'a'.*write Depends\(\) or Depends\(f\)"),
        (two, "'two'.*'a'.*one Depends too many"),
        (nothing, r"'nothing'.*'a'.*no class; write Depends\(f\)"),
        (no_class, r"'no_class'.*'a'.*no class; write Depends\(f\)"),
    ]:
        with pytest.raises(RouteError, match=expected):
            read(handler)


async def test_path_parameter_wins() -> None:
    """So a function may have a default for routes without it; what can't be both is refused."""

    def room_name(room: str = Depends(plain)) -> str:
        return room

    def handler(name: str = Depends(room_name)) -> Any:
        return name

    def wrong(room: Annotated[Pager, Depends(Pager)]) -> None: ...

    assert await call(handler) == "made"
    assert await call(handler, room="x") == "x"
    with pytest.raises(RouteError, match=r"'room' is a parameter of the path.*rename"):
        read(wrong, "room")


async def test_annotation_of_a_default_need_not_exist() -> None:
    """Where the function is said, the annotation is for type checkers alone."""

    def handler(db: Database = Depends(plain)) -> Any:
        return db

    def connect(db: Database) -> None: ...

    def without(db: Database = Depends()) -> None: ...

    def needs(value: Any = Depends(connect)) -> None: ...

    assert await call(handler) == "made"
    for unknown in (without, needs):
        with pytest.raises(UnresolvedAnnotation, match="Database"):
            read(unknown)


def test_without_dependencies_there_are_none() -> None:
    assert read(lambda request, n=1: None).dependencies == ()


async def test_override() -> None:
    """It is bound on its own, may need others, and stands wherever the function is asked for."""
    made: list[str] = []

    def token(token: str) -> str:
        return token

    async def fake(room: str, token: str = Depends(token)) -> AsyncGenerator[str]:
        made.append("enter")
        yield f"{room} {token}"
        made.append("leave")

    def needs(value: str = Depends(plain)) -> str:
        return value

    def handler(a: str = Depends(needs), b: str = Depends(plain)) -> Any:
        return a, b

    target = "/?token=t"
    assert await call(handler, target, overrides={plain: fake}, room="x") == ("x t", "x t")
    assert made == ["enter", "leave"]
    both = {plain: fake, token: lambda: "other"}
    assert await call(handler, target, overrides=both, room="x") == ("x other", "x other")
    assert await call(handler, overrides={plain: Mock(return_value=1)}) == (1, 1)


async def test_overrides_come_and_go() -> None:
    """They are looked at whenever a dependency is made; what was read of the last is kept."""

    def handler(a: str = Depends(plain)) -> Any:
        return a

    binding = read(handler)
    fake = Counting()
    overrides: dict[Any, Any] = {}

    async def value() -> object:
        args, _ = await serving(overrides=overrides).arguments(binding)
        return args[0]

    assert await value() == "made"
    overrides[plain] = fake
    assert [await value(), await value()] == ["fake", "fake"]
    assert fake.read == 1
    overrides[plain] = lambda: "another"
    assert await value() == "another"
    overrides[plain] = plain
    assert await value() == "made"
    del overrides[plain]
    assert await value() == "made"


async def test_override_that_cannot_be_is_named() -> None:
    def fake(thing: set[str]) -> None: ...

    def handler(a: Any = Depends(plain)) -> None: ...

    with pytest.raises(
        RouteError,
        match=r"override 'fake' of dependency 'plain' of handler 'handler' of '/p'.*thing",
    ):
        await call(handler, overrides={plain: fake})
    with pytest.raises(TypeError, match=r"override of dependency 'plain' of handler .*: None"):
        await call(handler, overrides={plain: None})


async def test_overrides_in_a_circle() -> None:
    """Alone or with others, they are found when they are made, and shown."""

    def other() -> None: ...

    def wraps(inner: Any = Depends(plain)) -> None: ...

    def needs_other(o: Any = Depends(other)) -> None: ...

    def needs_plain(p: Any = Depends(plain)) -> None: ...

    def handler(a: Any = Depends(plain)) -> None: ...

    with pytest.raises(RouteError, match="circle: plain → wraps → plain"):
        await call(handler, overrides={plain: wraps})
    overrides = {plain: needs_other, other: needs_plain}
    with pytest.raises(RouteError, match="plain → needs_other → other → needs_plain → plain"):
        await call(handler, overrides=overrides)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[str, Depends(plain)] | None,
        Optional[Annotated[str, Depends(plain)]],  # noqa: UP045 - the old notation is meant
        Annotated[str, Depends] | None,
        list[Annotated[str, Depends(plain)]],
        list[Annotated[str, Depends(plain)] | None],
        Annotated[Annotated[str, Depends(plain)] | None, "a comment"],
        Annotated[Annotated[str, Depends(plain)] | None, Depends(of_async)],
        Annotated[OfDataclass, Depends(OfDataclass)] | None,
    ],
)
def test_depends_in_a_part_of_an_annotation_is_refused(annotation: Any) -> None:
    """Else the parameter would be one of the query, or the body: whatever the client says."""

    def handler(user: Any = None) -> None: ...

    handler.__annotations__["user"] = annotation
    with pytest.raises(RouteError, match=r"'user': .* write Annotated\[T \| None, Depends\(f\)\]"):
        read(handler)


async def test_other_metadata_in_a_part_of_an_annotation_is_none_of_ours() -> None:
    def handler(user: Annotated[str, "a name"] | None = None) -> str | None:
        return user

    assert await call(handler, "/?user=Ada") == "Ada"


async def test_depends_as_a_keyword_of_partial_is_the_default() -> None:
    """The handler gets what it makes, never the marker."""

    def handler(request: Request, user: str, size: int) -> tuple[str, int]:
        return user, size

    bound = functools.partial(handler, user=Depends(plain), size=3)
    assert await call(bound, "/?user=Eve&size=4") == ("made", 3)


@pytest.mark.parametrize("where", ["by place", "for 'user'"])
def test_depends_that_partial_would_pass_on_is_refused(where: str) -> None:
    def handler(user: str) -> None: ...

    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    by_place = functools.partial(handler, Depends(plain))
    bound = by_place if where == "by place" else functools.partial(wrapper, user=Depends(plain))
    with pytest.raises(RouteError, match=rf"'/p': partial\(\) has a Depends {where}"):
        read(bound)

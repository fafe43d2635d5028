"""What is changed for the time of a client, and what several of them share."""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from trioweb import ConfigError, Depends, RouteError, TrioWeb, Websocket
from trioweb.testing import Link, open_client, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

place: ContextVar[str] = ContextVar("place", default="nowhere")


def make_app(diary: list[str]) -> TrioWeb:
    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        diary.append("entered")
        place.set("in the lifespan")
        yield
        diary.append("left")

    app = TrioWeb("shared", lifespan=lifespan)

    @app.websocket("/room/<name>")
    async def join(ws: Websocket, name: str) -> None:
        async with app.room("room").join(ws, meta=name) as room:
            async for message in ws:
                room.broadcast(f"{name}: {message!s}")

    @app.get("/place")
    async def tell_place() -> str:
        return place.get()

    return app


async def test_config_is_changed_for_the_time_of_the_client() -> None:
    """Keys of trioweb and of the application; afterwards all is as before."""
    app = make_app([])
    app.config.MINE = "mine"
    before = dict(app.config)
    config = {"WEBSOCKET_MAX_SIZE": 10, "MINE": "yours", "NEW": 1}
    async with open_client(app, config=config) as client, client.websocket("/room/ada") as ws:
        assert (app.config.MINE, app.config.NEW) == ("yours", 1)
        await ws.send("x" * 11)
        await ws.expect_close(1009)
    assert dict(app.config) == before
    with pytest.raises(ConfigError, match="WEBSOCKET_MAX_SIZE"):
        async with open_client(app, config={"WEBSOCKET_MAX_SIZ": 10}):
            pass
    assert dict(app.config) == before


async def test_the_lifespan_is_run_and_its_context_is_the_connections() -> None:
    diary: list[str] = []
    async with open_client(make_app(diary)) as client:
        assert diary == ["entered"]
        assert (await client.get("/place")).text == "in the lifespan"
    assert diary == ["entered", "left"]


async def test_the_lifespan_can_be_left_out() -> None:
    diary: list[str] = []
    async with open_client(make_app(diary), lifespan=False) as client:
        assert (await client.get("/place")).text == "nowhere"
    assert diary == []


async def test_what_a_lifespan_raises_comes_out_as_itself() -> None:
    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        if app.name == "start":
            raise ValueError("at the start")
        yield
        raise ValueError("at the end")

    for name in ("start", "end"):
        with pytest.raises(ValueError, match=f"at the {name}"):
            async with open_client(TrioWeb(name, lifespan=lifespan)):
                pass


async def test_a_lifespan_that_never_starts_fails(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        await trio.sleep_forever()
        yield

    with pytest.raises(trio.TooSlowError, match="the lifespan had not started after 60 s"):
        async with open_client(TrioWeb(lifespan=lifespan)):
            pass


async def test_several_clients_share_an_application() -> None:
    """The second joins; each knows its own connections, and the lifespan runs once."""
    diary: list[str] = []
    app = make_app(diary)
    async with open_client(app) as one, one.websocket("/room/ada") as ada:
        async with open_client(app) as other, other.websocket("/room/bob") as bob:
            await bob.send("hi")
            await ada.expect("bob: hi")
            assert [ws.path_params["name"] for ws in one.connections] == ["ada"]
            assert [ws.path_params["name"] for ws in other.connections] == ["bob"]
            assert len(app.connections) == 2
        assert [ws.path_params["name"] for ws in one.connections] == ["ada"]
        await ada.send("alone")
        await ada.expect("ada: alone")
        await ada.expect_silence(0)
    assert diary == ["entered", "left"]


async def test_a_shutdown_drains(autojump_clock: MockClock) -> None:
    """Who is there gets 1001, who comes is refused."""
    diary: list[str] = []
    async with open_client(make_app(diary)) as client, client.websocket("/room/ada") as ws:
        client.shutdown()
        assert await ws.expect_close(1001) == "server is shutting down"
        with pytest.raises(ConnectionRefusedError, match="is shutting down"):
            async with client.websocket("/room/bob"):
                pass
        with pytest.raises(ConnectionRefusedError, match="is shutting down"):
            await client.get("/place")
        assert diary == ["entered"]
    assert diary == ["entered", "left"]


async def test_connections_are_those_whose_handlers_go_on(autojump_clock: MockClock) -> None:
    """In the order in which they were opened; an ended one is there until the grace is over."""
    app = TrioWeb(config={"WEBSOCKET_DISCONNECT_GRACE": 3})

    @app.websocket("/<name>")
    async def push(ws: Websocket, name: str) -> None:
        await trio.sleep_forever()

    async with open_client(app) as client:
        async with client.websocket("/a") as a, client.websocket("/b"):
            assert [ws.path_params["name"] for ws in client.connections] == ["a", "b"]
            await a.close()
            assert [ws.open for ws in client.connections] == [False, True]
            await trio.sleep(3.1)
            assert [ws.path_params["name"] for ws in client.connections] == ["b"]
        assert client.connections == []


async def test_one_connection_can_be_unlike_the_others(autojump_clock: MockClock) -> None:
    app = make_app([])
    link = Link(client=("203.0.113.7", 4000), latency=1)
    async with open_client(app) as client, client.websocket("/room/ada") as ada:
        assert trio.current_time() == 0
        async with client.websocket("/room/bob", link=link) as bob:
            assert trio.current_time() == 2
            assert client.connections[1].ip == "203.0.113.7"
            await ada.send("hi")
            await ada.expect("ada: hi")
            assert trio.current_time() == 2
            await bob.expect("ada: hi")
            assert trio.current_time() == 3


async def test_a_cancelled_test_ends_at_once(autojump_clock: MockClock) -> None:
    """With its handlers, without a word about them, and before the lifespan."""
    diary: list[str] = []

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            diary.append("lifespan")

    app = TrioWeb(lifespan=lifespan)

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            diary.append("handler")

    with trio.move_on_after(7) as scope:
        async with open_client(app) as client, client.websocket("/"):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert diary == ["handler", "lifespan"]
    assert trio.current_time() == 7.5


async def test_a_crash_of_the_application_fails_the_test() -> None:
    """As it was raised; where the test has failed by itself, it is a note of that."""
    app = TrioWeb()

    async def crash() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        async with open_client(app):
            app.nursery.start_soon(crash)
    error = AssertionError("the test's own")

    async def fail() -> None:
        async with open_client(app):
            app.nursery.start_soon(crash)
            raise error

    with pytest.raises(AssertionError, match="the test's own"):
        await fail()
    assert error.__notes__ == ["the application had crashed: LookupError('mine')"]


async def test_a_client_that_was_left_says_so() -> None:
    async with open_client(TrioWeb()) as client:
        pass
    with pytest.raises(RuntimeError, match="has been left"):
        await client.get("/")
    with pytest.raises(RuntimeError, match="has been left"):
        async with client.websocket("/"):
            pass


async def get_name() -> str:
    return "the real one"


async def get_unused() -> str:
    return "unused"


def make_asking_app() -> TrioWeb:
    app = TrioWeb("asking")

    async def get_greeting(name: str = Depends(get_name)) -> str:
        return f"hello {name}"

    @app.get("/")
    async def greet(greeting: str = Depends(get_greeting)) -> str:
        return greeting

    @app.websocket("/ws")
    async def greet_there(ws: Websocket, greeting: str = Depends(get_greeting)) -> None:
        await ws.send(greeting)

    return app


async def test_dependencies_are_overridden_for_the_time_of_the_client() -> None:
    """Those of dependencies too; what stood there before stands there afterwards."""
    app = make_asking_app()
    app.dependency_overrides[get_name] = lambda: "the developer's"
    async with open_client(app, overrides={get_name: lambda: "a fake"}) as client:
        assert (await client.get("/")).text == "hello a fake"
        async with client.websocket("/ws") as ws:
            await ws.expect("hello a fake")
    assert app.dependency_overrides[get_name]() == "the developer's"
    del app.dependency_overrides[get_name]
    async with open_client(app, overrides={get_name: lambda: "a fake"}):
        pass
    assert app.dependency_overrides == {}
    async with open_client(app) as client:
        assert (await client.get("/")).text == "hello the real one"


async def test_overrides_that_would_do_nothing_are_refused() -> None:
    """Lest the test talks to the real thing."""
    app = make_asking_app()
    with pytest.raises(ValueError, match=r"replaces .*get_unused.*, which no handler depends on"):
        async with open_client(app, overrides={get_unused: get_name}):
            pass
    value: Any = "a fake"
    with pytest.raises(TypeError, match="takes functions, not 'a fake'"):
        async with open_client(app, overrides={get_name: value}):
            pass
    assert app.dependency_overrides == {}


@pytest.mark.parametrize("wrong", [make_asking_app, None, "chat:app"])
async def test_what_is_no_application_is_refused(wrong: Any) -> None:
    for opened in (open_client, open_server):
        with pytest.raises(TypeError, match=r"was given .*, which is no TrioWeb application"):
            async with opened(wrong):
                pass


async def test_what_is_no_link_is_refused() -> None:
    link: Any = 1024
    with pytest.raises(TypeError, match=r"takes a Link, as in Link\(buffer=1024\), not 1024"):
        async with open_client(TrioWeb(), link=link):
            pass


async def test_a_template_is_no_connection() -> None:
    """Who pulls its cable means a session's."""
    link = Link(buffer=100)
    app = make_asking_app()
    async with open_client(app) as client, client.websocket("/ws", link=link) as ws:
        await ws.expect("hello the real one")
        for misuse in (link.drop, link.stall, link.abort):
            with pytest.raises(RuntimeError, match="a method of the session"):
                misuse()


async def test_clients_that_are_opened_side_by_side_share_the_application(
    autojump_clock: MockClock,
) -> None:
    """As fixtures are, whose lifespan takes its time."""
    lives: list[str] = []

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        lives.append("begins")
        await trio.sleep(1)
        app.ctx.is_ready = True
        yield
        app.ctx.is_ready = False

    app = TrioWeb(lifespan=lifespan)
    left = trio.Event()

    async def visit() -> None:
        async with open_client(app) as client:
            assert app.ctx.is_ready
            assert (await client.get("/")).status == 404
            await left.wait()

    async with open_client(app), trio.open_nursery() as nursery:
        nursery.start_soon(visit)
        await trio.lowlevel.checkpoint()
        left.set()
    assert lives == ["begins"]

    async def open_late(task_status: trio.TaskStatus[None]) -> None:
        async with open_client(app):
            task_status.started()
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, open_late)
        await trio.testing.wait_all_tasks_blocked()
        await visit()
    assert lives == ["begins", "begins"]


async def test_overrides_of_what_only_an_override_needs() -> None:
    """They are used, so they are right; what an override can't be given is said at once."""
    app = make_asking_app()

    def open_database() -> str:
        raise AssertionError("the real one")

    def make_session(database: str = Depends(open_database)) -> str:
        return f"session of {database}"

    def make_name(session: str = Depends(make_session)) -> str:
        return f"name of the {session}"

    overrides: dict[Any, Any] = {get_name: make_name, open_database: lambda: "a fake"}
    async with open_client(app, overrides=overrides) as client:
        assert (await client.get("/")).text == "hello name of the session of a fake"
    with pytest.raises(ValueError, match=r"replaces .*open_database.*, which no handler depends"):
        async with open_client(app, overrides={open_database: lambda: "a fake"}):
            pass

    def wrong(thing: set[str]) -> str:
        return "never"

    with pytest.raises(
        RouteError, match=r"override 'wrong' of .*'thing: set\[str\]' can't be bound"
    ):
        async with open_client(app, overrides={get_name: wrong}):
            pass
    assert app.dependency_overrides == {}


async def test_overrides_that_need_each_other_end() -> None:
    """Whoever looks for what they need comes to an end; the request says that it can't be."""
    app = make_asking_app()

    def make_name(name: str = Depends(get_name)) -> str:
        return name

    async with open_client(app, overrides={get_name: make_name}) as client:
        assert (await client.get("/")).status == 500


@pytest.mark.parametrize("steps", range(40))
async def test_it_can_be_cancelled_at_any_step(steps: int, autojump_clock: MockClock) -> None:
    """While the lifespan starts, while a session opens, and when all has begun."""
    lived: list[str] = []

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            lived.append("left")

    app = TrioWeb(lifespan=lifespan)

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        await ws.wait_closed()

    scope = trio.CancelScope()

    async def cancel() -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        with scope:
            async with open_client(app) as client, client.websocket("/"):
                await trio.sleep_forever()
    assert not app.is_running
    assert len(lived) <= 1
    async with open_client(app) as client, client.websocket("/"):
        pass

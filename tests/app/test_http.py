"""HTTP through the application: middleware, guards, exceptions, answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trioweb.app import TrioWeb
from trioweb.errors import ConfigError, RouteError, Unauthorized
from trioweb.http import Response
from trioweb.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trioweb.http import Request
    from trioweb.testing import ClientResponse


async def ask(app: TrioWeb, path: str = "/", **headers: str) -> ClientResponse:
    async with open_client(app) as client:
        return await client.get(path, headers=headers)


async def test_what_handlers_return() -> None:
    app = TrioWeb()

    @app.get("/async/<name>")
    async def one(request: Request, name: str, n: int = 3) -> Any:
        return {"name": name, "n": n}

    @app.get("/thread")
    def two(request: Request) -> Any:
        return "two", 201

    assert (await ask(app, "/async/x?n=4")).text == '{"name":"x","n":4}'
    assert (await ask(app, "/async/x?n=y")).status == 400
    answer = await ask(app, "/thread")
    assert (answer.status, answer.text) == (201, "two")


async def test_hosts_part_routes_of_one_path() -> None:
    app = TrioWeb()

    @app.get("/", name="any")
    async def of_any() -> str:
        return "any"

    assert (await ask(app, host="a.example")).text == "any"

    @app.get("/", name="one", host="a.example")
    async def of_one() -> str:
        return "one"

    assert (await ask(app, host="a.example:80")).text == "one"
    assert (await ask(app, host="b.example")).text == "any"
    async with open_client(app) as client, client.connect() as link:
        # A whole URL, as to a proxy; no client of ours sends that.
        await link.send_all(b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n")
        assert (await link.receive_some()).endswith(b"one")


async def test_middleware_order() -> None:
    """Requests in the order of registration, responses in the reverse, 404 included."""
    calls: list[str] = []

    async def first(request: Request) -> None:
        calls.append("first")

    app = TrioWeb(middleware=[first])

    @app.middleware("request")
    def second(request: Request) -> None:
        calls.append("second")

    @app.on_response
    async def third(request: Request, response: Response) -> None:
        calls.append("third")

    @app.on_response
    def fourth(request: Request, response: Response) -> Any:
        calls.append("fourth")
        return "other", 299

    assert (await ask(app)).status == 299
    assert calls == ["first", "second", "fourth", "third"]


@pytest.mark.parametrize(
    ("result", "status"), [(None, 200), (True, 200), (False, 403), (("no", 402), 402)]
)
async def test_guards(result: object, status: int) -> None:
    """Nothing or True lets pass, False is 403, an answer is the answer."""
    app = TrioWeb()

    @app.get("/", guards=[lambda request: result])
    async def index(request: Request) -> str:
        return "in"

    assert (await ask(app)).status == status


async def test_exception_handlers_by_nearest_type() -> None:
    app = TrioWeb()

    @app.get("/<kind>")
    async def index(kind: str) -> None:
        raise {"key": KeyError, "value": ValueError, "auth": Unauthorized}[kind]()

    @app.exception(LookupError)
    async def lookup(request: Request, error: LookupError) -> Any:
        return "lookup", 410

    @app.exception(Exception)
    def rest(request: Request, error: Exception) -> Any:
        return type(error).__name__, 418

    assert (await ask(app, "/key")).status == 410
    assert (await ask(app, "/value")).text == "ValueError"
    assert (await ask(app, "/auth")).status == 418


async def test_crash_is_500_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of the exception's text reaches the peer."""
    app = TrioWeb()

    @app.get("/")
    async def index() -> None:
        raise ValueError("secret")

    with caplog.at_level(logging.ERROR, "trioweb"):
        answer = await ask(app)
    assert answer.status == 500
    assert "secret" not in answer.text
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info


async def test_error_format() -> None:
    app = TrioWeb()

    @app.get("/", error_format="json")
    async def index() -> None:
        raise Unauthorized("who?")

    assert (await ask(app)).json() == {"status": 401, "message": "who?"}


async def test_405_and_426() -> None:
    app = TrioWeb()

    @app.post("/a")
    async def a() -> None: ...

    @app.websocket("/ws")
    async def ws_handler(request: Any, ws: Any) -> None: ...

    answer = await ask(app, "/a")
    assert (answer.status, answer.headers.get("allow")) == (405, "POST")
    assert (await ask(app, "/ws")).status == 426


def test_registration_refuses_what_can_not_be() -> None:
    app = TrioWeb()
    with pytest.raises(RouteError, match="takes no socket"):
        app.websocket("/a")(lambda request: None)
    with pytest.raises(ConfigError):
        app.middleware("reply")
    with pytest.raises(RouteError, match="method"):
        app.route("/", methods=[])


def test_apply_wraps_and_false_does_not_register() -> None:
    app = TrioWeb()
    order: list[str] = []

    def mark(name: str) -> Any:
        def decorator(handler: Any) -> Any:
            order.append(name)
            return handler

        return decorator

    async def handler(request: Any, ws: Any) -> None: ...

    assert app.websocket("/a", apply=[mark("outer"), mark("inner")])(handler) is handler
    app.add_websocket_route(handler, "/b", apply=False)
    assert order == ["inner", "outer"]
    assert [route.path for route in app.router.routes] == ["/a"]


def test_url_for() -> None:
    app = TrioWeb("shop")

    @app.websocket("/ws/<room>", name="chat")
    async def chat(request: Any, ws: Any, room: str) -> None: ...

    assert app.url_for("shop.chat", room="x", q=1) == "/ws/x?q=1"
    url = app.url_for("chat", room="x", _external=True, _host="h:1", _scheme="https")
    assert url == "wss://h:1/ws/x"
    with pytest.raises(RouteError, match="SERVER_NAME"):
        app.url_for("chat", room="x", _external=True)


async def test_annotation_known_by_the_start() -> None:
    """A forward reference is tried again when the application starts."""
    app = TrioWeb()

    async def handler(late: Late) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return late

    app.get("/")(handler)
    with pytest.raises(RouteError, match="Late"):
        await ask(app)
    globals()["Late"] = str
    try:
        assert (await ask(app, "/?late=x")).text == "x"
    finally:
        del globals()["Late"]


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"zz"),
    ],
)
async def test_what_comes_when_its_time_is_over_comes_too_late(
    autojump_clock: trio.testing.MockClock, first: bytes, rest: bytes
) -> None:
    """In the very turn: it is a 408 then, and no handler's that would be cut off."""
    app = TrioWeb(config={"REQUEST_TIMEOUT": 5.0, "RESPONSE_TIMEOUT": 5.0})

    @app.route("/", methods=["GET", "POST"])
    async def handler(request: Request) -> str:
        await request.body()
        await trio.sleep(0.1)
        return "in time"

    async with open_client(app) as client:
        for _ in range(20):  # tasks have their turns in any order
            async with client.connect() as link:
                await link.send_all(first)
                await trio.sleep(5)
                assert link.try_send(rest)
                assert (await link.receive_some()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_nobody_reads_on_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A generator's finally runs when its client has left, not when it is found as garbage."""
    app = TrioWeb()
    diary: list[str] = []

    @app.get("/")
    async def tell(request: Request) -> Response:
        async def news() -> AsyncGenerator[bytes]:
            try:
                while True:
                    yield b"news\n"
                    await trio.sleep(1)
            finally:
                diary.append("closed")

        return Response(news())

    async with open_client(app) as client:
        async with client.stream("GET", "/") as answer:
            async for line in answer.iter_lines():
                assert line == "news"
                break
        await trio.sleep(1.5)
        assert diary == ["closed"]

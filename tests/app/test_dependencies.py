"""Dependencies through the application: when they are made, and what their cleanup sees."""

from __future__ import annotations

import logging
import threading
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.app.conftest import HANDSHAKE, denial
from trioweb import (
    Depends,
    HTTPException,
    Request,
    RouteError,
    TrioWeb,
    Unauthorized,
    Websocket,
    WebsocketClosed,
)
from trioweb.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

WHERE: ContextVar[str] = ContextVar("WHERE", default="nowhere")


@dataclass
class Payment:
    to: str
    amount: int


class Log:
    """A dependency that writes down what happens; ``lines`` is of the whole test."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left = trio.Event()

    async def opened(self) -> AsyncGenerator[Log]:
        self.lines.append("enter")
        try:
            yield self
        except BaseException as exc:
            self.lines.append(type(exc).__name__)
            raise
        finally:
            self.lines.append("leave")
            self.left.set()


@pytest.fixture
def log() -> Log:
    return Log()


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.levelno >= logging.ERROR]


async def test_http_cleanup_runs_before_the_answer_is_sent(log: Log) -> None:
    """So what it raises is the answer; response middleware runs behind it."""
    app = TrioWeb()

    @app.get("/")
    async def handler(request: Request, opened: Log = Depends(log.opened)) -> Any:
        opened.lines.append("handler")
        return "answer", 201

    @app.on_response
    def watch(request: Request, response: object) -> None:
        log.lines.append("response")

    async with open_client(app) as client:
        answer = await client.get("/")
    assert (answer.status, answer.text) == (201, "answer")
    assert log.lines == ["enter", "handler", "leave", "response"]


async def test_http_order_of_guards_body_and_dependencies(log: Log) -> None:
    """A guard that refuses, and a value that can't be, cost no dependency."""
    app = TrioWeb()

    def check(request: Request, payment: Payment) -> str:
        assert "x-signed" in request.headers
        return payment.to

    def guard(request: Request) -> bool:
        return "guarded" not in request.args

    @app.post("/", guards=[guard])
    async def pay(
        payment: Payment,
        fee: int = 0,
        opened: Log = Depends(log.opened),
        to: str = Depends(check),
    ) -> Any:
        return [payment.amount + fee, to]

    body = {"to": "Ada", "amount": 1}
    async with open_client(app) as client:
        assert (await client.post("/?guarded=1", json=body)).status == 403
        assert (await client.post("/?fee=x", json=body)).status == 400
        assert (await client.post("/", json={"to": "Ada"})).status == 400
        assert log.lines == []
        answer = await client.post("/?fee=2", json=body, headers={"X-Signed": "1"})
        assert answer.json() == [3, "Ada"]


async def test_http_exceptions_stay_what_they_were(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the handler and of a dependency: the cleanup sees them, then exception handlers."""
    app = TrioWeb()
    error = ValueError("of the handler")
    seen: list[Exception] = []

    @app.exception(ValueError)
    def on_value_error(request: Request, raised: ValueError) -> Any:
        log.lines.append("exception handler")
        seen.append(raised)
        return "handled", 418

    def refuse() -> None:
        raise Unauthorized("token?")

    @app.get("/handler")
    async def crash(opened: Log = Depends(log.opened)) -> None:
        raise error

    @app.get("/dependency")
    async def refused(opened: Log = Depends(log.opened), user: None = Depends(refuse)) -> None: ...

    @app.get("/answer")
    async def wrong(opened: Log = Depends(log.opened)) -> Any:
        return {1, 2}

    async with open_client(app) as client:
        assert (await client.get("/handler")).status == 418
        assert log.lines == ["enter", "ValueError", "leave", "exception handler"]
        assert len(seen) == 1
        assert seen[0] is error
        log.lines.clear()
        answer = await client.get("/dependency")
        assert (answer.status, answer.text) == (401, "token?")
        assert log.lines == ["enter", "Unauthorized", "leave"]
        log.lines.clear()
        assert (await client.get("/answer")).status == 500
        assert log.lines == ["enter", "TypeError", "leave"]


async def test_http_cleanup_that_raises_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """And its exception takes the place of the handler's, as one in a finally does."""
    app = TrioWeb()
    seen: list[Exception] = []

    def opened() -> Generator[None]:
        try:
            yield
        finally:
            raise KeyError("of the cleanup")

    @app.exception(KeyError)
    def on_key_error(request: Request, raised: KeyError) -> None:
        seen.append(raised)

    @app.get("/")
    async def handler(fail: bool = False, it: None = Depends(opened)) -> str:
        if fail:
            raise ValueError("of the handler")
        return "answer"

    async with open_client(app) as client:
        assert (await client.get("/")).status == 500
        assert seen[0].__context__ is None
        assert (await client.get("/?fail=1")).status == 500
        assert repr(seen[1].__context__) == "ValueError('of the handler')"
    assert len(errors(caplog)) == 2


async def test_http_failure_that_is_caught_leaves_no_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A 500, whose log line says what to do; a scope of a dependency that cuts off is the same."""
    app = TrioWeb()

    def catches() -> Generator[None]:
        try:
            yield
        except ValueError:
            pass

    def cuts_off() -> Generator[None]:
        with trio.CancelScope() as scope:
            scope.cancel()
            yield

    @app.get("/caught")
    async def caught(it: None = Depends(catches)) -> None:
        raise ValueError("x")

    @app.get("/cut")
    async def cut(it: None = Depends(cuts_off)) -> None:
        await trio.sleep_forever()

    async with open_client(app) as client:
        for path in ("/caught", "/cut"):
            assert (await client.get(path)).status == 500
    for record, name in zip(errors(caplog), ("caught", "cut"), strict=True):
        assert record.exc_info is not None
        assert f"handler {name!r} of '/{name}' has no answer" in str(record.exc_info[1])
        assert "must be raised again" in str(record.exc_info[1])


async def test_http_cancelled_while_made_and_while_handled(log: Log) -> None:
    """Whatever was made is cleaned up, and sees the cancellation."""
    app = TrioWeb()
    cleaned_in_time = False

    async def slow(wait: bool, opened: Log = Depends(log.opened)) -> AsyncGenerator[None]:
        nonlocal cleaned_in_time
        if wait:
            await trio.sleep_forever()
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            cleaned_in_time = log.lines[-1] == "enter"

    @app.get("/")
    async def handler(slow: None = Depends(slow)) -> None:
        await trio.sleep_forever()

    for wait in (0, 1):
        log.lines.clear()
        # What the client leaves unfinished is cancelled.
        async with open_client(app) as client, client.connect() as link:
            await link.send_all(b"GET /?wait=%d HTTP/1.1\r\nHost: a\r\n\r\n" % wait)
            await wait_all_tasks_blocked()
            assert log.lines == ["enter"]
        assert log.lines == ["enter", "Cancelled", "leave"]
    assert cleaned_in_time


async def test_thread_handler_has_dependencies_of_the_event_loop(log: Log) -> None:
    """They are made in the loop's thread, and cleaned up there when the handler's has ended."""
    app = TrioWeb()
    main = threading.get_ident()

    def where() -> int:
        return threading.get_ident()

    @app.get("/")
    def handler(made_in: int = Depends(where), opened: Log = Depends(log.opened)) -> Any:
        assert opened.lines == ["enter"]
        return [made_in == main, threading.get_ident() == main]

    async with open_client(app) as client:
        assert (await client.get("/")).json() == [True, False]
    assert log.lines == ["enter", "leave"]


async def test_a_dependency_is_around_the_handler(log: Log) -> None:
    """Its nursery, its scope and its context variables are the handler's: it is one task."""
    app = TrioWeb()

    async def nursery() -> AsyncGenerator[trio.Nursery]:
        token = WHERE.set("inside")
        async with trio.open_nursery() as nursery:
            yield nursery
        WHERE.reset(token)

    @app.get("/")
    async def handler(nursery: trio.Nursery = Depends(nursery)) -> str:
        nursery.start_soon(child)
        return WHERE.get()

    @app.websocket("/ws")
    async def on_websocket(request: Any, ws: Any, nursery: trio.Nursery = Depends(nursery)) -> None:
        nursery.start_soon(child)
        await ws.send(WHERE.get())

    async def child() -> None:
        await wait_all_tasks_blocked()
        log.lines.append("child")

    async with open_client(app) as client:
        assert (await client.get("/")).text == "inside"
        assert log.lines == ["child"]
        async with client.websocket("/ws") as ws:
            await ws.expect("inside")
            await ws.expect_close(1000)
        assert log.lines == ["child", "child"]


@pytest.mark.parametrize("accept", ["auto", "manual"])
async def test_websocket_dependency_denies_the_handshake(accept: Any, log: Log) -> None:
    """After guards and parameters, before accept, and before a handler that accepts itself."""
    app = TrioWeb()

    async def user(ws: Websocket, token: str, opened: Log = Depends(log.opened)) -> str:
        assert not ws.open
        opened.lines.append("user")
        if token != "right":
            raise HTTPException("wrong token", status=418)
        return token

    def guard(request: Request) -> bool:
        assert log.lines == []
        return "guarded" not in request.args

    @app.websocket("/", accept=accept, guards=[guard])
    async def handler(request: Any, ws: Websocket, n: int = 0, user: str = Depends(user)) -> None:
        if accept == "manual":
            await ws.accept()
        await ws.send(user)

    async with open_client(app) as client:
        for query, status in (("guarded=1", 403), ("token=right&n=x", 400)):
            assert (await denial(client, f"/?{query}")).status == status
            assert log.lines == []
        denied = await denial(client, "/?token=wrong")
        assert (denied.status, denied.body) == (418, b"wrong token")
        assert log.lines == ["enter", "user", "HTTPException", "leave"]
        log.lines.clear()
        async with client.websocket("/?token=right") as ws:
            await ws.expect("right")
            await ws.expect_close(1000)
    assert log.lines == ["enter", "user", "leave"]


async def test_websocket_client_that_leaves_cancels_what_is_made(log: Log) -> None:
    app = TrioWeb()

    async def slow(opened: Log = Depends(log.opened)) -> None:
        await trio.sleep_forever()

    @app.websocket("/")
    async def handler(request: Any, ws: Any, slow: None = Depends(slow)) -> None:
        raise AssertionError("nobody is there")

    async with open_client(app) as client:
        link = client.connect()  # a WebSocket of the kit would cancel the handler by itself
        await link.send_all(HANDSHAKE % b"/")
        await wait_all_tasks_blocked()
        assert log.lines == ["enter"]
        await link.aclose()
        await wait_all_tasks_blocked()
        assert log.lines == ["enter", "Cancelled", "leave"]


async def test_websocket_cleanup_runs_before_close(log: Log) -> None:
    """In whatever way the handler ends; it may still send."""
    app = TrioWeb()

    async def says_bye(ws: Websocket, opened: Log = Depends(log.opened)) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await ws.send("bye")

    @app.websocket("/")
    async def handler(
        request: Any, ws: Websocket, fail: bool = False, bye: None = Depends(says_bye)
    ) -> None:
        await ws.send(await ws.recv())
        if fail:
            raise ValueError("x")

    async with open_client(app) as client:
        for query, code, lines in (
            ("", 1000, ["enter", "leave"]),
            ("?fail=1", 1011, ["enter", "ValueError", "leave"]),
        ):
            log.lines.clear()
            async with client.websocket(f"/{query}") as ws:
                await ws.send("hello")
                await ws.expect("hello")
                await ws.expect("bye")
                await ws.expect_close(code)
            assert log.lines == lines


async def test_websocket_that_is_lost_is_told_to_its_dependencies(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """What the handler does not catch comes out at the yield; it ends quietly all the same."""
    app = TrioWeb()

    @app.websocket("/")
    async def handler(request: Any, ws: Websocket, opened: Log = Depends(log.opened)) -> None:
        await ws.recv()

    async with open_client(app) as client, client.websocket("/") as ws:
        await wait_all_tasks_blocked()
        ws.abort()
    assert log.lines == ["enter", WebsocketClosed.__name__, "leave"]
    assert errors(caplog) == []


async def test_websocket_handler_that_is_cancelled_is_cleaned_up_behind(
    log: Log, autojump_clock: trio.testing.MockClock
) -> None:
    """After the grace, in phase two of an end."""
    app = TrioWeb(config={"WEBSOCKET_DISCONNECT_GRACE": 3})

    @app.websocket("/")
    async def handler(request: Any, ws: Websocket, opened: Log = Depends(log.opened)) -> None:
        await trio.sleep_forever()

    async with open_client(app) as client, client.websocket("/") as ws:
        await ws.close()
        began = trio.current_time()
        await log.left.wait()
        assert trio.current_time() - began == pytest.approx(3)
    assert log.lines == ["enter", "Cancelled", "leave"]


async def test_websocket_failures_of_the_cleanup(caplog: pytest.LogCaptureFixture) -> None:
    """1011 and in no group: exception handlers see what was raised."""
    app = TrioWeb()
    error = KeyError("of the cleanup")
    seen: list[Exception] = []

    async def opened() -> AsyncGenerator[None]:
        yield
        raise error

    @app.exception(KeyError)
    def on_key_error(request: Request, raised: KeyError) -> None:
        seen.append(raised)

    @app.websocket("/")
    async def handler(request: Any, ws: Any, it: None = Depends(opened)) -> None: ...

    async with open_client(app) as client, client.websocket("/") as ws:
        await ws.expect_close(1011)
    assert len(seen) == 1
    assert seen[0] is error
    assert len(errors(caplog)) == 1


async def test_websocket_failure_that_is_caught_is_a_quiet_end(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """It needs no answer; so a dependency may bound how long a connection lasts."""
    app = TrioWeb()

    async def for_an_hour() -> AsyncGenerator[trio.CancelScope]:
        with trio.move_on_after(3600) as scope:
            yield scope

    @app.websocket("/")
    async def handler(request: Any, ws: Any, scope: Any = Depends(for_an_hour)) -> None:
        await trio.sleep_forever()

    async with open_client(app) as client, client.websocket("/") as ws:
        await trio.sleep(3599)
        await ws.expect_close(1000)
        assert trio.current_time() == pytest.approx(3600)
    assert errors(caplog) == []


async def test_websocket_that_could_not_be_opened_has_no_quiet_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A dependency that catches what another raised leaves nothing to call the handler with."""
    app = TrioWeb()

    def catches() -> Generator[None]:
        try:
            yield
        except ValueError:
            pass

    def fails(before: None = Depends(catches)) -> None:
        raise ValueError("x")

    @app.websocket("/")
    async def handler(request: Any, ws: Any, it: None = Depends(fails)) -> None: ...

    async with open_client(app) as client:
        assert (await denial(client, "/")).status == 500
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert "has no answer" in str(record.exc_info[1])


async def test_context_managers_by_their_decorators() -> None:
    """The lifespan's way of writing them works for dependencies."""
    app = TrioWeb()
    lines: list[str] = []

    @asynccontextmanager
    async def session(app: TrioWeb, name: str) -> AsyncGenerator[str]:
        lines.append("enter")
        yield f"{app.name} {name}"
        lines.append("leave")

    @app.get("/")
    async def handler(session: Any = Depends(session)) -> Any:
        return session

    async with open_client(app) as client:
        assert (await client.get("/?name=x")).text == "trioweb x"
    assert lines == ["enter", "leave"]


def real() -> str:
    return "real"


async def test_overrides_while_the_application_runs() -> None:
    """Set and removed between requests, also for WebSockets; a wrong one is a 500 until then."""
    app = TrioWeb()

    @app.get("/<room>")
    async def get(room: str, value: str = Depends(real)) -> str:
        return value

    @app.websocket("/<room>/ws")
    async def feed(request: Any, ws: Any, room: str, value: str = Depends(real)) -> None:
        await ws.send(value)

    def fake(room: str) -> str:
        return f"fake {room}"

    def wrong(thing: set[str]) -> str:
        return "never"

    async with open_client(app) as client:

        async def served() -> tuple[str, str | bytes]:
            async with client.websocket("/x/ws") as ws:
                return (await client.get("/x")).text, await ws.recv()

        assert await served() == ("real", "real")
        app.dependency_overrides[real] = fake
        assert await served() == ("fake x", "fake x")
        app.dependency_overrides[real] = wrong
        assert (await client.get("/x")).status == 500
        assert (await denial(client, "/x/ws")).status == 500
        app.dependency_overrides.clear()
        assert await served() == ("real", "real")


async def test_override_that_cannot_be_bound_is_logged_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = TrioWeb()

    @app.get("/")
    async def handler(value: str = Depends(real)) -> str:
        return value

    def wrong(thing: set[str]) -> str:
        return "never"

    app.dependency_overrides[real] = wrong
    async with open_client(app) as client:
        assert (await client.get("/")).status == 500
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert "override 'wrong' of dependency 'real' of handler 'handler'" in str(record.exc_info[1])


def test_wrong_dependencies_are_refused_at_registration() -> None:
    app = TrioWeb()

    def wrong(thing: set[str]) -> None: ...

    decorators: list[Callable[[Any], Any]] = [app.get("/"), app.websocket("/ws")]
    for decorate in decorators:
        with pytest.raises(RouteError, match=r"dependency 'wrong' of handler 'handler'.*thing"):

            @decorate
            async def handler(request: Any, ws: Any, it: None = Depends(wrong)) -> None: ...


def test_room_tasks_have_none() -> None:
    """A default is theirs as it is, so what Depends returns would arrive there."""
    app = TrioWeb()
    with pytest.raises(RouteError, match=r"room task 'task' of 'x': 'value'.*not for room tasks"):

        @app.room_task("x")
        async def task(room: Any, value: str = Depends(real)) -> None: ...


async def test_annotations_are_resolved_at_start() -> None:
    """A dependency may be registered before its types exist, as a handler may."""
    app = TrioWeb()

    def made(later: Later) -> Any:
        return type(later).__name__

    @app.get("/")
    async def handler(it: Any = Depends(made)) -> Any:
        return it

    class Later:
        """Not in the module yet."""

    globals()["Later"] = Request
    try:
        async with open_client(app) as client:
            assert (await client.get("/")).text == "Request"
    finally:
        del globals()["Later"]

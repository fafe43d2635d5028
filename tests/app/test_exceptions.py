"""Every error of the table in every place where it can be raised: the wire, the log, the others.

An error is raised in a place of an application that serves another connection meanwhile. Before
accept it must become its status, afterwards its close code; what nobody expected is logged once
with its traceback; an exception handler sees what was raised; the other connection goes on.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from tests.app.conftest import HANDSHAKE, denial
from trioweb import TrioWeb, wait_any
from trioweb.errors import (
    BadRequest,
    Forbidden,
    HTTPException,
    InvalidMessage,
    MessageTooBig,
    NotAccepted,
    NotFound,
    OriginDenied,
    PingTimeout,
    ProtocolError,
    RateLimited,
    RecvTimeout,
    SendFailed,
    ServerError,
    ServerShutdown,
    ServiceUnavailable,
    SlowConsumer,
    TooManyConnections,
    Unauthorized,
    UpgradeRequired,
    WebsocketClosed,
    WebSocketException,
    WrongFrameType,
)
from trioweb.testing import link_pair, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from tests.app.conftest import Serve
    from trioweb import Request, Response, Websocket
    from trioweb.testing import Link
    from trioweb.testing.client import Client

    Place = Callable[[Websocket, BaseException], Awaitable[None]]

SECRET = "the secret of the exception"
HIDDEN = "internal error"


class Row(NamedTuple):
    """One row of the table of errors.

    Attributes:
        error: made for a connection, None where there is none.
        denial: status and body before accept, None where it can't be.
        close: code and reason after accept; a reason of None may be any but a secret.
        logged: whether it is an ERROR in the log, before and after accept.
    """

    name: str
    error: Callable[[Any], BaseException]
    denial: tuple[int, str] | None
    close: tuple[int, str | None]
    logged: tuple[bool, bool | None] = (False, False)


def http(kind: type[HTTPException], status: int, code: int) -> Row:
    """An HTTPException, whose message is meant for the peer unless it is a failure of ours."""
    message = f"told about {status}"
    reason = message if status < 500 else None
    return Row(kind.__name__, lambda _: kind(message), (status, message), (code, reason))


def crash(name: str, error: Callable[[Any], BaseException]) -> Row:
    denial = (500, "Internal Server Error")
    return Row(name, error, denial, (1011, HIDDEN), (True, True))


def closing(kind: Any, code: int) -> Row:
    return Row(kind.__name__, lambda _: kind("why"), (403, "why"), (code, "why"))


def several(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup(SECRET, errors)


TABLE = [
    Row("own end", lambda ws: WebsocketClosed(1001, SECRET, ws), None, (1000, "")),
    Row("own lost", lambda ws: SendFailed(1006, SECRET, ws), None, (1000, "")),
    Row(
        "own ends only",
        lambda ws: several(WebsocketClosed(1001, SECRET, ws), SendFailed(1006, SECRET, ws)),
        None,
        (1000, ""),
    ),
    Row(
        "own end and one",
        lambda ws: several(WebsocketClosed(1001, SECRET, ws), NotFound("leaf")),
        None,
        (4404, "leaf"),
    ),
    Row(
        "own end and two",
        lambda ws: several(WebsocketClosed(1001, SECRET, ws), NotFound(SECRET), KeyError(SECRET)),
        None,
        (1011, HIDDEN),
        (True, True),
    ),
    crash("another's end", lambda _: WebsocketClosed(4000, SECRET, object())),
    crash("another lost", lambda _: SendFailed(1006, SECRET, object())),
    crash("nobody's end", lambda _: WebsocketClosed(4000, SECRET)),
    crash("RecvTimeout", lambda _: RecvTimeout(SECRET)),
    crash("NotAccepted", lambda _: NotAccepted(SECRET)),
    Row("a code", lambda _: WebSocketException(4242, "mine"), (403, "mine"), (4242, "mine")),
    Row("a bare code", lambda _: WebSocketException(4242), (403, "Forbidden"), (4242, "")),
    Row(
        "a code that is none",
        lambda _: WebSocketException(1005, "why"),
        (403, "why"),
        (1011, HIDDEN),
        (False, True),
    ),
    http(BadRequest, 400, 4400),
    http(Unauthorized, 401, 1008),
    http(Forbidden, 403, 1008),
    http(OriginDenied, 403, 1008),
    http(NotFound, 404, 4404),
    http(UpgradeRequired, 426, 4426),
    http(RateLimited, 429, 1008),
    http(ServerError, 500, 1011)._replace(close=(1011, HIDDEN), logged=(False, True)),
    http(ServiceUnavailable, 503, 1011)._replace(close=(1011, HIDDEN), logged=(False, True)),
    http(TooManyConnections, 503, 1013)._replace(logged=(False, None)),
    http(ServerShutdown, 503, 1001)._replace(logged=(False, None)),
    Row("410", lambda _: HTTPException("gone", 410), (410, "gone"), (4410, "gone")),
    closing(ProtocolError, 1002),
    closing(WrongFrameType, 1003),
    closing(InvalidMessage, 1007),
    closing(MessageTooBig, 1009),
    closing(PingTimeout, 1011),
    closing(SlowConsumer, 1013),
    crash("ValueError", lambda _: ValueError(SECRET)),
    crash("TooSlowError", lambda _: trio.TooSlowError(SECRET)),
    crash("BrokenResourceError", lambda _: trio.BrokenResourceError(SECRET)),
    crash("ClosedResourceError", lambda _: trio.ClosedResourceError(SECRET)),
    crash("TimeoutError", lambda _: TimeoutError(SECRET)),
    crash("a group", lambda _: several(ValueError(SECRET), KeyError(SECRET))),
    crash("a group of answers", lambda _: several(NotFound(SECRET), WebSocketException(4001))),
    Row("a leaf", lambda _: several(several(NotFound("leaf"))), (404, "leaf"), (4404, "leaf")),
]


# Places, with a WebSocket


async def in_the_handler(ws: Websocket, error: BaseException) -> None:
    raise error


async def in_a_task_of_ws_nursery(ws: Websocket, error: BaseException) -> None:
    ws.nursery.start_soon(fail, error)
    await trio.sleep_forever()


async def in_a_started_task_of_ws_nursery(ws: Websocket, error: BaseException) -> None:
    await ws.nursery.start(start_and_fail, error)
    await trio.sleep_forever()


async def in_a_nursery(ws: Websocket, error: BaseException) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, error)
        nursery.start_soon(trio.sleep_forever)


async def in_nested_nurseries(ws: Websocket, error: BaseException) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_a_nursery, ws, error)


async def in_a_generator(ws: Websocket, error: BaseException) -> None:
    async def generate() -> AsyncGenerator[int, None]:
        yield 1
        raise error

    async for _ in generate():
        await trio.lowlevel.checkpoint()


async def over_a_generator(ws: Websocket, error: BaseException) -> None:
    async def generate() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            await trio.lowlevel.checkpoint()

    async with aclosing(generate()) as numbers:
        async for _ in numbers:
            raise error


async def in_a_context_manager(ws: Websocket, error: BaseException) -> None:
    @asynccontextmanager
    async def manage() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await trio.lowlevel.checkpoint()

    async with manage():
        raise error


async def at_the_end_of_a_context_manager(ws: Websocket, error: BaseException) -> None:
    @asynccontextmanager
    async def manage() -> AsyncGenerator[None, None]:
        yield
        raise error

    async with manage():
        pass


async def in_wait_any(ws: Websocket, error: BaseException) -> None:
    async def run() -> None:
        await fail(error)

    await wait_any(run, trio.sleep_forever)


async def in_a_cancelled_scope(ws: Websocket, error: BaseException) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        finally:
            raise error


async def fail(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def start_and_fail(error: BaseException, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await fail(error)


PLACES: list[Place] = [
    in_the_handler,
    in_a_task_of_ws_nursery,
    in_a_started_task_of_ws_nursery,
    in_a_nursery,
    in_nested_nurseries,
    in_a_generator,
    over_a_generator,
    in_a_context_manager,
    at_the_end_of_a_context_manager,
    in_wait_any,
    in_a_cancelled_scope,
]
IN_TASKS_OF_WS_NURSERY = (in_a_task_of_ws_nursery, in_a_started_task_of_ws_nursery)


class Failing:
    """An application with a handler that fails, and one that must not notice.

    Attributes:
        raised: the error, once it was raised.
        seen: what the application's exception handler was given.
    """

    def __init__(self, error: Callable[[Any], BaseException]) -> None:
        self._make = error
        self.app = TrioWeb()
        self.app.websocket("/echo")(self._echo)
        self.app.exception(Exception)(self._see)
        self.raised: list[BaseException] = []
        self.seen: list[BaseException] = []

    def error(self, websocket: object = None) -> BaseException:
        error = self._make(websocket)
        self.raised.append(error)
        return error

    def add_handler(self, place: Place, *, is_accepted: bool) -> None:
        """Fail in a place of the handler of ``/fail``."""

        async def handler(ws: Websocket) -> None:
            await place(ws, self.error(ws))

        self.app.websocket("/fail", accept="auto" if is_accepted else "manual")(handler)

    def add_around(self, place: str) -> None:
        """Fail in a middleware or guard of ``/fail``."""

        async def handler(ws: Websocket) -> None:
            await ws.send("reached")

        async def guard(request: Request) -> None:
            if request.path == "/fail":
                raise self.error()

        async def see_response(request: Request, response: Response) -> None:
            if response.status == 101:
                await guard(request)

        self.app.websocket("/fail", guards=[guard] if place == "guard" else [])(handler)
        if place == "request middleware":
            self.app.on_request(guard)
        if place == "response middleware":
            self.app.on_response(see_response)

    async def _echo(self, ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    async def _see(self, request: Request, error: Exception) -> None:
        self.seen.append(error)

    @asynccontextmanager
    async def open_client(self) -> AsyncGenerator[Client, None]:
        async with open_client(self.app) as client, client.websocket("/echo") as bystander:
            yield client
            await bystander.send("undisturbed")
            await bystander.expect("undisturbed")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """What the log has of WARNING and above."""
    return lambda: [record for record in caplog.records if record.levelno >= logging.WARNING]


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def same_as(error: BaseException, raised: BaseException) -> bool:
    """Whether an error is what was raised, but for groups around it."""
    return set(leaves(error)) <= set(leaves(raised))


def check_log(
    records: list[logging.LogRecord], raised: BaseException, expected: bool | None
) -> None:
    if expected is None:
        assert len(records) <= 1
    else:
        assert len(records) == expected
    for record in records:
        assert record.name == "trioweb"
        assert record.levelno == logging.ERROR
        assert record.exc_info
        assert record.exc_info[1] is not None
        assert same_as(record.exc_info[1], raised)
        assert record.exc_info[1].__traceback__ is not None


@pytest.mark.parametrize(
    ("row", "place"),
    [
        pytest.param(row, place, id=f"{row.name}-{place.__name__}")
        for row in TABLE
        for place in PLACES
        # There a quiet end is the task's alone, and the handler goes on.
        if row.close[0] != 1000 or place not in IN_TASKS_OF_WS_NURSERY
    ],
)
async def test_after_accept_an_error_is_a_close_code(
    row: Row, place: Place, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    failing = Failing(row.error)
    failing.add_handler(place, is_accepted=True)
    code, reason = row.close
    async with failing.open_client() as client, client.websocket("/fail") as ws:
        told = await ws.expect_close(code)
        if reason is None:
            assert SECRET not in told
        else:
            assert told == reason
    (raised,) = failing.raised
    check_log(logged(), raised, row.logged[1])
    if code == 1000:
        assert not failing.seen  # a quiet end is no failure
    else:
        (seen,) = failing.seen
        assert same_as(seen, raised)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("row", [row for row in TABLE if row.denial], ids=lambda row: row.name)
async def test_before_accept_an_error_is_a_status(
    row: Row, place: Place, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    failing = Failing(row.error)
    failing.add_handler(place, is_accepted=False)
    await expect_denial(failing, row, logged)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        pytest.param(row, place, id=f"{row.name}-{place}")
        for row in TABLE
        for place in ("request middleware", "guard", "response middleware")
        if row.denial
    ],
)
async def test_what_is_around_a_handler_denies_by_its_errors(
    row: Row, place: str, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    failing = Failing(row.error)
    failing.add_around(place)
    await expect_denial(failing, row, logged)


async def expect_denial(
    failing: Failing, row: Row, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    assert row.denial is not None
    async with failing.open_client() as client:
        refused = await denial(client, "/fail")
        assert (refused.status, refused.body.decode()) == row.denial
        assert SECRET not in str(refused.headers.raw)
    (raised,) = failing.raised
    check_log(logged(), raised, row.logged[0])
    (seen,) = failing.seen
    assert same_as(seen, raised)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("is_accepted", [True, False], ids=["accepted", "not accepted"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_goes_through(
    kind: type[BaseException], place: Place, is_accepted: bool
) -> None:
    """As itself, in no group; a peer who was accepted is told."""
    failing = Failing(lambda _: kind(SECRET))
    failing.add_handler(place, is_accepted=is_accepted)
    told: list[str] = []

    async def connect() -> None:
        async with failing.open_client() as client, client.websocket("/fail") as ws:
            told.append(await ws.expect_close(1011))
            await trio.sleep_forever()

    with pytest.raises(kind) as caught:
        await connect()
    assert caught.value is failing.raised[0]
    assert told == [HIDDEN] * is_accepted
    assert not failing.seen


@pytest.mark.parametrize("place", ["request middleware", "guard", "response middleware"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_goes_through_middleware(
    kind: type[BaseException], place: str
) -> None:
    failing = Failing(lambda _: kind(SECRET))
    failing.add_around(place)
    with pytest.raises(kind) as caught:
        async with failing.open_client() as client, client.websocket("/fail"):
            pass
    assert caught.value is failing.raised[0]


async def test_one_leaf_of_a_group_counts_as_itself_in_http() -> None:
    app = TrioWeb()

    @app.get("/x")
    async def x() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, NotFound("leaf"))
        return "never"

    async with open_client(app) as client:
        assert (await client.get("/x")).status == 404


async def test_another_connections_end_is_logged_with_both(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = TrioWeb()
    connected: list[Any] = []

    @app.websocket("/first/<name>")
    async def first(request: Any, ws: Any, name: str) -> None:
        connected.append(ws)
        await ws.recv()

    @app.websocket("/second")
    async def second(ws: Any) -> None:
        await ws.recv()
        await connected[0].send("x")

    async with open_client(app) as client, client.websocket("/second") as ws:
        async with client.websocket("/first/alice"):
            pass
        await ws.send("now")
        await ws.expect_close(1011)
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    message = record.getMessage()
    assert "/second" in message
    assert "/first/alice" in message


# What ends the process, while a connection ends


async def in_its_finally(ws: Websocket, error: BaseException) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise error


async def in_the_finally_of_a_task(ws: Websocket, error: BaseException) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_its_finally, ws, error)
        nursery.start_soon(trio.sleep_forever)


async def in_the_finally_of_a_task_of_ws_nursery(ws: Websocket, error: BaseException) -> None:
    ws.nursery.start_soon(in_its_finally, ws, error)
    await trio.sleep_forever()


UNWINDING: list[Place] = [
    in_its_finally,
    in_the_finally_of_a_task,
    in_the_finally_of_a_task_of_ws_nursery,
]


async def serve_silent_peer(
    app: TrioWeb, act: Callable[[trio.CancelScope, Link], Awaitable[None]]
) -> tuple[BaseException | None, float]:
    """Serve a client that says nothing after its handshake, and do something after a second.

    Returns:
        What ``serve_stream`` has raised, and how long after that something.
    """
    ours, theirs = link_pair()
    raised: list[tuple[BaseException | None, float]] = []
    scope = trio.CancelScope()

    async def serve() -> None:
        try:
            with scope:
                await app.serve_stream(ours)
        except BaseException as error:
            raised.append((error, trio.current_time()))
        else:
            raised.append((None, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await theirs.send_all(HANDSHAKE % b"/fail")
        await trio.sleep(1)
        began = trio.current_time()
        await act(scope, theirs)
        await trio.sleep(100)
    ((error, ended),) = raised
    return error, ended - began


@pytest.mark.parametrize("place", UNWINDING, ids=lambda place: place.__name__)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_goes_through_a_cancelled_serve(
    kind: type[BaseException], place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    """As itself, and at once: no peer holds it up."""
    failing = Failing(lambda _: kind(SECRET))
    failing.add_handler(place, is_accepted=True)

    async def cancel(scope: trio.CancelScope, peer: Link) -> None:
        scope.cancel()

    error, took = await serve_silent_peer(failing.app, cancel)
    assert error is failing.raised[0]
    assert took == 0


@pytest.mark.parametrize("how", ["drained", "left"])
@pytest.mark.parametrize("place", UNWINDING, ids=lambda place: place.__name__)
async def test_what_ends_the_process_goes_through_when_the_handler_is_cancelled(
    place: Place, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    failing = Failing(lambda _: SystemExit(SECRET))
    failing.add_handler(place, is_accepted=True)
    failing.app.config.update({"GRACEFUL_SHUTDOWN_TIMEOUT": 3, "WEBSOCKET_DISCONNECT_GRACE": 3})

    async def act(scope: trio.CancelScope, peer: Link) -> None:
        if how == "drained":
            failing.app.shutdown()
        else:
            await peer.aclose()

    error, took = await serve_silent_peer(failing.app, act)
    assert error is failing.raised[0]
    assert took == 3


@pytest.mark.parametrize("place", UNWINDING, ids=lambda place: place.__name__)
async def test_what_ends_the_process_comes_out_of_a_server_that_is_cancelled(
    place: Place, serve: Serve
) -> None:
    failing = Failing(lambda _: SystemExit(SECRET))
    failing.add_handler(place, is_accepted=True)
    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True) as caught:
        async with serve(failing.app) as serving:
            await serving.open_websocket("/fail")
            await trio.testing.wait_all_tasks_blocked()
            serving.scope.cancel()
            await serving.ended.wait()
    assert list(leaves(caught.value)) == failing.raised


@pytest.mark.parametrize("is_accepted", [True, False], ids=["accepted", "not accepted"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_goes_through_an_exception_handler(
    kind: type[BaseException], is_accepted: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A silent peer does not hold it up."""
    app = TrioWeb()
    raised = kind(SECRET)

    @app.websocket("/fail", accept="auto" if is_accepted else "manual")
    async def handler(ws: Websocket) -> None:
        await trio.sleep(2)
        raise ValueError

    @app.exception(ValueError)
    async def end(request: Request, error: Exception) -> None:
        raise raised

    async def do_nothing(scope: trio.CancelScope, peer: Link) -> None: ...

    error, took = await serve_silent_peer(app, do_nothing)
    assert error is raised
    assert took == 1


async def test_what_ends_the_process_waits_for_no_silent_peer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    failing = Failing(lambda _: SystemExit(SECRET))
    go_on = trio.Event()

    async def fail_later(ws: Websocket, error: BaseException) -> None:
        await go_on.wait()
        raise error

    failing.add_handler(fail_later, is_accepted=True)

    async def act(scope: trio.CancelScope, peer: Link) -> None:
        go_on.set()

    error, took = await serve_silent_peer(failing.app, act)
    assert error is failing.raised[0]
    assert took == 0


# Other exceptions


class Strange(BaseException):
    """One that is no Exception, and ends no process either."""


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("kind", [asyncio.CancelledError, Strange])
async def test_any_other_base_exception_ends_its_own_connection_only(
    kind: type[BaseException],
    place: Place,
    logged: Callable[[], list[logging.LogRecord]],
) -> None:
    failing = Failing(lambda _: kind(SECRET))
    failing.add_handler(place, is_accepted=True)
    async with failing.open_client() as client, client.websocket("/fail") as ws:
        assert await ws.expect_close(1011) == HIDDEN
    check_log(logged(), failing.raised[0], True)


class Unprintable(Exception):
    """Trio's own nurseries break with one: they say repr() of it as the reason to cancel."""

    def __repr__(self) -> str:
        raise AttributeError("__repr__")

    def __str__(self) -> str:
        raise AttributeError("__str__")


@pytest.mark.parametrize(
    "place", [in_the_handler, *IN_TASKS_OF_WS_NURSERY], ids=lambda place: place.__name__
)
@pytest.mark.parametrize("is_accepted", [True, False], ids=["accepted", "not accepted"])
async def test_an_error_that_can_not_be_printed_is_one_like_any_other(
    place: Place, is_accepted: bool, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    row = crash("Unprintable", lambda _: Unprintable())
    failing = Failing(row.error)
    failing.add_handler(place, is_accepted=is_accepted)
    if not is_accepted:
        await expect_denial(failing, row, logged)
        return
    async with failing.open_client() as client, client.websocket("/fail") as ws:
        assert await ws.expect_close(1011) == HIDDEN
    check_log(logged(), failing.raised[0], True)
    (seen,) = failing.seen
    assert same_as(seen, failing.raised[0])


# Exception handlers that never end


class Hanging:
    """An application whose handler fails after two seconds, and whose exception handler hangs.

    Attributes:
        unwound: when the exception handler was cancelled.
    """

    def __init__(self, *, is_accepted: bool) -> None:
        self.app = TrioWeb(config={"WEBSOCKET_TIMEOUT": 10, "WEBSOCKET_DISCONNECT_GRACE": None})
        self.app.websocket("/fail", accept="auto" if is_accepted else "manual")(self._fail)
        self.app.exception(ValueError)(self._hang)
        self.unwound: list[float] = []

    async def _fail(self, ws: Websocket) -> None:
        await trio.sleep(2)
        raise ValueError(SECRET)

    async def _hang(self, request: Request, error: Exception) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.unwound.append(trio.current_time())


async def test_an_exception_handler_before_accept_is_cancelled_when_the_client_leaves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hanging = Hanging(is_accepted=False)
    async with open_client(hanging.app) as client:
        link = client.connect()
        await link.send_all(HANDSHAKE % b"/fail")
        began = trio.current_time()
        await trio.sleep(5)
        assert not hanging.unwound
        await link.aclose()
        await trio.sleep(100)
    assert hanging.unwound == [began + 5]


@pytest.mark.parametrize(
    ("is_accepted", "seconds"),
    [
        # The whole handshake has that time, and the handler took some of it.
        pytest.param(False, 10, id="before accept"),
        pytest.param(True, 12, id="after accept"),
    ],
)
async def test_an_exception_handler_that_never_ends_is_cancelled_after_websocket_timeout(
    is_accepted: bool, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    hanging = Hanging(is_accepted=is_accepted)
    async with open_client(hanging.app) as client:
        began = trio.current_time()
        if is_accepted:
            async with client.websocket("/fail") as ws:
                assert await ws.expect_close(1011, timeout=100) == HIDDEN
        else:
            assert (await denial(client, "/fail", timeout=100)).status == 500
    assert hanging.unwound == [began + seconds]

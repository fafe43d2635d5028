"""Caps on WebSockets through the whole application: who is refused, and that no place is lost."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.app.conftest import HANDSHAKE, denial
from trioweb import OriginDenied, TooManyConnections, TrioWeb, Unauthorized, WebSocketException
from trioweb.testing import Denied, Link, open_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from trio.testing import MockClock

    from tests.app.conftest import Serving
    from trioweb import Request, Response, Websocket

    Serve = Callable[[TrioWeb], AbstractAsyncContextManager[Serving]]

TOTAL = "WEBSOCKET_MAX_CONNECTIONS"
PER_IP = "WEBSOCKET_MAX_CONNECTIONS_PER_IP"


def make_app(**config: Any) -> TrioWeb:
    """An echo on /ws, and a plain page."""
    app = TrioWeb(config=config)

    @app.websocket("/ws")
    async def echo(request: Request, ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    @app.get("/")
    async def index() -> str:
        return "page"

    return app


ONE, OTHER = Link(client=("10.0.0.1", 50000)), Link(client=("10.0.0.2", 50000))


async def test_one_too_many_is_refused_and_a_place_comes_back() -> None:
    """503 while the cap is reached; others are served on; the next one fits when one has left."""
    app = make_app(**{TOTAL: 2})
    async with open_client(app) as client, client.websocket("/ws") as first:
        async with client.websocket("/ws") as second:
            refused = await denial(client)
            assert (refused.status, refused.body) == (503, b"Service Unavailable")
            assert (await client.get("/")).text == "page"
            await first.send("1")
            await first.expect("1")
            await second.send("2")
            await second.expect("2")
        async with client.websocket("/ws") as third:
            await third.send("3")
            await third.expect("3")


async def test_nothing_of_the_handler_runs_for_one_too_many() -> None:
    """Neither guards nor handler; middleware and exception handlers see it as any refusal."""
    app = TrioWeb(config={TOTAL: 1})
    seen: list[str] = []

    @app.on_response
    async def after(request: Request, response: Response) -> None:
        seen.append(f"response {response.status}")

    @app.exception(TooManyConnections)
    async def full(request: Request, error: TooManyConnections) -> Any:
        seen.append("exception")
        return ("full, come back", 503, {"Retry-After": "5"})

    def guard(request: Request) -> None:
        seen.append("guard")

    @app.websocket("/ws", guards=[guard])
    async def handler(request: Request, ws: Websocket) -> None:
        seen.append("handler")
        await ws.wait_closed()

    async with open_client(app) as client, client.websocket("/ws"):
        assert seen == ["guard", "response 101", "handler"]
        seen.clear()
        refused = await denial(client)
    assert (refused.status, refused.body) == (503, b"full, come back")
    assert refused.headers["retry-after"] == "5"
    assert seen[:2] == ["exception", "response 503"]


async def test_the_origin_is_judged_first() -> None:
    """A page that may not connect hears 403 whether or not there is room, and takes none."""
    app = make_app(**{TOTAL: 1})
    seen: list[type[Exception]] = []

    @app.exception(Exception)
    async def watch(request: Request, error: Exception) -> None:
        seen.append(type(error))

    async with open_client(app) as client:
        assert (await denial(client, origin="http://evil.example")).status == 403
        async with client.websocket("/ws"):
            assert (await denial(client, origin="http://evil.example")).status == 403
            assert (await denial(client)).status == 503
    assert seen == [OriginDenied, OriginDenied, TooManyConnections]


async def test_addresses_are_capped_each_by_itself() -> None:
    """A crowd at one address is refused there, and keeps nobody else out."""
    app = make_app(**{PER_IP: 2})
    async with open_client(app, link=ONE) as client, AsyncExitStack() as stack:
        await stack.enter_async_context(client.websocket("/ws"))
        async with client.websocket("/ws"):
            assert (await denial(client)).status == 503
            await stack.enter_async_context(client.websocket("/ws", link=OTHER))
            assert (await denial(client)).status == 503
        await stack.enter_async_context(client.websocket("/ws"))


async def test_peers_without_address_are_not_one_client() -> None:
    """Memory streams and Unix sockets have no address: only the total holds for them."""
    async with open_client(make_app(**{PER_IP: 1, TOTAL: 3})) as client, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(client.websocket("/ws"))
        assert (await denial(client)).status == 503


async def test_real_addresses_are_capped(serve: Serve) -> None:
    """Over TCP, where the kernel tells the address; a lost client gives its place back."""
    async with serve(make_app(**{PER_IP: 1})) as serving:
        ws = await serving.open_websocket()
        refused = serving.connect()
        await refused.send(HANDSHAKE % b"/ws")
        assert (await refused.read_all()).startswith(b"HTTP/1.1 503 ")
        await (await serving.connect(source="127.0.0.2").open_websocket()).client.aclose()
        await ws.client.abort()
        await serving.become_idle()
        await serving.open_websocket()


async def test_a_handler_that_runs_on_holds_its_place(autojump_clock: MockClock) -> None:
    """What is counted is what costs: until the grace is over, not until the client has left."""
    app = TrioWeb(config={TOTAL: 1, "WEBSOCKET_DISCONNECT_GRACE": 3})

    @app.websocket("/ws")
    async def push(request: Request, ws: Websocket) -> None:
        await trio.sleep_forever()

    async with open_client(app) as client, client.websocket("/ws") as ws:
        await ws.close()
        assert (await denial(client)).status == 503
        await trio.sleep(3.1)
        async with client.websocket("/ws"):
            pass


async def test_the_limits_of_a_running_server_can_be_changed() -> None:
    """The next handshake is judged by the new one; nobody who is there is put out."""
    app = make_app()
    async with open_client(app) as client, client.websocket("/ws") as ws, client.websocket("/ws"):
        app.config.WEBSOCKET_MAX_CONNECTIONS = 1
        assert (await denial(client)).status == 503
        await ws.send("still here")
        await ws.expect("still here")
        app.config.WEBSOCKET_MAX_CONNECTIONS = None
        async with client.websocket("/ws"):
            pass


async def test_one_warning_a_minute_names_the_key(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """A flood of refused clients is one line, also when the application runs a second time."""
    app = make_app(**{TOTAL: 1})
    for _ in range(2):
        caplog.clear()
        async with open_client(app) as client, client.websocket("/ws"):
            for _ in range(20):
                await denial(client)
        (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert f"{TOTAL}=1 " in record.getMessage()


def leaky_app() -> TrioWeb:
    """Every way in which a handshake or a connection may end."""
    app = TrioWeb(config={TOTAL: 1, PER_IP: 1, "WEBSOCKET_TIMEOUT": 1})

    @app.on_request
    async def middleware(request: Request) -> Any:
        if "stop" in request.args:
            return ("stopped", 418)
        if "crash" in request.args:
            raise ValueError
        return None

    @app.on_response
    async def after(request: Request, response: Response) -> Any:
        if "refuse" in request.args:
            return ("refused", 409)
        if "break" in request.args:
            raise ValueError
        return None

    def guard(request: Request) -> bool:
        return "guarded" not in request.args

    @app.websocket("/auto", guards=[guard])
    async def auto(request: Request, ws: Websocket, number: int = 0) -> None:
        if "late" in request.args:
            raise ValueError
        if "code" in request.args:
            raise WebSocketException(4000)
        if "task" in request.args:
            ws.nursery.start_soon(trio.sleep_forever)
        elif "end" not in request.args:
            await ws.wait_closed()

    @app.websocket("/manual", accept="manual")
    async def manual(request: Request, ws: Websocket) -> Any:
        how = request.args.get("how")
        if how == "deny":
            await ws.deny(409)
        elif how == "close":
            await ws.close()
        elif how == "raise":
            raise Unauthorized
        elif how == "answer":
            return ("no", 400)
        elif how == "headers":
            await ws.accept(headers={"Upgrade": "no"})
        elif how == "sleep":
            await trio.sleep_forever()
        return None

    @app.websocket("/chat", subprotocols=["chat"], subprotocol_required=True)
    async def chat(request: Request, ws: Websocket) -> None: ...

    @app.get("/page")
    async def page() -> str:
        return "page"

    @app.websocket("/free")
    async def free(request: Request, ws: Websocket) -> None:
        await ws.send("there is room")

    return app


@pytest.mark.parametrize(
    "path",
    [
        *("/auto", "/auto?end", "/auto?late", "/auto?code", "/auto?task"),
        *("/auto?stop", "/auto?crash", "/auto?refuse", "/auto?break", "/auto?guarded"),
        *("/auto?number=x", "/manual", "/chat", "/page", "/nowhere"),
        *(f"/manual?how={how}" for how in ("deny", "close", "raise", "answer", "headers", "sleep")),
    ],
)
async def test_no_end_of_a_connection_costs_a_place(path: str, autojump_clock: MockClock) -> None:
    """Served, refused at any point, crashed, timed out: afterwards there is room for one again."""
    path += "" if "=" in path or "?" not in path else "=1"
    async with open_client(leaky_app(), link=ONE) as client:
        with suppress(Denied, AssertionError):  # what becomes of it is not what is asked
            async with client.websocket(path):
                pass
        async with client.websocket("/free") as ws:
            await ws.expect("there is room")


@pytest.mark.parametrize("path", ["/auto", "/manual?how=sleep"])
async def test_no_lost_or_cancelled_connection_costs_a_place(path: str) -> None:
    """The client vanishes, or the task that serves it is cancelled, before and after accept."""
    app = leaky_app()
    async with open_client(app, link=ONE) as client:
        link = client.connect()
        await link.send_all(HANDSHAKE % path.encode())
        await wait_all_tasks_blocked()
        assert (await denial(client, "/free")).status == 503
        link.abort()
        await wait_all_tasks_blocked()
        async with client.websocket("/free") as ws:
            await ws.expect("there is room")
        ours, theirs = ONE.another_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.serve_stream, theirs)
            await ours.send_all(HANDSHAKE % path.encode())
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with client.websocket("/free") as ws:
            await ws.expect("there is room")

"""The opening handshake through the whole application: origins, subprotocols, headers, refusals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.app.conftest import HANDSHAKE, denial
from trioweb import TrioWeb
from trioweb.errors import WebsocketClosed
from trioweb.testing import link_pair, open_client

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from trioweb import Request, Response, Websocket
    from trioweb.testing import Link


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the application has warned of since the last call."""
    lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    caplog.clear()
    return lines


# Origins

LISTED = ["https://shop.example", "null"]


@pytest.mark.parametrize(
    ("config", "options", "origin", "passes"),
    [
        ({}, {}, None, True),
        ({}, {}, "http://app.test", True),
        ({}, {}, "https://app.test", True),
        ({}, {}, "http://evil.example", False),
        ({}, {}, "null", False),
        ({"WEBSOCKET_ORIGINS": "*"}, {}, "http://evil.example", True),
        ({"WEBSOCKET_ORIGINS": LISTED}, {}, "https://shop.example", True),
        ({"WEBSOCKET_ORIGINS": LISTED}, {}, "null", True),
        ({"WEBSOCKET_ORIGINS": LISTED}, {}, "http://app.test", False),
        ({"WEBSOCKET_ORIGINS": "*"}, {"origins": "same-origin"}, "http://evil.example", False),
        ({"WEBSOCKET_ORIGINS": "*"}, {"origins": []}, "http://app.test", False),
        ({}, {"origins": LISTED}, "https://shop.example", True),
        ({}, {"origins": "*"}, "null", True),
    ],
)
async def test_origins_of_the_config_and_of_the_route(
    config: dict[str, Any], options: dict[str, Any], origin: str | None, passes: bool
) -> None:
    """The route's own rule stands in the config's place; no Origin is no browser, and passes."""
    app = TrioWeb(config=config)

    @app.websocket("/ws", **options)
    async def handler(request: Request, ws: Websocket) -> None:
        await ws.send("in")

    async with open_client(app) as client:
        if passes:
            async with client.websocket("/ws", origin=origin) as ws:
                await ws.expect("in")
        else:
            assert (await denial(client, origin=origin)).status == 403


async def test_a_refused_origin_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the key to set; another origin has a line of its own."""
    app = TrioWeb()

    @app.websocket("/ws")
    async def handler(request: Request, ws: Websocket) -> None: ...

    async with open_client(app) as client:
        for origin in ("http://a.example", "http://a.example", "http://b.example"):
            await denial(client, origin=origin)
    first, second = warnings(caplog)
    assert "http://a.example" in first
    assert "http://b.example" in second
    assert "WEBSOCKET_ORIGINS" in first


# Subprotocols


@pytest.mark.parametrize(
    ("ours", "offered", "chosen"),
    [
        (["v2", "v1"], ["v1", "v2"], "v2"),
        (["v2", "v1"], ["v1"], "v1"),
        (["v2"], ["v1"], None),
        (["v2"], [], None),
        (None, ["v1"], None),
    ],
)
async def test_the_servers_order_of_subprotocols_wins(
    ours: Sequence[str] | None, offered: Sequence[str], chosen: str | None
) -> None:
    """None in common is accepted without one."""
    app = TrioWeb()

    @app.websocket("/ws", subprotocols=ours)
    async def handler(request: Request, ws: Websocket) -> None:
        await ws.send_json(ws.subprotocol)

    async with open_client(app) as client, client.websocket("/ws", subprotocols=offered) as ws:
        await ws.expect_json(chosen)


async def test_a_required_subprotocol_is_asked_for() -> None:
    """400, which names what is spoken here; before the handler runs."""
    app = TrioWeb()

    @app.websocket("/ws", subprotocols=["v2", "v1"], subprotocol_required=True)
    async def handler(request: Request, ws: Websocket) -> None:
        await ws.send_json(ws.subprotocol)

    async with open_client(app) as client:
        for offered in ([], ["v3"]):
            refused = await denial(client, subprotocols=offered)
            assert refused.status == 400
            assert b"v2, v1" in refused.body
        async with client.websocket("/ws", subprotocols=["v1"]) as ws:
            await ws.expect_json("v1")


async def test_a_handler_chooses_among_the_offered_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """accept(subprotocol=) may go against the route's order, not beyond the client's offer."""
    app = TrioWeb()

    @app.websocket("/ws/<name>", subprotocols=["v2"], accept="manual")
    async def handler(request: Request, ws: Websocket, name: str) -> None:
        await ws.accept(subprotocol=name)
        await ws.send_json(ws.subprotocol)

    async with open_client(app) as client:
        async with client.websocket("/ws/v1", subprotocols=["v1", "v2"]) as ws:
            await ws.expect_json("v1")
        assert (await denial(client, "/ws/v3", subprotocols=["v1", "v2"])).status == 500
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "did not offer the subprotocol 'v3'" in str(record.exc_info[1])


# Headers of the 101


async def test_the_101_carries_what_handler_and_middleware_add() -> None:
    """Two cookies stay two; response middleware sees the 101 with all of it."""
    app = TrioWeb()
    seen: list[tuple[int, str | None]] = []

    @app.on_response
    async def stamp(request: Request, response: Response) -> None:
        seen.append((response.status, response.headers.get("x-room")))
        response.headers["X-Stamp"] = "1"

    @app.websocket("/ws", accept="manual")
    async def handler(request: Request, ws: Websocket) -> None:
        await ws.accept(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Room", "7")])

    async with open_client(app) as client, client.websocket("/ws") as ws:
        assert ws.headers.getall("set-cookie") == ["a=1", "b=2"]
        assert (ws.headers["x-room"], ws.headers["x-stamp"]) == ("7", "1")
    assert seen == [(101, "7")]


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Extensions", "Content-Length"])
async def test_headers_of_the_handshake_are_not_the_handlers(name: str) -> None:
    """A ValueError at accept(), which is a 500 if nobody catches it, and no half of a 101."""
    app = TrioWeb()

    @app.websocket("/ws", accept="manual")
    async def handler(request: Request, ws: Websocket) -> None:
        await ws.accept(headers={name: "x"})

    async with open_client(app) as client:
        assert (await denial(client)).status == 500


@pytest.mark.parametrize("name", ["handler", "middleware"])
async def test_a_header_that_would_split_the_101_is_refused_before_anything_is_sent(
    name: str,
) -> None:
    """A ValueError; the WebSocket is not accepted, and the client gets a 500 and nothing else."""
    app = TrioWeb()
    seen: list[tuple[str, bool, bool]] = []
    value = "a\r\nInjected: b"

    @app.on_response
    async def stamp(request: Request, response: Response) -> None:
        if name == "middleware" and response.status == 101:
            response.headers["X"] = value

    @app.websocket("/ws", accept="manual")
    async def handler(request: Request, ws: Websocket) -> None:
        try:
            await ws.accept(headers={"X": value} if name == "handler" else None)
        except ValueError as error:
            seen.append((type(error).__name__, ws.accepted, ws.open))
            raise

    async with open_client(app) as client, client.connect() as link:
        await link.send_all(HANDSHAKE % b"/ws")
        received = b"".join([data async for data in link])
    assert seen == [("ValueError", False, False)]
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.count(b"HTTP/1.1") == 1
    assert b"Injected" not in received


# Refusals of the handler


@pytest.mark.parametrize(
    ("how", "status", "body"),
    [
        ("deny", 409, b"busy"),
        ("close", 403, b"Forbidden"),
        ("tuple", 418, b"teapot"),
        ("text", 200, b"not here"),
        ("nothing", 500, b"Internal Server Error"),
    ],
)
async def test_a_handler_may_refuse(
    how: str, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """deny, close before accept, an answer; doing neither is a mistake that a warning explains."""
    app = TrioWeb()

    @app.websocket("/ws", accept="manual")
    async def handler(request: Request, ws: Websocket) -> Any:
        if how == "deny":
            await ws.deny(409, "busy", headers={"X-Why": "full"})
        elif how == "close":
            await ws.close()
        elif how == "tuple":
            return ("teapot", 418)
        elif how == "text":
            return "not here"
        return None

    async with open_client(app) as client:
        refused = await denial(client)
    assert (refused.status, refused.body) == (status, body)
    assert refused.headers.get("x-why") == ("full" if how == "deny" else None)
    lines = warnings(caplog)
    if how == "nothing":
        (line,) = lines
        assert "handler" in line
        assert "accept()" in line
    else:
        assert lines == []


async def test_a_get_without_upgrade_is_told_what_is_here() -> None:
    """426 with the protocol's name and version, and one line of help."""
    app = TrioWeb()

    @app.websocket("/ws")
    async def handler(request: Request, ws: Websocket) -> None: ...

    async with open_client(app) as client:
        answer = await client.get("/ws")
        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
        assert "WebSocket" in answer.text
        assert "\n" not in answer.text.strip()
        handshake = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "8",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        answer = await client.get("/ws", headers=handshake)
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")


# Time


@pytest.mark.parametrize("place", ["handler", "middleware", "guard"])
async def test_who_does_not_accept_in_time_is_answered_503(
    place: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """After WEBSOCKET_TIMEOUT exactly, wherever it hangs; it is cancelled, and one line says so."""
    app = TrioWeb(config={"WEBSOCKET_TIMEOUT": 3})
    unwound: list[float] = []

    async def hang_at(here: str) -> None:
        if here == place:
            try:
                await trio.sleep_forever()
            finally:
                unwound.append(trio.current_time())

    @app.on_request
    async def middleware(request: Request) -> None:
        await hang_at("middleware")

    async def guard(request: Request) -> None:
        await hang_at("guard")

    @app.websocket("/ws", accept="manual", guards=[guard])
    async def handler(request: Request, ws: Websocket) -> None:
        await hang_at("handler")

    async with open_client(app) as client:
        began = trio.current_time()
        refused = await denial(client)
    assert refused.status == 503
    assert unwound == [began + 3]
    (line,) = warnings(caplog)
    assert "handler" in line
    assert "WEBSOCKET_TIMEOUT=3" in line


async def test_an_accepted_connection_has_no_open_timeout(autojump_clock: MockClock) -> None:
    """The deadline is the handshake's alone."""
    app = TrioWeb(config={"WEBSOCKET_TIMEOUT": 3})

    @app.websocket("/ws", accept="manual")
    async def handler(request: Request, ws: Websocket) -> None:
        await trio.sleep(2)
        await ws.accept()
        await trio.sleep(60)
        await ws.send("still here")

    async with open_client(app) as client, client.websocket("/ws") as ws:
        await trio.sleep(59)
        await ws.expect("still here")


# Shutdown


def draining_app() -> TrioWeb:
    app = TrioWeb()

    @app.websocket("/auto")
    async def auto(request: Request, ws: Websocket) -> None:
        await ws.wait_closed()

    @app.websocket("/manual", accept="manual")
    async def manual(request: Request, ws: Websocket) -> None:
        await trio.sleep_forever()

    return app


@pytest.mark.parametrize("path", [b"/auto", b"/manual"])
@pytest.mark.parametrize("sent", [1, 20, -1])
async def test_a_handshake_that_comes_while_draining_is_503(path: bytes, sent: int) -> None:
    """The head was half there when the shutdown began; the rest of it is waited for."""
    app = draining_app()
    head = HANDSHAKE % path
    async with open_client(app) as client:
        link = client.connect()
        await link.send_all(head[:sent])
        await wait_all_tasks_blocked()
        app.shutdown()
        await link.send_all(head[sent:])
        assert (await link.receive_some()).startswith(b"HTTP/1.1 503 ")


async def test_a_handshake_that_waits_when_the_drain_begins_is_503() -> None:
    """Not accepted yet: the handler is cancelled, and the client may try elsewhere."""
    app = draining_app()
    async with open_client(app) as client:
        link = client.connect()
        await link.send_all(HANDSHAKE % b"/manual")
        await wait_all_tasks_blocked()
        app.shutdown()
        assert (await link.receive_some()).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(("path", "status"), [(b"/denied", b"403"), (b"/nowhere", b"503")])
async def test_a_refusal_that_takes_too_long_is_cut_off_by_the_drain(
    path: bytes, status: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What middleware adds to it is not waited for beyond the drain's time."""
    app = TrioWeb(
        config={
            "WEBSOCKET_TIMEOUT": 50,
            "RESPONSE_TIMEOUT": 50,
            "GRACEFUL_SHUTDOWN_TIMEOUT": 3,
        }
    )

    @app.websocket("/denied", accept="manual")
    async def handler(ws: Websocket) -> None:
        await ws.deny(403)

    @app.on_response
    async def ponder(request: Request, response: Response) -> None:
        await trio.sleep_forever()

    async with open_client(app) as client:
        link = client.connect()
        await link.send_all(HANDSHAKE % path)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        app.shutdown()
        assert (await link.receive_some()).startswith(b"HTTP/1.1 %b " % status)
        assert trio.current_time() == began + 3
    cut_off = ["GET /nowhere was cut off by the shutdown"] if path == b"/nowhere" else []
    assert warnings(caplog) == cut_off


@pytest.mark.parametrize("end", ["drained", "timed out", "cancelled", "left"])
async def test_accept_while_the_handler_unwinds_is_too_late(
    end: str, autojump_clock: MockClock
) -> None:
    """In a shielded finally, say: the client gets the answer that was decided, and no 101."""
    app = TrioWeb(config={"WEBSOCKET_TIMEOUT": 10, "GRACEFUL_SHUTDOWN_TIMEOUT": 100})
    refused: list[tuple[int, bool]] = []

    @app.websocket("/ws", accept="manual")
    async def handler(request: Request, ws: Websocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
                try:
                    await ws.accept()
                except WebsocketClosed as closed:
                    refused.append((closed.code, ws.accepted))

    ours, theirs = link_pair()
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await app.serve_stream(ours)

    received = b""
    async with app.lifetime(), trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await theirs.send_all(HANDSHAKE % b"/ws")
        await trio.sleep(1)
        if end == "drained":
            app.shutdown()
        elif end == "cancelled":
            scope.cancel()
        elif end == "left":
            await theirs.aclose()
        if end != "left":
            received = b"".join([data async for data in theirs])
    assert refused == [(1006, False)]
    if end in ("drained", "timed out"):
        assert received.startswith(b"HTTP/1.1 503 ")
        assert received.count(b"HTTP/1.1") == 1
    else:
        assert received == b""  # nobody is there, or nobody may wait any more


async def test_a_client_that_leaves_while_it_is_denied_is_closed(
    autojump_clock: MockClock,
) -> None:
    """In the very turn in which the stream is handed back for the answer."""
    app = TrioWeb()
    decided = trio.Event()

    @app.websocket("/ws", accept="manual")
    async def handler(ws: Websocket) -> None:
        await decided.wait()
        await ws.deny()

    async with open_client(app) as client:
        for _ in range(20):  # tasks have their turns in any order
            decided = trio.Event()
            link = client.connect()

            async def leave(link: Link = link, decided: trio.Event = decided) -> None:
                await decided.wait()
                await link.send_eof()

            async with trio.open_nursery() as nursery:
                await link.send_all(HANDSHAKE % b"/ws")
                await wait_all_tasks_blocked()
                nursery.start_soon(leave)
                await wait_all_tasks_blocked()
                decided.set()
                with trio.fail_after(5):
                    while await link.receive_some():
                        pass
            await wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                link.other.try_receive(1)


async def test_a_refusal_at_the_drains_end_waits_for_nobody(autojump_clock: MockClock) -> None:
    """Its last words are said, and its client has no second more to leave."""
    app = TrioWeb(config={"GRACEFUL_SHUTDOWN_TIMEOUT": 2})

    @app.on_request
    async def think(request: Request) -> None:
        await trio.sleep(100)

    async with app.lifetime():
        client, server = link_pair()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.serve_stream, server)
            await client.send_all(HANDSHAKE % b"/nowhere")
            await wait_all_tasks_blocked()
            app.shutdown()
        assert trio.current_time() - began == 2
        assert (await client.receive_some()).startswith(b"HTTP/1.1 503 ")

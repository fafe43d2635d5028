"""What a route sets for itself holds on that route, and the config's on its neighbour."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.app.conftest import HANDSHAKE
from trioweb import Include, TrioWeb, WebsocketClosed, websocket
from trioweb.testing import Link, open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from trioweb.testing.client import Client
    from trioweb.types import Handler

    Make = Callable[..., TrioWeb]


def by_decorator(handler: Handler, config: dict[str, Any], **options: Any) -> TrioWeb:
    app = TrioWeb(config=config)
    app.websocket("/own", name="own", **options)(handler)
    app.websocket("/plain")(handler)
    return app


def by_call(handler: Handler, config: dict[str, Any], **options: Any) -> TrioWeb:
    app = TrioWeb(config=config)
    app.add_websocket_route(handler, "/own", name="own", **options)
    app.add_websocket_route(handler, "/plain")
    return app


def by_include(handler: Handler, config: dict[str, Any], **options: Any) -> TrioWeb:
    websocket("/own", name="own", accept="auto", **options)(handler)
    websocket("/plain", accept="auto")(handler)
    return TrioWeb(routes=[Include("/", [handler])], config=config)


@pytest.fixture(params=[by_decorator, by_call, by_include])
def make(request: pytest.FixtureRequest) -> Make:
    """Register a handler twice: on /own with the options, on /plain without."""
    made: Make = request.param
    return made


async def echo(request: Any, ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.parametrize(("of_config", "of_route"), [(1000, 100), (100, 1000)])
async def test_max_size(make: Make, of_config: int, of_route: int) -> None:
    """Tighter and wider: 1009 beyond a bound, an echo below it."""

    async def handler(request: Any, ws: Any) -> None:
        await echo(request, ws)

    app = make(handler, {"WEBSOCKET_MAX_SIZE": of_config}, max_size=of_route)
    async with open_client(app) as client:
        for path, bound in (("/own", of_route), ("/plain", of_config)):
            async with client.websocket(path) as ws:
                await ws.send(b"x" * bound)
                await ws.expect(b"x" * bound)
                await ws.send(b"x" * (bound + 1))
                await ws.expect_close(1009)


async def test_max_queue(make: Make, autojump_clock: MockClock) -> None:
    """How many messages a client can send to a handler that takes none."""

    async def handler(request: Any, ws: Any) -> None:
        await trio.sleep(60)

    async def count_taken(client: Client, path: str) -> int:
        taken = 0
        # Messages as large as one read: what waits behind the bound is one or two of them.
        async with client.websocket(path) as ws:
            with trio.move_on_after(1):
                while taken < 100:
                    await ws.send(bytes(60 * 1024))
                    taken += 1
            ws.abort()
        return taken

    app = make(handler, {"WEBSOCKET_MAX_QUEUE": 20}, max_queue=2)
    async with open_client(app, link=Link(buffer=1024)) as client:
        assert 2 <= await count_taken(client, "/own") <= 5
        assert 20 <= await count_taken(client, "/plain") <= 23


@pytest.mark.parametrize(
    ("of_config", "of_route", "seconds"), [(20, 1, 3.0), (None, 1, 3.0), (1, None, None)]
)
async def test_ping_interval(
    make: Make,
    of_config: float | None,
    of_route: float | None,
    seconds: float | None,
    autojump_clock: MockClock,
) -> None:
    """A silent peer is found after the route's interval and the timeout; None never asks."""
    ended: list[float] = []

    async def handler(request: Any, ws: Any) -> None:
        began = trio.current_time()
        await ws.wait_closed()
        ended.append(trio.current_time() - began)

    config = {"WEBSOCKET_PING_INTERVAL": of_config, "WEBSOCKET_PING_TIMEOUT": 2}
    app = make(handler, config, ping_interval=of_route)
    async with open_client(app) as client, client.websocket("/own") as ws:
        ws.stall()
        await trio.sleep(3600)
        assert ended == ([] if seconds is None else [seconds])


@pytest.mark.parametrize(
    ("of_config", "of_route", "seconds"), [(5, 2, 2.0), (5, 0, 0.0), (0, 30, 30.0), (1, None, None)]
)
async def test_disconnect_grace(
    make: Make,
    of_config: float,
    of_route: float | None,
    seconds: float | None,
    autojump_clock: MockClock,
) -> None:
    """How long a handler that only sleeps outlives its client."""
    ended: dict[str, float] = {}

    async def handler(request: Any, ws: Any) -> None:
        try:
            await trio.sleep(3600)
        finally:
            ended[request.path] = trio.current_time()

    config = {"WEBSOCKET_DISCONNECT_GRACE": of_config}
    async with open_client(make(handler, config, disconnect_grace=of_route)) as client:
        for path in ("/own", "/plain"):
            began = trio.current_time()
            async with client.websocket(path) as ws:
                await ws.close()
                await trio.sleep(3000)
                if path == "/plain":
                    assert ended["/plain"] - began == of_config
                elif seconds is None:
                    assert ended == {}
                else:
                    assert ended["/own"] - began == seconds
    assert set(ended) == {"/own", "/plain"}


@pytest.mark.parametrize(
    ("of_config", "of_route"), [(None, (2, 10)), ((100, 10), (2, 10)), ((2, 10), (100, 10))]
)
async def test_rate_limit(
    make: Make,
    of_config: tuple[int, float] | None,
    of_route: tuple[int, float],
    autojump_clock: MockClock,
) -> None:
    """1008 for the message above a limit; none of those below is lost."""

    async def handler(request: Any, ws: Any) -> None:
        await echo(request, ws)

    async def count_echoed(client: Client, path: str) -> tuple[int, int]:
        """How many of ten messages came back, and the close code, 1000 when we closed."""
        echoed = 0
        async with client.websocket(path) as ws:
            try:
                for number in range(10):
                    await ws.send(str(number))
                    assert await ws.recv() == str(number)
                    echoed += 1
            except WebsocketClosed as closed:
                return echoed, closed.code
        return echoed, 1000

    app = make(handler, {"WEBSOCKET_RATE_LIMIT": of_config}, rate_limit=of_route)
    async with open_client(app) as client:
        for path, limit in (("/own", of_route), ("/plain", of_config)):
            wanted = (2, 1008) if limit == (2, 10) else (10, 1000)
            assert await count_echoed(client, path) == wanted


async def test_rate_limit_none_turns_it_off(make: Make) -> None:
    """None on the route is a value, and not the config's."""

    async def handler(request: Any, ws: Any) -> None:
        await echo(request, ws)

    app = make(handler, {"WEBSOCKET_RATE_LIMIT": (1, 60)}, rate_limit=None)
    async with open_client(app) as client, client.websocket("/own") as ws:
        for number in range(5):
            await ws.send(str(number))
            await ws.expect(str(number))


async def test_stream(make: Make, autojump_clock: MockClock) -> None:
    """On its own route a message comes in parts, and recv is refused."""
    firsts: list[object] = []

    async def handler(request: Any, ws: Any) -> None:
        if request.path == "/own":
            with pytest.raises(RuntimeError, match="stream=True"):
                await ws.recv(timeout=0)
            size = 0
            async for part in ws.recv_streaming():
                firsts.append(part)
                size += len(part)
            await ws.send_json(size)
        else:
            await ws.send_json(len(await ws.recv()))

    app = make(handler, {}, stream=True)
    async with open_client(app) as client:
        for path in ("/own", "/plain"):
            async with client.websocket(path) as ws:
                await ws.send(bytes(300_000))
                await ws.expect_json(300_000)
    assert len(firsts) > 1


OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"


@pytest.mark.parametrize(
    ("of_config", "of_route"),
    [("deflate", None), (None, "deflate"), ("deflate", "deflate-context")],
)
async def test_compression(make: Make, of_config: str | None, of_route: str | None) -> None:
    """The answer to the same offer shows the route's mode, and the config's on its neighbour."""

    async def handler(request: Any, ws: Any) -> None: ...

    async def read_extensions(client: Client, path: str) -> str | None:
        async with client.connect() as link:  # the kit's WebSockets offer no extension
            await link.send_all((HANDSHAKE % path.encode()).removesuffix(b"\r\n") + OFFER)
            head = (await link.receive_some()).decode("latin-1")
        assert head.startswith("HTTP/1.1 101 "), head
        found = re.search("(?i)\r\nsec-websocket-extensions: (.*)\r\n", head)
        return None if found is None else found[1]

    app = make(handler, {"WEBSOCKET_COMPRESSION": of_config}, compression=of_route)
    async with open_client(app) as client:
        for path, mode in (("/own", of_route), ("/plain", of_config)):
            answer = await read_extensions(client, path)
            if mode is None:
                assert answer is None
            else:
                assert answer is not None
                assert answer.startswith("permessage-deflate")
                assert ("server_no_context_takeover" in answer) == (mode == "deflate")

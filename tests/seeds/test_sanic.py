"""The programs of the first seed document behave as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio.testing

from trioweb.testing import open_client

if TYPE_CHECKING:
    from tests.seeds.conftest import LoadSeed
    from trioweb import TrioWeb


async def test_handler_ends_after_one_message(load_seed: LoadSeed) -> None:
    """``send`` then ``recv``; when the handler returns the connection closes with 1000."""
    seed = load_seed("sanic_routes")
    async with open_client(seed.app) as client, client.websocket("/ws") as ws:
        await ws.expect("Hello WebSocket!")
        await ws.send("hello server")
        await ws.expect_close(1000)
    assert seed.received == ["hello server"]


async def test_added_route_is_served(load_seed: LoadSeed) -> None:
    """``add_websocket_route`` does what the decorator does."""
    app: TrioWeb = load_seed("sanic_routes").app
    async with open_client(app) as client, client.websocket("/added") as ws:
        await ws.expect("added at /added")
        await ws.expect_close(1000)
    assert app.url_for("added") == "/added"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["notification"], "notification"), (["notification", "chat"], "chat")],
)
async def test_first_of_the_servers_subprotocols_wins(
    load_seed: LoadSeed, offered: list[str], chosen: str
) -> None:
    """The server selects the first that it supports, whatever the client's order."""
    app = load_seed("sanic_routes").app
    async with (
        open_client(app) as client,
        client.websocket("/ws/subprotocols", subprotocols=offered) as ws,
    ):
        await ws.expect(f"{chosen} spoken here")


async def test_no_common_subprotocol_is_for_the_handler(load_seed: LoadSeed) -> None:
    """With none in common the connection opens with None and the example closes with 1002."""
    app = load_seed("sanic_routes").app
    async with (
        open_client(app) as client,
        client.websocket("/ws/subprotocols", subprotocols=["mail"]) as ws,
    ):
        await ws.expect_close(1002)


async def test_authentication_reads_the_handshake(load_seed: LoadSeed) -> None:
    """A good header is let in, a bad or missing one is closed with 1008."""
    app = load_seed("sanic_routes").app
    path = "/ws/authenticated"
    async with open_client(app) as client:
        async with client.websocket(path) as ws:
            await ws.expect_close(1008)
        async with client.websocket(path, headers={"Authorization": "Bearer bad"}) as ws:
            await ws.expect_close(1008)
        async with client.websocket(path, headers={"Authorization": "Bearer valid"}) as ws:
            await ws.expect("hello Ada")


async def test_echo_and_its_page(load_seed: LoadSeed) -> None:
    """The echo server welcomes, echoes, and serves its page on the same port."""
    app = load_seed("sanic_echo").app
    async with open_client(app) as client:
        async with client.websocket("/ws") as ws:
            await ws.expect("Welcome to WebSocket echo server!")
            await ws.send("one")
            await ws.expect("Echo: one")
        page = await client.get("/")
        assert page.status == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "<title>WebSocket Test</title>" in page.text


async def test_chat_room_tells_joins_messages_and_leaves(load_seed: LoadSeed) -> None:
    """Members of one room hear each other; another room hears nothing of it."""
    seed = load_seed("sanic_chat")
    async with open_client(seed.app) as client, client.websocket("/ws/chat/tea") as ada:
        welcome = {"type": "system", "message": "Welcome to chat room tea", "room": "tea"}
        await ada.expect_json(welcome)
        async with client.websocket("/ws/chat/tea") as bob:
            await bob.expect_json(welcome)
            await ada.expect_json(like={"type": "user_joined"})
            await bob.send_json({"type": "chat", "message": "hi", "user": "Bob"})
            said = {"type": "chat", "message": "hi", "user": "Bob", "room": "tea"}
            await ada.expect_json(said)
            await bob.expect_json(said)
            await bob.send("{not json")
            await bob.expect_json({"type": "error", "message": "Invalid JSON format"})

            async with client.websocket("/ws/chat/other") as other:
                await other.expect_json(like={"room": "other"})
                rooms = (await client.get("/api/rooms")).json()
                assert rooms == {"rooms": ["tea", "other"], "total_clients": 3}
            bob.abort()
            await ada.expect_json(like={"type": "user_left"})
    assert seed.chat_rooms == {}
    assert seed.connected_clients == set()


async def test_stream_pushes_each_second_and_answers(
    load_seed: LoadSeed, autojump_clock: trio.testing.MockClock
) -> None:
    """Data comes once a second while the client is answered in between."""
    app = load_seed("sanic_stream").app
    async with open_client(app) as client, client.websocket("/ws/data-stream") as ws:
        await ws.expect_json(like={"type": "connected"})
        await ws.expect_json(like={"type": "data"})
        start = trio.current_time()
        await ws.send_json({"type": "ping"})
        await ws.expect_json(like={"type": "pong"})
        await ws.send_json({"type": "subscribe", "sensor_id": "s7"})
        await ws.expect_json(
            {"type": "subscribed", "sensor_id": "s7", "message": "Subscribed to s7"}
        )
        await ws.send("nonsense")
        await ws.expect_json({"type": "error", "message": "Invalid message format"})
        for _ in range(3):
            await ws.expect_json(like={"sensor_id": "sensor_001"})
        assert 2 < trio.current_time() - start <= 3


async def test_stream_ends_with_its_client(
    load_seed: LoadSeed, autojump_clock: trio.testing.MockClock
) -> None:
    """When the client has closed, the reading half ends and wait_any cancels the pushing one."""
    app = load_seed("sanic_stream").app
    async with open_client(app) as client:
        start = trio.current_time()
        async with client.websocket("/ws/data-stream") as ws:
            await ws.expect_json(like={"type": "connected"})
        assert trio.current_time() - start < 1


async def test_secure_refuses_without_a_good_token(load_seed: LoadSeed) -> None:
    """No token and a bad token are closed with 1008."""
    app = load_seed("sanic_secure").app
    async with open_client(app) as client:
        async with client.websocket("/ws/secure") as ws:
            await ws.expect_close(1008)
        async with client.websocket("/ws/secure?token=bad") as ws:
            await ws.expect_close(1008)


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/ws/secure?token=valid_token", {}), ("/ws/secure", {"Authorization": "valid_token"})],
)
async def test_secure_echoes_until_the_limit(
    load_seed: LoadSeed, path: str, headers: dict[str, str]
) -> None:
    """Ten messages pass, the eleventh is refused without closing; the end forgets the count."""
    seed = load_seed("sanic_secure")
    async with open_client(seed.app) as client:
        async with client.websocket(path, headers=headers) as ws:
            await ws.expect_json(like={"user": "testuser"})
            await ws.send("{")
            await ws.expect_json({"type": "error", "message": "Invalid JSON format"})
            for number in range(9):
                await ws.send_json({"message": f"m{number}"})
                await ws.expect_json(like={"type": "message", "message": f"m{number}"})
            await ws.send_json({"message": "too much"})
            await ws.expect_json(
                {"type": "error", "message": "Rate limit exceeded. Please slow down."}
            )
        assert seed.client_requests == {}

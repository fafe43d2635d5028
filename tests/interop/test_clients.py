"""Clients that we didn't write, over TCP: what both sides see, and what was on the wire."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from tests.interop.app import MAX_SIZE
from trioweb.testing import Opcode

if TYPE_CHECKING:
    from tests.interop.conftest import Serve

# "trio" is trio-websocket.
CLIENTS = ["websockets", "aiohttp", "ws", "trio"]

UNICODE = "h\u00e9 \u4f60\u597d \U0001f98a\u200d\U0001f5a5 \x00 \ufeff \uffff"
MESSAGES: list[str | bytes] = [
    "hello",
    b"\x00\x01\xfe\xff",
    "",
    b"",
    UNICODE,
    "x" * 125,
    "x" * 126,
    b"\xaa" * 65535,
    UNICODE * 4000,
    bytes(range(256)) * 256,
    "x" * MAX_SIZE,
    random.Random(1).randbytes(MAX_SIZE),
    "and on",
]

pytestmark = pytest.mark.parametrize("client", CLIENTS)


async def test_messages_come_back_as_they_were_sent(serve: Serve) -> None:
    """Text and binary, empty, of each length of header, and as large as is allowed."""
    async with serve() as serving, serving.open("/echo") as peer:
        for message in MESSAGES:
            await peer.send(message)
            assert await peer.recv() == message


async def test_a_burst_of_messages_keeps_its_order(serve: Serve) -> None:
    async with serve() as serving, serving.open("/echo") as peer:
        for number in range(100):
            await peer.send(f"message {number}")
        assert [await peer.recv() for _ in range(100)] == [f"message {n}" for n in range(100)]


async def test_the_server_answers_pings(serve: Serve) -> None:
    async with serve() as serving, serving.open("/echo") as peer:
        await peer.ping("hello?")
        await peer.send("after it")
        assert await peer.recv() == "after it"
        pongs = [one for one in peer.wire.server.frames() if one.opcode == Opcode.PONG]
        assert [one.payload for one in pongs] == [b"hello?"]


async def test_the_client_answers_the_servers_pings(serve: Serve) -> None:
    """The server's message comes when its ping has been answered."""
    async with serve() as serving, serving.open("/ping") as peer:
        await peer.send("answer me")
        assert await peer.recv() == "answer me"
        assert [one.payload for one in peer.wire.server.frames() if one.opcode == Opcode.PING] == [
            one.payload for one in peer.wire.client.frames() if one.opcode == Opcode.PONG
        ]


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (3000, "bye"), (4999, "tsch\u00fc\u00df")]
)
async def test_the_client_closes(serve: Serve, code: int, reason: str) -> None:
    """The server hears code and reason, and the client gets its own code back."""
    async with serve() as serving, serving.open("/echo") as peer:
        assert (await peer.close(code, reason))[0] == code
        await serving.become_idle()
        assert serving.app.ctx.ends == [(code, reason, "peer", True)]
        closes = [one for one in peer.wire.server.frames() if one.opcode == Opcode.CLOSE]
        assert [one.close_code for one in closes] == [code]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1013, ""), (4999, "tsch\u00fc\u00df")])
async def test_the_server_closes(serve: Serve, code: int, reason: str) -> None:
    """The client hears code and reason, and the close is clean."""
    async with serve() as serving:
        async with serving.open("/close") as peer:
            await peer.send(json.dumps({"code": code, "reason": reason}))
            assert await peer.recv_close() == (code, reason)
        await serving.become_idle()
        assert serving.app.ctx.ends == [(code, reason, "us", True)]


async def test_a_crash_is_an_internal_error(serve: Serve) -> None:
    async with serve() as serving, serving.open("/crash") as peer:
        await peer.send("crash")
        code, reason = await peer.recv_close()
        assert code == 1011
        assert "on purpose" not in reason


async def test_a_drain_is_going_away(serve: Serve) -> None:
    async with serve() as serving, serving.open("/echo") as peer:
        serving.app.shutdown()
        assert (await peer.recv_close())[0] == 1001


async def test_a_message_over_the_limit_is_too_big(serve: Serve) -> None:
    async with serve() as serving, serving.open("/echo") as peer:
        await peer.send(b"\x00" * (MAX_SIZE + 1))
        assert (await peer.recv_close())[0] == 1009


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["chat.v1", "chat.v2"], "chat.v2"), (["chat.v1"], "chat.v1"), ([], None)],
)
async def test_the_servers_favourite_subprotocol_is_agreed_on(
    serve: Serve, offered: list[str], chosen: str | None
) -> None:
    """Both sides hold the same one; a client that offers none gets none."""
    async with (
        serve() as serving,
        serving.open("/subprotocol", subprotocols=offered) as peer,
    ):
        assert json.loads(await peer.recv()) == {"subprotocol": chosen}
        assert peer.subprotocol == chosen


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/forbidden", 403)])
async def test_a_refused_handshake_says_why(serve: Serve, path: str, status: int) -> None:
    async with serve() as serving:
        assert await serving.refused(path) == status

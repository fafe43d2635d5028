"""Fragmented messages both ways, and streams, with clients that we didn't write."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

import pytest

from tests.interop.app import STREAM_SIZE
from tests.interop.test_clients import CLIENTS, MESSAGES, UNICODE
from tests.interop.wire import RSV1

if TYPE_CHECKING:
    from tests.interop.conftest import Serve

# Client, what it offers, WEBSOCKET_COMPRESSION.
CONNECTIONS = [
    *((client, "off", None) for client in CLIENTS),
    *(
        (client, "default", compression)
        for client in CLIENTS
        for compression in ("deflate", "deflate-context")
        if client != "trio"  # has no compression
    ),
]

# The others can't send a message in fragments.
SENDS_FRAGMENTS = ["websockets", "ws"]

each_connection = pytest.mark.parametrize(("client", "deflate", "compression"), CONNECTIONS)


@each_connection
async def test_a_message_in_fragments_arrives_whole(
    serve: Serve, deflate: str, compression: str | None
) -> None:
    """Each message, also an empty one, is one message to the client; the wire has fragments."""
    async with (
        serve(compression) as serving,
        serving.open("/fragments", deflate=deflate) as peer,
    ):
        for message in MESSAGES:
            await peer.send(message)
            assert await peer.recv() == message
        frames = peer.wire.server.data_frames()
        assert [one.fin for one in frames].count(True) == len(MESSAGES)
        assert len(frames) > 2 * len(MESSAGES)
        # A message is compressed or not as a whole, which its first frame says.
        starts = [one for one in frames if one.opcode]
        assert len(starts) == len(MESSAGES)
        assert any(one.rsv == RSV1 for one in starts) == (compression is not None)
        assert not any(one.rsv for one in frames if not one.opcode)


@pytest.mark.parametrize("client", SENDS_FRAGMENTS)
async def test_a_client_in_fragments_is_understood(serve: Serve) -> None:
    """Fragments that split a message anywhere, also empty ones, are one message."""
    async with serve() as serving, serving.open("/echo") as peer:
        await peer.send_fragments("one ", "", "two ", UNICODE)
        assert await peer.recv() == f"one two {UNICODE}"
        await peer.send_fragments(b"\x01", b"\x02" * 65536, b"")
        assert await peer.recv() == b"\x01" + b"\x02" * 65536
        fragments = peer.wire.client.data_frames()
        assert [one.fin for one in fragments].count(False) >= 5


@each_connection
async def test_a_large_message_is_streamed(
    serve: Serve, deflate: str, compression: str | None
) -> None:
    """The handler gets parts of a message that is larger than it would hold; then another one."""
    noise = random.Random(3).randbytes(STREAM_SIZE // 2)
    async with (
        serve(compression) as serving,
        serving.open("/stream", deflate=deflate) as peer,
    ):
        for message in (noise, UNICODE * 50_000, "x" * STREAM_SIZE):
            await peer.send(message)
            data = message.encode() if isinstance(message, str) else message
            answer = json.loads(await peer.recv())
            assert answer["digest"] == hashlib.sha256(data).hexdigest()
            assert answer["longest"] < len(data) // 2

"""permessage-deflate with clients that we didn't write; the wire tells what really happened."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.interop.app import MAX_SIZE
from tests.interop.test_clients import CLIENTS, MESSAGES, UNICODE
from tests.interop.test_streams import SENDS_FRAGMENTS
from tests.interop.wire import RSV1

if TYPE_CHECKING:
    from tests.interop.conftest import Peer, Serve
    from tests.interop.wire import Direction

# aiohttp can't ask for no context takeover, trio-websocket has no compression.
OFFERS = [
    ("websockets", "default"),
    ("websockets", "no-takeover"),
    ("websockets", "small-windows"),
    ("ws", "default"),
    ("ws", "no-takeover"),
    ("ws", "small-windows"),
    ("aiohttp", "default"),
    ("aiohttp", "small-windows"),
]
COMPRESSIONS = ["deflate", "deflate-context"]

each_offer = pytest.mark.parametrize(("client", "deflate"), OFFERS)
each_compression = pytest.mark.parametrize("compression", COMPRESSIONS)


def answer(peer: Peer) -> set[str]:
    """The parameters of the extension that the server has answered with."""
    extensions = peer.wire.server.header("Sec-WebSocket-Extensions")
    assert extensions is not None
    name, *parameters = (part.strip() for part in extensions.split(";"))
    assert name == "permessage-deflate"
    assert len(set(parameters)) == len(parameters)
    return set(parameters)


def sizes(direction: Direction) -> list[tuple[bool, int]]:
    """Each message as it was on the wire: whether it was compressed, and its bytes."""
    messages: list[tuple[bool, int]] = []
    is_first = True
    for frame in direction.data_frames():
        if is_first:
            messages.append((frame.rsv == RSV1, 0))
        assert is_first or not frame.rsv
        compressed, size = messages[-1]
        messages[-1] = compressed, size + len(frame.payload)
        is_first = frame.fin
    return messages


@each_compression
@each_offer
async def test_compressed_messages_come_back_as_they_were_sent(
    serve: Serve, deflate: str, compression: str
) -> None:
    """What can be compressed is, both ways; what is small or random comes back as well."""
    async with (
        serve(compression) as serving,
        serving.open("/echo", deflate=deflate) as peer,
    ):
        for message in MESSAGES:
            await peer.send(message)
            assert await peer.recv() == message
        answer(peer)
        long = MESSAGES.index("x" * MAX_SIZE)
        for direction in (peer.wire.client, peer.wire.server):
            compressed, size = sizes(direction)[long]
            assert compressed
            assert size < MAX_SIZE // 100


@each_compression
@each_offer
async def test_the_answer_is_what_the_config_says(
    serve: Serve, deflate: str, compression: str
) -> None:
    """No context takeover unless it is configured and wanted; windows no larger than asked for."""
    async with (
        serve(compression) as serving,
        serving.open("/echo", deflate=deflate) as peer,
    ):
        parameters = answer(peer)
    no_takeover = {"server_no_context_takeover", "client_no_context_takeover"}
    if compression == "deflate" or deflate == "no-takeover":
        assert no_takeover <= parameters
    else:
        assert not no_takeover & parameters
    if deflate == "small-windows":
        assert "server_max_window_bits=10" in parameters


@each_compression
@pytest.mark.parametrize(
    ("client", "deflate"), [offer for offer in OFFERS if offer[1] != "small-windows"]
)
async def test_context_is_taken_over_when_that_was_agreed_on(
    serve: Serve, deflate: str, compression: str
) -> None:
    """A random message shrinks when it is sent again, and only where there is a context."""
    takeover = (deflate, compression) == ("default", "deflate-context")
    noise = random.Random(2).randbytes(1500)
    async with (
        serve(compression) as serving,
        serving.open("/echo", deflate=deflate) as peer,
    ):
        for _ in range(3):
            await peer.send(noise)
            assert await peer.recv() == noise
        for direction in (peer.wire.client, peer.wire.server):
            first, *again = (size for _, size in sizes(direction))
            assert first >= 1500
            assert all(size < 100 if takeover else size >= 1500 for size in again)


@each_compression
@each_offer
async def test_small_messages_go_plain(serve: Serve, deflate: str, compression: str) -> None:
    """Below the threshold the server does not compress, within a context too."""
    async with (
        serve(compression) as serving,
        serving.open("/echo", deflate=deflate) as peer,
    ):
        for message in ("x" * 2000, "x" * 100, "x" * 2000):
            await peer.send(message)
            assert await peer.recv() == message
        assert [compressed for compressed, _ in sizes(peer.wire.server)] == [True, False, True]


@each_compression
@pytest.mark.parametrize(
    ("client", "deflate"), [offer for offer in OFFERS if offer[0] in SENDS_FRAGMENTS]
)
async def test_a_compressed_message_in_fragments_is_understood(
    serve: Serve, deflate: str, compression: str
) -> None:
    text = UNICODE * 500
    async with (
        serve(compression) as serving,
        serving.open("/echo", deflate=deflate) as peer,
    ):
        for _ in range(2):
            await peer.send_fragments(text, "", text)
            assert await peer.recv() == text + text
        assert [compressed for compressed, _ in sizes(peer.wire.client)] == [True, True]
        assert [one.fin for one in peer.wire.client.data_frames()].count(False) >= 4


@each_compression
@each_offer
async def test_the_limit_holds_for_what_is_inflated(
    serve: Serve, deflate: str, compression: str
) -> None:
    """A message that is small on the wire and too large behind it is too big."""
    async with (
        serve(compression) as serving,
        serving.open("/echo", deflate=deflate) as peer,
    ):
        await peer.send(b"\x00" * (MAX_SIZE + 1))
        assert (await peer.recv_close())[0] == 1009
        ((compressed, size),) = sizes(peer.wire.client)
        assert compressed
        assert size < MAX_SIZE // 100


@each_compression
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_without_compression_is_served_without(
    serve: Serve, compression: str
) -> None:
    async with serve(compression) as serving, serving.open("/echo") as peer:
        await peer.send("x" * 100_000)
        assert await peer.recv() == "x" * 100_000
        assert peer.wire.server.header("Sec-WebSocket-Extensions") is None
        assert sizes(peer.wire.server) == [(False, 100_000)]


@each_offer
async def test_a_server_without_compression_declines_it(serve: Serve, deflate: str) -> None:
    async with serve() as serving, serving.open("/echo", deflate=deflate) as peer:
        await peer.send("x" * 100_000)
        assert await peer.recv() == "x" * 100_000
        assert peer.wire.client.header("Sec-WebSocket-Extensions") is not None
        assert peer.wire.server.header("Sec-WebSocket-Extensions") is None
        assert sizes(peer.wire.client) == sizes(peer.wire.server) == [(False, 100_000)]

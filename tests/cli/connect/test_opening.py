"""What a server answers to the handshake, and how that is told."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from trioweb.cli.connect.address import parse_address
from trioweb.cli.connect.opening import CannotConnect, explain, make_tls, shake_hands
from trioweb.ws.handshake import accept_key

# The beginning of an answer that upgrades.
UPGRADE = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


ACCEPTED = UPGRADE + b"Sec-WebSocket-Accept: %s\r\n\r\n"


async def answer_handshake(stream: trio.abc.Stream, answer: bytes) -> None:
    """Read a handshake and answer it; ``%s`` becomes what proves that its key was read."""
    request = bytes(await stream.receive_some())
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
    assert found is not None
    await stream.send_all(answer.replace(b"%s", accept_key(found[1].decode()).encode()))


async def fail_handshake(answer: bytes) -> str:
    """What is told of an answer after which the server leaves."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await answer_handshake(theirs, answer)
        await theirs.send_eof()

    async def meet() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await shake_hands(nursery, ours, parse_address("ws://a/"))

    with pytest.raises(ExceptionGroup) as caught:
        await meet()
    return explain(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the server left without an answer to the handshake"),
        (
            b"SSH-2.0-OpenSSH_9\r\n",
            r"the server doesn't speak HTTP, it said b'SSH-2.0-OpenSSH_9\r\n'",
        ),
        (
            b"HTTP/1.1 101 Swi",
            "the server left in the middle of its answer: b'HTTP/1.1 101 Swi'",
        ),
        (
            b"HTTP/1.1 403 No\r\n\r\ngo \x1b[1maway",
            "the server answered 403 Forbidden\ngo \\x1b[1maway",
        ),
        (
            b"HTTP/1.0 302 Found\r\nLocation: /the\x1bre\r\nContent-Length: 0\r\n\r\n",
            "the server answered 302 Found, go to /the\\x1bre",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "the server answered 204 No Content"),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 X\r\n\r\ngone",
            "the server answered 404 Not Found\ngone",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\n\r\n",
            "the server left without an answer to the handshake",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\n",
            "the server left in the middle of its answer: b'HTTP/1.1 103 Early Hints\\r\\n'",
        ),
        (b"HTTP/1.1 4", "the server left in the middle of its answer: b'HTTP/1.1 4'"),
        (b"HTTP/1.1 699 X\r\nContent-Length: 2\r\n\r\nhi", "the server answered 699\nhi"),
        (
            b"HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\ncut short",
            "the server answered 503 Service Unavailable\ncut short",
        ),
        (
            b"HTTP/1.1 400 X\r\n\r\n" + b"line\n\n" * 9,
            "the server answered 400 Bad Request" + "\nline" * 5 + "\n…",
        ),
    ],
)
async def test_refusal_is_told(answer: bytes, said: str) -> None:
    """Its status and first lines, whether its body is whole or not."""
    assert await fail_handshake(answer) == said


async def test_endless_refusal_is_not_read_to_its_end() -> None:
    """A body that goes on is cut, while the server still sends."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    await theirs.send_all(b"ffffff\r\n" + b"x" * 100_000)
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await shake_hands(nursery, ours, parse_address("ws://a/"))
    said = explain(caught.value)
    assert said.startswith("the server answered 500 Internal Server Error\n")
    assert len(said) < 300


async def test_interim_answers_are_no_refusal() -> None:
    """RFC 9110 §15.2: a client has to be able to take them, asked for or not."""
    ours, theirs = trio.testing.memory_stream_pair()
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_handshake, theirs, interim + ACCEPTED + b"\x81\x02hi")
        connection, _ = await shake_hands(nursery, ours, parse_address("ws://a/"))
        assert await connection.get_message() == "hi"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 101 Switching\r\n\r\n", "Missing header, 'Connection: Upgrade'"),
        (
            b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n\r\n",
            "Missing header, 'Upgrade: websocket'",
        ),
        (UPGRADE + b"Sec-WebSocket-Accept: wrong\r\n\r\n", "Bad accept token"),
        (
            UPGRADE + b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Extensions: zip\r\n\r\n",
            "unrecognized extension zip",
        ),
        (
            UPGRADE + b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            "unrecognized subprotocol chat",
        ),
        (UPGRADE + b"X: x\r\n" * 10_000, "Receive buffer too long"),
        (
            b"HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
            "illegal header line: bytearray(b'broken header')",
        ),
        (b"HTTP/9 1\r\n\r\n", "illegal status line: bytearray(b'HTTP/9 1')"),
        (
            b"HTTP/1.1 401 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "illegal chunk header: bytearray(b'zz\\r\\n')",
        ),
    ],
)
async def test_cause_of_a_wrong_answer_is_told(answer: bytes, cause: str) -> None:
    """What breaks RFC 6455 §4.1 or RFC 9112, and not what our side can't do about it."""
    said = await fail_handshake(answer)
    assert said == f"the answer to the handshake is not as it must be ({cause})"


async def test_certificates_from_nowhere() -> None:
    """The file is named."""
    with pytest.raises(CannotConnect, match=r"can't read /nowhere/x\.pem: No such file"):
        make_tls("/nowhere/x.pem", insecure=False)

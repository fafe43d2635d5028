"""What is no request, no frame or no end of either: an answer or a close in time, and one log line.

Real time and real sockets; the timeouts are made short.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trioweb.app import TrioWeb

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.app.conftest import Serving

    Serve = Callable[[TrioWeb], AbstractAsyncContextManager[Serving]]
    TakeLog = Callable[[], list[logging.LogRecord]]

# Every timeout of a request and of a WebSocket here; and how late an end may be beyond them.
TIMEOUT = 0.2
# The drain behind an answer (DESIGN invariant 6), and a slow machine.
SLACK = 1.5

# A ClientHello as OpenSSL begins it: record header, handshake header, version, random, lengths.
TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(range(256)) * 2
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture
async def serving(serve: Serve) -> AsyncIterator[Serving]:
    """An application with short timeouts that echoes, on / and /ws."""
    app = TrioWeb(
        config={
            "REQUEST_TIMEOUT": TIMEOUT,
            "KEEP_ALIVE_TIMEOUT": TIMEOUT,
            "WEBSOCKET_PING_INTERVAL": TIMEOUT / 2,
            "WEBSOCKET_PING_TIMEOUT": TIMEOUT / 2,
            "WEBSOCKET_TIMEOUT": TIMEOUT,
            "WEBSOCKET_DISCONNECT_GRACE": TIMEOUT,
        }
    )

    @app.websocket("/ws")
    async def echo(request: Any, ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    @app.route("/", methods=["GET", "POST"])
    async def index(request: Any) -> str:
        return f"{len(await request.body())} bytes"

    async with serve(app) as running:
        yield running


async def check_it_still_serves(serving: Serving) -> None:
    """A good client of each kind gets what it wants, and nothing is left of the bad ones."""
    await serving.become_idle()
    assert (await serving.get("/")).endswith(b"0 bytes")
    peer = await serving.open_websocket()
    await peer.send("hello")
    assert await peer.next_text() == "hello"
    await peer.client.aclose()


async def say(serving: Serving, data: bytes) -> bytes:
    """Send it, then be silent; what came back until the server closed, which it must in time."""
    client = serving.connect()
    try:
        if data:
            await client.send(data)
        with trio.fail_after(TIMEOUT + SLACK):
            return await client.read_all()
    finally:
        await client.aclose()


GARBAGE = {
    "TLS hello": (TLS_HELLO, b"400"),
    "one byte of a TLS hello": (TLS_HELLO[:1], b"400"),
    "HTTP/2 preface": (HTTP2_PREFACE, b"505"),
    "HTTP/0.9": (b"GET /\r\n", b"400"),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", b"505"),
    "SSH banner": (b"SSH-2.0-OpenSSH_9.6\r\n", b"400"),
    "SOCKS5": (b"\x05\x01\x00", b"400"),
    "PROXY protocol": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n", b"400"),
    "zeros": (bytes(100_000), b"400"),
    "an endless line": (b"G" * 20_000, b"431"),
    "an endless header": (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000, b"431"),
    "a frame without a handshake": (b"\x81\x85maskhello", b"400"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    "two lengths": (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"400",
    ),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400",
    ),
    "a bad chunk": (
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"400",
    ),
    "a WebSocket of another version": (
        b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"426",
    ),
    "half a line, then silence": (b"GET / HT", b"408"),
    "half a head, then silence": (b"GET / HTTP/1.1\r\nHost: h\r\nX-", b"408"),
    "half a body, then silence": (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf",
        b"408",
    ),
    "half a chunk, then silence": (
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
        b"408",
    ),
    "silence": (b"", b""),
    "an empty line, then silence": (b"\r\n", b""),
}


@pytest.mark.parametrize(("data", "status"), GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_gets_its_status(
    serving: Serving, data: bytes, status: bytes, trioweb_log: TakeLog
) -> None:
    """One answer, then the end, within the timeout; and the next client is served."""
    answer = await say(serving, data)
    assert len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", answer)) == bool(status)
    if status:
        assert answer.split(b" ", 2)[1] == status
        assert b"connection: close" in answer.lower()
    await check_it_still_serves(serving)
    assert len(trioweb_log()) <= 1


async def test_random_bytes_are_refused(serving: Serving, trioweb_log: TakeLog) -> None:
    """Two hundred of them, of all lengths; a few begin like a method and are waited for."""
    random_bytes = random.Random(3)
    statuses: set[bytes] = set()

    async def send_noise(data: bytes) -> None:
        answer = await say(serving, data)
        assert answer.startswith(b"HTTP/1.1 "), (data[:50], answer)
        statuses.add(answer.split(b" ", 2)[1])

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            noise = random_bytes.randbytes(random_bytes.choice((1, 5, 50, 500, 5000, 50_000)))
            nursery.start_soon(send_noise, noise)
    assert b"400" in statuses
    assert statuses <= {b"400", b"408", b"431"}
    await check_it_still_serves(serving)
    assert not trioweb_log()


async def test_mangled_requests_never_crash_a_session(
    serving: Serving, trioweb_log: TakeLog
) -> None:
    """Whatever one wrong byte makes of a good request: an answer or a close, and no log line."""
    good = (
        b"POST /?a=b HTTP/1.1\r\nHost: example.org:80\r\nContent-Length: 4\r\n"
        b"Connection: close\r\nCookie: a=b\r\n\r\nbody"
    )
    mangling = random.Random(4)

    async def send_mangled(data: bytes) -> None:
        answer = await say(serving, data)
        assert not answer.startswith(b"HTTP/1.1 5") or answer.startswith(
            (b"HTTP/1.1 501 ", b"HTTP/1.1 505 ")
        ), (data, answer)

    async with trio.open_nursery() as nursery:
        for position in range(len(good)):
            mangled = bytearray(good)
            mangled[position] = mangling.randrange(256)
            nursery.start_soon(send_mangled, bytes(mangled))
    await check_it_still_serves(serving)
    assert not trioweb_log()


def closing_code(received: bytes) -> int | None:
    """The code of the Close that ends what was received; frames here are all short."""
    while len(received) >= 2:
        size = received[1]
        assert size <= 125
        if received[0] == 0x88:
            assert len(received) == 2 + size, "something came behind Close"
            return int.from_bytes(received[2:4], "big")
        received = received[2 + size :]
    return None


FRAMES = {
    "half a header, then silence": (b"\x81", 1011),
    "half a length, then silence": (b"\x82\xff\x00\x00", 1011),
    "half a payload, then silence": (b"\x81\x85maskhe", 1011),
    "a fragment, then silence": (b"\x01\x85maskhello", 1011),
    "silence": (b"", 1011),
    "an unmasked frame": (b"\x81\x05hello", 1002),
    "a reserved opcode": (b"\x83\x80mask", 1002),
    "reserved bits": (b"\xf1\x80mask", 1002),
    "a continuation of nothing": (b"\x80\x80mask", 1002),
    "a fragmented ping": (b"\x09\x80mask", 1002),
    "a long ping": (b"\x89\xfe\x01\x00mask" + bytes(256), 1002),
    "a negative length": (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffmask", 1002),
    "invalid UTF-8": (b"\x81\x81\x00\x00\x00\x00\xff", 1007),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 1002),
    "TLS": (TLS_HELLO, 1002),
}


@pytest.mark.parametrize(("data", "code"), FRAMES.values(), ids=FRAMES.keys())
async def test_bad_or_unfinished_frames_end_the_websocket(
    serving: Serving, data: bytes, code: int, trioweb_log: TakeLog
) -> None:
    """The right code, within ping interval + timeout + the closing order, and one line at most."""
    peer = await serving.open_websocket()
    client = peer.client
    await client.send(data)
    with trio.fail_after(2 * TIMEOUT + SLACK):
        received = await client.read_all()
    assert closing_code(received) == code
    await client.aclose()
    await check_it_still_serves(serving)
    assert len(trioweb_log()) <= 1


async def test_random_frames_end_the_websocket(serving: Serving, trioweb_log: TakeLog) -> None:
    """A hundred WebSockets full of noise: every one is told a code, and nothing crashes."""
    noise = random.Random(5)

    async def send_noise(data: bytes) -> None:
        peer = await serving.open_websocket()
        await peer.client.send(data)
        with trio.fail_after(2 * TIMEOUT + SLACK):
            received = await peer.client.read_all()
        assert closing_code(received) in (1002, 1007, 1009, 1011, 1000), (data[:20], received)
        await peer.client.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(send_noise, noise.randbytes(noise.choice((1, 2, 14, 200, 5000))))
    await check_it_still_serves(serving)
    assert not [one for one in trioweb_log() if one.levelname not in ("INFO",)]

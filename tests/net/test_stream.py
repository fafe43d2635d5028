"""Byte streams over real sockets and over Trio streams."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trioweb.net import ByteStream, SocketStream, StreamAdapter, as_byte_stream
from trioweb.net.linger import linger
from trioweb.net.stream import _judge_tcp_info
from trioweb.testing import link_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Pair = tuple[ByteStream, ByteStream]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        return accepted, client


def make_tcp() -> Pair:
    a, b = tcp_pair()
    return SocketStream(a), SocketStream(b)


def make_unix() -> Pair:
    a, b = socket.socketpair()
    return SocketStream(a), SocketStream(b)


def make_adapted() -> Pair:
    a, b = trio.testing.memory_stream_pair()
    return as_byte_stream(a), as_byte_stream(b)


KINDS: list[Callable[[], Pair]] = [make_tcp, make_unix, make_adapted, lambda: link_pair()]


@pytest.fixture(params=KINDS, ids=["tcp", "unix", "adapter", "link"])
async def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:  # type: ignore[misc]
    a, b = request.param()
    yield a, b
    await a.aclose()
    await b.aclose()


async def test_bytes_travel_and_the_end_is_told(pair: Pair) -> None:
    """What one end sends the other receives, then the end after send_eof; the way back stays."""
    a, b = pair
    assert await a.send_some(bytearray(b"hello")) == 5
    assert await b.receive_some(100) == b"hello"
    await a.send_eof()
    assert await b.receive_some(100) == b""
    assert await b.send_some(memoryview(b"answer")) == 6
    assert await a.receive_some(100) == b"answer"


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    """Bytes that come after the cancellation are for the next receive."""
    a, b = pair
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some, 10)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await a.send_some(b"kept")
    assert await b.receive_some(10) == b"kept"


async def test_closing_is_idempotent_even_when_cancelled(pair: Pair) -> None:
    """A cancelled aclose closes; afterwards every use is a ClosedResourceError."""
    a, b = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await a.aclose()
    await a.aclose()
    assert await b.receive_some(1) == b""
    with pytest.raises(trio.ClosedResourceError):
        await a.receive_some(1)
    with pytest.raises(trio.ClosedResourceError):
        await a.send_some(b"x")


async def test_closing_wakes_who_waits(pair: Pair) -> None:
    """A task that waits in receive_some gets ClosedResourceError."""
    a, _ = pair

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await a.receive_some(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await a.aclose()


@pytest.mark.parametrize("make", [make_tcp, make_unix, lambda: link_pair()])
async def test_what_can_be_had_at_once_needs_no_wait(make: Callable[[], Pair]) -> None:
    """try_send fills the buffer and then takes nothing; try_receive tells nothing from the end."""
    a, b = make()
    assert b.try_receive(10) is None
    sent = 0
    while count := a.try_send(bytes(100_000)):
        sent += count
    assert a.is_peer_alive(1) is True  # it reads nothing, and that is no death
    got = 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_some, b"x")
            while got < sent:
                got += len(await b.receive_some(sent - got))
    assert not scope.cancelled_caught
    assert await b.receive_some(10) == b"x"
    await a.aclose()
    assert await b.receive_some(10) == b""
    assert b.try_receive(10) == b""
    assert b.is_peer_alive(1) is False
    await b.aclose()
    assert b.is_peer_alive(1) is False


async def test_a_reset_is_a_broken_resource() -> None:
    """An OSError of the connection is translated, its number stays readable in the message."""
    ours, theirs = tcp_pair()
    stream = SocketStream(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await stream.receive_some(1)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_some(b"x")
    assert stream.is_peer_alive(1) is False
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_eof()
    await stream.aclose()


async def test_sockets_tell_who_is_there_and_carry_our_options() -> None:
    """The peer's address is known; TCP_NODELAY and TCP_NOTSENT_LOWAT are set."""
    ours, theirs = tcp_pair()
    stream = SocketStream(ours)
    host, port = theirs.getsockname()
    assert (stream.client, stream.peer, stream.scheme) == ((host, port), f"{host}:{port}", "http")
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if lowat is not None:
        assert ours.getsockopt(socket.IPPROTO_TCP, lowat) == 16 * 1024
    adapter = StreamAdapter(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    assert adapter.client == ours.getsockname()
    assert adapter.is_peer_alive(1) is True
    await stream.aclose()
    assert adapter.is_peer_alive(1) is False
    await adapter.aclose()
    unix, other = make_unix()
    assert (unix.client, unix.peer) == (None, "unix")
    await unix.aclose()
    await other.aclose()
    memory, _ = make_adapted()
    assert (memory.peer, memory.is_peer_alive(1)) == ("memory", None)
    assert (memory.try_send(b"x"), memory.try_receive(1)) == (0, None)


def tcp_info(
    *, state: int = 1, backoff: int = 0, rto: int = 200, unacked: int = 0, sent: int = 0, ack: int
) -> bytes:
    """A struct tcp_info; times in ms."""
    fields = [0] * 13
    fields[0], fields[4], fields[9], fields[12] = rto * 1000, unacked, sent, ack
    return struct.pack("=8B13I", state, 0, 0, 0, backoff, 0, 0, 0, *fields)


@pytest.mark.parametrize(
    ("info", "alive"),
    [
        (tcp_info(ack=3_600_000), True),  # idle for an hour
        (tcp_info(ack=3_600_000, unacked=1), True),  # ... and a ping has just left
        (tcp_info(ack=21_000, unacked=1, backoff=6, rto=12_800, sent=8_500), False),
        (tcp_info(ack=21_000, unacked=1, backoff=6, rto=12_800, sent=7_000), True),
        (tcp_info(ack=3_600_000, unacked=1, backoff=2, rto=800, sent=100), True),
        (tcp_info(ack=100, unacked=5, backoff=3, rto=1600, sent=30_000), True),  # acks do come
        (tcp_info(ack=60_000, backoff=7, rto=25_600, sent=60_000), True),  # zero window
        (tcp_info(state=7, ack=0), False),
        (tcp_info(state=8, ack=0), False),
    ],
)
def test_tcp_info_is_judged_by_how_long_the_oldest_byte_waits(info: bytes, alive: bool) -> None:
    """With a timeout of 20 s: unacknowledged bytes count from when they were sent."""
    assert _judge_tcp_info(info, 20) is alive


async def test_a_byte_stream_is_not_adapted() -> None:
    """as_byte_stream wraps only what needs it."""
    a, b = make_unix()
    assert as_byte_stream(a) is a
    await a.aclose()
    await b.aclose()


@pytest.mark.parametrize("make", [make_tcp, make_unix, lambda: link_pair()])
async def test_who_waits_for_bytes_can_be_told_to_stop(make: Callable[[], Pair]) -> None:
    """interrupt() wakes wait_readable, and neither a sender nor one who waits in receive_some."""
    a, b = make()
    pollable = as_byte_stream(a).as_pollable()
    assert pollable is not None
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await pollable.wait_readable()

            nursery.start_soon(wait)
            while a.try_send(bytes(100_000)):
                pass
            sent = trio.Event()

            async def send() -> None:
                await a.send_some(b"x")
                sent.set()

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 2
            pollable.interrupt()
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            while not sent.is_set():
                await b.receive_some(100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.receive_some, 10)
            await trio.testing.wait_all_tasks_blocked()
            pollable.interrupt()
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            await b.send_some(b"x")
        await b.send_some(b"y")
        await pollable.wait_readable()
        assert a.try_receive(10) == b"y"
    assert a.try_receive(10) is None
    await a.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await pollable.wait_readable()
    with pytest.raises(trio.ClosedResourceError):
        await a.receive_some(10)
    pollable.interrupt()
    await b.aclose()


@pytest.mark.parametrize("make", [make_tcp, make_unix, lambda: link_pair()])
async def test_last_words_read_what_is_there_in_no_time(make: Callable[[], Pair]) -> None:
    """Also what came when the stream had just been found empty: it would be answered with RST."""
    a, b = make()
    assert a.try_receive(10) is None
    assert b.try_send(b"late") == 4
    await linger(as_byte_stream(a), 0)
    assert a.try_receive(10) is None
    await a.aclose()
    await b.aclose()

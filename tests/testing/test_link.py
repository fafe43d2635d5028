"""The bounded in-memory connection."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trioweb.net import as_byte_stream
from trioweb.testing import Link, link_pair


async def test_a_send_takes_what_fits() -> None:
    """A partial write is told as such, and a full buffer takes nothing."""
    a, b = link_pair(4)
    assert a.try_send(b"abcdef") == 4
    assert a.try_send(b"ef") == 0
    assert b.try_receive(3) == b"abc"
    assert a.try_send(b"ef") == 2
    assert b.try_receive(100) == b"def"
    assert b.try_receive(100) is None


async def test_send_all_goes_in_pieces_and_receive_waits() -> None:
    """A message larger than the buffer arrives whole when it is read."""
    a, b = link_pair(7)
    message = bytes(range(256)) * 4
    got = bytearray()

    async def read() -> None:
        while chunk := await b.receive_some(5):
            got.extend(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await a.send_all(message)
        await a.send_eof()
    assert got == message


async def test_a_cancelled_send_has_sent_what_fitted() -> None:
    """What entered the buffer before the cancellation arrives, the rest does not."""
    a, b = link_pair(4)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, b"abcdefgh")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert b.try_receive(100) == b"abcd"
    assert b.try_receive(100) is None
    assert a.try_send(b"x") == 1


async def test_a_cancelled_receive_loses_nothing() -> None:
    """Bytes that come after a cancelled receive are for the next one."""
    a, b = link_pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some, 10)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    a.try_send(b"x")
    assert await b.receive_some(10) == b"x"


async def test_half_close_leaves_the_other_direction() -> None:
    """After send_eof the peer reads the end and may still answer."""
    a, b = link_pair()
    a.try_send(b"last")
    await a.send_eof()
    assert (await b.receive_some(10), await b.receive_some(10)) == (b"last", b"")
    b.try_send(b"answer")
    assert await a.receive_some(10) == b"answer"
    with pytest.raises(trio.ClosedResourceError):
        a.try_send(b"more")


async def test_close_is_seen_by_the_peer() -> None:
    """The peer reads what was left, then the end; its sends fail, waiting ones included."""
    a, b = link_pair(4)
    a.try_send(b"bye")
    b.try_send(b"full")
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.send_some, b"more")
            await trio.testing.wait_all_tasks_blocked()
            await a.aclose()
    await a.aclose()
    assert (b.try_receive(10), b.try_receive(10)) == (b"bye", b"")
    assert b.is_peer_alive(1) is False
    with pytest.raises(trio.ClosedResourceError):
        a.try_receive(1)


async def test_close_happens_even_when_cancelled() -> None:
    """An aclose in a cancelled scope closes all the same."""
    a, b = link_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await a.aclose()
    assert b.try_receive(1) == b""


async def test_abort_breaks_the_peer() -> None:
    """A vanished end takes with it what was under way; the peer's waits end."""
    a, b = link_pair()
    a.try_send(b"lost")
    b.stall()
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some, 10)
            await trio.testing.wait_all_tasks_blocked()
            a.abort()
            a.abort()
    with pytest.raises(trio.BrokenResourceError):
        b.try_send(b"x")
    assert b.is_peer_alive(1) is False


async def test_a_stalled_end_receives_nothing_until_it_resumes() -> None:
    """The peer can send until the buffer is full, and counts as alive."""
    a, b = link_pair(4)
    b.stall()
    assert a.try_send(b"abcdef") == 4
    assert a.try_send(b"ef") == 0
    assert b.try_receive(10) is None
    assert a.is_peer_alive(1) is True
    b.resume()
    assert await b.receive_some(10) == b"abcd"


async def test_two_waiting_readers_are_an_error() -> None:
    """Misuse fails at once instead of waking only one of them."""
    _, b = link_pair()
    with pytest.RaisesGroup(trio.BusyResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some, 1)
            nursery.start_soon(b.receive_some, 1)


async def test_a_link_is_a_byte_stream_by_itself() -> None:
    """No adapter is put over it, and its ends know each other."""
    link = Link(buffer=3)
    assert as_byte_stream(link) is link
    assert link.other.other is link
    with pytest.raises(ValueError, match="positive"):
        Link(buffer=0)


class _CheckpointingLink(Link):
    """A Link with the one thing that ByteStream leaves out: a checkpoint on every receive."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return await super().receive_some(max_bytes)


async def test_trio_stream_checks_hold() -> None:
    """Trio's own contract tests for half-closeable streams pass."""

    async def make() -> tuple[Link, Link]:
        link = _CheckpointingLink()
        return link, link.other

    async def make_clogged() -> tuple[Link, Link]:
        link = _CheckpointingLink(buffer=16)
        for end in (link, link.other):
            end.try_send(bytes(16))
        return link, link.other

    await trio.testing.check_half_closeable_stream(make, make_clogged)

"""What passes a wire, what it answers by itself, and how it ends."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb.client.frame import Frame, FrameReader, Opcode
from trioweb.client.wire import RECEIVED, SENT, Wire
from trioweb.net.stream import StreamAdapter
from trioweb.testing import Link, link_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from trioweb.net.stream import ByteStream

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
CLOSE = Frame(Opcode.CLOSE, b"\x03\xe8").encode()


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, Frame | str]] = []

    def add(self, direction: str, what: Frame | str) -> None:
        self.noted.append((direction, what))


def check_end(answer: bytes, has_ended: bool) -> None:
    """As little as a client can do."""
    if has_ended:
        raise ValueError(answer)


@asynccontextmanager
async def open_wire(
    stream: ByteStream, server: Link, watcher: Notes | None = None
) -> AsyncGenerator[Wire]:
    """A wire after the handshake, of which nothing is left to read."""
    wire = Wire(stream, check_end, watcher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_loop)
        await server.send_all(ANSWER)
        assert await wire.receive_some() == ANSWER
        yield wire
        nursery.cancel_scope.cancel()


async def test_a_ping_is_answered_and_not_passed_on() -> None:
    """Also between the fragments of a message, and in the bytes of another frame."""
    ours, theirs = link_pair()
    notes = Notes()
    async with open_wire(ours, theirs, notes) as wire:
        await theirs.send_all(b"\x01\x01a\x89\x02hi\x80\x01b")
        assert await wire.receive_some() == b"\x01\x01a\x80\x01b"
        assert await theirs.receive_some() == Frame(Opcode.PONG, b"hi").encode()
    assert [(way, what[0]) for way, what in notes.noted if not isinstance(what, str)] == [
        (RECEIVED, Opcode.TEXT),
        (RECEIVED, Opcode.PING),
        (SENT, Opcode.PONG),
        (RECEIVED, Opcode.CONTINUATION),
    ]
    assert len(wire.frames) == 3


async def test_a_ping_that_crosses_our_close_is_dropped() -> None:
    """RFC 6455 §5.5.1: nothing is sent after a Close."""
    ours, theirs = link_pair()
    async with open_wire(ours, theirs) as wire:
        await wire.send_all(CLOSE)
        await theirs.send_all(b"\x89\x00\x88\x02\x03\xe9")
        assert await wire.receive_some() == b"\x88\x02\x03\xe9"
        assert theirs.try_receive(100) == CLOSE
        assert theirs.try_receive(100) is None
        assert wire.our_close == Frame(Opcode.CLOSE, b"\x03\xe8")
        assert wire.close_frame == Frame(Opcode.CLOSE, b"\x03\xe9")


@pytest.mark.parametrize(
    "data", [b"\x89\x7e\x00\xff", b"\x09\x00", b"\xc9\x00", b"\x89\x81xxxxx", b"\x8a\x01x"]
)
async def test_a_wrong_ping_is_passed_on(data: bytes) -> None:
    """A long one, a fragment, reserved bits, a mask; and what is none: nobody answers."""
    ours, theirs = link_pair()
    async with open_wire(ours, theirs) as wire:
        await theirs.send_all(data)
        assert await wire.receive_some() == data
        assert theirs.try_receive(100) is None


@pytest.mark.parametrize("is_adapted", [False, True])
async def test_a_send_that_is_cancelled_is_sent_whole(is_adapted: bool) -> None:
    """Over a stream of ours and over one of Trio's, which takes nothing at once."""
    ours, theirs = link_pair(buffer=100)
    stream = StreamAdapter(ours) if is_adapted else ours
    frames = [Frame(Opcode.BINARY, bytes(1000)), Frame(Opcode.TEXT, b"behind")]
    async with open_wire(stream, theirs) as wire:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.send_all, frames[0].encode())
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        reader = FrameReader()
        read: list[Frame] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send_all, frames[1].encode())
            while len(read) < 2:
                pieces = reader.feed(await theirs.receive_some())
                read += [frame for _, frame in pieces if frame is not None]
    assert read == frames


async def test_a_send_of_the_cancelled_sends_nothing() -> None:
    """A Close that was not sent is none."""
    ours, theirs = link_pair()
    async with open_wire(ours, theirs) as wire:
        with trio.CancelScope() as scope:
            scope.cancel()
            await wire.send_all(CLOSE)
        assert wire.our_close is None
        assert theirs.try_receive(100) is None


async def test_it_is_known_when_all_is_written() -> None:
    """Or when it never will be."""
    ours, theirs = link_pair(buffer=100)
    async with open_wire(ours, theirs) as wire:
        await wire.wait_send_all_might_not_block()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                with trio.CancelScope() as scope:
                    nursery.start_soon(wait_all_tasks_blocked)
                    nursery.start_soon(wait_and_cancel, scope)
                    await wire.send_all(Frame(Opcode.BINARY, bytes(150)).encode())
            nursery.start_soon(wire.wait_send_all_might_not_block)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            while nursery.child_tasks:
                theirs.try_receive(100)
                await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_and_cancel, scope)
                await wire.send_all(bytes(150))
        theirs.abort()
        with pytest.raises(trio.BrokenResourceError):
            await wire.wait_send_all_might_not_block()


async def wait_and_cancel(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_pongs_that_nobody_reads_fill_no_memory() -> None:
    """Then nothing more is read; when they are read it goes on, and each ping has its pong."""
    ours, theirs = link_pair(buffer=1000)
    async with open_wire(ours, theirs) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, b"\x89\x00" * 10_000 + b"\x81\x00")
        nursery.start_soon(wire.receive_some)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        pongs = b""
        while len(pongs) < 60_000:
            pongs += await theirs.receive_some()
        assert pongs == Frame(Opcode.PONG).encode() * 10_000


async def test_a_large_frame_passes_without_being_held() -> None:
    """What has come of it is given at once, and nothing is kept for ``next_frame``."""
    ours, theirs = link_pair()
    async with open_wire(ours, theirs) as wire:
        for data in (b"\x82\x7f\x00\x00\x00\x10\x00\x00\x00\x00", b"x" * 1000, b"y"):
            await theirs.send_all(data)
            assert await wire.receive_some() == data
        assert not wire.frames


@pytest.mark.parametrize(
    ("answer", "is_passed_on"),
    [
        (b"", False),
        (b"HTTP/1.1 1", False),
        (b"HTTP/1.1 103 Early Hints\r\n", False),
        (ANSWER[:-2], True),
        (b"HTTP/1.1 403 No\r\n\r\n", True),
    ],
)
@pytest.mark.parametrize("is_lost", [False, True])
async def test_who_leaves_before_101_is_told(
    answer: bytes, is_passed_on: bool, is_lost: bool
) -> None:
    """With all that has come; a 101 that is cut short is none."""
    ours, theirs = link_pair()
    wire = Wire(ours, check_end)
    await theirs.send_all(answer)
    if is_passed_on:
        assert await wire.receive_some() == answer

    async def leave() -> None:
        await wait_all_tasks_blocked()  # what was sent is read
        if is_lost:
            theirs.abort()
        else:
            await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(ValueError, match=f"^{re.escape(repr(answer))}$"):
            await wire.receive_some()


async def test_the_answer_is_shown_until_it_is_101() -> None:
    """What follows in the same bytes is frames."""
    shown = []
    ours, theirs = link_pair()
    wire = Wire(ours, lambda *told: shown.append(told))
    for data in (ANSWER[:12], ANSWER[12:20], ANSWER[20:] + b"\x81\x00"):
        await theirs.send_all(data)
        assert await wire.receive_some() == data
    await theirs.aclose()
    assert await wire.receive_some() == b""
    assert shown == [(ANSWER[:12], False), (ANSWER[:20], False)]


INTERIM = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]


@pytest.mark.parametrize(
    "answer", [ANSWER, b"HTTP/1.1 403 No\r\n\r\nHTTP/1.1 103 Of the body\r\n\r\n"]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_interim_answers_are_dropped(answer: bytes, size: int) -> None:
    """However they come; what follows is passed on whole, and is no interim answer."""
    shown: list[tuple[bytes, bool]] = []
    ours, theirs = link_pair()
    wire = Wire(ours, lambda *told: shown.append(told))
    sent = b"".join([*INTERIM, answer])
    received = b""
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            for start in range(0, len(sent), size):
                await theirs.send_all(sent[start : start + size])
                await wait_all_tasks_blocked()
            await theirs.aclose()

        nursery.start_soon(serve)
        while data := await wire.receive_some():
            received += data
    assert received == answer
    for told, _ in shown:
        assert told not in INTERIM
        assert any(head.startswith(told) for head in (*INTERIM, answer))


class Clinging(StreamAdapter):
    """A stream that can't say goodbye, as TLS over a full connection."""

    async def aclose(self) -> None:
        await trio.sleep_forever()


async def test_closing_has_an_end(autojump_clock: MockClock) -> None:
    ours, _ = link_pair()
    await Wire(Clinging(ours), check_end).aclose()
    assert trio.current_time() == 1

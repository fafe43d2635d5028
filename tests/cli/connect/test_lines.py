"""Lines of a descriptor."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trioweb.cli.connect.lines import READ_SIZE, Line, LineSource

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass  # the test has closed it


async def read_all(data: bytes, limit: int = 10) -> list[Line]:
    """The lines of a file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        source = LineSource(file.fileno(), limit)
        lines = []
        while (line := await source.receive()) is not None:
            lines.append(line)
        assert await source.receive() is None
        return lines


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\r\nb\r\r\n", ["a", "b\r"]),
        ("é\n✓".encode(), ["é", "✓"]),
        (b"0123456789\n", ["0123456789"]),
    ],
)
async def test_lines(data: bytes, texts: list[str]) -> None:
    """Ended by LF or CRLF; the last one by the end of the input."""
    lines = await read_all(data)
    assert [(line.number, line.text, line.problem) for line in lines] == [
        (number, text, "") for number, text in enumerate(texts, 1)
    ]
    assert all(line.has_end for line in lines[:-1])
    assert not lines or lines[-1].has_end == data.endswith(b"\n")


async def test_wrong_lines_have_their_number_and_the_rest_goes_on() -> None:
    """Too long in one read or in many, at the end or before; or no UTF-8."""
    long = b"x" * (READ_SIZE * 2)
    problems = [
        (line.number, line.text, line.problem)
        for line in await read_all(b"a\n\xff\n01234567890\n" + long + b"\nb\n" + long)
    ]
    assert problems == [
        (1, "a", ""),
        (2, "", "is no UTF-8 (byte 0xff at position 1)"),
        (3, "", "is longer than 10 bytes"),
        (4, "", "is longer than 10 bytes"),
        (5, "b", ""),
        (6, "", "is longer than 10 bytes"),
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))))
def test_any_text_comes_through(texts: list[str]) -> None:
    """Lines written are lines read."""
    data = "".join(f"{text}\n" for text in texts).encode()
    assert [line.text for line in trio.run(read_all, data, 1_000_000)] == texts


async def test_no_descriptor_is_the_end() -> None:
    """As for a program that was started without stdin."""
    source = LineSource(None)
    assert await source.receive() is None
    assert not source.has_input()


async def test_waiting_line_is_known(pipe: tuple[int, int]) -> None:
    """Before it is read, and after it was read; not when it was handed out."""
    reader, writer = pipe
    source = LineSource(reader)
    assert not source.has_input()
    os.write(writer, b"a\nb\n")
    assert source.has_input()
    assert await source.receive() == Line(1, "a")
    assert source.has_input()
    assert await source.receive() == Line(2, "b")
    assert not source.has_input()
    os.close(writer)
    assert await source.receive() is None
    assert not source.has_input()


async def test_silent_descriptor_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """Cancelled, the thread that reads is left behind."""
    with trio.fail_after(10), trio.move_on_after(0) as scope:
        await LineSource(pipe[0]).receive()
    assert scope.cancelled_caught


async def test_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    """A terminal may have been made so by another program."""
    reader, writer = pipe
    os.set_blocking(reader, False)
    received: list[Line | None] = []

    async def receive() -> None:
        received.append(await LineSource(reader).receive())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            os.write(writer, b"late\n")
    assert received == [Line(1, "late")]


async def test_terminal_that_was_hung_up_is_the_end() -> None:
    """Reading fails then (EIO); it is no error of ours."""
    master, slave = os.openpty()
    os.close(master)
    try:
        assert await LineSource(slave).receive() is None
    finally:
        os.close(slave)

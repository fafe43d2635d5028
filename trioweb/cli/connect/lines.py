"""The lines of a descriptor, read in a thread while the rest of the program goes on.

Theory of operation. ``os.read`` is called in a worker thread that is abandoned when the reader is
cancelled: a descriptor that stays silent never holds up the end of the program. Python's own
buffered stdin would, since its lock is held while it waits and wanted back at exit. The next read
begins when every line of the last one was taken, so no more is in memory than one line and one
read.
"""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, replace

import trio

# Bytes that are asked for at once: what a Linux pipe holds.
READ_SIZE = 64 * 1024
# Bytes of the longest line that is sent: 16 times what most servers take (theirs is 1 MiB).
MAX_LINE = 16 * 1024 * 1024


@dataclass(frozen=True)
class Line:
    """A line of the input.

    Args:
        number: counted from 1.
        text: the line without its end; empty when there is a problem.
        problem: why it can't be sent, or empty.
        has_end: False for a last line that the end of the input cut off, as Ctrl-D does.
    """

    number: int
    text: str
    problem: str = ""
    has_end: bool = True


class LineSource:
    """The lines of a descriptor, in order.

    Args:
        descriptor: what is read; None is an input that is at its end.
        limit: bytes that a line may have.
    """

    def __init__(self, descriptor: int | None, limit: int = MAX_LINE) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._number = 0
        self._buffer = bytearray()
        # What was searched of the buffer, without a line's end in it.
        self._searched = 0
        # The line is longer than the limit, so what comes of it is dropped.
        self._dropping = False
        # Set by the thread as soon as it has read something, until the reader's task has it.
        self._arrived = False

    def has_input(self) -> bool:
        """Whether something was read that is not handed out yet, or waits to be read."""
        if self._arrived or b"\n" in self._buffer:
            return True
        if self._descriptor is None:
            return False
        return bool(select.select([self._descriptor], [], [], 0)[0])

    async def receive(self) -> Line | None:
        """The next line; None at the end of the input.

        Cancellation:
            What the abandoned thread reads afterwards is lost, so it is not called again.
        """
        while True:
            line = self._take_line()
            if line is not None:
                return line
            data = b"" if self._descriptor is None else await self._read_some(self._descriptor)
            if not data:
                self._descriptor = None
                return self._take_rest()
            self._buffer += data

    async def _read_some(self, descriptor: int) -> bytes:
        def read() -> bytes:
            data = _read_some(descriptor)
            self._arrived = bool(data)
            return data

        try:
            return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        finally:
            self._arrived = False

    def _take_line(self) -> Line | None:
        end = self._buffer.find(b"\n", self._searched)
        if end >= 0:
            line = self._read_line(bytes(self._buffer[:end]))
            # Deleting at the front of a bytearray moves nothing.
            del self._buffer[: end + 1]
            self._searched = 0
            return line
        if len(self._buffer) > self._limit:
            self._dropping = True
        if self._dropping:
            self._buffer.clear()
        self._searched = len(self._buffer)
        return None

    def _take_rest(self) -> Line | None:
        """A last line that has no end."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        if not rest and not self._dropping:
            return None
        return replace(self._read_line(rest), has_end=False)

    def _read_line(self, data: bytes) -> Line:
        self._number += 1
        if self._dropping or len(data) > self._limit:
            self._dropping = False
            return Line(self._number, "", f"is longer than {self._limit} bytes")
        try:
            return Line(self._number, data.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            where = f"byte {data[error.start]:#04x} at position {error.start + 1}"
            return Line(self._number, "", f"is no UTF-8 ({where})")


def _read_some(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            # Another program that has the same terminal made it non-blocking.
            select.select([descriptor], [], [])
        except OSError:
            # A terminal that was hung up (EIO), or is another's to read now.
            return b""

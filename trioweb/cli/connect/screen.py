"""Where messages and remarks are written: the messages to stdout, all else to stderr.

Theory of operation. On a terminal each message has a mark that says who sent it, and a prompt
waits for the next line. What comes while the prompt stands is written over it, and the prompt
again below. The terminal keeps what was typed until then and no program can ask it for that, so
when the line is sent it is written again in whole, over what there is of it. A line that was ended
but not read yet stands above already; what comes then is written below it.

Writing happens in a worker thread, one writer at a time: a stdout that takes nothing holds up
what comes to it and nothing else, and is abandoned at the end.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trioweb.cli.connect.rendering import indent_lines, render_binary

if TYPE_CHECKING:
    from collections.abc import Callable

_ERASE = "\r\x1b[K"
_UP = "\x1b[A"
_SENT, _RECEIVED = "> ", "< "
# Colours of the terminal's own palette, so that they suit its background (ECMA-48 §8.3.117).
_CYAN, _GREEN, _DIM, _PLAIN = "\x1b[36m", "\x1b[32m", "\x1b[2m", "\x1b[0m"


class OutputClosed(Exception):
    """Stdout takes no more: nobody reads it, or else the message says why."""


@dataclass(frozen=True)
class Manner:
    """How is written.

    Args:
        marks: messages have marks, and nothing in them can drive a terminal.
        prompt: lines are typed at the terminal that is written to.
        escapes: the terminal knows the escape sequences of ECMA-48.
        colors: the marks and remarks have colours.
        shared: remarks are written to a terminal as well, the same one.
    """

    marks: bool = False
    prompt: bool = False
    escapes: bool = False
    colors: bool = False
    shared: bool = False


def choose_manner(stdin: int | None, stdout: int, stderr: int | None) -> Manner:
    """The manner that suits what the three descriptors are, ``TERM`` and ``NO_COLOR``."""
    terminal = os.isatty(stdout)
    typed = terminal and stdin is not None and os.isatty(stdin)
    escapes = terminal and os.environ.get("TERM", "dumb") not in ("", "dumb")
    # https://no-color.org: set and not empty.
    colors = escapes and not os.environ.get("NO_COLOR")
    shared = terminal and stderr is not None and os.isatty(stderr)
    return Manner(terminal, typed, escapes, colors, shared)


class Screen:
    """The two outputs, and what stands on the terminal's last line.

    Args:
        stdout: the descriptor for messages.
        stderr: the descriptor for remarks; None drops them.
        manner: how is written.
        is_typed: whether a line was ended at the terminal that was not handed out yet.
    """

    def __init__(
        self,
        stdout: int,
        stderr: int | None,
        manner: Manner,
        is_typed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._manner = manner
        self._is_typed = is_typed
        self._lock = trio.Lock()
        self._prompting = False
        # Something was written over the prompt, and with it over what was typed until then.
        self._disturbed = False
        # The line that was just ended stands right above.
        self._above = False

    @property
    def marks(self) -> bool:
        """Whether messages are written for a reader at a terminal."""
        return self._manner.marks

    async def show_received(self, message: str | bytes) -> None:
        """Write a message of the server.

        Raises:
            OutputClosed: stdout takes no more.
        """
        text = render_binary(message) if isinstance(message, bytes) else message
        async with self._lock:
            await self._write(self._over(self._marked(_RECEIVED, _GREEN, text)))

    async def show_sent(self, text: str, *, has_end: bool = True) -> None:
        """Write a message of ours where the terminal itself does not show it as it is.

        Args:
            text: the message.
            has_end: whether the line was ended, and so the cursor stands below it.

        Raises:
            OutputClosed: stdout takes no more.
        """
        if not (self._manner.prompt or self._manner.marks):
            await trio.lowlevel.checkpoint()
            return  # into a pipe, where who reads what comes may take its time
        if has_end:
            # Before anyone else can write: what comes from now on, or is on its way, stands below.
            self._above = self._prompting and not self._lock.locked()
            self._prompting = False
        async with self._lock:
            if self._manner.prompt:
                if self._disturbed and self._manner.escapes:
                    erase = _UP + _ERASE if self._above else _ERASE
                    await self._write(erase + self._marked(_SENT, _CYAN, text))
                elif not has_end:
                    await self._write("\n")
                self._disturbed = self._prompting = False
            elif self._manner.marks:
                await self._write(self._marked(_SENT, _CYAN, text))

    async def prompt(self) -> None:
        """Ask for a line, when lines are typed."""
        if self._manner.prompt and not self._is_typed():
            async with self._lock:
                await self._write(self._paint(_CYAN, _SENT))
                self._prompting = True

    async def remark(self, text: str) -> None:
        """Write a line about the connection or the input to stderr."""
        async with self._lock:
            line = self._remark(text)
            data = (self._over(line) if self._manner.shared else line).encode()
            await trio.to_thread.run_sync(self._write_stderr, data, abandon_on_cancel=True)

    def finish(self, text: str) -> None:
        """Write the last line to stderr; nothing else is written at the same time."""
        if self._prompting:
            self._prompting = False
            with suppress(OSError):
                _write_all(self._stdout, (_ERASE if self._manner.escapes else "\n").encode())
        self._write_stderr(self._remark(text).encode())

    async def wait_closed(self) -> None:
        """Wait until nobody reads stdout any more; for ever where that can't be known."""
        if stat.S_ISFIFO(os.fstat(self._stdout).st_mode):
            try:
                # The writing end of a pipe is readable when its reading end is gone.
                await trio.lowlevel.wait_readable(self._stdout)
            except OSError:
                await trio.sleep_forever()
            if _is_broken(self._stdout):
                return
        await trio.sleep_forever()

    def _marked(self, mark: str, color: str, text: str) -> str:
        if not self._manner.marks:
            return text + "\n"
        return self._paint(color, mark) + indent_lines(text, " " * len(mark)) + "\n"

    def _remark(self, text: str) -> str:
        text = indent_lines(text, "  ")
        return (self._paint(_DIM, text) if self._manner.shared else text) + "\n"

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{_PLAIN}" if self._manner.colors else text

    def _over(self, text: str) -> str:
        """Text that takes the place of the prompt, and the prompt below it."""
        self._above = False
        if not self._prompting:
            return text
        if self._is_typed():
            self._prompting = False
            return text
        self._disturbed = True
        erase = _ERASE if self._manner.escapes else "\n"
        return erase + text + self._paint(_CYAN, _SENT)

    async def _write(self, text: str) -> None:
        try:
            await trio.to_thread.run_sync(
                _write_all, self._stdout, text.encode(), abandon_on_cancel=True
            )
        except OSError as error:
            # EIO is a terminal that was hung up.
            why = "" if error.errno in (errno.EPIPE, errno.EIO) else error.strerror
            raise OutputClosed(why) from None

    def _write_stderr(self, data: bytes) -> None:
        if self._stderr is None:
            return
        try:
            _write_all(self._stderr, data)
        except OSError:
            # Nobody reads the remarks; the messages matter more.
            self._stderr = None


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            # Another program that has the same terminal made it non-blocking.
            select.select([], [descriptor], [])


def _is_broken(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are told without being asked for
    return bool(poll.poll(0))

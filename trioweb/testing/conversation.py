"""What was said on one WebSocket, frame by frame, as text: for failures and for snapshots."""

from __future__ import annotations

import itertools
from collections import deque
from typing import NamedTuple

import trio

from trioweb.testing.frame import Frame, Opcode

# Lines that are kept; of a test that says more, the first are forgotten.
MAX_LINES = 10_000
# Of one frame, bytes that are kept: more than one wants to read in a snapshot.
MAX_PAYLOAD = 4096
# What a failure shows: lines, and characters of each.
SHOWN_LINES, SHOWN_WIDTH = 40, 120
# Characters of a message that a failure quotes.
QUOTED_WIDTH = 500

SENT, RECEIVED = ">", "<"


class _Line(NamedTuple):
    at: float
    direction: str
    what: Frame | str
    size: int


class Conversation:
    """The frames of one WebSocket in both directions, and what else happened to it.

    Args:
        path: which was asked for.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._began = trio.current_time()
        self._lines: deque[_Line] = deque(maxlen=MAX_LINES)
        self._forgotten = 0

    def add(self, direction: str, what: Frame | str) -> None:
        """Note a frame that was sent or has come, or what happened."""
        size = 0
        if isinstance(what, Frame):
            size = len(what.payload)
            what = what._replace(payload=what.payload[:MAX_PAYLOAD])
        if len(self._lines) == MAX_LINES:
            self._forgotten += 1
        self._lines.append(_Line(trio.current_time() - self._began, direction, what, size))

    def transcript(self, *, times: bool = True) -> str:
        """All of it, a line each; the same whenever the same was said at the same times.

        ``>`` is what the test's side sent, ``<`` what has come, whether the test has received it
        or not. Pings have numbers instead of their payloads, which are random.

        Args:
            times: begin lines with the seconds since the handshake, as they are on a virtual clock.
        """
        pings: dict[bytes, int] = {}
        lines = [f"… {self._forgotten} lines before"] if self._forgotten else []
        for line in self._lines:
            said = f"{line.direction} {_describe(line, pings)}"
            lines.append(f"{line.at:10.3f} {said}" if times else said)
        return "\n".join(lines)

    def explain(self, what: str) -> str:
        """A failure's text: what went wrong, and the end of the conversation."""
        lines = self.transcript().splitlines()
        heading = f"WebSocket {self.path}, conversation so far:"
        if not lines:
            heading = f"WebSocket {self.path}, nothing was said so far"
        elif len(lines) > SHOWN_LINES:
            lines = [f"… {len(lines) - SHOWN_LINES} lines before", *lines[-SHOWN_LINES:]]
        return "\n  ".join([f"{what}\n{heading}", *(_shorten(line) for line in lines)])


def _describe(line: _Line, pings: dict[bytes, int]) -> str:
    frame, kept = line.what, MAX_PAYLOAD
    if isinstance(frame, str):
        return frame
    cut = f"… ({line.size} bytes)" if line.size > kept else ""
    rsv = f" rsv={frame.rsv}" if frame.rsv else ""
    more = rsv + ("" if frame.fin else " …")
    if frame.opcode == Opcode.TEXT:
        return f"text {frame.text!r}{cut}{more}"
    if frame.opcode == Opcode.CLOSE:
        code = f" {frame.close_code}" if frame.payload else ""
        return f"close{code}{f' {frame.text!r}' if frame.text else ''}{more}"
    if frame.opcode == Opcode.PING:
        number = pings.setdefault(frame.payload, len(pings) + 1)
        return f"ping #{number}{more}"
    if frame.opcode == Opcode.PONG:
        known = pings.get(frame.payload)
        return f"pong{f' #{known}' if known else f' {frame.payload!r}'}{more}"
    name = Opcode(frame.opcode).name.lower() if frame.opcode in _KNOWN else f"opcode {frame.opcode}"
    return f"{name} {frame.payload!r}{cut}{more}"


_KNOWN = frozenset(Opcode)


def _shorten(line: str) -> str:
    if len(line) <= SHOWN_WIDTH:
        return line
    return f"{line[:SHOWN_WIDTH]}… ({len(line)} characters)"


def quote(message: str | bytes) -> str:
    """A message as a failure quotes it: whole, unless that were pages of it."""
    if len(message) <= QUOTED_WIDTH:
        return repr(message)
    unit = "characters" if isinstance(message, str) else "bytes"
    return f"{message[:QUOTED_WIDTH]!r}… ({len(message)} {unit})"


def contrast(wanted: str | bytes, got: str | bytes) -> str:
    """Tell two messages apart: where they begin to differ, if that may not be seen."""
    what = f"expected {quote(wanted)}, got {quote(got)}"
    if type(wanted) is type(got) and max(len(wanted), len(got)) > QUOTED_WIDTH:
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(wanted, got, strict=False))
        what += f"; they differ at index {sum(1 for _ in same)}"
    return what

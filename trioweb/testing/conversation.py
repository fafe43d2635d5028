"""What was said on one WebSocket, frame by frame, as text: for failures and for snapshots."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import trio

from trioweb.client.frame import Frame, Opcode

# Lines that are kept; of a test that says more, the first are forgotten.
MAX_LINES = 10_000
# Of one frame, bytes that are kept: more than one wants to read in a snapshot.
MAX_PAYLOAD = 4096
# What a failure shows: lines, of each frame some bytes, and of other values some characters.
SHOWN_LINES, SHOWN_PAYLOAD, SHOWN_VALUE = 40, 100, 1000

_KNOWN = frozenset(Opcode)


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
        lines = [f"… {self._forgotten} lines before"] if self._forgotten else []
        return "\n".join([*lines, *self._tell(MAX_PAYLOAD, times=times)])

    def explain(self, what: str) -> str:
        """A failure's text: what went wrong, and the end of the conversation."""
        if not self._lines:
            return f"{what}\nWebSocket {self.path}, nothing was said so far"
        lines = self._tell(SHOWN_PAYLOAD)
        before = len(lines) - SHOWN_LINES
        if before > 0:
            before += self._forgotten
            lines = [f"… {before} lines before", *lines[-SHOWN_LINES:]]
        return "\n  ".join([f"{what}\nWebSocket {self.path}, conversation so far:", *lines])

    def _tell(self, kept: int, *, times: bool = True) -> list[str]:
        pings: dict[bytes, int] = {}
        said = [f"{line.direction} {_describe(line, pings, kept)}" for line in self._lines]
        if not times:
            return said
        return [f"{line.at:10.3f} {one}" for line, one in zip(self._lines, said, strict=True)]


def _describe(line: _Line, pings: dict[bytes, int], kept: int) -> str:
    frame = line.what
    if isinstance(frame, str):
        return frame
    frame = frame._replace(payload=frame.payload[:kept])
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


def show(value: object) -> str:
    """A value as a failure shows it."""
    if isinstance(value, (str, bytes)):
        unit = "characters" if isinstance(value, str) else "bytes"
        cut = f"… ({len(value)} {unit})" if len(value) > SHOWN_PAYLOAD else ""
        return f"{value[:SHOWN_PAYLOAD]!r}{cut}"
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"

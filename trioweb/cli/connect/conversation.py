"""A conversation over an open WebSocket: lines go out, messages come in, until one of both ends.

Theory of operation. Three tasks run at once and the first to end ends them all: the receiving one
(the server has closed, or was silent after the end of the input), the sending one (it could not
go on), and the one that watches stdout. Whoever ends first writes down why; when it was not the
server, `Conversation.close` closes the WebSocket, within a deadline.

A message is never cut in half for the sake of an end, since nothing could follow it, not even a
Close: the wire writes what is being sent to its end, for which `Conversation.close` gives it a
moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed

from trioweb.cli.connect.rendering import (
    compact_json,
    escape_controls,
    indent_json,
    split_json,
)
from trioweb.cli.connect.screen import OutputClosed
from trioweb.ws import wait_any

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    from trioweb.cli.connect.lines import LineSource
    from trioweb.cli.connect.screen import Screen
    from trioweb.client.frame import Frame
    from trioweb.client.wire import Wire

# Seconds that one message may wait for the server to take it: twice the server's own patience with
# a reader that takes nothing (WEBSOCKET_STALL_TIMEOUT), rounded up to a minute.
SEND_PATIENCE = 60.0
# Seconds for the server to answer our Close; and when the user does not want to wait, and for it to
# take what was being sent before.
CLOSE_PATIENCE, BRIEF_CLOSE_PATIENCE = 5.0, 1.0
# Endings that went as they should: RFC 6455 §7.4.1.
_GOOD_CODES = frozenset({1000, 1001, 1005})


@dataclass(frozen=True)
class Ending:
    """How a WebSocket ended.

    Args:
        code: the close code; 1006 without a Close.
        reason: what was said with the code, or of the loss.
        by_us: whether it was we who closed.
    """

    code: int
    reason: str = ""
    by_us: bool = False

    @property
    def exit_code(self) -> int:
        """What a shell is told of it."""
        return 0 if self.code in _GOOD_CODES else 1

    def __str__(self) -> str:
        if self.code == 1006:
            return f"lost: {self.reason}"
        reason = "no code was given" if self.code == 1005 else escape_controls(self.reason)
        return (
            f"closed with {self.code} {f'({reason}) ' if reason else ''}"
            f"by {'us' if self.by_us else 'the server'}"
        )


class Conversation:
    """What is said over one WebSocket.

    Args:
        connection: an open one; closed by whoever opened its stream.
        wire: what the connection works on.
        lines: what is sent, a message a line.
        screen: where messages and remarks are written.
        json: whether lines and messages are JSON.
        linger: seconds of the server's silence after the end of the input, after which we close.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        wire: Wire,
        lines: LineSource,
        screen: Screen,
        *,
        json: bool,
        linger: float,
    ) -> None:
        self._connection = connection
        self._wire = wire
        self._lines = lines
        self._screen = screen
        self._json = json
        self._linger = linger
        self._input_over = False
        # Around the wait for the next message, and nothing else.
        self._listening = trio.CancelScope()
        self._ending: Ending | None = None
        self.unsent = 0
        """Lines that were not sent since they could not be."""
        self.output_error: str | None = None
        """Why stdout takes no more; empty where nobody reads it, None while it does."""

    async def run(self) -> None:
        """Talk until one side is done; `close` comes next.

        Cancellation:
            The message that is being sent may still go out; `close` waits for that.
        """
        try:
            await wait_any(self._receive_loop, self._send_loop, self._watch_output)
        except OutputClosed as closed:
            self.output_error = str(closed)

    async def close(self, patience: float) -> Ending:
        """Close the WebSocket if it is still open.

        Args:
            patience: seconds for the closing handshake. Before it what is being sent has
                `BRIEF_CLOSE_PATIENCE` seconds to be taken.
        """
        if self._ending is not None:
            return self._ending
        if self._connection.closed is None:
            try:
                with trio.move_on_after(BRIEF_CLOSE_PATIENCE) as scope:
                    await self._wire.wait_send_all_might_not_block()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return Ending(1006, "the connection ended without a Close")
            if scope.cancelled_caught:
                return Ending(1006, "we left in the middle of a message")
        # The server may have closed meanwhile.
        if self._connection.closed is not None:
            return self._read_ending()
        with trio.move_on_after(patience) as scope:
            await self._connection.aclose(1000)
        closed = self._connection.closed
        if scope.cancelled_caught:
            return Ending(1006, f"the server did not answer our Close within {patience:g} s")
        # The server's own Close may have crossed ours.
        if closed is None or closed.code == 1000:
            return Ending(1000, by_us=True)
        return self._read_ending()

    async def _watch_output(self) -> None:
        await self._screen.wait_closed()
        self.output_error = ""

    async def _receive_loop(self) -> None:
        while True:
            with trio.CancelScope() as self._listening:
                if self._input_over:
                    self._listening.deadline = trio.current_time() + self._linger
                try:
                    message = await self._connection.get_message()
                except ConnectionClosed:
                    self._ending = self._read_ending()
                    return
            if self._listening.cancelled_caught:
                return
            await self._show(message)

    async def _show(self, message: str | bytes) -> None:
        if self._json:
            try:
                if isinstance(message, bytes):
                    raise ValueError("it is binary")
                tokens = split_json(message)
            except ValueError as error:
                await self._screen.remark(f"the next message is no JSON: {error}")
            else:
                message = indent_json(tokens) if self._screen.marks else compact_json(tokens)
        await self._screen.show_received(message)

    async def _send_loop(self) -> None:
        await self._screen.prompt()
        while (line := await self._lines.receive()) is not None:
            problem, text = line.problem, line.text
            if self._json and not problem:
                try:
                    text = compact_json(split_json(text))
                except ValueError as error:
                    problem = f"is no JSON: {error}"
            await self._screen.show_sent(line.text, has_end=line.has_end)
            if problem:
                self.unsent += 1
                await self._screen.remark(f"line {line.number} was not sent: it {problem}")
            elif not await self._send(text):
                return
            await self._screen.prompt()
        self._input_over = True
        self._listening.deadline = trio.current_time() + self._linger
        await trio.sleep_forever()

    async def _send(self, text: str) -> bool:
        """Send a message; whether the conversation goes on."""
        try:
            with trio.move_on_after(SEND_PATIENCE) as scope:
                await self._connection.send_message(text)
        except ConnectionClosed:
            # The receiving task tells, when it has shown what came before.
            await trio.sleep_forever()
        if scope.cancelled_caught:
            # Cancelled by another task's end, we don't tell of our own.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._ending = Ending(1006, f"the server took nothing for {SEND_PATIENCE:g} s")
        return not scope.cancelled_caught

    def _read_ending(self) -> Ending:
        closed = self._connection.closed
        if closed is None:
            return Ending(1006, "the server broke the WebSocket protocol")
        if closed.code == 1006:
            return Ending(1006, "the connection ended without a Close")
        told = closed.code, closed.reason or ""
        if told == _read_close(self._wire.close_frame):
            return Ending(*told)
        if told == _read_close(self._wire.our_close):
            # The one Close that trio-websocket sends of itself: a message was too large.
            return Ending(*told, by_us=True)
        # Nobody's Close but trio-websocket's own words.
        why = escape_controls(closed.reason or str(closed.code))
        return Ending(1006, f"the server broke the WebSocket protocol ({why})")


def _read_close(frame: Frame | None) -> tuple[int, str] | None:
    return None if frame is None else (frame.close_code, frame.text)

"""The command ``connect``: its options, and its run from the first look-up to the exit code.

What goes wrong before the WebSocket is open is told in one line with exit code 2. The exit code
afterwards is 128 and the signal's number as a shell has it, else that of stdout's end, else 1 where
a line that was not typed could not be sent, else that of the close code.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio

from trioweb.cli.connect.address import parse_address, parse_header, parse_subprotocol
from trioweb.cli.connect.conversation import BRIEF_CLOSE_PATIENCE, CLOSE_PATIENCE, Conversation
from trioweb.cli.connect.lines import LineSource
from trioweb.cli.connect.opening import (
    Answer,
    CannotConnect,
    explain,
    make_tls,
    open_stream,
    shake_hands,
)
from trioweb.cli.connect.screen import Screen, choose_manner

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from typing import TextIO

    from trio_websocket import WebSocketConnection

    from trioweb.cli.connect.address import Address
    from trioweb.cli.connect.conversation import Ending
    from trioweb.client.wire import Wire

# Seconds until the WebSocket is open, name, TLS and handshake together.
_TIMEOUT = 10.0
# Seconds of silence after the end of the input: answers to what was sent last are there by then.
_LINGER = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``connect`` to its parser."""
    parser.add_argument(
        "address",
        type=_checked(parse_address),
        metavar="URL",
        help="ws://, wss://, http:// or https://; without any, ws://",
    )
    parser.add_argument(
        "-H",
        "--header",
        type=_checked(parse_header),
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="send a header with the handshake; may be repeated",
    )
    parser.add_argument(
        "--subprotocol",
        type=_checked(parse_subprotocol),
        action="append",
        default=[],
        metavar="NAME",
        help="offer a subprotocol; may be repeated, the best first",
    )
    parser.add_argument(
        "--origin", type=_checked(_parse_origin), help="the page's origin, as a browser sends it"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="lines and messages are JSON: a line that is none is not sent, a message that is none "
        "is remarked and shown as it is; sent compact, shown indented on a terminal, else compact",
    )
    parser.add_argument(
        "--linger",
        type=_seconds,
        default=_LINGER,
        metavar="SECONDS",
        help="after the end of the input, close when the server was silent for so long; inf leaves "
        "that to the server (%(default)g)",
    )
    parser.add_argument(
        "--timeout",
        type=_positive_seconds,
        default=_TIMEOUT,
        metavar="SECONDS",
        help="to be connected by then (%(default)g)",
    )
    parser.add_argument("--cacert", metavar="FILE", help="trust these certificates (PEM) only")
    parser.add_argument(
        "--insecure", action="store_true", help="trust any certificate, whoever shows it"
    )


def connect(options: argparse.Namespace) -> int:
    """Talk to a WebSocket.

    Args:
        options: of the command line.

    Returns:
        The exit code.
    """
    stdin, stdout, stderr = (
        _find_descriptor(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)
    )
    if stdout is None:
        print("trioweb: stdout is closed, there is nowhere to write to", file=sys.stderr)
        return 2
    lines = LineSource(stdin)
    typed = stdin is not None and os.isatty(stdin)
    screen = Screen(stdout, stderr, choose_manner(stdin, stdout, stderr), lines.has_input)
    run = _Run(options, lines, screen, typed=typed)
    try:
        trio.run(run.run)
    except CannotConnect as error:
        return run.fail(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return run.finish()


class _Run:
    """One run of the command.

    Theory of operation. The first signal cancels what `_talk` is around: connecting, or the
    conversation, which is then closed briefly. The second one cancels everything.
    """

    def __init__(
        self, options: argparse.Namespace, lines: LineSource, screen: Screen, *, typed: bool
    ) -> None:
        self._options = options
        self._address: Address = options.address
        self._lines = lines
        self._screen = screen
        self._typed = typed
        self._talk = trio.CancelScope()
        self._signal = 0
        self._failure = ""
        self._conversation: Conversation | None = None
        self._ending: Ending | None = None

    async def run(self) -> None:
        """From the first look-up to the end of the connection.

        Raises:
            CannotConnect: TLS can't be spoken as it was asked for.
        """
        tls = None
        if self._address.secure:
            tls = make_tls(self._options.cacert, insecure=self._options.insecure)
            if self._options.insecure:
                await self._screen.remark("warning: the server's certificate is not checked")
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals, signals, nursery.cancel_scope)
                await self._connect(tls)
                nursery.cancel_scope.cancel()

    def finish(self) -> int:
        """Write the last line; the exit code."""
        if self._failure:
            return self.fail(self._failure)
        self._screen.finish("interrupted" if self._ending is None else str(self._ending))
        if self._signal:
            return 128 + self._signal
        assert self._ending is not None
        assert self._conversation is not None
        error = self._conversation.output_error
        if error is not None:
            if error:
                self._screen.finish(f"trioweb: can't write to stdout: {error}")
            return 1 if error else 0
        if self._conversation.unsent and not self._typed:
            return 1
        return self._ending.exit_code

    def fail(self, why: str) -> int:
        """Tell why there was no connection; the exit code."""
        self._screen.finish(f"trioweb: can't connect to {self._address.url}: {why}")
        return 2

    async def _watch_signals(
        self, signals: AsyncIterator[int], everything: trio.CancelScope
    ) -> None:
        async for number in signals:
            if self._signal:
                everything.cancel()
            self._signal = number
            self._talk.cancel()

    async def _connect(self, tls: ssl.SSLContext | None) -> None:
        try:
            # The stream is closed when nothing reads it any more.
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                with self._talk:
                    connection, wire = await self._open(stack, nursery, tls)
                    self._conversation = Conversation(
                        connection,
                        wire,
                        self._lines,
                        self._screen,
                        json=self._options.json,
                        # Who ends the input at a terminal has seen what there was to see.
                        linger=0 if self._typed else self._options.linger,
                    )
                    await self._greet(connection)
                    await self._conversation.run()
                if self._conversation is not None:
                    patience = BRIEF_CLOSE_PATIENCE if self._signal else CLOSE_PATIENCE
                    self._ending = await self._conversation.close(patience)
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            if self._conversation is not None:
                raise
            self._failure = explain(group)

    async def _open(
        self, stack: AsyncExitStack, nursery: trio.Nursery, tls: ssl.SSLContext | None
    ) -> tuple[WebSocketConnection, Wire]:
        options = self._options
        headers = options.header + ([options.origin] if options.origin else [])
        answer = None
        with trio.move_on_after(options.timeout):
            stream = await stack.enter_async_context(open_stream(self._address, tls))
            answer = Answer()
            return await shake_hands(
                nursery, stream, self._address, headers, options.subprotocol, answer
            )
        if answer is None:
            raise CannotConnect(f"nobody answered within {options.timeout:g} s")
        raise CannotConnect(answer.explain_delay(options.timeout))

    async def _greet(self, connection: WebSocketConnection) -> None:
        text = f"connected to {self._address.url}"
        if connection.subprotocol:
            text += f", subprotocol {connection.subprotocol}"
        elif self._options.subprotocol:
            text += ", no subprotocol was chosen"
        await self._screen.remark(text)


def _find_descriptor(stream: TextIO | None) -> int | None:
    # Python has None for a descriptor that was closed when it started; the number may be another
    # file's by now.
    return None if stream is None else stream.fileno()


def _parse_origin(text: str) -> tuple[bytes, bytes]:
    return parse_header(f"Origin: {text}")


def _checked(parse: Callable[[str], object]) -> Callable[[str], object]:
    """A parser of ours for argparse, which keeps what it has to say."""

    def parse_argument(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds) or seconds < 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds, 0 or more")
    return seconds


def _positive_seconds(text: str) -> float:
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError("0 seconds are no time at all; give more, or inf")
    return seconds

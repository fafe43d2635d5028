"""Opening a WebSocket to a server: TCP, TLS, the handshake, and why one of them failed.

Theory of operation. trio-websocket waits for ever when the server leaves before it has answered
the handshake, and takes what is no HTTP for a bug. So it reads through a `Wire`, which shows the
answer to an `Answer`, and that raises what can be told to the user.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionRejected, wrap_client_stream

from trioweb.cli.connect.rendering import escape_controls
from trioweb.client.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trio_websocket import WebSocketConnection

    from trioweb.cli.connect.address import Address

# Bytes of the largest message that is received: it is held in memory whole.
MAX_MESSAGE = 64 * 1024 * 1024
# Messages that wait unread. While one is printed the next ones are read, and pings answered.
_QUEUE = 16
# Bytes of an answer that refuses: its body is for people, and the rest is not read.
_MAX_REFUSAL = 64 * 1024
# What is shown of a refusal's body.
_BODY_LINES, _BODY_WIDTH = 5, 200
# Seconds for TLS to say goodbye on a connection that is over.
_GOODBYE = 1.0


class CannotConnect(Exception):
    """There is no WebSocket to be had at the address; the message says why."""


def make_tls(cacert: str | None, *, insecure: bool) -> ssl.SSLContext:
    """What checks a server's certificate.

    Args:
        cacert: a file of certificates in PEM, trusted instead of the system's.
        insecure: whether any certificate will do.

    Raises:
        CannotConnect: the file can't be used.
    """
    try:
        tls = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError as error:
        raise CannotConnect(f"{cacert} has no certificates in PEM ({error.reason})") from error
    except OSError as error:
        raise CannotConnect(f"can't read {cacert}: {error.strerror}") from error
    # RFC 6455 is HTTP/1.1; a server that is offered nothing may choose HTTP/2.
    tls.set_alpn_protocols(["http/1.1"])
    if insecure:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


@asynccontextmanager
async def open_stream(
    address: Address, tls: ssl.SSLContext | None
) -> AsyncGenerator[trio.abc.Stream]:
    """A stream to the server, closed at the end of the block.

    Raises:
        CannotConnect: the name, the port or the certificate is to blame.
    """
    stream = await _open_tcp(address)
    try:
        if address.secure:
            assert tls is not None
            secured = trio.SSLStream(
                stream, tls, server_hostname=address.host, https_compatible=True
            )
            await _secure(secured)
            yield secured
            # Of a connection that is over, TLS says so; who is gone does not hear it.
            with trio.move_on_after(_GOODBYE), suppress(trio.BrokenResourceError):
                await secured.aclose()
        else:
            yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def _open_tcp(address: Address) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(address.host, address.port)
    except socket.gaierror as error:
        raise CannotConnect(
            f"the name {address.host} can't be looked up: {error.strerror}"
        ) from error
    except OSError as error:
        # Each address of the name was tried; the ways in which that failed are the cause.
        causes = _leaves(error.__cause__) if error.__cause__ else [error]
        reasons = dict.fromkeys(map(_say_why, causes))
        raise CannotConnect(", ".join(reasons)) from error


def _say_why(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return str(error) if number is None else os.strerror(number)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


async def _secure(stream: trio.SSLStream[trio.SocketStream]) -> None:
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise CannotConnect(
                f"the server's certificate is not trusted: {cause.verify_message}; "
                "--cacert FILE trusts another, --insecure any"
            ) from error
        why = (cause.reason if isinstance(cause, ssl.SSLError) else None) or "the server left"
        raise CannotConnect(f"TLS failed: {why}") from error


async def shake_hands(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    address: Address,
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
    answer: Answer | None = None,
) -> tuple[WebSocketConnection, Wire]:
    """Open the WebSocket over a stream.

    Args:
        nursery: runs what reads the stream, until its end or the nursery's, and what writes to
            it, until the nursery is cancelled. What the handshake fails with is raised there;
            `explain` tells it.
        stream: closed by whoever opened it.
        address: what is asked for.
        headers: beside those that make a handshake; ``Host`` replaces the address's.
        subprotocols: offered in this order.
        answer: has what has come when the handshake is given up.

    Returns:
        The WebSocket, and the wire that it is on.
    """
    host = address.authority
    extra = []
    for name, value in (*address.headers(), *headers):
        if name.lower() == b"host":
            host = value.decode()
        else:
            extra.append((name, value))
    wire = Wire(stream, (answer or Answer()).check)
    nursery.start_soon(wire.send_loop)
    connection = await wrap_client_stream(
        nursery,
        wire,  # type: ignore[arg-type]  # it wants any Stream really
        host,
        address.resource,
        subprotocols=subprotocols,
        extra_headers=extra,
        message_queue_size=_QUEUE,
        max_message_size=MAX_MESSAGE,
        receive_buffer_size=64 * 1024,
    )
    return connection, wire


def explain(group: ExceptionGroup) -> str:
    """Why a handshake failed, from what its nursery raised."""
    error = _leaves(group)[0]
    if isinstance(error, ConnectionRejected):
        return _explain_refusal(error.status_code, error.headers, error.body or b"")
    if isinstance(error, CannotConnect):
        return str(error)
    # What trio-websocket and those below it raise has no common root. To an answer that is wrong it
    # tries to send a refusal, as a server would, and fails at that; the first error is the cause.
    while error.__context__ is not None:
        error = error.__context__
    why = escape_controls(str(error))
    return f"the answer to the handshake is not as it must be ({why})"


def _explain_refusal(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    lines = [f"the server answered {status}{phrase}"]
    for name, value in headers:
        if name.lower() == b"location":
            lines[0] += f", go to {escape_controls(value.decode('latin-1'))}"
    shown = [line for line in body.decode(errors="replace").splitlines() if line.strip()]
    lines += [escape_controls(line)[:_BODY_WIDTH] for line in shown[:_BODY_LINES]]
    if len(shown) > _BODY_LINES:
        lines.append("…")
    return "\n".join(lines)


class Answer:
    """What comes in answer to a handshake, as long as it is no whole 101."""

    def __init__(self) -> None:
        self._received = b""

    def check(self, received: bytes, has_ended: bool) -> None:
        """Raise what there is to say of it, if there is something.

        Args:
            received: what has come of it.
            has_ended: whether that was all.

        Raises:
            CannotConnect: it is none, or there will be no more of it.
        """
        self._received = received
        if has_ended and not received:
            raise CannotConnect("the server left without an answer to the handshake")
        if not received.startswith(b"HTTP/"[: len(received)]):
            raise CannotConnect(f"the server doesn't speak HTTP, it said {received[:60]!r}")
        if has_ended or len(received) > _MAX_REFUSAL:
            why = f"the server left in the middle of its answer: {received[:60]!r}"
            raise CannotConnect(_explain_answer(received) or why)

    def explain_delay(self, seconds: float) -> str:
        """Why there is no WebSocket yet: a refusal is one though its body goes on.

        Args:
            seconds: how long it was waited for.
        """
        why = f"the handshake was not answered within {seconds:g} s"
        if self._received:
            why = f"the answer to the handshake was not whole within {seconds:g} s: "
            why += repr(self._received[:60])
        return _explain_answer(self._received) or why


def _explain_answer(answer: bytes) -> str:
    """What is told of a refusal, as far as it has come; empty where it is none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    status = first.split(b" ")[1:2]
    # What begins with 1 is no refusal, and can't be whole where it is shown.
    if not status or not re.fullmatch(rb"[2-9][0-9]{2}", status[0]):
        return ""
    pairs = [line.partition(b":")[::2] for line in rest]
    return _explain_refusal(int(status[0]), [(n.strip(), v.strip()) for n, v in pairs], body)

"""The byte stream: the one seam between protocols and transports.

Theory of operation. A protocol first asks for what can be had at once (``try_send``,
``try_receive``), which costs one system call and no turn of the event loop, and only then waits
(``send_some``, ``receive_some``). So a small message goes out in the task that sends it, and what
the kernel did not take is left to whoever owns the sending side.

One task at a time reads, and one at a time sends; a second one that has to wait gets
``trio.BusyResourceError`` from Trio. Every failure of the connection is
``trio.BrokenResourceError``, and use after our own ``aclose`` is ``trio.ClosedResourceError``;
``OSError`` does not leave this module.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable

Data: TypeAlias = bytes | bytearray | memoryview

# Bytes that the kernel may hold unsent before it calls the socket full. Small enough that a slow
# reader's queue stays with us, where it is bounded and can be dropped (measured: 128 KB instead of
# 4 MB), and large enough to keep a fast one busy (docs/design.md, what things cost).
NOTSENT_LOWAT = 16 * 1024

# struct tcp_info of linux/tcp.h, as far as tcpi_last_ack_recv: eight one-byte fields (the first is
# the state, the fifth the backoff), then 32-bit ones. Later kernels only append.
_TCP_INFO = struct.Struct("=8B13I")
# enum tcp_state of linux/tcp_states.h
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
# Missing from the socket module of other platforms, where the kernel can't be asked.
_TCP_INFO_OPTION: int | None = getattr(socket, "TCP_INFO", None)
_POLLRDHUP: int = getattr(select, "POLLRDHUP", 0)


class ByteStream(Protocol):
    """A connection's bytes in both directions, as protocols see them."""

    @property
    def peer(self) -> str:
        """The other end, for logs: ``127.0.0.1:5123``, ``unix`` or ``memory``."""

    @property
    def client(self) -> tuple[str, int] | None:
        """The peer's address where it is a TCP one."""

    @property
    def scheme(self) -> str:
        """``https`` when the bytes travel encrypted, else ``http``."""

    def try_send(self, data: Data) -> int:
        """Give away what can be taken now.

        Returns:
            How many bytes were taken; 0 is nothing, and then ``send_some`` must be waited for.
        """

    async def send_some(self, data: Data) -> int:
        """Wait until at least one byte has been taken.

        Returns:
            How many bytes were taken, at least 1 (0 only for empty data).

        Cancellation:
            Nothing was taken; over an adapter it is unknown how much was.
        """

    def try_receive(self, max_bytes: int) -> bytes | None:
        """Take what has come, at most ``max_bytes``.

        Returns:
            The bytes, ``b""`` at the end of the stream, or None when nothing has come yet.
        """

    async def receive_some(self, max_bytes: int) -> bytes:
        """Wait for at least one byte and take at most ``max_bytes``.

        Returns:
            The bytes, or ``b""`` at the end of the stream.

        Cancellation:
            Nothing is lost. Bytes that are there already may be returned without a checkpoint.
        """

    def as_pollable(self) -> PollableStream | None:
        """This stream, if it can tell that bytes have come without taking them."""

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come, where the stream can; else do nothing."""

    async def aclose(self) -> None:
        """Close both directions; a second time does nothing.

        Cancellation:
            The stream is closed all the same.
        """

    def is_peer_alive(self, ack_timeout: float) -> bool | None:
        """Ask the kernel whether the peer is still there, without sending anything.

        Args:
            ack_timeout: seconds that sent bytes may stay unacknowledged.

        Returns:
            False when it has closed its side or answers no more, True when it is there, even if it
            reads nothing, None when nobody can say.
        """


class PollableStream(ByteStream, Protocol):
    """A byte stream that one task may wait at while another one may tell it to stop."""

    def wait_readable(self) -> Awaitable[None]:
        """Wait until ``try_receive`` may give something.

        Raises:
            trio.ClosedResourceError: ``interrupt`` was called, or the stream was closed at this
                end.

        Cancellation:
            Changes nothing.
        """

    def interrupt(self) -> None:
        """Let ``wait_readable`` raise; who waits in another method waits on."""


def as_byte_stream(stream: trio.abc.Stream | ByteStream) -> ByteStream:
    """Return the stream itself when it is a `ByteStream` already, else an adapter over it."""
    if hasattr(stream, "try_receive"):
        return cast(ByteStream, stream)
    return StreamAdapter(stream)


class SocketStream:
    """A `ByteStream` over a connected, raw stdlib socket (TCP or unix), which it owns.

    Args:
        sock: made non-blocking; TCP sockets get TCP_NODELAY and TCP_NOTSENT_LOWAT.
    """

    __slots__ = ("_is_drained", "_sock", "client", "peer", "scheme")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        # The last read brought less than it might have: asking again would be for nothing.
        self._is_drained = False
        self.scheme = "http"
        self.client = _tcp_address(sock)
        self.peer = _describe(sock.family, self.client)
        if sock.family != getattr(socket, "AF_UNIX", None):
            _set_tcp_options(sock)

    def try_send(self, data: Data) -> int:
        """Give the kernel what it takes now: how many bytes, 0 for none."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._translate(exc) from exc

    async def send_some(self, data: Data) -> int:
        """Wait until the kernel takes something; a checkpoint only if it waits."""
        while True:
            try:
                return self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError as exc:
                raise self._translate(exc) from exc
            try:
                await trio.lowlevel.wait_writable(self._sock.fileno())
            except trio.ClosedResourceError:
                self._check_open()

    def try_receive(self, max_bytes: int) -> bytes | None:
        """Take what the kernel holds: bytes, ``b""`` at the end, None for nothing yet."""
        try:
            data = self._sock.recv(max_bytes)
        except BlockingIOError:
            self._is_drained = True
            return None
        except OSError as exc:
            raise self._translate(exc) from exc
        self._is_drained = len(data) < max_bytes
        return data

    async def receive_some(self, max_bytes: int) -> bytes:
        """Wait for bytes; a checkpoint only if it waits."""
        while True:
            if self._is_drained:
                try:
                    await trio.lowlevel.wait_readable(self._sock.fileno())
                except trio.ClosedResourceError:
                    self._check_open()
            data = self.try_receive(max_bytes)
            if data is not None:
                return data

    def as_pollable(self) -> SocketStream:
        """This stream: the kernel tells."""
        return self

    def wait_readable(self) -> Awaitable[None]:
        """Wait until the kernel holds something, the stream's end included."""
        descriptor = self._sock.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("this stream was already closed")
        return trio.lowlevel.wait_readable(descriptor)  # noqa: ASYNC105 - the caller does

    def interrupt(self) -> None:
        """Let ``wait_readable`` raise."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock.fileno())

    def _check_open(self) -> None:
        """Also after a wait that ended as if the socket were closed: it may be ``interrupt``."""
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this stream was already closed")

    async def send_eof(self) -> None:
        """Half-close: the peer reads to the end, and we may read on."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise self._translate(exc) from exc
        await trio.lowlevel.checkpoint_if_cancelled()

    async def aclose(self) -> None:
        """Close the socket; who waits on it gets ``trio.ClosedResourceError``."""
        self._is_drained = False  # the next read fails at once
        if self._sock.fileno() >= 0:
            # The order matters: epoll forgets a closed descriptor silently, its waiters never wake.
            trio.lowlevel.notify_closing(self._sock.fileno())
            self._sock.close()
        await trio.lowlevel.checkpoint_if_cancelled()

    def is_peer_alive(self, ack_timeout: float) -> bool | None:
        """Ask the kernel; see `ByteStream.is_peer_alive`."""
        if self._sock.fileno() < 0:
            return False
        return _ask_kernel(self._sock, ack_timeout)

    def _translate(self, exc: OSError) -> Exception:
        if self._sock.fileno() < 0:
            return trio.ClosedResourceError("this stream was already closed")
        return trio.BrokenResourceError(f"connection lost: {exc}")


class StreamAdapter:
    """A `ByteStream` over any ``trio.abc.Stream`` (TLS, memory streams, another library's).

    It takes nothing at once, so all sending falls to the one task that waits in `send_some`.

    Args:
        stream: owned from now on.
        scheme: ``http`` or ``https``; by default told from the stream.
    """

    def __init__(self, stream: trio.abc.Stream, scheme: str | None = None) -> None:
        self._stream = stream
        sock = _socket_below(stream)
        self._sock = sock
        if scheme is None:
            scheme = "https" if isinstance(stream, trio.SSLStream) else "http"
        self.scheme = scheme
        self.client = None if sock is None else _tcp_address(sock)
        self.peer = "memory" if sock is None else _describe(sock.family, self.client)

    def try_send(self, data: Data) -> int:
        """Take nothing: a Trio stream can only be waited for."""
        return 0

    async def send_some(self, data: Data) -> int:
        """Send all of the data; cancelled, it is unknown how much of it went out."""
        await self._stream.send_all(memoryview(data) if isinstance(data, bytearray) else data)
        return len(data)

    def try_receive(self, max_bytes: int) -> bytes | None:
        """Return None: a Trio stream can only be waited for."""
        return None

    async def receive_some(self, max_bytes: int) -> bytes:
        """Wait for bytes."""
        return bytes(await self._stream.receive_some(max_bytes))

    def as_pollable(self) -> None:
        """Return None: a Trio stream gives bytes when it is waited for, and only then."""
        return None

    async def send_eof(self) -> None:
        """Half-close where the stream can; TLS can't."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream; a peer that is gone already is no error."""
        try:
            await self._stream.aclose()
        except trio.BrokenResourceError:
            pass

    def is_peer_alive(self, ack_timeout: float) -> bool | None:
        """Ask the kernel about the socket below, if there is one."""
        if self._sock is None:
            return None
        if self._sock.fileno() < 0:
            return False
        return _ask_kernel(self._sock, ack_timeout)


_AnySocket: TypeAlias = "socket.socket | trio.socket.SocketType"


def _socket_below(stream: object) -> trio.socket.SocketType | None:
    """Find the socket that carries a Trio stream, through any layers of TLS."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def _tcp_address(sock: _AnySocket) -> tuple[str, int] | None:
    try:
        address = sock.getpeername()
    except OSError:
        # It was reset between its arrival and our accept; the first read will say so.
        return None
    if isinstance(address, tuple) and len(address) >= 2:
        return str(address[0]), int(address[1])
    return None


def _describe(family: int, client: tuple[str, int] | None) -> str:
    if client is not None:
        host, port = client
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix" if family == getattr(socket, "AF_UNIX", None) else "unknown"


def _set_tcp_options(sock: socket.socket) -> None:
    try:
        # Else the second segment of a reply waits for the first one's ack: 44 ms instead of 0.6.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lowat: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if lowat is not None:
            sock.setsockopt(socket.IPPROTO_TCP, lowat, NOTSENT_LOWAT)
    except OSError:
        # Some kernels refuse options on a connection that is reset already; reading will say so.
        pass


def _ask_kernel(sock: _AnySocket, ack_timeout: float) -> bool | None:
    if sock.family == getattr(socket, "AF_UNIX", None):
        return _is_unix_peer_alive(sock.fileno())
    if _TCP_INFO_OPTION is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO_OPTION, _TCP_INFO.size)
    except OSError:
        return None
    if len(info) < _TCP_INFO.size:
        return None
    return _judge_tcp_info(info, ack_timeout)


def _judge_tcp_info(info: bytes, ack_timeout: float) -> bool:
    """Read a ``struct tcp_info``: False means that the peer is gone.

    The last acknowledgement alone proves nothing: after an idle hour it is an hour old at the
    moment that a ping leaves. How long the oldest byte has been waiting follows from the
    retransmission timer, which doubles ``backoff`` times from its first value: the waits so far
    sum up to ``rto - (rto >> backoff)``, and the last one began with the last transmission.
    A zero window has nothing unacknowledged (it is probed instead), and so counts as alive.
    """
    fields = _TCP_INFO.unpack(info)
    state, backoff = fields[0], fields[4]
    if state in (_TCP_CLOSE, _TCP_CLOSE_WAIT):
        return False
    rto_us, unacked = fields[8], fields[12]
    last_data_sent_ms, last_ack_received_ms = fields[17], fields[20]
    if not unacked or last_ack_received_ms <= ack_timeout * 1000:
        return True
    rto_ms = rto_us / 1000
    waited_ms = rto_ms - rto_ms / 2**backoff + last_data_sent_ms
    return bool(waited_ms <= ack_timeout * 1000)


def _is_unix_peer_alive(descriptor: int) -> bool | None:
    if not _POLLRDHUP:
        return None
    poll = select.poll()
    poll.register(descriptor, _POLLRDHUP)
    return not poll.poll(0)

"""Listeners and the accept loop, over raw stdlib sockets.

Trio's own listeners don't hand out the raw socket, and ``trio.serve_tcp`` ends when one handler
raises. Here the loop only accepts; what a connection does, and what happens when it fails, is the
business of whoever passes ``start``.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING

import trio

from trioweb.net.stream import SocketStream

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("trioweb")

# As large as Linux allows by default (net.core.somaxconn since 5.4); smaller kernels cut it.
BACKLOG = 4096
# Connections accepted in one go before other tasks get their turn: one accept costs about 10 µs.
ACCEPTS_PER_TURN = 64
# Seconds between two tries while the process has no descriptors left; connections wait meanwhile.
EXHAUSTED_PAUSE = 0.1
# Seconds between two log lines about that.
EXHAUSTED_LOG_INTERVAL = 60.0
# What is out of descriptors or of kernel memory: it passes when connections end.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
# The listener itself is gone.
_LISTENER_GONE = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}


async def open_tcp_listeners(host: str | None, port: int) -> list[socket.socket]:
    """Listen on every address of a host.

    Args:
        host: a name or an address; None or ``""`` is every interface, both IPv4 and IPv6.
        port: 0 lets the kernel choose, one port for all addresses.

    Returns:
        Non-blocking sockets that listen; the caller owns them.

    Raises:
        OSError: nothing can listen there; nothing is left open.
    """
    found = await trio.socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    unsupported: OSError | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as exc:
                # A machine without IPv6 still resolves names to it.
                unsupported = exc
                continue
            listeners.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Else it takes the IPv4 port as well, which has a listener of its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(BACKLOG)
            # The addresses after the first one get the port that the kernel chose for it.
            port = sock.getsockname()[1]
    except BaseException:
        for sock in listeners:
            sock.close()
        raise
    if not listeners:
        raise unsupported or OSError(errno.EADDRNOTAVAIL, f"no address for {host!r}")
    return listeners


class _UnixListener(socket.socket):
    """A listening unix socket that takes its file with it when it is closed."""

    file_path = ""
    file_identity: tuple[int, int] | None = None

    def close(self) -> None:
        """Close it, and remove its file unless another one has taken its place."""
        if self.fileno() >= 0 and self.file_identity == _identity(self.file_path):
            try:
                os.unlink(self.file_path)
            except OSError:
                pass
        super().close()


def open_unix_listener(path: str | os.PathLike[str]) -> socket.socket:
    """Listen on a unix socket; closing the result removes the file again.

    Args:
        path: of the socket. A socket file that nobody answers on is replaced.

    Returns:
        A non-blocking socket that listens; the caller owns it.

    Raises:
        OSError: somebody listens there already, or the path is something else.
    """
    name = os.fspath(path)
    _remove_stale(name)
    sock = _UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        sock.file_path, sock.file_identity = name, _identity(name)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "exists and is not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog answers EAGAIN instead of waiting: somebody is there.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except BlockingIOError as exc:
            raise OSError(errno.EADDRINUSE, "somebody listens here already", path) from exc
        else:
            raise OSError(errno.EADDRINUSE, "somebody listens here already", path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


async def accept_loop(listener: socket.socket, start: Callable[[SocketStream], object]) -> None:
    """Accept connections until cancelled or until the listener is closed.

    Args:
        listener: stays the caller's. To end the loop from outside, cancel it, or call
            ``trio.lowlevel.notify_closing(listener)`` and close it.
        start: a plain function that takes over each connection, as by ``nursery.start_soon``. An
            exception of its own ends the loop: to guard its sessions is its business.

    Cancellation:
        Connections that the kernel holds stay there, for whoever accepts next.
    """
    if listener.fileno() >= 0:
        listener.setblocking(False)
    last_logged = float("-inf")
    while True:
        try:
            if listener.fileno() < 0:
                return
            await trio.lowlevel.wait_readable(listener.fileno())
            _accept_waiting(listener, start)
        except trio.ClosedResourceError:
            return
        except OSError as exc:
            if exc.errno in _LISTENER_GONE:
                return
            if exc.errno not in _EXHAUSTED:
                raise
            now = trio.current_time()
            if now - last_logged >= EXHAUSTED_LOG_INTERVAL:
                last_logged = now
                logger.error(
                    "can't accept connections: %s; they wait until others end "
                    "(raise the limit with ulimit -n)",
                    exc.strerror,
                )
            await trio.sleep(EXHAUSTED_PAUSE)


def _accept_waiting(listener: socket.socket, start: Callable[[SocketStream], object]) -> None:
    """Accept what waits, up to a turn's share."""
    for _ in range(ACCEPTS_PER_TURN):
        try:
            sock, _address = listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno in _EXHAUSTED or exc.errno in _LISTENER_GONE:
                raise
            # That one connection was lost before we got to it (accept(2): errors that are already
            # pending on the new socket); the next call brings the next one.
            continue
        try:
            stream = SocketStream(sock)
        except BaseException:
            sock.close()
            raise
        start(stream)

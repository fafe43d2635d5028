"""Listeners and the accept loop, over real sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trioweb.net import accept_loop, open_tcp_listeners, open_unix_listener

if TYPE_CHECKING:
    from pathlib import Path

    from trioweb.net import SocketStream


async def test_one_port_for_all_addresses() -> None:
    """A host name with port 0 gets the same port on each of its addresses."""
    listeners = await open_tcp_listeners("localhost", 0)
    assert len({sock.getsockname()[1] for sock in listeners}) == 1
    for sock in listeners:
        sock.close()
    for sock in await open_tcp_listeners(None, 0):
        sock.close()


async def test_a_taken_port_is_an_error_that_leaves_nothing_open() -> None:
    """The second listener on a port fails with EADDRINUSE."""
    [first] = await open_tcp_listeners("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await open_tcp_listeners("127.0.0.1", first.getsockname()[1])
    first.close()


async def test_connections_are_handed_over_until_the_listener_is_closed() -> None:
    """Many connections of one wake-up are all started; closing the listener ends the loop."""
    [listener] = await open_tcp_listeners("127.0.0.1", 0)
    started: list[SocketStream] = []
    clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_loop, listener, started.append)
            while len(started) < 100:
                await trio.lowlevel.checkpoint()
            trio.lowlevel.notify_closing(listener)
            listener.close()
    assert {s.client for s in started} == {c.getsockname() for c in clients}
    await accept_loop(listener, started.append)  # closed already: ends at once
    for stream, client in zip(started, clients, strict=True):
        client.close()
        await stream.aclose()


class Exhausted(socket.socket):
    """A listener whose accept fails as often as it is told."""

    failures = 0
    error = errno.EMFILE

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


@pytest.mark.parametrize(
    ("error", "lines"), [(errno.EMFILE, 1), (errno.ENFILE, 1), (errno.ECONNABORTED, 0)]
)
async def test_the_loop_survives_exhaustion_and_lost_connections(
    error: int,
    lines: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No descriptors left: it tries again after a pause, and says so once a minute."""
    monkeypatch.setattr("trioweb.net.listen.EXHAUSTED_PAUSE", 0.001)
    listener = Exhausted()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.failures, listener.error = 5, error
    client = socket.create_connection(listener.getsockname())
    started: list[SocketStream] = []
    with trio.fail_after(5), caplog.at_level(logging.INFO, "trioweb"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_loop, listener, started.append)
            while not started:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert len(caplog.records) == lines
    await started[0].aclose()
    client.close()
    listener.close()


async def test_unix_socket_comes_and_goes(tmp_path: Path) -> None:
    """It serves, refuses a second server, and takes its file away when it is closed."""
    path = tmp_path / "web.sock"
    listener = open_unix_listener(path)
    with pytest.raises(OSError, match="listens here already"):
        open_unix_listener(path)
    started: list[SocketStream] = []
    with trio.fail_after(5), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_loop, listener, started.append)
            while len(started) < 2:  # the second server's probe is the first connection
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    for stream in started:
        assert stream.peer == "unix"
        await stream.aclose()
    listener.close()
    listener.close()
    assert not path.exists()


async def test_only_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    """A dead server's socket is replaced, a plain file never; another's file is left alone."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    listener = open_unix_listener(path)
    path.rename(tmp_path / "moved.sock")
    path.write_text("somebody's")
    listener.close()
    assert path.read_text() == "somebody's"
    with pytest.raises(FileExistsError):
        open_unix_listener(path)

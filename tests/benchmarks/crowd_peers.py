"""A crowd of peers in a process of its own, which reads everything away and counts it.

Linux only, as the programs that use it: epoll, processors by number, and all of 127.0.0.0/8.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import platform
import select
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

import trioweb

if TYPE_CHECKING:
    from collections.abc import Iterator

# As clean as a process that was started from the shell, trio's state and descriptors included.
PROCESSES = multiprocessing.get_context("spawn")
# Clients' addresses: one has about 28 000 ports, and those of a run before rest for a minute.
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 10)]
# Seconds after which a benchmark gives up on what should take a few milliseconds.
PATIENCE = 30.0


def part_processors() -> int:
    """Keep the first processor that we may use for the server, this process.

    Returns:
        The last one, for everybody else.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    return max(allowed)


class Group(NamedTuple):
    """Connections to one port, each opened with an upgrade."""

    size: int
    port: int
    path: str


class Tally(ctypes.Structure):
    """What the peers' process writes and the server's reads, in memory that they share."""

    _fields_ = (
        ("connected", ctypes.c_uint64),
        ("received", ctypes.c_uint64),
        ("last_at", ctypes.c_double),
    )
    connected: int
    received: int  # bytes, handshakes not included
    last_at: float  # of time.monotonic(), which all processes share


async def wait_connected(tally: Tally, count: int) -> None:
    """Wait until so many peers are connected."""
    with trio.fail_after(PATIENCE + count / 100):
        while tally.connected < count:
            await trio.sleep(0.01)


async def wait_received(tally: Tally, size: int) -> None:
    """Wait until the peers have received so many bytes in all; more than that is an error."""
    with trio.fail_after(PATIENCE):
        while tally.received < size:
            await trio.sleep(0.002)
    assert tally.received == size, f"{tally.received - size} bytes too many have come"


@contextmanager
def open_peers(processor: int, *groups: Group, niceness: int = 0) -> Iterator[Tally]:
    """Run a process that connects the groups, in this order, and reads until they are closed.

    Args:
        processor: the process's.
        groups: what to connect to.
        niceness: of the process, where another one measures on the same processor.
    """
    tally = PROCESSES.RawValue(Tally)
    process = PROCESSES.Process(
        target=_run_peers, args=(tally, processor, groups, niceness), daemon=True
    )
    process.start()
    try:
        yield tally
    finally:
        process.terminate()
        process.join()


def open_websocket(port: int, path: str, source: str = ADDRESSES[0]) -> socket.socket:
    """Connect and ask for an upgrade; ``read_upgrade`` takes the answer."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return sock


def read_upgrade(sock: socket.socket) -> None:
    """Take the answer to the upgrade, behind which nothing may have come yet."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        read = sock.recv(4096)
        assert read, f"refused: {head!r}"
        head += read
    assert head.startswith(b"HTTP/1.1 101 "), head


def _run_peers(tally: Tally, processor: int, groups: tuple[Group, ...], niceness: int) -> None:
    os.sched_setaffinity(0, {processor})
    peers: dict[int, socket.socket] = {}
    sources = itertools.cycle(ADDRESSES)
    for size, port, path in groups:
        opened = [open_websocket(port, path, next(sources)) for _ in range(size)]
        for peer in opened:
            read_upgrade(peer)
        peers.update((peer.fileno(), peer) for peer in opened)
        tally.connected = len(peers)
    os.nice(niceness)
    _drain(tally, peers)


def _drain(tally: Tally, peers: dict[int, socket.socket]) -> None:
    poll = select.epoll()
    for descriptor in peers:
        poll.register(descriptor, select.EPOLLIN)
    buffer = bytearray(1 << 20)
    while peers:
        received = 0
        for descriptor, _ in poll.poll():
            size = peers[descriptor].recv_into(buffer)
            received += size
            if not size:
                peers.pop(descriptor).close()
        if received:
            tally.last_at = time.monotonic()
            tally.received += received


def print_machine(peers_processor: int) -> None:
    """Print what the numbers depend on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} processors, "
        f"Linux {platform.release()}, load {loads}\n"
        f"Python {platform.python_version()}, trio {trio.__version__}, "
        f"trioweb {trioweb.__version__}; server on processor {min(os.sched_getaffinity(0))}, "
        f"peers on {peers_processor}"
    )

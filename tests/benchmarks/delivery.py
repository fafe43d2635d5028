"""A delivered broadcast beside a bare ``sock.send``: ``python -m tests.benchmarks.delivery``.

One process holds the members of a room and as many bare sockets with the same options; another one
reads everything away. Broadcasts and loops over the sockets take turns, and the ratio is that of
turns that were neighbours: a window is a few dozen of them. Half of the windows have a loop that
also catches BlockingIOError. What is counted is the CPU of the server's thread, from the call until
no task has anything left to do. What the pauses cost, in which the peers take it, stands beside it,
as the difference to the loop's: nothing of the work hides there.

The turns are short since the kernel treats a connection that has rested for its retransmission
timeout (200 ms) to an immediate acknowledgement of the next 16 segments, which makes a send dearer
by half: neither side may rest longer than the other.
"""

from __future__ import annotations

import argparse
import socket
import time
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

import trio
from trio.testing import wait_all_tasks_blocked

from tests.benchmarks.crowd_peers import (
    Group,
    open_peers,
    part_processors,
    print_machine,
    wait_connected,
    wait_received,
)
from trioweb import TrioWeb, Websocket
from trioweb.net.stream import SocketStream
from trioweb.ws.encoding import TEXT, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from tests.benchmarks.crowd_peers import Tally

    SendLoop: TypeAlias = Callable[[Sequence[socket.socket], bytes], None]

# Of one window and side: long enough to be above the noise, short enough for many windows.
DELIVERIES_OF_A_WINDOW = 10_000
# Bare sockets that connect before they are accepted; Linux allows no more (net.core.somaxconn).
BACKLOG = 4096


class Cost(NamedTuple):
    """Microseconds of CPU a delivery: of the work, and of the pauses in which the peers take it."""

    work: float
    pauses: float


class Window(NamedTuple):
    """What the two sides cost in the same time."""

    broadcast: Cost
    loop: Cost

    @property
    def ratio(self) -> float:
        return self.broadcast.work / self.loop.work


def make_app() -> TrioWeb:
    app = TrioWeb("delivery", config={"WEBSOCKET_PING_INTERVAL": None})

    @app.websocket("/")
    async def stay(ws: Websocket) -> None:
        async with app.room("crowd").join(ws):
            await ws.wait_closed()

    return app


async def accept_bare(listener: socket.socket, count: int) -> list[socket.socket]:
    """Accept the bare connections: with a server's options, and a conversation like a server's.

    For the kernel it makes a difference whether a connection has had a question and an answer.
    """
    socks = []
    for _ in range(count):
        await trio.lowlevel.wait_readable(listener)
        sock = listener.accept()[0]
        SocketStream(sock)  # sets the options
        await trio.lowlevel.wait_readable(sock)
        sock.recv(4096)
        sock.send(b"HTTP/1.1 101 Switching Protocols\r\nX: " + bytes(100) + b"\r\n\r\n")
        socks.append(sock)
    return socks


def send_bare(socks: Sequence[socket.socket], frame: bytes) -> None:
    for sock in socks:
        sock.send(frame)


def send_guarded(socks: Sequence[socket.socket], frame: bytes) -> None:
    for sock in socks:
        try:
            sock.send(frame)
        except BlockingIOError:
            pass


class Duel:
    """Broadcasts of one size against loops over the sockets.

    Args:
        app: its room is told.
        socks: as many as the room has members.
        tally: of the peers of both.
        size: bytes of a message.
        burst: messages in a row.
    """

    def __init__(
        self, app: TrioWeb, socks: list[socket.socket], tally: Tally, size: int, burst: int
    ) -> None:
        self._room = app.room("crowd")
        self._text = "x" * size
        self._frame = encode_frame(TEXT, self._text.encode())
        self._socks = socks
        self._tally = tally
        self._burst = burst
        self._turns = max(2, DELIVERIES_OF_A_WINDOW // (len(socks) * burst))

    async def run(self, send: SendLoop) -> Window:
        """Let both take turns."""
        costs = [Cost(0, 0), Cost(0, 0)]
        for turn in range(self._turns):
            for side in (turn % 2, 1 - turn % 2):
                work, pauses = await (self._loop(send) if side else self._broadcast())
                costs[side] = Cost(costs[side].work + work, costs[side].pauses + pauses)
        scale = 1e6 / (self._turns * self._burst * len(self._socks))
        broadcast, loop = (Cost(cost.work * scale, cost.pauses * scale) for cost in costs)
        return Window(broadcast, loop)

    async def _broadcast(self) -> Cost:
        expected, begun = self._expected(), time.thread_time()
        for _ in range(self._burst):
            self._room.broadcast(self._text)
        await wait_all_tasks_blocked()
        return await self._cost(begun, expected)

    async def _loop(self, send: SendLoop) -> Cost:
        expected, begun = self._expected(), time.thread_time()
        for _ in range(self._burst):
            send(self._socks, self._frame)
        return await self._cost(begun, expected)

    def _expected(self) -> int:
        return self._tally.received + len(self._frame) * len(self._socks) * self._burst

    async def _cost(self, begun: float, expected: int) -> Cost:
        ended = time.thread_time()
        await wait_received(self._tally, expected)
        return Cost(ended - begun, time.thread_time() - ended)


async def compare(
    processor: int, members: int, sizes: Sequence[int], bursts: Sequence[int], windows: int
) -> None:
    """Print a row for each size and burst; the processor is the peers'."""
    app = make_app()
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(app.serve, "127.0.0.1", 0)
        groups = (
            Group(members, listener.getsockname()[1], "/"),
            Group(members, addresses[0][1], "/"),
        )
        with listener, open_peers(processor, *groups) as tally:
            socks = await accept_bare(listener, members)
            await wait_connected(tally, 2 * members)
            assert len(app.room("crowd").members) == members
            for burst in bursts:
                for size in sizes:
                    duel = Duel(app, socks, tally, size, burst)
                    await duel.run(send_bare)  # warms up
                    bare, guarded = [], []
                    for _ in range(windows):
                        bare.append(await duel.run(send_bare))
                        guarded.append(await duel.run(send_guarded))
                    print_row(members, size, burst, bare, guarded)
        nursery.cancel_scope.cancel()


def print_row(
    members: int, size: int, burst: int, bare: list[Window], guarded: list[Window]
) -> None:
    broadcast = median(window.broadcast.work for window in bare)
    loops = [median(window.loop.work for window in windows) for windows in (bare, guarded)]
    hidden = median(window.broadcast.pauses - window.loop.pauses for window in bare)
    low, middle, high = quantiles((window.ratio for window in bare), n=4)
    print(
        f"{members:7} {size:6} {burst:5}  {broadcast:9.2f} {loops[0]:6.2f} {loops[1]:7.2f} "
        f"{hidden:+7.2f}   {middle:5.3f} ({low:.3f}-{high:.3f})"
        f"  {median(window.ratio for window in guarded):5.3f}",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, nargs="+", default=[500])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024], help="bytes")
    parser.add_argument("--bursts", type=int, nargs="+", default=[1, 10], help="in a row")
    parser.add_argument("--windows", type=int, default=30, help="of each loop, at least 2")
    options = parser.parse_args()
    processor = part_processors()
    print_machine(processor)
    print(
        "                        µs of CPU a delivery                 ratio, median (quartiles)\n"
        "members  bytes burst  broadcast   bare guarded  pauses   to bare               guarded"
    )
    for members in options.members:
        trio.run(compare, processor, members, options.sizes, options.bursts, options.windows)


if __name__ == "__main__":
    main()

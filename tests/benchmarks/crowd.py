"""What a broadcast to very many does to everybody else: ``python -m tests.benchmarks.crowd``.

A room of 10 000 members is told 1 KiB at a steady pace. Beside it a client that is no member sends
64 bytes to the same server, waits for the echo, and sends again a millisecond later. Its round
trips are told apart: those before the first broadcast, and those that fell into a broadcast's time,
from the call until the last member had it. The members read in a process of their own; the client
is another one on the same processor, and preferred there: it shall wait for the server and not for
them. Its pause leaves them the time to read.

Loopback drops what its queue can't hold (net.core.netdev_max_backlog, 1000 packets) and sends it
again 200 ms later. That is counted as well, of the whole machine, since it makes the last member
late for no fault of the server's.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import time
from array import array
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import trio

from tests.benchmarks.crowd_peers import (
    PROCESSES,
    Group,
    open_peers,
    open_websocket,
    part_processors,
    print_machine,
    read_upgrade,
    wait_connected,
    wait_received,
)
from trioweb import TrioWeb, Websocket
from trioweb.ws.encoding import BINARY, TEXT, encode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection as Pipe

    from tests.benchmarks.crowd_peers import Tally

PROBE_SIZE = 64
# Seconds between an echo and the next probe.
PROBE_PAUSE = 0.001
# Descriptors that are no member's: standard streams, epoll, listeners, pipes, the echo client.
SPARE_DESCRIPTORS = 100
# Above the echo client's niceness: the members' process shall not keep it from its echo.
MEMBERS_NICENESS = 10


class Broadcast(NamedTuple):
    """When one was, in seconds of ``time.monotonic()``."""

    begun: float
    returned: float
    received: float  # by the last member


class RoundTrip(NamedTuple):
    """One echo, in seconds of ``time.monotonic()``."""

    begun: float
    ended: float


def make_app() -> TrioWeb:
    # The members answer no pings.
    app = TrioWeb("crowd", config={"WEBSOCKET_PING_INTERVAL": None})

    @app.websocket("/member")
    async def stay(ws: Websocket) -> None:
        async with app.room("crowd").join(ws):
            await ws.wait_closed()

    @app.websocket("/echo")
    async def echo(ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def allowed_members(wanted: int) -> int:
    """Raise the limit of open files as far as it goes; both processes have one for each member."""
    needed = wanted + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        allowed = hard - SPARE_DESCRIPTORS
        print(f"ulimit -Hn is {hard}: {allowed} members instead of {wanted}")
        needed, wanted = hard, allowed
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return wanted


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def segments_sent_again() -> int:
    """By all of the machine's TCP since its start."""
    names, values = (
        line.split()
        for line in Path("/proc/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    )
    return int(values[names.index("RetransSegs")])


@contextmanager
def open_echo_client(processor: int, port: int) -> Iterator[Pipe]:
    """Run the echo client.

    It sends a word when it has begun. Anything sent to it ends it, and it answers with its times.
    """
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=run_echo_client, args=(theirs, processor, port), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def run_echo_client(pipe: Pipe, processor: int, port: int) -> None:
    os.sched_setaffinity(0, {processor})
    sock = open_websocket(port, "/echo")
    read_upgrade(sock)
    # Any mask will do, that of zeros costs nothing.
    probe = encode_frame(BINARY, bytes(PROBE_SIZE), mask=bytes(4))
    size = len(encode_frame(BINARY, bytes(PROBE_SIZE)))
    times = array("d")
    pipe.send_bytes(b"begun")
    while not pipe.poll():
        begun = time.monotonic()
        sock.sendall(probe)
        assert len(sock.recv(size, socket.MSG_WAITALL)) == size
        times.extend((begun, time.monotonic()))
        time.sleep(PROBE_PAUSE)
    pipe.send_bytes(times)


async def broadcast_at_pace(
    app: TrioWeb, tally: Tally, members: int, size: int, count: int, pace: float
) -> list[Broadcast]:
    room, text = app.room("crowd"), "x" * size
    sent = members * len(encode_frame(TEXT, text.encode()))
    broadcasts = []
    begun_all = trio.current_time()
    for number in range(count):
        await trio.sleep_until(begun_all + number * pace)
        expected = tally.received + sent
        begun = time.monotonic()
        result = room.broadcast(text)
        returned = time.monotonic()
        assert result.sent == members, result
        await trio.sleep(pace / 2)
        await wait_received(tally, expected)
        broadcasts.append(Broadcast(begun, returned, tally.last_at))
    return broadcasts


async def measure(processor: int, members: int, size: int, count: int, pace: float) -> None:
    """Print the table; the processor is everybody's but the server's."""
    app = make_app()
    memory = resident_mib()
    async with trio.open_nursery() as nursery:
        port = (await nursery.start(app.serve, "127.0.0.1", 0))[0][1]
        group = Group(members, port, "/member")
        with open_peers(processor, group, niceness=MEMBERS_NICENESS) as tally:
            await wait_connected(tally, members)
            assert len(app.room("crowd").members) == members
            memory_full = resident_mib()
            with open_echo_client(processor, port) as pipe:
                await trio.to_thread.run_sync(pipe.recv_bytes)
                resent = segments_sent_again()
                quiet_from = time.monotonic()
                await trio.sleep(count * pace / 2)
                quiet_until = time.monotonic()
                broadcasts = await broadcast_at_pace(app, tally, members, size, count, pace)
                pipe.send_bytes(b"end")
                times = array("d", await trio.to_thread.run_sync(pipe.recv_bytes))
            memory_after = resident_mib()
            resent = segments_sent_again() - resent
        nursery.cancel_scope.cancel()
    trips = [RoundTrip(*pair) for pair in zip(times[::2], times[1::2], strict=True)]
    quiet = [trip for trip in trips if quiet_from <= trip.begun and trip.ended < quiet_until]
    print_round_trips("without broadcasts", quiet)
    print_round_trips("during broadcasts", [trip for trip in trips if is_within(trip, broadcasts)])
    took = [one.returned - one.begun for one in broadcasts]
    print_times("broadcast() took", took)
    print_times("the last member had it after", [one.received - one.begun for one in broadcasts])
    print(
        f"server's RSS in MiB: {memory:.0f} alone, {memory_full:.0f} with {members} members, "
        f"{memory_after:.0f} after {count} broadcasts; segments sent again: {resent}"
    )


def is_within(trip: RoundTrip, broadcasts: list[Broadcast]) -> bool:
    """Whether some of it was in the time of a broadcast."""
    return any(trip.begun < one.received and one.begun < trip.ended for one in broadcasts)


def print_round_trips(title: str, trips: list[RoundTrip]) -> None:
    times = [trip.ended - trip.begun for trip in trips]
    p99 = sorted(times)[len(times) * 99 // 100]
    print(
        f"{title:>30}: p50 {milli(median(times))}  p99 {milli(p99)}  max {milli(max(times))}"
        f"  of {len(times)} round trips"
    )


def print_times(title: str, times: list[float]) -> None:
    print(f"{title:>30}: p50 {milli(median(times))}  {'':14}  max {milli(max(times))}")


def milli(seconds: float) -> str:
    return f"{seconds * 1e3:7.2f} ms"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1024, help="bytes of a broadcast")
    parser.add_argument("--count", type=int, default=20, help="broadcasts")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between two")
    options = parser.parse_args()
    processor = part_processors()
    print_machine(processor)
    members = allowed_members(options.members)
    print(
        f"{members} members, {options.count} broadcasts of {options.size} bytes, one every "
        f"{options.pace:g} s"
    )
    trio.run(measure, processor, members, options.size, options.count, options.pace)


if __name__ == "__main__":
    main()

"""A Link that takes time: every moment is exact, on the virtual clock."""

from __future__ import annotations

import math
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb.testing import Link, link_pair

Arrivals = list[tuple[float, bytes]]


async def record(link: Link, arrivals: Arrivals) -> None:
    """Read to the end, with the moment of each read."""
    while True:
        data = await link.receive_some()
        arrivals.append((trio.current_time(), data))
        if not data:
            return


# Latency


async def test_latency_delays_each_direction(autojump_clock: MockClock) -> None:
    """What is sent at 0 arrives after the latency, and so does the answer."""
    a, b = link_pair(latency=0.25)
    a.try_send(b"there")
    assert await b.receive_some() == b"there"
    assert trio.current_time() == 0.25
    b.try_send(b"and back")
    assert a.try_receive(100) is None
    assert await a.receive_some() == b"and back"
    assert trio.current_time() == 0.5


async def test_a_waiting_reader_wakes_at_each_arrival(autojump_clock: MockClock) -> None:
    """A reader that waited before anything was sent reads at the moment of each arrival."""
    a, b = link_pair(latency=0.5)
    arrivals: Arrivals = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record, b, arrivals)
        await trio.sleep(1)
        a.try_send(b"one")
        await trio.sleep(0.125)
        a.try_send(b"two")
        await trio.sleep(2)
        await a.aclose()
    assert arrivals == [(1.5, b"one"), (1.625, b"two"), (3.625, b"")]


async def test_what_arrived_together_is_read_together(autojump_clock: MockClock) -> None:
    """Bytes that have not arrived are not read with those that have."""
    a, b = link_pair(latency=1)
    a.try_send(b"a")
    a.try_send(b"b")
    await trio.sleep(0.5)
    a.try_send(b"c")
    await trio.sleep(0.5)
    assert b.try_receive(100) == b"ab"
    assert b.try_receive(100) is None
    await trio.sleep(0.5)
    assert b.try_receive(100) == b"c"


async def test_the_end_travels_behind_the_bytes(autojump_clock: MockClock) -> None:
    """The end of the stream is as late as bytes are, and behind the slowest of them."""
    a, b = link_pair(latency=0.5, bandwidth=1000)
    arrivals: Arrivals = []
    a.try_send(bytes(1000))
    await a.send_eof()
    assert b.is_peer_alive(1) is True
    await record(b, arrivals)
    assert arrivals == [(1.5, bytes(1000)), (1.5, b"")]
    assert b.is_peer_alive(1) is False


async def test_an_end_without_bytes_takes_the_latency(autojump_clock: MockClock) -> None:
    """Also where nothing was sent before."""
    a, b = link_pair(latency=0.5)
    await trio.sleep(1)
    await a.send_eof()
    assert b.try_receive(1) is None
    assert await b.receive_some() == b""
    assert trio.current_time() == 1.5


# Bandwidth


async def test_a_message_takes_its_transmission_and_the_latency(
    autojump_clock: MockClock,
) -> None:
    """500 bytes at 1000 a second can be read after half a second, and the latency."""
    a, b = link_pair(latency=0.05, bandwidth=1000)
    a.try_send(bytes(500))
    assert await b.receive_some() == bytes(500)
    assert trio.current_time() == 0.55


async def test_long_messages_come_in_segments(autojump_clock: MockClock) -> None:
    """Each segment of 1460 bytes comes when its last byte is through."""
    a, b = link_pair(latency=1, bandwidth=1460)
    arrivals: Arrivals = []
    message = bytes(range(256)) * 14
    a.try_send(message)
    await a.send_eof()
    await record(b, arrivals)
    rest = 3584 - 2 * 1460
    assert [(at, len(data)) for at, data in arrivals] == [
        (2, 1460),
        (3, 1460),
        (1 + 3584 / 1460, rest),
        (1 + 3584 / 1460, 0),
    ]
    assert b"".join(data for _, data in arrivals) == message


async def test_transmissions_queue_up_and_pause(autojump_clock: MockClock) -> None:
    """A send waits for those before it, and after a pause it begins at once."""
    a, b = link_pair(bandwidth=8)
    arrivals: Arrivals = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record, b, arrivals)
        a.try_send(b"1" * 8)
        await trio.sleep(0.5)
        a.try_send(b"2" * 8)
        await trio.sleep(9.5)
        a.try_send(b"3" * 4)
        await a.aclose()
    assert arrivals == [(1, b"1" * 8), (2, b"2" * 8), (10.5, b"3" * 4), (10.5, b"")]


async def test_the_directions_have_a_bandwidth_each(autojump_clock: MockClock) -> None:
    """What goes one way does not slow the other."""
    a, b = link_pair(bandwidth=8)
    a.try_send(bytes(8))
    b.try_send(bytes(8))
    assert (await a.receive_some(), trio.current_time()) == (bytes(8), 1)
    assert (b.try_receive(100), trio.current_time()) == (bytes(8), 1)


async def test_many_small_sends_do_not_drift(autojump_clock: MockClock) -> None:
    """The last of many sends comes when one send of all would have come."""
    a, b = link_pair(bandwidth=10)
    for _ in range(10_000):
        a.try_send(b"abc")
    await a.send_eof()
    while await b.receive_some(1000):
        pass
    assert trio.current_time() == 3000


# The buffer


async def test_the_buffer_bounds_what_is_under_way(autojump_clock: MockClock) -> None:
    """Bytes under way take up room until they have been read."""
    a, b = link_pair(4, latency=1)
    assert a.try_send(b"abcdef") == 4
    await trio.sleep(1)
    assert a.try_send(b"ef") == 0
    assert b.try_receive(3) == b"abc"
    assert a.try_send(b"efgh") == 3


async def test_a_small_buffer_paces_a_sender(autojump_clock: MockClock) -> None:
    """Where 4 bytes fit into a second of latency, 12 take three seconds."""
    a, b = link_pair(4, latency=1)
    arrivals: Arrivals = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record, b, arrivals)
        await a.send_all(b"abcdefghijkl")
        assert trio.current_time() == 2
        await a.wait_send_all_might_not_block()
        assert trio.current_time() == 3
        await a.aclose()
    assert arrivals == [(1, b"abcd"), (2, b"efgh"), (3, b"ijkl"), (4, b"")]


# Closing


async def test_news_of_a_close_travels(autojump_clock: MockClock) -> None:
    """Until it is there the peer's sends are taken, as long as there is room."""
    a, b = link_pair(4, latency=1)
    await a.aclose()
    assert b.try_send(b"abcdef") == 4
    assert b.try_send(b"ef") == 0
    assert b.is_peer_alive(1) is True
    with pytest.raises(trio.BrokenResourceError, match="peer has closed"):
        await b.send_some(b"ef")
    assert trio.current_time() == 1
    await b.wait_send_all_might_not_block()
    assert trio.current_time() == 1


async def test_a_waiting_sender_hears_of_a_close(autojump_clock: MockClock) -> None:
    """Who waits for room when the peer closes fails when the news is there, behind the bytes."""
    a, b = link_pair(8, latency=1, bandwidth=8)
    b.try_send(b"full" * 2)
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.send_some, b"more")
            await wait_all_tasks_blocked()
            a.try_send(b"last" * 2)
            await a.aclose()
    assert trio.current_time() == 2
    assert (b.try_receive(10), b.try_receive(10)) == (b"last" * 2, b"")


async def test_abort_takes_no_time(autojump_clock: MockClock) -> None:
    """A reset breaks both ends at once, with what was under way."""
    a, b = link_pair(latency=1)
    a.try_send(b"lost")
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some)
            await wait_all_tasks_blocked()
            a.abort()
    assert trio.current_time() == 0
    with pytest.raises(trio.ClosedResourceError):
        a.try_receive(1)


# Waiting


async def test_wait_readable_waits_for_the_arrival(autojump_clock: MockClock) -> None:
    """Bytes that are only under way are nothing to read."""
    a, b = link_pair(latency=1)
    a.try_send(b"x")
    await b.wait_readable()
    assert (trio.current_time(), b.try_receive(10)) == (1, b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.wait_readable)
        await wait_all_tasks_blocked()
        a.try_send(b"y")
    assert (trio.current_time(), b.try_receive(10)) == (2, b"y")
    await a.send_eof()
    await b.wait_readable()
    assert (trio.current_time(), b.try_receive(10)) == (3, b"")


async def test_interrupt_ends_the_wait_for_an_arrival(autojump_clock: MockClock) -> None:
    """The wait raises before anything has come, and nothing is lost."""
    a, b = link_pair(latency=1)
    a.try_send(b"x")
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.wait_readable)
            await wait_all_tasks_blocked()
            b.interrupt()
    assert trio.current_time() == 0
    await b.wait_readable()
    assert (trio.current_time(), b.try_receive(10)) == (1, b"x")


async def test_closing_ends_the_wait_for_an_arrival(autojump_clock: MockClock) -> None:
    """At the closed end itself, at once."""
    a, b = link_pair(latency=1)
    a.try_send(b"x")
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.wait_readable)
            await wait_all_tasks_blocked()
            await b.aclose()
    assert trio.current_time() == 0


async def test_a_second_reader_is_an_error_while_bytes_are_under_way(
    autojump_clock: MockClock,
) -> None:
    """The first one is not disturbed, by further sends neither."""
    a, b = link_pair(latency=1)
    arrivals: Arrivals = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record, b, arrivals)
        await wait_all_tasks_blocked()
        for _ in range(3):
            a.try_send(b"x")
            with pytest.raises(trio.BusyResourceError, match="receiving from this Link"):
                await b.receive_some()
            with pytest.raises(trio.BusyResourceError):
                await b.wait_readable()
            await trio.sleep(0.25)
        await a.aclose()
    assert arrivals == [(1, b"x"), (1.25, b"x"), (1.5, b"x"), (1.75, b"")]


async def test_a_second_sender_is_an_error(autojump_clock: MockClock) -> None:
    """While the first waits for room, and for the end of the stream too."""
    a, b = link_pair(1, latency=1)
    a.try_send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.send_some, b"y")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="sending on this Link"):
            await a.send_some(b"z")
        with pytest.raises(trio.BusyResourceError):
            await a.send_eof()
        assert await b.receive_some() == b"x"
    assert await b.receive_some() == b"y"


@pytest.mark.parametrize("wait", ["receive_some", "wait_readable"])
async def test_a_cancelled_wait_for_an_arrival_loses_nothing(
    wait: str, autojump_clock: MockClock
) -> None:
    """Cancelled halfway, the bytes arrive at their time for who comes next."""
    a, b = link_pair(latency=1)
    a.try_send(b"x")
    with trio.move_on_after(0.5) as scope:
        await getattr(b, wait)()
    assert scope.cancelled_caught
    assert await b.receive_some() == b"x"
    assert trio.current_time() == 1


async def test_a_cancelled_send_on_a_slow_link_has_sent_what_fitted(
    autojump_clock: MockClock,
) -> None:
    """What was taken before the cancellation arrives at its time, the rest never."""
    a, b = link_pair(4, latency=1)
    with trio.move_on_after(0.5):
        await a.send_all(b"abcdef")
    await a.send_eof()
    arrivals: Arrivals = []
    await record(b, arrivals)
    assert arrivals == [(1, b"abcd"), (1.5, b"")]


async def test_what_arrived_at_a_stalled_end_is_read_when_it_resumes(
    autojump_clock: MockClock,
) -> None:
    """Bytes arrive at a stalled end too; those that are still under way come later."""
    a, b = link_pair(latency=1)
    arrivals: Arrivals = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record, b, arrivals)
        a.try_send(b"x")
        await trio.sleep(0.5)
        b.stall()
        await trio.sleep(1)
        a.try_send(b"y")
        await a.aclose()
        await trio.sleep(0.5)
        assert arrivals == []
        b.resume()
    assert arrivals == [(2, b"x"), (2.5, b"y"), (2.5, b"")]


async def test_a_stalled_reader_waits_on_when_nothing_has_arrived(
    autojump_clock: MockClock,
) -> None:
    """Resumed before the arrival, it reads at the arrival."""
    a, b = link_pair(latency=1)
    b.stall()
    a.try_send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.wait_readable)
        await trio.sleep(0.5)
        b.resume()
    assert (trio.current_time(), b.try_receive(1)) == (1, b"x")


@pytest.mark.parametrize("latency", [0, 1])
async def test_a_stalled_end_is_not_readable(latency: float, autojump_clock: MockClock) -> None:
    """Whatever has arrived; who waits is woken by resume."""
    a, b = link_pair(latency=latency)
    b.stall()
    a.try_send(b"x")
    await trio.sleep(5)
    with trio.move_on_after(5) as scope:
        await b.wait_readable()
    assert scope.cancelled_caught
    readable_at: list[float] = []

    async def wait() -> None:
        await b.wait_readable()
        readable_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(5)
        b.resume()
        await trio.sleep(5)
    assert (readable_at, b.try_receive(1)) == ([15], b"x")


# Without time, and misuse


def test_a_link_without_time_needs_no_clock() -> None:
    """It works outside of trio.run as long as nothing waits."""
    a, b = link_pair()
    a.try_send(b"x")
    assert (b.try_receive(1), a.is_dropped, b.is_peer_alive(1)) == (b"x", False, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency", -0.1),
        ("latency", math.nan),
        ("latency", math.inf),
        ("bandwidth", 0),
        ("bandwidth", -1),
        ("bandwidth", math.nan),
        ("buffer", 0),
        ("buffer", -1),
        ("drop_after", -1),
        ("drop_after", math.nan),
    ],
)
def test_misuse_names_the_argument_and_its_value(name: str, value: float) -> None:
    """Nothing is made of numbers that mean nothing."""
    arguments = {name: value}
    with pytest.raises(ValueError, match=f"^{name}={value} must be "):
        Link(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{name}={value} must be "):
        link_pair(**arguments)  # type: ignore[arg-type]


# Properties

# Sixty-fourths of a second and powers of two a second have no rounding.
moments = st.integers(0, 128).map(lambda n: n / 64)
sends = st.lists(st.tuples(moments, st.binary(min_size=1, max_size=4000)), max_size=12)
bandwidths = st.sampled_from([None, 256.0, 1024.0, 8192.0])


def expected_arrivals(
    sends: list[tuple[float, bytes]], latency: float, bandwidth: float | None
) -> dict[Fraction, bytes]:
    """Say when bytes arrive, one byte at a time, without looking at how a Pipe does it."""
    now = through = Fraction(0)
    arrivals: dict[Fraction, bytes] = {}
    for gap, data in sends:
        now += Fraction(gap)
        through = max(through, now)
        for start in range(0, len(data), 1460):
            segment = data[start : start + 1460]
            if bandwidth is not None:
                for _ in segment:
                    through += 1 / Fraction(bandwidth)
            at = through + Fraction(latency)
            arrivals[at] = arrivals.get(at, b"") + segment
    at = max(now, through) + Fraction(latency)
    arrivals[at] = arrivals.get(at, b"")
    return arrivals


@settings(deadline=None)  # the clock is virtual, the machine may be busy
@given(sends=sends, latency=moments, bandwidth=bandwidths)
def test_arrivals_are_those_of_a_simple_model(
    sends: list[tuple[float, bytes]], latency: float, bandwidth: float | None
) -> None:
    """With room for everything, each byte comes at the model's moment, and no other."""

    async def main() -> None:
        a, b = link_pair(1 << 20, latency=latency, bandwidth=bandwidth)
        arrivals: Arrivals = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record, b, arrivals)
            for gap, data in sends:
                await trio.sleep(gap)
                assert a.try_send(data) == len(data)
            await a.aclose()
        got: dict[Fraction, bytes] = {}
        for at, data in arrivals:
            moment = Fraction(at)
            got[moment] = got.get(moment, b"") + data
        assert got == expected_arrivals(sends, latency, bandwidth)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(deadline=None)  # the clock is virtual, the machine may be busy
@given(
    sends=sends,
    latency=moments,
    bandwidth=bandwidths,
    buffer=st.integers(1, 5000),
    reads=st.lists(st.tuples(moments, st.integers(1, 3000)), min_size=1, max_size=5),
)
def test_what_arrives_is_what_was_sent(
    sends: list[tuple[float, bytes]],
    latency: float,
    bandwidth: float | None,
    buffer: int,
    reads: list[tuple[float, int]],
) -> None:
    """However it is split, buffered and read: in order, whole, and never before its time."""

    async def main() -> None:
        a, b = link_pair(buffer, latency=latency, bandwidth=bandwidth)
        taken: list[float] = []  # the moment at which each byte was taken

        async def send() -> None:
            for gap, data in sends:
                await trio.sleep(gap)
                sent = 0
                while sent < len(data):
                    count = await a.send_some(data[sent:])
                    taken.extend([trio.current_time()] * count)
                    sent += count
                    assert len(taken) - len(got) <= buffer
            await a.aclose()

        got = bytearray()
        turn = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while True:
                gap, size = reads[turn % len(reads)]
                turn += 1
                data = await b.receive_some(size)
                now = trio.current_time()
                if not data:
                    break
                slowness = 0.0 if bandwidth is None else len(data) / bandwidth
                assert now >= taken[len(got) + len(data) - 1] + latency
                assert now >= taken[len(got)] + slowness + latency
                got += data
                if turn % 4 == 0:
                    await trio.sleep(gap)
        assert got == b"".join(data for _, data in sends)

    trio.run(main, clock=MockClock(autojump_threshold=0))


class _CheckpointingLink(Link):
    """A Link with the one thing that ByteStream leaves out: a checkpoint on every receive."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return await super().receive_some(max_bytes)


@pytest.mark.parametrize("bandwidth", [None, 1000])
async def test_trio_stream_checks_hold_with_time(
    bandwidth: float | None, autojump_clock: MockClock
) -> None:
    """Trio's own contract tests for half-closeable streams pass."""

    async def make() -> tuple[Link, Link]:
        link = _CheckpointingLink(latency=0.01, bandwidth=bandwidth)
        return link, link.other

    async def make_clogged() -> tuple[Link, Link]:
        link = _CheckpointingLink(buffer=16, latency=0.01, bandwidth=bandwidth)
        for end in (link, link.other):
            end.try_send(bytes(16))
        return link, link.other

    await trio.testing.check_half_closeable_stream(make, make_clogged)

"""A Link whose cable is pulled: nothing arrives any more, and nobody is told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb.testing import Link, link_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def silence(receive: Callable[[], Awaitable[object]]) -> None:
    """See that a wait ends by its deadline alone."""
    with trio.move_on_after(1000) as scope:
        await receive()
    assert scope.cancelled_caught


@pytest.mark.parametrize(("drop_after", "arrives"), [(1.0, True), (math.nextafter(1, 0), False)])
async def test_what_arrives_at_the_very_moment_still_arrives(
    drop_after: float, arrives: bool, autojump_clock: MockClock
) -> None:
    """Bytes and the end of the stream are there if they arrive at the drop, lost if later."""
    a, b = link_pair(latency=1, drop_after=drop_after)
    a.try_send(b"x")
    await a.send_eof()
    if arrives:
        assert (await b.receive_some(), await b.receive_some()) == (b"x", b"")
        assert trio.current_time() == 1
    else:
        await silence(b.receive_some)


@pytest.mark.parametrize("how", ["drop", "drop_after"])
@pytest.mark.parametrize("latency", [0, 1])
async def test_what_is_sent_from_then_on_is_lost(
    how: str, latency: float, autojump_clock: MockClock
) -> None:
    """At that very moment and later, in both directions, with latency and without."""
    a, b = link_pair(latency=latency, drop_after=5 if how == "drop_after" else None)
    await trio.sleep(5)
    if how == "drop":
        assert not a.is_dropped
        a.drop()
    assert a.is_dropped
    assert b.is_dropped
    a.try_send(b"x")
    b.try_send(b"y")
    await a.send_eof()
    await silence(a.receive_some)
    await silence(b.receive_some)
    await silence(b.wait_readable)


async def test_a_second_drop_changes_nothing(autojump_clock: MockClock) -> None:
    """What was lost stays lost, and the first moment counts."""
    a, b = link_pair(latency=1, drop_after=0.5)
    a.try_send(b"x")
    await trio.sleep(2)
    b.drop()
    assert b.try_receive(1) is None
    assert a.is_peer_alive(1.5) is False


async def test_drop_may_come_before_drop_after(autojump_clock: MockClock) -> None:
    """The earlier one is the drop."""
    a, b = link_pair(drop_after=10)
    await trio.sleep(1)
    b.drop()
    assert a.is_dropped
    a.try_send(b"x")
    assert b.try_receive(1) is None


async def test_a_reader_that_waits_for_an_arrival_waits_on(autojump_clock: MockClock) -> None:
    """Bytes under way at the drop do not wake it, neither do they later."""
    a, b = link_pair(latency=1)
    a.try_send(b"x")
    with trio.move_on_after(1000) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.wait_readable)
            await trio.sleep(0.5)
            a.drop()
    assert scope.cancelled_caught


async def test_what_had_arrived_can_still_be_read(autojump_clock: MockClock) -> None:
    """Also at a stalled end, and with the part of a message that had come."""
    a, b = link_pair(bandwidth=1460, drop_after=2)
    b.stall()
    a.try_send(bytes(5000))
    await trio.sleep(10)
    b.resume()
    assert await b.receive_some() == bytes(2920)
    await silence(b.receive_some)


async def test_sends_are_taken_until_the_buffer_is_full(autojump_clock: MockClock) -> None:
    """Then they wait for ever: that the peer has read something is no news any more."""
    a, b = link_pair(10)
    a.try_send(b"unread")
    a.drop()
    assert a.try_send(b"abcdef") == 4
    assert await b.receive_some() == b"unread"
    assert a.try_send(b"ef") == 0
    await silence(a.wait_send_all_might_not_block)
    with trio.move_on_after(1000) as scope:
        await a.send_all(b"ef")
    assert scope.cancelled_caught


async def test_a_sender_that_waits_for_room_is_not_woken(autojump_clock: MockClock) -> None:
    """Neither by the drop nor by what the peer does afterwards."""
    a, b = link_pair(4)
    a.try_send(b"full")
    with trio.move_on_after(1000) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_some, b"more")
            await wait_all_tasks_blocked()
            b.drop()
            assert b.try_receive(4) == b"full"
            await b.aclose()
    assert scope.cancelled_caught


@pytest.mark.parametrize("end", ["aclose", "abort", "send_eof"])
@pytest.mark.parametrize("latency", [0, 1])
async def test_no_end_is_noticed(end: str, latency: float, autojump_clock: MockClock) -> None:
    """Whatever one end does after the drop, the other reads and sends as before."""
    a, b = link_pair(latency=latency)
    a.drop()
    if end == "abort":
        a.abort()
    else:
        await getattr(a, end)()
    await silence(b.receive_some)
    assert b.is_peer_alive(1) is True
    assert b.try_send(b"x") == 1
    await b.wait_send_all_might_not_block()
    if end != "send_eof":
        with pytest.raises(trio.ClosedResourceError):
            a.try_send(b"x")


async def test_news_of_a_close_that_is_under_way_is_lost(autojump_clock: MockClock) -> None:
    """A peer that had not heard of the close by then never does, not even while it waits."""
    a, b = link_pair(4, latency=1, drop_after=0.5)
    b.try_send(b"full")
    await a.aclose()
    await silence(lambda: b.send_some(b"more"))
    await silence(b.receive_some)


async def test_news_of_a_close_that_was_heard_is_not_forgotten(autojump_clock: MockClock) -> None:
    """After the drop it is still known."""
    a, b = link_pair(latency=1, drop_after=1)
    await a.aclose()
    await trio.sleep(10)
    assert b.is_peer_alive(1) is False
    with pytest.raises(trio.BrokenResourceError):
        b.try_send(b"x")


async def test_an_abort_before_the_drop_is_not_forgotten(autojump_clock: MockClock) -> None:
    """The peer stays broken."""
    a, b = link_pair()
    a.abort()
    b.drop()
    with pytest.raises(trio.BrokenResourceError):
        b.try_receive(1)


async def test_the_peer_is_dead_when_nothing_is_acknowledged(autojump_clock: MockClock) -> None:
    """Once what was sent after the drop has been unacknowledged for so long; not before."""
    a, b = link_pair()
    a.try_send(b"arrives")
    a.drop()
    await trio.sleep(100)
    assert a.is_peer_alive(3) is True
    a.try_send(b"x")
    await trio.sleep(2)
    a.try_send(b"y")
    assert a.is_peer_alive(3) is True
    await trio.sleep(1)
    assert a.is_peer_alive(3) is False
    assert a.is_peer_alive(4) is True
    assert b.is_peer_alive(3) is True


async def test_an_end_of_the_stream_is_unacknowledged_too(autojump_clock: MockClock) -> None:
    """As the kernel counts it."""
    a, _ = link_pair(drop_after=0)
    await a.send_eof()
    await trio.sleep(2.5)
    assert a.is_peer_alive(3) is True
    await trio.sleep(0.5)
    assert a.is_peer_alive(3) is False


async def test_what_was_under_way_counts_from_the_drop(autojump_clock: MockClock) -> None:
    """Until then, bytes before it were acknowledged; while the cable holds, nobody is dead."""
    a, _ = link_pair(latency=60, drop_after=30)
    a.try_send(b"x")
    await trio.sleep(29)
    assert a.is_peer_alive(3) is True
    await trio.sleep(3)
    assert a.is_peer_alive(3) is True
    await trio.sleep(1)
    assert a.is_peer_alive(3) is False


@pytest.mark.parametrize("latency", [0, 1])
async def test_a_full_buffer_at_the_drop_tells_nothing(
    latency: float, autojump_clock: MockClock
) -> None:
    """With everything acknowledged, unread as it is, and no room there is nothing to wait for."""
    a, b = link_pair(4, latency=latency)
    b.stall()
    a.try_send(b"full")
    await trio.sleep(2)
    a.drop()
    assert a.try_send(b"x") == 0
    await trio.sleep(100)
    assert a.is_peer_alive(3) is True


async def test_the_first_loss_counts(autojump_clock: MockClock) -> None:
    """However much is sent later, the end of the stream included."""
    a, _ = link_pair(latency=1)
    a.drop()
    a.try_send(b"x")
    await trio.sleep(2)
    a.try_send(b"y")
    await a.send_eof()
    await trio.sleep(1)
    assert a.is_peer_alive(3) is False


# Templates


async def test_another_pair_is_like_the_first(autojump_clock: MockClock) -> None:
    """It has the same arguments, and what has happened to the first does not concern it."""
    link = Link(buffer=7, latency=0.5, bandwidth=14, drop_after=10, client=("10.0.0.1", 40000))
    link.stall()
    link.drop()
    await trio.sleep(100)
    ours, theirs = link.another_pair()
    assert ours.other is theirs
    assert ours.try_send(b"abcdefgh") == 7
    assert (await theirs.receive_some(), trio.current_time()) == (b"abcdefg", 101)
    assert (ours.client, theirs.client) == (None, ("10.0.0.1", 40000))
    theirs.try_send(b"x")
    assert await ours.receive_some() == b"x"
    await trio.sleep_until(109.5)
    assert not ours.is_dropped
    await trio.sleep_until(110)
    assert ours.is_dropped
    again, _ = theirs.another_pair()
    assert (again.buffer, again.latency, again.bandwidth, again.drop_after) == (7, 0.5, 14, 10)
    assert again.other.client == ("10.0.0.1", 40000)


def test_a_pair_made_before_the_run_counts_from_its_first_use() -> None:
    """There is no clock before; a template may stand in a module."""
    a, b = link_pair(drop_after=2)

    async def main() -> None:
        await trio.sleep(5)
        assert not a.is_dropped
        await trio.sleep(1)
        a.try_send(b"x")
        assert b.try_receive(1) == b"x"
        await trio.sleep(1)
        assert b.is_dropped

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        (None, "memory"),
        (("10.0.0.1", 40000), "10.0.0.1:40000"),
        (("2001:db8::1", 443), "[2001:db8::1]:443"),
    ],
)
def test_the_application_sees_the_client_s_address(
    client: tuple[str, int] | None, peer: str
) -> None:
    """At its end, not at the test's."""
    ours, theirs = link_pair(client=client)
    assert (theirs.client, theirs.peer) == (client, peer)
    assert (ours.client, ours.peer) == (None, "memory")


# Properties

moments = st.integers(0, 256).map(lambda n: n / 64)


@settings(deadline=None)  # the clock is virtual, the machine may be busy
@given(
    sends=st.lists(st.tuples(moments, st.binary(min_size=1, max_size=300)), max_size=10),
    latency=moments,
    bandwidth=st.sampled_from([None, 64.0, 1024.0]),
    drop_after=moments,
    drops_by_hand=st.booleans(),
)
def test_a_drop_at_any_moment_cuts_what_would_have_arrived(
    sends: list[tuple[float, bytes]],
    latency: float,
    bandwidth: float | None,
    drop_after: float,
    drops_by_hand: bool,
) -> None:
    """What arrives is what arrives without a drop, up to and with that moment, and then nothing."""

    async def converse(is_dropped: bool) -> list[tuple[float, bytes]]:
        a, b = link_pair(
            1 << 16,
            latency=latency,
            bandwidth=bandwidth,
            drop_after=drop_after if is_dropped and not drops_by_hand else None,
        )
        arrivals: list[tuple[float, bytes]] = []

        async def drop() -> None:
            await trio.sleep_until(drop_after)
            # The last of those who run at this moment.
            await wait_all_tasks_blocked()
            b.drop()

        async def receive() -> None:
            while not arrivals or arrivals[-1][1]:
                data = await b.receive_some()
                arrivals.append((trio.current_time(), data))

        with trio.move_on_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                if is_dropped and drops_by_hand:
                    nursery.start_soon(drop)
                for gap, data in sends:
                    await trio.sleep(gap)
                    if is_dropped or not is_too_late():
                        a.try_send(data)
                if not is_dropped and is_too_late():
                    await trio.sleep_forever()
                await a.aclose()
        return arrivals

    def is_too_late() -> bool:
        """What is sent at the drop is lost even where it takes no time."""
        return not drops_by_hand and trio.current_time() >= drop_after

    def run(is_dropped: bool) -> list[tuple[float, bytes]]:
        return trio.run(converse, is_dropped, clock=MockClock(autojump_threshold=0))

    def joined(arrivals: list[tuple[float, bytes]]) -> dict[float, bytes]:
        """With what came at one moment in one piece."""
        together: dict[float, bytes] = {}
        for at, data in arrivals:
            together[at] = together.get(at, b"") + data
        return together

    before = [(at, data) for at, data in run(False) if at <= drop_after]
    assert joined(run(True)) == joined(before)

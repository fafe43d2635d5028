"""How many messages a peer may send in a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked
from wsproto import events

from trioweb.errors import WebSocketException
from trioweb.ws.rate import RateLimit

if TYPE_CHECKING:
    from tests.ws.conftest import Bench
    from trioweb.ws import Websocket


@given(
    st.integers(1, 20),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 30)), max_size=30),
)
def test_no_more_than_a_bucket_and_its_filling_passes(
    count: int, seconds: float, arrivals: list[tuple[float, int]]
) -> None:
    """In any span of time: the bucket and what fills it."""
    limit = RateLimit(count, seconds, now=0.0)
    now, passed = 0.0, []
    for pause, messages in arrivals:
        now += pause
        excess = limit.excess(messages, now)
        assert 0 <= excess <= messages
        passed.append((now, messages - excess))
        if excess:
            break
    for start in range(len(passed)):
        for end in range(start, len(passed)):
            span = passed[end][0] - passed[start][0]
            total = sum(n for _, n in passed[start : end + 1])
            assert total <= count + span * count / seconds + 1e-6


def test_the_rate_itself_always_passes() -> None:
    limit = RateLimit(10, 1.0, now=0.0)
    assert not any(limit.excess(1, number * 0.1) for number in range(1000))
    assert limit.excess(20, 101.0) == 10


def test_time_in_which_nothing_was_read_is_forgiven() -> None:
    limit = RateLimit(10, 1.0, now=0.0)
    assert limit.excess(10, 0.0) == 0
    limit.forgive(5.0, 5.0)
    assert limit.excess(50, 5.0) == 0
    assert limit.excess(1, 5.0) == 1


def test_time_that_was_forgiven_fills_no_bucket_again() -> None:
    limit = RateLimit(10, 1.0, now=0.0)
    assert limit.excess(10, 0.0) == 0
    limit.forgive(0.5, 0.5)
    assert limit.excess(6, 0.5) == 1
    limit = RateLimit(10, 1.0, now=0.0)
    assert limit.excess(10, 0.0) == 0
    limit.forgive(0.5, 0.5)
    assert limit.excess(5, 0.5) == 0
    assert limit.excess(6, 1.0) == 1


async def test_a_peer_over_the_limit_is_1008_and_the_excess_is_not_handed_out(
    bench: Bench,
) -> None:
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        got.extend([message async for message in ws])
        with pytest.raises(WebSocketException, match="1008"):
            ws.raise_for_close()
        got.append(ws.close_info)

    async with bench.connect(handler, rate_limit=(3, 10.0)) as peer:
        await peer.send(*map(str, range(100)))
        code, reason = await peer.next_close()
        assert (code, reason) == (1008, "more than 3 messages in 10 s")
        await wait_all_tasks_blocked(0.02)
    assert got == ["0", "1", "2", (1008, "more than 3 messages in 10 s", "us", True)]


@pytest.mark.parametrize("messages", [4, 5, 9])
async def test_a_close_behind_the_excess_changes_nothing(bench: Bench, messages: int) -> None:
    """In the same read: as many messages as may come are handed out, and the code is 1008."""
    got: list[Any] = []

    async def handler(ws: Websocket) -> None:
        got.extend([message async for message in ws])
        got.append(ws.close_info and ws.close_info[:3])

    async with bench.connect(handler, rate_limit=(3, 10.0)) as peer:
        await peer.send(*map(str, range(messages)), events.CloseConnection(1000))
        code, reason = await peer.next_close()
        assert (code, reason) == (1008, "more than 3 messages in 10 s")
        await wait_all_tasks_blocked(0.02)
    assert got == ["0", "1", "2", (1008, "more than 3 messages in 10 s", "us")]


async def test_at_the_rate_a_peer_goes_on_for_ever(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with memory.connect(handler, rate_limit=(2, 1.0), ping_interval=None) as peer:
        for _ in range(500):
            await peer.send("a", events.Ping(b""), events.Ping(b""))
            assert await peer.next_message() == "a"
            await trio.sleep(0.5)


async def test_a_handler_that_is_slow_does_not_make_its_peer_fast(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """What gathered while the inbox was full comes at once, and was sent at the rate."""
    got = 0

    async def handler(ws: Websocket) -> None:
        nonlocal got
        await trio.sleep(1000)
        async for _ in ws:
            got += 1

    async with memory.connect(
        handler, rate_limit=(10, 1.0), max_queue=4, ping_interval=None
    ) as peer:
        for _ in range(100):  # more than the inbox, less than inbox and network
            await peer.send("ten bytes." * 2)
            await trio.sleep(0.1)
        await trio.sleep(1000)
        await peer.close()
        await trio.sleep(1)
    assert got == 100


async def test_fragments_are_not_messages(memory: Bench) -> None:
    async def handler(ws: Websocket) -> None:
        await ws.send(await ws.recv())

    async with memory.connect(handler, rate_limit=(1, 10.0)) as peer:
        for _ in range(5):
            await peer.send(events.TextMessage("a", message_finished=False))
        await peer.send("a")
        assert await peer.next_message() == "a" * 6


def test_what_was_forgiven_is_not_kept_for_later() -> None:
    limit = RateLimit(10, 1.0, now=0.0)
    limit.forgive(600.0, 600.0)
    assert limit.excess(1, 600.0) == 0
    assert limit.excess(5000, 700.0) == 4990

"""Deadlines of many connections, minded by one task."""

from __future__ import annotations

import gc
import math
import random
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from trioweb.net.ticker import RINGS_AT_ONCE, STALE_AT_LEAST, Alarm, Ticker

if TYPE_CHECKING:
    from trio.testing import MockClock


class Sleeper:
    """Writes down when it is woken; wakes again at the times that it is given."""

    def __init__(self, ticker: Ticker, *later: float) -> None:
        self.alarm = Alarm(ticker, self)
        self.later = list(later)
        self.woken: list[float] = []
        self.abandoned = 0

    def wake(self) -> None:
        self.woken.append(trio.current_time())
        if self.later:
            self.alarm.set_by(self.later.pop(0))

    def abandon(self) -> None:
        self.abandoned += 1


async def test_each_is_woken_at_its_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Exactly, in any order, whether set before the task runs, while it sleeps or when woken."""
    ticker = Ticker()
    sleepers = [Sleeper(ticker, n + 1000.5) for n in range(100)]
    order = random.Random(6).sample(range(100), 100)
    for n in order[:50]:
        sleepers[n].alarm.set_by(n)
    nursery.start_soon(ticker.loop)
    await wait_all_tasks_blocked()
    for n in order[50:]:
        sleepers[n].alarm.set_by(n + 0.25)
    await trio.sleep(2000)
    expected = {n: [n, n + 1000.5] for n in order[:50]}
    expected |= {n: [n + 0.25, n + 1000.5] for n in order[50:]}
    assert {n: sleeper.woken for n, sleeper in enumerate(sleepers)} == expected
    assert len(ticker) == ticker.stale == 0


async def test_an_alarm_moves_nearer_only(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Who wants it later finds out when it rings, and rings once for each time."""
    ticker = Ticker()
    nursery.start_soon(ticker.loop)
    sleeper = Sleeper(ticker, 10, math.inf)
    for at in (10, 20, 5, 7, math.inf):
        sleeper.alarm.set_by(at)
    await trio.sleep(100)
    assert sleeper.woken == [5, 10]
    sleeper.alarm.set_by(-math.inf)
    await wait_all_tasks_blocked()
    assert sleeper.woken == [5, 10, 100]


async def test_what_is_stopped_never_rings_and_is_held_by_nobody(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Nor can it be set again."""
    ticker = Ticker()
    nursery.start_soon(ticker.loop)
    sleeper = Sleeper(ticker)
    sleeper.alarm.set_by(10)
    alarm, woken, reference = sleeper.alarm, sleeper.woken, weakref.ref(sleeper)
    alarm.stop()
    alarm.set_by(5)
    del sleeper
    gc.collect()
    assert reference() is None
    await trio.sleep(100)
    assert woken == []


async def test_connections_that_have_ended_do_not_fill_the_heap() -> None:
    """However many come and go before the time of the first has come."""
    ticker = Ticker()
    stays = Sleeper(ticker)
    stays.alarm.set_by(1e9)
    most = 0
    for n in range(10 * STALE_AT_LEAST):
        alarm = Alarm(ticker, stays)
        alarm.set_by(1e9 - n)
        alarm.set_by(1e8 - n)
        alarm.stop()
        most = max(most, len(ticker))
    assert most <= STALE_AT_LEAST + 3
    assert any(entry[2] is stays.alarm for entry in ticker._heap)


async def test_very_many_at_once_let_others_have_their_turns(nursery: trio.Nursery) -> None:
    """All of them ring at the same time of the clock."""
    ticker = Ticker()
    sleepers = [Sleeper(ticker) for _ in range(8 * RINGS_AT_ONCE)]
    now = trio.current_time()
    for sleeper in sleepers:
        sleeper.alarm.set_by(now)
    nursery.start_soon(ticker.loop)
    seen = [0]
    while not sleepers[-1].woken:
        seen.append(sum(len(sleeper.woken) for sleeper in sleepers))
        await trio.lowlevel.checkpoint()
    # Two tasks take their turns in any order.
    assert max(after - before for before, after in pairwise(seen)) <= 2 * RINGS_AT_ONCE


async def test_who_still_waits_when_it_ends_is_told() -> None:
    """Once, and not who has stopped, nor who waits for nothing."""
    ticker = Ticker()
    waits, stopped, idle = (Sleeper(ticker) for _ in range(3))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.loop)
        for at in (1e9, 1e8):
            waits.alarm.set_by(at)
            stopped.alarm.set_by(at)
        stopped.alarm.stop()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    ticker.abandon()
    assert [sleeper.abandoned for sleeper in (waits, stopped, idle)] == [1, 0, 0]
    waits.alarm.set_by(0)
    assert not len(ticker)

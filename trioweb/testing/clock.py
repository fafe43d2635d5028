"""Virtual time, and when it must not jump.

Theory of operation. `trio.testing.MockClock` jumps when no task has anything to do. It does not
see worker threads, nor what comes through real sockets; so whoever waits for those holds the
clock meanwhile.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Generator

    from trioweb.app.application import Limiter


class HeldClock:
    """A clock that does not jump as long as anybody holds it.

    Args:
        clock: a virtual one.
    """

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._holders = 0
        self._threshold = math.inf

    def hold(self) -> None:
        """Let it not jump until ``release``."""
        if not self._holders:
            self._threshold = self._clock.autojump_threshold
            self._clock.autojump_threshold = math.inf
        self._holders += 1

    def release(self) -> None:
        """Let it jump again when all who held it have released it."""
        self._holders -= 1
        if not self._holders:
            self._clock.autojump_threshold = self._threshold

    @contextmanager
    def real_time(self) -> Generator[None]:
        """Let it go on as real time does."""
        rate = self._clock.rate
        self.hold()
        self._clock.rate = 1.0
        try:
            yield
        finally:
            self._clock.rate = rate
            self.release()


_held_clock: trio.lowlevel.RunVar[HeldClock] = trio.lowlevel.RunVar("trioweb_held_clock")


def held_clock() -> HeldClock | None:
    """The virtual clock of this run; None where time is real."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        return None
    try:
        return _held_clock.get()
    except LookupError:
        _held_clock.set(held := HeldClock(clock))
        return held


class HoldingLimiter:
    """A limiter of threads that holds the clock while one of them runs.

    Args:
        limiter: which bounds them.
        clock: held.
    """

    def __init__(self, limiter: Limiter, clock: HeldClock) -> None:
        self._limiter = limiter
        self._clock = clock

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a place."""
        await self._limiter.acquire_on_behalf_of(borrower)
        self._clock.hold()

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give the place back."""
        self._clock.release()
        self._limiter.release_on_behalf_of(borrower)

"""Virtual time, and when it must not jump.

Theory of operation. `trio.testing.MockClock` jumps when no task has anything to do. It does not
see worker threads, nor what comes through real sockets; so whoever waits for those holds the
clock meanwhile.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Generator

    from trioweb.app.application import Limiter

# Seconds of real time in which a virtual clock that nobody holds must move: more than any test has
# to do in one moment of it.
STANDSTILL = 30.0
_TURNS_BETWEEN_LOOKS = 256


class VirtualClock(trio.abc.Instrument):
    """A clock of Trio's that does not jump as long as anybody holds it.

    It can't jump either while a task goes on without waiting, and what waits for time would wait
    for ever; so somebody looks at a real one.

    Args:
        clock: a virtual one.

    Attributes:
        waits: scopes that are cancelled when it stands still, or at their moments of real time.
        stands_still: whether it does, for `STANDSTILL` seconds and more.
    """

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.waits: dict[trio.CancelScope, float] = {}
        self.stands_still = False
        self._clock = clock
        self._holders = 0
        self._threshold = math.inf
        self._turns = 0
        self._seen = self._seen_at = -math.inf

    def before_io_wait(self, timeout: float) -> None:
        """Trio's: a turn of the event loop is over."""
        self._turns += 1
        if self._turns % _TURNS_BETWEEN_LOOKS:
            return
        now, real = trio.current_time(), time.monotonic()
        if now != self._seen or self._holders:
            self._seen, self._seen_at = now, real
        self.stands_still = real - self._seen_at >= STANDSTILL
        for scope, moment in list(self.waits.items()):
            if self.stands_still or real >= moment:
                scope.cancel(reason="the virtual clock stands still")

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


_virtual_clock: trio.lowlevel.RunVar[VirtualClock] = trio.lowlevel.RunVar("trioweb_virtual_clock")


def virtual_clock() -> VirtualClock | None:
    """The virtual clock of this run; None where time is real."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        return None
    try:
        return _virtual_clock.get()
    except LookupError:
        _virtual_clock.set(virtual := VirtualClock(clock))
        trio.lowlevel.add_instrument(virtual)
        return virtual


class HoldingLimiter:
    """A limiter of threads that holds the clock while one of them runs.

    Args:
        limiter: which bounds them.
        clock: held.
    """

    def __init__(self, limiter: Limiter, clock: VirtualClock) -> None:
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

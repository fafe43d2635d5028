"""Virtual time, and when it must not jump.

Theory of operation. `trio.testing.MockClock` jumps when no task has anything to do. It does not
see worker threads, nor what comes through real sockets; so whoever waits for those holds the
clock meanwhile. And it can't jump while a task goes on without ever waiting. What waits for time
would wait for ever then, so that somebody looks at a real clock beside it.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trioweb.app.application import Limiter

# Seconds of real time in which a virtual clock that nobody holds must move: more than any test has
# to do in one moment of it.
STANDSTILL = 30.0
# Seconds of real time for which a thread may hold it: who computes longer may be waiting for time.
HELD_STILL = 1.0
_TURNS_BETWEEN_LOOKS = 256
# Between two looks more time has passed where somebody sits in a debugger.
_LONGEST_TURNS = 1.0


class VirtualClock(trio.abc.Instrument):
    """A clock of Trio's that does not jump as long as anybody holds it.

    Args:
        clock: a virtual one.

    Attributes:
        waits: scopes that are cancelled when it stands still, or at their moments of real time.
    """

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.waits: dict[trio.CancelScope, float] = {}
        self._clock = clock
        self._threshold = math.inf  # as it is while nobody holds the clock
        self._rate = 0.0
        self._holders = self._real_holders = 0
        # Of Trio's own threads, which are a user's: of trio.to_thread.run_sync without a limiter.
        self._threads = trio.to_thread.current_default_thread_limiter()
        self._thread_hold: _Hold | None = None
        self._turns = 0
        self._seen = self._looked_at = -math.inf
        self._stood_for = 0.0

    @property
    def stands_still(self) -> bool:
        """Whether it has done so for `STANDSTILL` seconds of real time, though nobody holds it."""
        return self._stood_for >= STANDSTILL

    def before_io_wait(self, timeout: float) -> None:
        """Trio's: a turn of the event loop is over."""
        self._turns += 1
        if self._turns % _TURNS_BETWEEN_LOOKS:
            return
        now, real = trio.current_time(), time.monotonic()
        if now != self._seen or self._holders:
            self._seen, self._stood_for = now, 0.0
        else:
            self._stood_for += min(real - self._looked_at, _LONGEST_TURNS)
        self._looked_at = real
        for scope, moment in list(self.waits.items()):
            if self.stands_still or real >= moment:
                scope.cancel(reason="the virtual clock stands still")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio's: a task may have begun to wait for a thread, or a thread have ended."""
        if self._threads.borrowed_tokens:
            if self._thread_hold is None:
                self._thread_hold = _Hold(self, trio.lowlevel.current_trio_token())
        elif self._thread_hold is not None:
            self._thread_hold.release()
            self._thread_hold = None

    def set_alarm(self) -> threading.Timer | None:
        """Let somebody look in a while, where only the test moves the clock, and may be waiting.

        There are no turns of the event loop then, by which one could see that.
        """
        if self._holders or self._clock.rate or self._clock.autojump_threshold < math.inf:
            return None
        now, token = trio.current_time(), trio.lowlevel.current_trio_token()

        def look() -> None:
            if trio.current_time() == now and not self._holders:
                self._stood_for = STANDSTILL
                for scope in list(self.waits):
                    scope.cancel(reason="the virtual clock stands still")

        return _set_alarm(STANDSTILL, token, look)

    def hold(self) -> None:
        """Let it not jump until ``release``."""
        if not self._holders:
            self._threshold, self._rate = self._clock.autojump_threshold, self._clock.rate
            self._clock.autojump_threshold = math.inf
        self._holders += 1

    def release(self) -> None:
        """Let it jump again when all who held it have released it."""
        self._holders -= 1
        if not self._holders:
            self._clock.autojump_threshold = self._threshold

    def hold_really(self) -> None:
        """Let it go on as real time does until ``release_really``."""
        self.hold()
        self._real_holders += 1
        self._clock.rate = 1.0

    def release_really(self) -> None:
        """Let it go on as before when all who wanted real time have it no more."""
        self._real_holders -= 1
        if not self._real_holders:
            self._clock.rate = self._rate
        self.release()

    @contextmanager
    def real_time(self) -> Generator[None]:
        """A block in which it goes on as real time does."""
        self.hold_really()
        try:
            yield
        finally:
            self.release_really()


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

    A thread may wait for time itself, by ``trio.from_thread``, or for what another handler does
    in time; so one that runs on gets real time. For all else it is the limiter that it holds for.

    Args:
        limiter: which bounds them.
        clock: held.
    """

    def __init__(self, limiter: Limiter, clock: VirtualClock) -> None:
        self.__dict__.update(limiter=limiter, _clock=clock, _held={})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.limiter, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.limiter, name, value)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a place."""
        await self.limiter.acquire_on_behalf_of(borrower)
        self._held[borrower] = _Hold(self._clock, trio.lowlevel.current_trio_token())

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give the place back."""
        self._held.pop(borrower).release()
        self.limiter.release_on_behalf_of(borrower)


def _set_alarm(
    seconds: float, token: trio.lowlevel.TrioToken, wake: Callable[[], None]
) -> threading.Timer:
    """Call back into a run after some seconds of real time."""

    def ring() -> None:
        try:
            token.run_sync_soon(wake)
        except trio.RunFinishedError:
            pass  # what it was for has outlived the test

    alarm = threading.Timer(seconds, ring)
    alarm.daemon = True
    alarm.start()
    return alarm


class _Hold:
    """What one thread holds: the clock, then real time."""

    def __init__(self, clock: VirtualClock, token: trio.lowlevel.TrioToken) -> None:
        self._clock = clock
        self._is_over = self._is_real = False
        clock.hold()
        self._alarm = _set_alarm(HELD_STILL, token, self._go_on)

    def release(self) -> None:
        self._is_over = True
        self._alarm.cancel()
        if self._is_real:
            self._clock.release_really()
        self._clock.release()

    def _go_on(self) -> None:
        if not self._is_over:
            self._is_real = True
            self._clock.hold_really()

"""How long a test waits: some seconds of the clock in use, if that goes on."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from trioweb.testing.clock import STANDSTILL, virtual_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# Seconds, of the clock in use, after which every wait of the kit ends.
PATIENCE = 5.0
STOOD_STILL = (
    f"the virtual clock has stood still for {STANDSTILL:g} s of real time, since some task goes on "
    "and on without waiting for anything; waited"
)


def check_timeout(timeout: float) -> None:
    """Raise for a timeout that is none.

    Raises:
        TypeError: no number.
        ValueError: not positive.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout={timeout!r} must be a number of seconds; math.inf for no end")
    if math.isnan(timeout) or timeout <= 0:
        raise ValueError(f"timeout={timeout!r} must be more than 0 seconds")


@contextmanager
def patience(timeout: float, explain: Callable[[str], str]) -> Generator[None]:
    """Bound a wait, and say what it was for.

    Args:
        timeout: seconds, of the clock in use.
        explain: makes the failure's text from the first words of it.

    Raises:
        trio.TooSlowError: it has not ended in time.
        TypeError: the timeout is no number.
        ValueError: it is not positive.
    """
    check_timeout(timeout)
    with bounded(timeout) as scope:
        yield
    if scope.cancelled_caught:
        begin = STOOD_STILL if is_standing_still() else f"waited {timeout:g} s"
        # Behind a wait that was cancelled there is nothing to be seen: the chain would be long.
        raise trio.TooSlowError(explain(begin)) from None


@contextmanager
def bounded(timeout: float, *, really: float = math.inf) -> Generator[trio.CancelScope]:
    """Cancel a block when its time is over, or time does not go on.

    Args:
        timeout: seconds of the clock in use.
        really: seconds of real time.
    """
    clock = virtual_clock()
    if clock is None:
        timeout = min(timeout, really)
    with trio.move_on_after(timeout) as scope:
        if clock is None:
            yield scope
            return
        clock.waits[scope] = time.monotonic() + really
        alarm = clock.set_alarm()
        try:
            yield scope
        finally:
            del clock.waits[scope]
            if alarm is not None:
                alarm.cancel()


def is_standing_still() -> bool:
    """Whether waits are cancelled since a virtual clock does not go on."""
    clock = virtual_clock()
    return clock is not None and clock.stands_still

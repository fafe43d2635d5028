"""How many messages a peer may send in a while."""

from __future__ import annotations

import math


class RateLimit:
    """A bucket of ``count`` messages that fills again at ``count`` in ``seconds``.

    So ``count`` may come at once, and no more than that rate for long.

    Args:
        count: messages, 1 or more.
        seconds: in which the bucket fills.
        now: the time on the clock that the methods are told as well, in seconds.
    """

    __slots__ = ("_forgiven_until", "_left", "_refilled_at", "count", "seconds")

    def __init__(self, count: int, seconds: float, now: float) -> None:
        self.count = count
        self.seconds = seconds
        self._left = float(count)
        self._refilled_at = now
        self._forgiven_until = now

    def excess(self, messages: int, now: float) -> int:
        """Count messages that have come at ``now``; returns how many of them are too many."""
        filled = (now - self._refilled_at) * self.count / self.seconds
        if now > self._forgiven_until:
            self._left = min(self._left, self.count)
        # What was forgiven may be more than the bucket holds, but time does not add to it.
        self._left = max(self._left, min(self._left + filled, self.count))
        self._refilled_at = now
        self._left -= messages
        if self._left >= 0:
            return 0
        return min(messages, math.ceil(-self._left))

    def forgive(self, seconds: float, now: float) -> None:
        """For so long, until ``now``, we did not read: what was sent meanwhile may come at once.

        Not later: what waited for us has come when the bucket could have filled.
        """
        self._forgiven_until = now + self.seconds
        self._left += seconds * self.count / self.seconds
        self._refilled_at += seconds

"""A cancel point on every call, a schedule point after a bounded amount of work.

``trio.lowlevel.checkpoint()`` costs more than decoding a small message, so an operation that needs
not wait only looks for a cancellation. To keep a loop over sockets that never wait from holding
the event loop, operations are counted: the one after ``FREE_OPERATIONS`` without a yield that we
know of yields. Whose they are is not asked: where two tasks have taken part, one has yielded. So a
yield that we can't see (a sleep between two calls) costs one too many, never one too few.
"""

from __future__ import annotations

import trio

# 64 operations or 256 KiB: about 0.3 ms of work, well below what another connection would notice.
FREE_OPERATIONS = 64
BYTES_PER_OPERATION = 4096

_run_budget: trio.lowlevel.RunVar[Budget] = trio.lowlevel.RunVar("trioweb_budget")


class Budget:
    """Counts the operations since the last yield."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = FREE_OPERATIONS

    @classmethod
    def of_this_run(cls) -> Budget:
        """The one budget of this ``trio.run``."""
        try:
            return _run_budget.get()
        except LookupError:
            _run_budget.set(budget := cls())
            return budget

    def renew(self) -> None:
        """Forget what was counted: the calling task has just waited."""
        self._left = FREE_OPERATIONS

    def charge(self, size: int) -> None:
        """Count bytes that were worked on after ``is_spent`` was asked, and can't be refused."""
        self._left -= size // BYTES_PER_OPERATION

    def is_spent(self, size: int = 0) -> bool:
        """Count one operation on a message of ``size`` bytes; True when the caller must yield."""
        self._left -= 1 + size // BYTES_PER_OPERATION
        if self._left > 0:
            return False
        self._left = FREE_OPERATIONS
        return True

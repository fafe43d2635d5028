"""A cancel point on every call, a schedule point after a bounded amount of work.

``trio.lowlevel.checkpoint()`` costs more than decoding a small message, so an operation that needs
not wait only looks for a cancellation. To keep a loop over sockets that never wait from holding
the event loop, the operations of one task are counted: after ``FREE_OPERATIONS`` of them without
a yield that we know of, the next one yields. Known yields are waits of our own and another task
calling us in between; those that we can't see cost one yield too many, never one too few.
"""

from __future__ import annotations

import trio

# 64 operations or 256 KiB: about 0.3 ms of work, well below what another connection would notice.
FREE_OPERATIONS = 64
BYTES_PER_OPERATION = 4096

_run_budget: trio.lowlevel.RunVar[Budget] = trio.lowlevel.RunVar("trioweb_budget")


class Budget:
    """Counts the operations of the task that runs now."""

    __slots__ = ("_left", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._left = 0

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
        self._task = None

    def charge(self, size: int) -> None:
        """Count bytes that were worked on after ``is_spent`` was asked, and can't be refused."""
        self._left -= size // BYTES_PER_OPERATION

    def is_spent(self, size: int = 0) -> bool:
        """Count one operation on a message of ``size`` bytes; True when the caller must yield."""
        task = trio.lowlevel.current_task()
        if task is not self._task:
            self._task = task
            self._left = FREE_OPERATIONS
        self._left -= 1 + size // BYTES_PER_OPERATION
        if self._left > 0:
            return False
        self._left = FREE_OPERATIONS
        return True

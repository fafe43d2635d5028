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
    """Counts the operations since the last yield.

    Attributes:
        left: how many are free. Where each call counts, ``checkpoint`` is written out: count, and
            ``pause`` when none is left.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = FREE_OPERATIONS

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
        self.left = FREE_OPERATIONS

    def charge(self, size: int) -> None:
        """Count bytes that were worked on and can't be refused any more."""
        self.left -= size // BYTES_PER_OPERATION

    async def checkpoint(self, size: int = 0) -> None:
        """Count one operation on ``size`` bytes: a cancel point always, a yield at times."""
        self.left -= 1 + size // BYTES_PER_OPERATION
        if self.left > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self.pause()

    async def pause(self) -> None:
        """Yield, and begin to count anew."""
        self.left = FREE_OPERATIONS
        await trio.lowlevel.checkpoint()

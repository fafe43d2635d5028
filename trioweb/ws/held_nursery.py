"""A nursery that is open from one call to another, instead of for the time of a block."""

from __future__ import annotations

import trio


class HeldNursery:
    """A nursery in a task of its own, ``hold``.

    What is opened around code that must not be cancelled with its tasks can't be a nursery around
    that code.

    Attributes:
        nursery: None before ``hold`` was started, and after its end.
    """

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None
        self._ended = trio.Event()

    async def hold(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the nursery open until ``aclose``; the body of a task."""
        try:
            async with trio.open_nursery() as self.nursery:
                # The block's own child keeps the nursery open when its other tasks end; a scope
                # of its own, so that a user's cancel_scope.cancel() ends it too and we know.
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.nursery = None
            self._ended.set()

    async def aclose(self) -> None:
        """Cancel the tasks and wait for their end, however long they shield themselves."""
        if self.nursery is None:
            return
        self.nursery.cancel_scope.cancel()
        # The tasks are cancelled, so this ends when they do, as every nursery's exit.
        with trio.CancelScope(shield=True):
            await self._ended.wait()

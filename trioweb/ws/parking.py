"""Where one task sleeps until another wakes it, again and again."""

from __future__ import annotations

import trio


class Parking:
    """A place for one task."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def park(self) -> None:
        """Sleep until woken.

        Cancellation:
            Nobody is there to be woken any more.
        """
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Wake the task, if it sleeps."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

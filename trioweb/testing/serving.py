"""One connection that the application serves for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from trioweb.testing.leaks import describe_websocket, say_before_waiting
from trioweb.testing.tasks import break_shields, waits_at
from trioweb.ws.websocket import connection_of

if TYPE_CHECKING:
    from trioweb.app import TrioWeb
    from trioweb.testing.link import Link
    from trioweb.testing.tasks import TaskWatch


class Serving:
    """Serves one connection, in a task that can be ended.

    Args:
        app: which serves it.
        stream: the application's end.
        place: where the test has opened it.

    Attributes:
        task: in which the handler runs; None before it has begun.
        ended: set at the end.
    """

    def __init__(self, app: TrioWeb, stream: Link, place: str) -> None:
        self.stream = stream
        self._place = place
        self.task: trio.lowlevel.Task | None = None
        self.ended = trio.Event()
        self._app = app
        self._scope = trio.CancelScope()

    async def run(self, watch: TaskWatch) -> None:
        """Serve to the end; the body of the task."""
        watch.adopt()
        self.task = trio.lowlevel.current_task()
        try:
            with self._scope:
                await self._app.serve_stream(self.stream)
        finally:
            self.ended.set()

    @property
    def was_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._scope.cancel_called

    def cancel(self) -> None:
        """Cancel the handler, without the grace of a connection that has ended."""
        self._scope.cancel(reason="the test has left its connection")

    def break_shields(self) -> None:
        """Let the cancellation reach whoever shields from it."""
        assert self.task is not None
        say_before_waiting(f"{self}: it was cancelled, and goes on")
        break_shields(self.task)

    def __str__(self) -> str:
        what = "a connection"
        for ws in self._app.websockets:
            if connection_of(ws).stream is self.stream:
                what = describe_websocket(ws)
        where = "" if self.task is None else f"; {waits_at(self.task)}"
        return f"{what}, opened {self._place}{where}"


async def settle() -> None:
    """Let every task go as far as it comes without waiting for time, or for a thread."""
    await trio.testing.wait_all_tasks_blocked()

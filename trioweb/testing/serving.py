"""One connection that the application serves for a test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio
import trio.testing

from trioweb.testing.leaks import describe_websocket, say_before_waiting
from trioweb.testing.patience import bounded
from trioweb.testing.places import waits_at
from trioweb.testing.tasks import break_shields
from trioweb.ws.ending import State
from trioweb.ws.websocket import connection_of

if TYPE_CHECKING:
    from trioweb.app import TrioWeb
    from trioweb.testing.link import Link
    from trioweb.testing.tasks import TaskWatch
    from trioweb.ws.websocket import Websocket

# Seconds, of real time; a handler that has something to do and nothing to wait for needs less.
SETTLING = 1.0
_REASON = "the test has left its connection"


class Serving:
    """Serves one connection, in a task that can be ended.

    Args:
        app: which serves it.
        stream: the application's end.
        place: where the test has opened it.

    Attributes:
        task: in which the handler runs; None before it has begun.
        ended: set at the end.
        cancelled_at: when ``cancel`` was called first; infinity: it was not.
    """

    def __init__(self, app: TrioWeb, stream: Link, place: str) -> None:
        self.stream = stream
        self._place = place
        self.cancelled_at = math.inf
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

    def cancel(self) -> None:
        """Cancel the handler, without the grace of a connection that has ended."""
        if self.cancelled_at < math.inf:
            return
        self.cancelled_at = trio.current_time()
        websocket = self._websocket()
        if websocket is None or websocket.open:
            self._scope.cancel(reason=_REASON)
        else:
            # As at the end of the grace: its own tasks are there for its cleanup. A closing
            # handshake that nobody will answer is not waited for.
            connection_of(websocket).hurry()
            connection_of(websocket).cancel_handler(_REASON)

    def break_shields(self) -> None:
        """Let the cancellation reach whoever shields from it."""
        assert self.task is not None
        say_before_waiting(f"{self}: it was cancelled, and goes on")
        break_shields(self.task)
        self._scope.cancel(reason=_REASON)

    def tell_handler(self) -> str:
        """Where the handler waits."""
        websocket = self._websocket()
        if self.task is None or self.ended.is_set():
            return "its handler has ended"
        if websocket is None or websocket.client_state is State.CONNECTING:
            return f"it is neither accepted nor denied: what serves it {waits_at(self.task)}"
        return f"its handler {connection_of(websocket).name} {waits_at(self.task)}"

    def __str__(self) -> str:
        websocket = self._websocket()
        what = "a connection" if websocket is None else describe_websocket(websocket)
        where = "" if self.task is None else f"; it {waits_at(self.task)}"
        return f"{what}, opened {self._place}{where}"

    def _websocket(self) -> Websocket | None:
        for one in self._app.websockets:
            if connection_of(one).stream is self.stream:
                return one
        return None


async def settle() -> None:
    """Let every task go as far as it comes without waiting for time, or for a thread.

    Where others are busy all the time, for one second.
    """
    with bounded(math.inf, really=SETTLING):
        await trio.testing.wait_all_tasks_blocked()

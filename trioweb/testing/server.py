"""An application under test at a real port, in the test's own process."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trioweb.testing.leaks import LeakCheck
from trioweb.testing.patience import PATIENCE, bounded
from trioweb.testing.running import require_app
from trioweb.ws.groups import first_failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trioweb.app import TrioWeb
    from trioweb.app.application import ListeningStatus

logger = logging.getLogger("trioweb")

# An address and no name: a name may stand for two addresses, with a listener each.
HOST = "127.0.0.1"


@dataclass(frozen=True)
class LiveServer:
    """An application that is served at a real port; `open_server` makes it.

    Attributes:
        app: the application.
        host: the address that it listens at.
        port: the port, which the system chose.
    """

    app: TrioWeb
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where HTTP is served, without a slash at the end: ``http://127.0.0.1:PORT``."""
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where WebSockets are served, without a slash at the end: ``ws://127.0.0.1:PORT``."""
        return f"ws://{self.host}:{self.port}"

    def shutdown(self) -> None:
        """Begin the drain, as ``app.shutdown()``: the port closes, connections come to an end."""
        self.app.shutdown()


@asynccontextmanager
async def open_server(app: TrioWeb) -> AsyncGenerator[LiveServer]:
    """Serve an application at a free port of 127.0.0.1 for the time of a block.

    When the block is left, connections that are still open are cancelled at once, and the lifespan
    is left as after any drain. What the block raises comes out as itself, in no group.

    Args:
        app: not running yet.

    Raises:
        TypeError: it is no application.
        OSError: it can't listen.
        RuntimeError: the application runs already.
        Exception: what the lifespan or a task of ``app.nursery`` raised, as it was raised; it
            cancels the block.
        Leaked: a task of the application is left, in a nursery that is not its own; or one, or the
            lifespan, has not ended 5 s after the block, shields or not: then it is cancelled.

    Cancellation:
        Cancels the server too, which ends at once, and the lifespan with it.
    """
    require_app(app, "open_server() was given")
    failure: BaseException | None = None
    leaks = LeakCheck(app)
    serving = _Serving(app, leaks)
    try:
        async with trio.open_nursery() as nursery:
            ((host, port, *_),) = await nursery.start(serving.run)
            leaks.tasks.has_started.set()
            try:
                yield LiveServer(app, host, port)
            except BaseException as exc:
                # Raised behind the nursery, which would wrap it, and cancel the lifespan.
                failure = exc
            await serving.end(nursery.cancel_scope)
    except BaseExceptionGroup as group:
        crash = first_failure(group)
        # Where the block only was cancelled, what cancelled it is what matters.
        if failure is None or isinstance(failure, trio.Cancelled):
            raise crash from None
        if not isinstance(crash, trio.Cancelled):
            logger.error("the server of a test that failed had crashed", exc_info=crash)
    finally:
        leaks.stop_watching()
    leaks.look_at_tasks()
    leaks.report(failure)
    if failure is not None:
        raise failure


class _Serving:
    """The task in which an application is served.

    Args:
        app: which is served.
        leaks: told of what does not end.
    """

    def __init__(self, app: TrioWeb, leaks: LeakCheck) -> None:
        self._app = app
        self._leaks = leaks
        self._task: trio.lowlevel.Task | None = None
        self._ended = trio.Event()

    async def run(self, *, task_status: ListeningStatus) -> None:
        """Serve to the end; the body of the task."""
        self._leaks.tasks.adopt()
        self._task = trio.lowlevel.current_task()
        try:
            await self._app.serve(HOST, 0, task_status=task_status)
        finally:
            self._ended.set()

    async def end(self, scope: trio.CancelScope) -> None:
        """Drain without patience, and wait for the end; at last break the shields of what goes on.

        Args:
            scope: around the task. Cancelling it cancels the lifespan's own clean-up, so that is
                only for a lifespan that does not end by itself.

        Cancellation:
            It waits on; what it waits for is cancelled too.
        """
        patience = self._app.config.GRACEFUL_SHUTDOWN_TIMEOUT
        self._app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0
        try:
            self._app.shutdown()
        finally:
            self._app.config.GRACEFUL_SHUTDOWN_TIMEOUT = patience
        while True:
            with bounded(PATIENCE) as waiting:
                waiting.shield = True
                await self._ended.wait()
            if self._ended.is_set():
                return
            assert self._task is not None
            if self._leaks.insist(self._task):
                scope.cancel(reason="the lifespan has not ended")

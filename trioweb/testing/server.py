"""An application under test at a real port, in the test's own process."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trioweb.testing.leaks import LeakCheck
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
        Leaked: a task of the application is left, in a nursery that is not its own.

    Cancellation:
        Cancels the server too, which ends at once, and the lifespan with it.
    """
    require_app(app, "open_server() was given")
    failure: BaseException | None = None
    leaks = LeakCheck(app)

    async def serve(*, task_status: ListeningStatus) -> None:
        leaks.tasks.adopt()
        await app.serve(HOST, 0, task_status=task_status)

    try:
        async with trio.open_nursery() as nursery:
            ((host, port, *_),) = await nursery.start(serve)
            try:
                yield LiveServer(app, host, port)
            except BaseException as exc:
                # Raised behind the nursery, which would wrap it, and cancel the lifespan.
                failure = exc
            _end(app)
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


def _end(app: TrioWeb) -> None:
    """Drain without patience; cancelling ``serve`` would cancel the lifespan's own clean-up."""
    patience = app.config.GRACEFUL_SHUTDOWN_TIMEOUT
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0
    try:
        app.shutdown()
    finally:
        app.config.GRACEFUL_SHUTDOWN_TIMEOUT = patience

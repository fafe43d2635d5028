"""Listeners, and a session for each connection that they bring.

Theory of operation. ``serve`` runs an accept loop for each listener and starts a session task for
each connection, all in one nursery. ``shutdown`` is a plain function: it stops the accept loops,
tells every session to end after its request, tells every WebSocket to close, and sets the moment
at which the rest is cut off; ``serve`` then returns by itself, when its tasks have ended.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from trioweb.net.listen import accept_loop
from trioweb.server.session import Session
from trioweb.ws.groups import first_failure, leaves

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine
    from typing import Any

    from trioweb.net.stream import ByteStream
    from trioweb.server.application import Application

logger = logging.getLogger("trioweb")

# Said, since trio would make a string of its own for each task.
SESSION_TASK = "trioweb.server.server.Server.serve_stream"


class Server:
    """Serves one application.

    Args:
        app: answers requests and WebSocket handshakes.

    Attributes:
        on_shutdown: plain functions that ``shutdown`` calls; WebSockets add theirs while they live.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._sessions: set[Session] = set()
        self._is_idle = trio.Event()
        self._ended = self._session_ended  # one object for all of them
        self._accepting: set[trio.CancelScope] = set()
        self._hard_deadline = math.inf
        self._draining = False
        self.on_shutdown: set[Callable[[], None]] = set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._sessions)

    @property
    def draining(self) -> bool:
        """Whether ``shutdown`` was called."""
        return self._draining

    async def serve(
        self,
        listeners: list[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until ``shutdown``; returns when the last connection has ended.

        Args:
            listeners: listening sockets, owned from now on: closed when accepting stops.
            task_status: started when connections are accepted.

        Cancellation:
            Sessions are cancelled at once; WebSockets say goodbye within a second.
        """
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                # Connections hear of a cancellation when the application has.
                shelter, ended = trio.CancelScope(shield=True), trio.Event()
                nursery.start_soon(self._watch, shelter, ended)
                await nursery.start(self._serve_all, listeners, shelter, ended)
                task_status.started()
        except BaseExceptionGroup as group:
            # A nursery wraps; what we raise is what happened.
            failure = _pick(group)
        finally:
            for listener in listeners:
                listener.close()
        if failure is not None:
            raise failure

    async def _watch(self, shelter: trio.CancelScope, ended: trio.Event) -> None:
        try:
            await ended.wait()
        except trio.Cancelled:
            self._app.is_being_cancelled()
            raise
        finally:
            shelter.shield = False

    async def _serve_all(
        self,
        listeners: list[socket.socket],
        shelter: trio.CancelScope,
        ended: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        with shelter:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, nursery)
                task_status.started()
        ended.set()

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        def start(stream: ByteStream) -> None:
            nursery.start_soon(self.serve_stream, stream, name=SESSION_TASK)

        scope = trio.CancelScope()
        self._accepting.add(scope)
        if self._draining:
            scope.cancel()
        try:
            with scope:
                await accept_loop(listener, start)
        finally:
            self._accepting.discard(scope)
            # New clients are refused now, instead of waiting in the backlog of a server that ends.
            listener.close()

    def serve_stream(self, stream: ByteStream) -> Coroutine[Any, Any, None]:
        """Serve one connection to its end, when it is awaited.

        Raises nothing but what ends the process; the stream is closed in any case.
        """
        session = Session(
            self._app,
            stream,
            ended=self._ended,
            on_shutdown=self.on_shutdown,
            hard_deadline=self._hard_deadline,
        )
        self._sessions.add(session)
        return session.run()

    def _session_ended(self, session: Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._is_idle.set()

    async def wait_idle(self) -> None:
        """Wait until no connection is open."""
        while self._sessions:
            self._is_idle = trio.Event()
            await self._is_idle.wait()

    def shutdown(self, timeout: float | None = None) -> None:
        """Begin to drain; a second call can only hasten it.

        No connection is accepted any more, idle ones end, requests in progress are answered with
        ``Connection: close``, and each of ``on_shutdown`` is called.

        Args:
            timeout: seconds until what is left is cancelled; None is GRACEFUL_SHUTDOWN_TIMEOUT.
        """
        if timeout is None:
            timeout = self._app.config.GRACEFUL_SHUTDOWN_TIMEOUT
        first = not self._draining
        self._draining = True
        self._hard_deadline = min(self._hard_deadline, trio.current_time() + timeout)
        for scope in list(self._accepting):
            scope.cancel()
        for session in list(self._sessions):
            session.drain(self._hard_deadline)
        if first:
            for callback in list(self.on_shutdown):
                try:
                    callback()
                except Exception:
                    logger.exception("a shutdown callback crashed")


def _pick(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that stands for a group; the others are logged.

    Sessions are guarded, so there hardly are any.
    """
    picked = first_failure(group)
    for other in leaves(group):
        if other is not picked and not isinstance(other, trio.Cancelled):
            logger.error("another error while the server stopped", exc_info=other)
    return picked

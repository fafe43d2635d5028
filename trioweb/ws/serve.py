"""Serves one WebSocket: handshake, the connection's nursery, the handler, and how it ended.

::

    tasks (the connection nursery): receive, send
    └─ in the session's own task: ws.nursery
       └─ handler scope: middleware → guards → handler

The two tasks end with the stream, which is closed within the closing order's deadlines, whatever
is cancelled; leaving ``tasks`` waits for that. Exceptions never pass through a
nursery: those of the handler and of the tasks in ``ws.nursery`` are caught where they are raised,
so that they stay what they were.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from trioweb.errors import (
    HTTPException,
    OriginDenied,
    ServerShutdown,
    ServiceUnavailable,
)
from trioweb.http.response import Response, error_response
from trioweb.ws import handshake
from trioweb.ws.close import CloseInfo
from trioweb.ws.connection import Connection
from trioweb.ws.extensions import negotiate
from trioweb.ws.groups import without_cancelled
from trioweb.ws.nursery import ConnectionNursery
from trioweb.ws.outcome import Outcome
from trioweb.ws.websocket import Websocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trioweb.http.headers import HeaderSource
    from trioweb.http.request import Request
    from trioweb.net.stream import ByteStream
    from trioweb.types import Compression
    from trioweb.ws.extensions import Agreement
    from trioweb.ws.fanout import Fanout
    from trioweb.ws.options import ConnectionOptions
    from trioweb.ws.ticker import Ticker

logger = logging.getLogger("trioweb")
access_logger = logging.getLogger("trioweb.access")

# One line for each origin that is refused; a client that makes them up fills no more than this.
MAX_WARNED_ORIGINS = 100
_warned_origins: trio.lowlevel.RunVar[set[str]] = trio.lowlevel.RunVar("trioweb_warned_origins")


class Opening(NamedTuple):
    """A handshake that may be accepted: what the client asked for and what was chosen."""

    key: str
    offered: list[str]
    subprotocol: str | None
    compression: Agreement | None


def check_opening(
    request: Request,
    *,
    subprotocols: Sequence[str],
    subprotocol_required: bool,
    origins: str | Sequence[str],
    compression: Compression | None,
) -> Opening:
    """Check a handshake before anything of the application runs.

    Args:
        request: the handshake's.
        subprotocols: the route's, the preferred first.
        subprotocol_required: whether a client without any of them is refused.
        origins: WEBSOCKET_ORIGINS, or the route's own.
        compression: WEBSOCKET_COMPRESSION, or the route's own.

    Raises:
        HTTPException: it is refused, with this status.
    """
    key = handshake.check_request(request)
    _check_origin(request, origins)
    offered = handshake.offered_subprotocols(request)
    chosen = handshake.choose_subprotocol(subprotocols, offered, subprotocol_required)
    extensions = request.headers.getall("sec-websocket-extensions")
    return Opening(key, offered, chosen, negotiate(extensions, compression))


def _check_origin(request: Request, origins: str | Sequence[str]) -> None:
    try:
        handshake.check_origin(request, origins)
    except OriginDenied:
        origin = request.headers.get("origin", "")[:200]
        try:
            warned = _warned_origins.get()
        except LookupError:
            _warned_origins.set(warned := set())
        if origin not in warned and len(warned) < MAX_WARNED_ORIGINS:
            warned.add(origin)
            logger.warning(
                "refused a WebSocket for %s from the origin %r; add it to WEBSOCKET_ORIGINS if "
                "its pages may connect",
                request.path,
                origin,
            )
        raise


async def serve_websocket(
    request: Request,
    stream: ByteStream,
    trailing: bytes,
    *,
    opening: Opening,
    options: ConnectionOptions,
    handler_name: str,
    fanout: Fanout,
    ticker: Ticker,
    auto_accept: bool,
    body: Callable[[Websocket], Awaitable[Response | None]],
    failed: Callable[[Websocket, Exception], Awaitable[Response | None]],
    finish: Callable[[Response], Awaitable[Response]],
) -> Response | None:
    """Serve one WebSocket from its handshake to its end.

    Args:
        request: the handshake's.
        stream: closed when this returns None, still open otherwise.
        trailing: bytes that came after the request's head.
        opening: what ``check_opening`` returned.
        options: the connection's limits.
        handler_name: for logs.
        fanout: of the application's broadcasts.
        ticker: of the application's connections; runs.
        auto_accept: whether ``body`` accepts by itself, before it calls the handler.
        body: runs everything up to and including the handler. A Response denies the handshake.
        failed: told what the handler or a task of ``ws.nursery`` raised, while the connection is
            still open; before accept it makes the denial.
        finish: runs response middleware over the 101 or the denial.

    Returns:
        The response that denies the handshake, or None when the WebSocket was served.

    Cancellation:
        Cancels the handler at once; the frame in progress and Close 1001 are written within 1 s.
    """
    session = _WebsocketSession(
        request, stream, options, opening.compression, handler_name, fanout, ticker, auto_accept
    )

    async def accept(subprotocol: str | None, headers: HeaderSource | None) -> None:
        if subprotocol is not None and subprotocol not in opening.offered:
            raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}")
        selected = opening.subprotocol if subprotocol is None else subprotocol
        agreed = opening.compression
        response = await finish(
            handshake.accept_response(
                opening.key, selected, headers, agreed.header if agreed is not None else None
            )
        )
        connection = session.connection
        # Middleware may have taken its time.
        if connection.accepted:
            raise RuntimeError("this WebSocket was accepted by another task meanwhile")
        if response.status != 101 and connection.denial is None:
            connection.denial = response  # middleware may still refuse, and has seen its own answer
            session.denial_is_finished = True
        if connection.is_refused:
            raise connection.closed_error()
        session.websocket.subprotocol = selected
        connection.accept(response)

    denial = await session.run(accept, body, failed, trailing)
    if denial is None or session.denial_is_finished:
        return denial
    with trio.move_on_after(options.timeout):
        return await finish(denial)
    logger.warning("response middleware took more than %g s over a denial", options.timeout)
    return denial


class _WebsocketSession:
    """One connection's nurseries, and what came of its handler."""

    def __init__(
        self,
        request: Request,
        stream: ByteStream,
        options: ConnectionOptions,
        compression: Agreement | None,
        handler_name: str,
        fanout: Fanout,
        ticker: Ticker,
        auto_accept: bool,
    ) -> None:
        self.request = request
        self.handler_name = handler_name
        self._auto_accept = auto_accept
        self._started_at = trio.current_time()
        self._handler_scope = trio.CancelScope()
        self.denial_is_finished = False
        self._tasks: trio.Nursery | None = None
        self.connection = Connection(
            stream,
            options,
            compression,
            handler_name,
            fanout,
            ticker,
            self._start_task,
            self._cancel_handler,
        )
        self.websocket: Websocket
        self._outcome: Outcome

    async def run(
        self,
        accept: Callable[[str | None, HeaderSource | None], Awaitable[None]],
        body: Callable[[Websocket], Awaitable[Response | None]],
        failed: Callable[[Websocket, Exception], Awaitable[Response | None]],
        trailing: bytes,
    ) -> Response | None:
        """Run the connection to its end; returns the denial if there is one."""
        connection = self.connection
        self.websocket = Websocket(connection, self.request, accept, self._auto_accept)
        self._outcome = Outcome(self.websocket, connection, self.handler_name)
        if trailing:
            connection.receiver.received_early(trailing)
        self.request.on_shutdown.add(connection.drain)
        returned: Response | None = None
        try:
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(connection.receiver.loop)
                connection.heartbeat.start()
                returned = await self._run_handler(body, failed)
                if not (connection.accepted or connection.client_left):
                    connection.receiver.hand_back()
        finally:
            connection.heartbeat.stop()
            self.request.on_shutdown.discard(connection.drain)
            if connection.accepted:
                self._log_access()
            if self._outcome.fatal is not None:
                raise self._outcome.fatal
        if connection.accepted or connection.client_left:
            return None
        return self._denial(returned)

    async def _run_handler(
        self,
        body: Callable[[Websocket], Awaitable[Response | None]],
        failed: Callable[[Websocket, Exception], Awaitable[Response | None]],
    ) -> Response | None:
        connection, websocket = self.connection, self.websocket
        returned: Response | None = None
        async with trio.open_nursery() as nursery:
            websocket.nursery = ConnectionNursery(nursery, websocket, self._crashed)
            try:
                returned = await self._call(partial(body, websocket), nursery)
                error = self._outcome.error
                if isinstance(error, Exception):
                    # A scope of its own, since the handler's may be cancelled by now.
                    deadline = trio.current_time() + connection.options.timeout
                    self._handler_scope = trio.CancelScope(deadline=deadline)
                    returned = await self._call(partial(failed, websocket, error), nursery)
            finally:
                connection.has_no_handler = True
                websocket.nursery.refuse_tasks()
                if _is_cancelled_from_outside(nursery):
                    # The receive task may be told only after us.
                    connection.hurry()
                self._conclude()
            if connection.accepted and not connection.outbox.close_written.is_set():
                await connection.outbox.close_written.wait()
            nursery.cancel_scope.cancel(reason="the handler has returned")
        return returned

    async def _call(
        self, function: Callable[[], Awaitable[Response | None]], nursery: trio.Nursery
    ) -> Response | None:
        """Run the handler, or what handles its failure, in the handler's scope.

        What it raises is kept in ``_outcome``; cancellations from outside go through.
        """
        try:
            with self._handler_scope:
                return await function()
        except BaseException as raised:
            rest = without_cancelled(raised)
            if rest is not None:
                self._crashed(rest)
            if isinstance(raised, trio.Cancelled):
                raise
            if rest is not raised and isinstance(raised, BaseExceptionGroup):
                cancelled, _ = raised.split(trio.Cancelled)
                assert cancelled is not None
                raise cancelled from None
        return None

    def _start_task(self, body: Callable[[], Awaitable[None]]) -> None:
        # From the connection's own side: the task shall not live in a broadcaster's context.
        assert self._tasks is not None
        context = self._tasks.parent_task.context.copy()
        context.run(partial(self._tasks.start_soon, body))

    def _cancel_handler(self, reason: str) -> None:
        if self.connection.has_no_handler:
            return
        if not self._handler_scope.cancel_called and self.connection.accepted:
            logger.info(
                "cancelled the handler %s for %s: %s",
                self.handler_name,
                self.connection.stream.peer,
                reason,
            )
        self._handler_scope.cancel(reason=reason)

    def _crashed(self, error: BaseException) -> None:
        """The handler, or a task of ws.nursery, has raised."""
        if self._outcome.take(error, is_late=self.connection.has_no_handler):
            # Its type only: what repr() of it says, or raises, is the user's.
            kind = type(error).__name__
            self._handler_scope.cancel(reason=f"it failed, or a task of ws.nursery: {kind}")

    def _conclude(self) -> None:
        """Close with what the handler's end stands for."""
        connection = self.connection
        if connection.accepted:
            connection.begin_close(*self._outcome.close_code())
            connection.handler_has_ended()
        if self._outcome.fatal is not None:
            connection.hurry()  # the process is to end, and no peer may hold it up

    def _denial(self, returned: Response | None) -> Response:
        connection = self.connection
        if connection.denial is not None:
            return connection.denial
        if returned is not None:
            return returned
        if self._outcome.error is not None:
            return error_response(HTTPException(status=500))
        if connection.is_draining:
            return error_response(ServerShutdown())
        if connection.has_timed_out:
            logger.warning(
                "%s did not accept() within WEBSOCKET_TIMEOUT=%g s",
                self.handler_name,
                connection.options.timeout,
            )
            return error_response(ServiceUnavailable())
        logger.warning(
            "%s returned without accepting: call `await websocket.accept()`, or deny() to refuse",
            self.handler_name,
        )
        return error_response(HTTPException(status=500))

    def _log_access(self) -> None:
        if not access_logger.isEnabledFor(logging.INFO):
            return
        connection = self.connection
        info = connection.close_info or CloseInfo(1006, "", "lost", False)
        seconds = trio.current_time() - self._started_at
        route = getattr(self.request.route, "name", None) or self.request.path
        access_logger.info(
            "%s WEBSOCKET %s %d by %s %.3fs in %d/%dB out %d/%dB",
            connection.stream.peer,
            self.request.path,
            info.code,
            info.by,
            seconds,
            connection.inbox.messages_received,
            connection.receiver.bytes_received,
            connection.messages_sent,
            connection.outbox.bytes_sent,
            extra={
                "route": route,
                "peer": connection.stream.peer,
                "code": info.code,
                "by": info.by,
                "seconds": seconds,
                "messages_received": connection.inbox.messages_received,
                "bytes_received": connection.receiver.bytes_received,
                "messages_sent": connection.messages_sent,
                "bytes_sent": connection.outbox.bytes_sent,
            },
        )


def _is_cancelled_from_outside(nursery: trio.Nursery) -> bool:
    """Whether the task within a nursery is cancelled by a scope around it."""
    is_cancelled = trio.current_effective_deadline() == -math.inf
    return is_cancelled and not nursery.cancel_scope.cancel_called

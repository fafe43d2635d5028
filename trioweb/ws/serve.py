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
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from trioweb.errors import (
    HTTPException,
    OriginDenied,
    ServerShutdown,
    ServiceUnavailable,
)
from trioweb.http.response import Response, encode_head, error_response
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
    from trioweb.net.ticker import Ticker
    from trioweb.types import Compression
    from trioweb.ws.extensions import Agreement
    from trioweb.ws.fanout import Fanout
    from trioweb.ws.options import ConnectionOptions

logger = logging.getLogger("trioweb")
access_logger = logging.getLogger("trioweb.access")

# Said, since trio would make a string of its own for each task.
RECEIVE_TASK = "trioweb.ws.receiver.Receiver.loop"
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


class Endpoint(Protocol):
    """What an application does with one WebSocket.

    Attributes:
        name: the handler's, for logs.
        accepts: whether ``open`` accepts by itself, before it calls the handler.
        sees_responses: whether ``finish`` does anything.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def accepts(self) -> bool: ...  # noqa: D102

    @property
    def sees_responses(self) -> bool: ...  # noqa: D102

    def open(self, websocket: Websocket) -> Awaitable[Response | Awaitable[object]]:
        """Run everything up to the handler, and call that: what is to be awaited then.

        It is not awaited within, since what waits there waits as long as the connection lasts.
        A Response denies the handshake instead.
        """

    def answer(self, websocket: Websocket, returned: object) -> Response | None:
        """What the handler has returned, as the Response that denies the handshake, or None."""

    def failed(self, websocket: Websocket, error: Exception) -> Awaitable[Response | None]:
        """Hear what the handler or a task of ``ws.nursery`` raised, while it is still open.

        Before accept the result denies the handshake.
        """

    def finish(self, response: Response) -> Awaitable[Response]:
        """Run response middleware over the 101 or the denial."""

    def ended(self) -> None:
        """Hear that the connection's last task has ended."""


def serve_websocket(
    request: Request,
    stream: ByteStream,
    trailing: bytes,
    *,
    opening: Opening,
    options: ConnectionOptions,
    fanout: Fanout,
    ticker: Ticker,
    endpoint: Endpoint,
    take_scope: Callable[[trio.CancelScope], None],
) -> Awaitable[Response | None]:
    """Serve one WebSocket from its handshake to its end, when it is awaited.

    Args:
        request: the handshake's.
        stream: closed when this returns None, still open otherwise.
        trailing: bytes that came after the request's head.
        opening: what ``check_opening`` returned.
        options: the connection's limits.
        fanout: of the application's broadcasts.
        ticker: of the application's connections; runs.
        endpoint: the application's part.
        take_scope: told of the scope by which the server can end it: it has none around it.

    Returns:
        The response that denies the handshake, or None when the WebSocket was served.

    Cancellation:
        Cancels the handler at once; the frame in progress and Close 1001 are written within 1 s.
    """
    session = _WebsocketSession(
        request, stream, opening, options, fanout, ticker, endpoint, take_scope
    )
    return session.run(trailing)


class _WebsocketSession:
    """One connection's nurseries, and what came of its handler."""

    __slots__ = (
        "_denial_is_finished",
        "_endpoint",
        "_handler_scope",
        "_opening",
        "_outcome",
        "_started_at",
        "_take_scope",
        "_tasks",
        "connection",
        "request",
        "websocket",
    )

    def __init__(
        self,
        request: Request,
        stream: ByteStream,
        opening: Opening,
        options: ConnectionOptions,
        fanout: Fanout,
        ticker: Ticker,
        endpoint: Endpoint,
        take_scope: Callable[[trio.CancelScope], None],
    ) -> None:
        self.request = request
        self._take_scope = take_scope
        self._opening = opening
        self._endpoint = endpoint
        self._started_at = trio.current_time()
        self._handler_scope = trio.CancelScope()
        self._denial_is_finished = False
        self._tasks: trio.Nursery | None = None
        self.connection = Connection(
            stream,
            options,
            opening.compression,
            endpoint.name,
            fanout,
            ticker,
            self,
        )
        self.websocket = Websocket(self.connection, request, endpoint.accepts)
        self._outcome = Outcome(self.websocket, self.connection, endpoint.name)

    async def run(self, trailing: bytes) -> Response | None:
        """Run the connection to its end; returns the denial if there is one."""
        connection, websocket, endpoint = self.connection, self.websocket, self._endpoint
        returned: Response | None = None
        try:
            if trailing:
                connection.receiver.received_early(trailing)
            self.request.on_shutdown.add(connection.drain)
            async with trio.open_nursery() as self._tasks:
                self._take_scope(self._tasks.cancel_scope)
                self._tasks.start_soon(connection.receiver.loop, name=RECEIVE_TASK)
                connection.heartbeat.start()
                async with trio.open_nursery() as nursery:
                    websocket.nursery = ConnectionNursery(nursery, websocket, self)
                    try:
                        try:
                            # Not in a function: each on the way to the handler is memory for as
                            # long as it runs, and time whenever it is woken.
                            with self._handler_scope:
                                opened = await endpoint.open(websocket)
                                if isinstance(opened, Response):
                                    returned = opened
                                else:
                                    returned = endpoint.answer(websocket, await opened)
                        except BaseException as raised:
                            self._take_failure(raised)
                        error = self._outcome.error
                        if isinstance(error, Exception):
                            returned = await self._handle_failure(error)
                    finally:
                        self._conclude(nursery)
                    if connection.accepted and not connection.outbox.close_written.is_set():
                        await connection.outbox.close_written.wait()
                    if websocket.nursery.was_used:
                        nursery.cancel_scope.cancel(reason="the handler has returned")
                websocket.nursery.let_go()
                if not (connection.accepted or connection.client_left):
                    connection.receiver.hand_back()
        finally:
            self.request.on_shutdown.discard(connection.drain)
            endpoint.ended()
            if connection.accepted:
                self._log_access()
            connection.let_go()
            if self._outcome.fatal is not None:
                raise self._outcome.fatal
        if connection.accepted or connection.client_left:
            return None
        return await self._finish_denial(self._denial(returned))

    async def _handle_failure(self, error: Exception) -> Response | None:
        """Let the application hear of what was raised, while the connection is still open."""
        # A scope of its own, since the handler's may be cancelled by now.
        deadline = trio.current_time() + self.connection.options.timeout
        self._handler_scope = trio.CancelScope(deadline=deadline)
        try:
            with self._handler_scope:
                return await self._endpoint.failed(self.websocket, error)
        except BaseException as raised:
            self._take_failure(raised)
        return None

    def _take_failure(self, raised: BaseException) -> None:
        """Keep what the handler, or what handles its failure, has raised.

        Cancellations from outside go on.
        """
        rest = without_cancelled(raised)
        if rest is not None:
            self.crashed(rest)
        if isinstance(raised, trio.Cancelled):
            raise raised
        if rest is not raised and isinstance(raised, BaseExceptionGroup):
            cancelled, _ = raised.split(trio.Cancelled)
            assert cancelled is not None
            raise cancelled from None

    def _conclude(self, nursery: trio.Nursery) -> None:
        """The handler has ended: close with what that stands for."""
        connection = self.connection
        connection.has_no_handler = True
        self.websocket.nursery.refuse_tasks()
        if _is_cancelled_from_outside(nursery):
            # The receive task may be told only after us.
            connection.hurry()
        if connection.accepted:
            connection.begin_close(*self._outcome.close_code())
            connection.handler_has_ended()
        if self._outcome.fatal is not None:
            connection.hurry()  # the process is to end, and no peer may hold it up

    async def accept(self, subprotocol: str | None, headers: HeaderSource | None) -> None:
        """Write the 101, once response middleware has seen it."""
        connection = self.connection
        self._check_not_accepted()
        opening = self._opening
        if subprotocol is not None and subprotocol not in opening.offered:
            raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}")
        selected = opening.subprotocol if subprotocol is None else subprotocol
        extensions = opening.compression.header if opening.compression is not None else None
        response: Response | None = None
        if headers is not None or self._endpoint.sees_responses:
            response = await self._endpoint.finish(
                handshake.accept_response(opening.key, selected, headers, extensions)
            )
            self._check_not_accepted()  # middleware may have taken its time
        if response is not None and response.status != 101 and connection.denial is None:
            connection.denial = response  # middleware may still refuse, and has seen its own answer
            self._denial_is_finished = True
        if connection.is_refused:
            raise connection.closed_error()
        self.websocket.subprotocol = selected
        if response is None:
            connection.accept(handshake.accept_head(opening.key, selected, extensions))
        else:
            connection.accept(encode_head(response))  # which may refuse a header
        # What is not needed any more may take a good part of what an idle connection does.
        del self._opening, self._take_scope
        self.request.headers.pack()

    def _check_not_accepted(self) -> None:
        if self.connection.accepted:
            raise RuntimeError("this WebSocket was accepted by another task meanwhile")

    def start_task(self, body: Callable[[], Awaitable[None]]) -> None:
        """Start a task in the connection's nursery."""
        # From the connection's own side: the task shall not live in a broadcaster's context.
        assert self._tasks is not None
        context = self._tasks.parent_task.context.copy()
        context.run(partial(self._tasks.start_soon, body))

    def cancel_handler(self, reason: str) -> None:
        """Cancel the handler, and say why."""
        if self.connection.has_no_handler:
            return
        if not self._handler_scope.cancel_called and self.connection.accepted:
            logger.info(
                "cancelled the handler %s for %s: %s",
                self._endpoint.name,
                self.connection.stream.peer,
                reason,
            )
        self._handler_scope.cancel(reason=reason)

    def crashed(self, error: BaseException) -> None:
        """The handler, or a task of ws.nursery, has raised."""
        if self._outcome.take(error, is_late=self.connection.has_no_handler):
            # Its type only: what repr() of it says, or raises, is the user's.
            kind = type(error).__name__
            self._handler_scope.cancel(reason=f"it failed, or a task of ws.nursery: {kind}")

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
            who = "what comes before the handler" if self._endpoint.accepts else "the handler"
            logger.warning(
                "%s: %s did not accept within WEBSOCKET_TIMEOUT=%g s",
                self._endpoint.name,
                who,
                connection.options.timeout,
            )
            return error_response(ServiceUnavailable())
        logger.warning(
            "%s returned without accepting: call `await websocket.accept()`, or deny() to refuse",
            self._endpoint.name,
        )
        return error_response(HTTPException(status=500))

    async def _finish_denial(self, denial: Response) -> Response:
        if self._denial_is_finished:
            return denial
        timeout = self.connection.options.timeout
        with trio.move_on_after(timeout) as scope:
            self._take_scope(scope)
            return await self._endpoint.finish(denial)
        if trio.current_time() < scope.deadline:
            return denial  # the drain has taken too long
        logger.warning("response middleware took more than %g s over a denial", timeout)
        return denial

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

"""One connection: requests in, responses out, until an upgrade or the end.

Theory of operation. A session is one task with one cancel scope and one deadline, which moves from
phase to phase. When it passes, the phase tells what it means: silence between requests is closed
without a word, a request that does not arrive is a 408, a handler that does not answer is a 503,
a peer that does not take its answer is dropped. Draining moves the deadline too: no phase may set
it beyond ``hard_deadline``. The application's ticker minds it, so that a request needs no timer.

An upgrade is served when that scope has ended, as directly as can be: each scope and each call
between the task and a WebSocket's handler is memory for as long as the connection lasts. The
application lends a scope of its own instead, which is cancelled at the ``hard_deadline``.

A response goes out as prebuilt bytes with one ``try_send`` where that takes it.
"""

from __future__ import annotations

import enum
import inspect
import logging
import math
from typing import TYPE_CHECKING

import trio

from trioweb.errors import HTTPException, RequestTimeout, ServerShutdown, ServiceUnavailable
from trioweb.http.http1 import RequestHead, RequestParser
from trioweb.http.request import Request
from trioweb.http.response import Response, encode_head, error_response, has_no_body, text
from trioweb.net.linger import LINGER_SECONDS, linger
from trioweb.net.ticker import Alarm
from trioweb.server.access import log_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from trioweb.net.stream import ByteStream
    from trioweb.server.application import Application

logger = logging.getLogger("trioweb")

# One read; DESIGN's bound for what is looked through at once.
READ_SIZE = 65536
# A body up to this size is copied behind its head to go out with one system call.
JOIN_SIZE = 256 * 1024
# A body that brings this much is alive: REQUEST_TIMEOUT starts anew, so that a large upload over a
# slow line passes and a trickle does not.
BODY_PROGRESS = 16 * 1024
# Requests answered without a known wait before other tasks are let in; a checkpoint costs as much
# as half a small response (DESIGN invariant 9 allows 64).
REQUESTS_BETWEEN_CHECKPOINTS = 16

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(enum.Enum):
    """What a session is doing; decides what a passed deadline means."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    HANDLING = enum.auto()
    BODY = enum.auto()
    SENDING = enum.auto()
    UPGRADED = enum.auto()
    CLOSING = enum.auto()


class _Hangup(Exception):
    """Ends the session: nothing more can be said on this connection."""


class Session:
    """Serves one connection; ``run`` once.

    Args:
        app: answers the requests.
        stream: the connection, owned from now on.
        ended: told when it has ended.
        on_shutdown: what the server calls when it drains; given to every request.
        hard_deadline: Trio time at which the session ends whatever it does.
    """

    __slots__ = (
        "_alarm",
        "_app",
        "_body_deadline",
        "_config",
        "_deadline",
        "_draining",
        "_ended",
        "_expects_continue",
        "_hard_deadline",
        "_is_closed",
        "_on_shutdown",
        "_parser",
        "_phase",
        "_progress",
        "_request",
        "_responding",
        "_scope",
        "_sent",
        "_since_checkpoint",
        "_started",
        "_stream",
    )

    def __init__(
        self,
        app: Application,
        stream: ByteStream,
        *,
        ended: Callable[[Session], None],
        on_shutdown: set[Callable[[], None]],
        hard_deadline: float = math.inf,
    ) -> None:
        config = app.config
        self._app = app
        self._config = config
        self._stream = stream
        self._ended = ended
        self._on_shutdown = on_shutdown
        self._hard_deadline = hard_deadline
        self._draining = hard_deadline != math.inf
        self._scope = trio.CancelScope()
        self._alarm = Alarm(app.ticker, self)
        self._deadline = math.inf
        self._phase = Phase.IDLE
        self._parser = RequestParser(config.REQUEST_MAX_HEADER_SIZE, config.REQUEST_MAX_SIZE)
        self._request: Request | None = None
        self._started = 0.0
        self._expects_continue = False
        self._progress = 0
        self._body_deadline = math.inf
        # Whether a part of the current response is on its way: then nothing else can be answered.
        self._responding = False
        self._sent = 0
        self._since_checkpoint = 0
        self._is_closed = False  # a WebSocket closes the stream itself

    def drain(self, hard_deadline: float) -> None:
        """End when the request in progress is answered; at once when there is none."""
        self._draining = True
        self._hard_deadline = min(self._hard_deadline, hard_deadline)
        self._set_deadline(self._deadline)
        if self._phase is Phase.IDLE:
            self._scope.cancel()

    def _enter(self, phase: Phase, timeout: float) -> None:
        self._phase = phase
        self._set_deadline(trio.current_time() + timeout)

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = min(deadline, self._hard_deadline)
        self._alarm.set_by(self._deadline)

    def wake(self) -> None:
        """The ticker's: a deadline has passed, or one that has been moved since."""
        if trio.current_time() < self._deadline:
            self._alarm.set_by(self._deadline)
        else:
            self._scope.cancel(reason=f"the session's time is over, in phase {self._phase.name}")

    def abandon(self) -> None:
        """The ticker's: it has ended, and with it the application."""
        self._hard_deadline = trio.current_time()
        self._scope.cancel(reason="the application has ended")

    async def run(self) -> None:
        """Serve until the connection ends.

        Raises nothing but what ends the process: a session never hurts another.
        """
        try:
            with self._scope:
                # A new connection that says nothing is held no longer than a slow request.
                self._enter(Phase.IDLE, self._config.REQUEST_TIMEOUT)
                await self._serve_requests()
            if self._scope.cancelled_caught:
                await self._answer_timeout()
            elif self._phase is Phase.UPGRADED:
                try:
                    response = await self._upgrade()
                except Exception:
                    # What is on the wire by now is unknown, so nothing can be said.
                    logger.exception("the application raised on %s", self._describe())
                else:
                    self._is_closed = response is None
                    if response is not None:
                        await self._refuse_upgrade(response)
        except (trio.BrokenResourceError, trio.ClosedResourceError, _Hangup):
            pass  # the peer has left, which it may at any time
        except Exception:
            logger.exception("the session with %s crashed", self._stream.peer)
        except (KeyboardInterrupt, SystemExit):
            self._app.is_being_cancelled()
            raise
        finally:
            self._alarm.stop()
            try:
                if not self._is_closed:
                    # Shielded, so that a cancellation does not stand in for what ends the process.
                    with trio.move_on_after(LINGER_SECONDS, shield=True):
                        await self._stream.aclose()
            finally:
                self._ended(self)

    async def _serve_requests(self) -> None:
        parser = self._parser
        try:
            while True:
                head = parser.next_head()
                if head is None:
                    head = await self._wait_for_head()
                if head is None or not await self._serve_request(head):
                    return
                self._since_checkpoint += 1
                if self._since_checkpoint >= REQUESTS_BETWEEN_CHECKPOINTS:
                    self._since_checkpoint = 0
                    await trio.lowlevel.checkpoint()
        except HTTPException as error:
            # Only the parser's refusals come here; handlers' exceptions end in the application.
            self._request = None
            self._started = trio.current_time()
            await self._write_last(error_response(error))

    async def _wait_for_head(self) -> RequestHead | None:
        """Read until a request's head is whole; None when the connection ends instead."""
        parser = self._parser
        if parser.has_partial_head:
            self._enter(Phase.HEAD, self._config.REQUEST_TIMEOUT)
        elif self._draining:
            await self._linger()
            return None
        elif self._phase is not Phase.IDLE:
            self._enter(Phase.IDLE, self._config.KEEP_ALIVE_TIMEOUT)
        while True:
            data = await self._stream.receive_some(READ_SIZE)
            if not data:
                return None
            parser.receive(data)
            # Time may be over in this very turn: no handler shall begin to be cut off.
            await trio.lowlevel.checkpoint_if_cancelled()
            head = parser.next_head()
            if head is not None:
                return head
            if self._phase is Phase.IDLE and parser.has_partial_head:
                self._enter(Phase.HEAD, self._config.REQUEST_TIMEOUT)
            # Of what means nothing, as empty lines do, there may be more at once.
            await trio.lowlevel.checkpoint()

    # --- one request ------------------------------------------------------------------------

    async def _serve_request(self, head: RequestHead) -> bool:
        """Answer one request; True when the connection can take another."""
        self._phase = Phase.HANDLING
        now = self._started = trio.current_time()
        self._set_deadline(now + self._config.RESPONSE_TIMEOUT)
        stream = self._stream
        request = self._request = Request(
            head.method,
            head.target,
            head.headers,
            client=stream.client,
            scheme=stream.scheme,
            http_version=head.http_version,
            receive_body=self._receive_body if head.has_body else None,
            peer=stream.peer,
            on_shutdown=self._on_shutdown,
        )
        self._expects_continue = head.expects_continue
        self._progress = 0
        self._responding = False
        if head.is_websocket:
            if self._draining:
                refusal = ServerShutdown("The server is shutting down")
                await self._write_last(error_response(refusal))
            else:
                self._enter(Phase.UPGRADED, math.inf)
            return False
        try:
            response = await self._app.handle(request)
        except Exception:
            # The application promises not to; one that does must not take the connection along.
            logger.exception("the application raised on %s %s", request.method, request.raw_path)
            response = text("Internal Server Error", 500)
        keep_alive = head.keep_alive and not self._draining and not response.closes
        if head.has_body:
            if isinstance(response.body, bytes):
                # An async body may be made of the request's own as it comes.
                self._discard_received_body()
            keep_alive = keep_alive and self._parser.body_ended
        keep_alive = await self._write(response, head, keep_alive=keep_alive)
        if not keep_alive and (head.keep_alive or not self._parser.body_ended):
            # The client may be sending still; closing over unread bytes would eat the answer.
            await self._linger()
        return keep_alive

    def _upgrade(self) -> Awaitable[Response | None]:
        """Let the application have the connection; nothing is kept but what the end needs."""
        request, trailing = self._request, self._parser.take_trailing()
        assert request is not None
        del self._parser
        return self._app.handle_upgrade(request, self._stream, trailing, self.take_scope)

    def take_scope(self, scope: trio.CancelScope) -> None:
        """Cancel this scope, in which the connection is served now, when the time is over."""
        self._scope = scope
        if self._deadline <= trio.current_time():
            self.wake()

    async def _refuse_upgrade(self, response: Response) -> None:
        with trio.CancelScope() as scope:
            self.take_scope(scope)
            await self._write_last(response)

    async def _receive_body(self) -> bytes:
        """The body's next piece, for the request's ``body`` and ``stream``."""
        parser = self._parser
        chunk = parser.next_chunk()
        if chunk is not None:
            # Nothing was waited for, and every async function is a cancel point.
            await trio.lowlevel.checkpoint_if_cancelled()
            return chunk
        if self._expects_continue:
            self._expects_continue = False
            await self._send(CONTINUE)
        deadline, phase = self._deadline, self._phase
        if self._progress == 0 or self._progress >= BODY_PROGRESS:
            self._progress = 0
            self._body_deadline = trio.current_time() + self._config.REQUEST_TIMEOUT
        self._phase = Phase.BODY
        self._set_deadline(self._body_deadline)
        try:
            while chunk is None:
                data = await self._stream.receive_some(READ_SIZE)
                await trio.lowlevel.checkpoint_if_cancelled()  # while the phase tells why
                self._progress += len(data)
                parser.receive(data)
                chunk = parser.next_chunk()
        except trio.Cancelled:
            raise  # the phase stays: it tells what the deadline meant
        except BaseException:
            self._phase = phase
            self._set_deadline(deadline)
            raise
        # The handler's own time starts anew with each piece that it had to wait for.
        # A response that is made of the body has no such limit.
        answering = phase is Phase.SENDING
        self._enter(phase, math.inf if answering else self._config.RESPONSE_TIMEOUT)
        return chunk

    def _discard_received_body(self) -> None:
        """Skip what the handler left of the body, as far as it has come already."""
        try:
            while not self._parser.body_ended and self._parser.next_chunk():
                pass
        except HTTPException:
            pass  # body_ended stays false, and the connection closes

    # --- answers ----------------------------------------------------------------------------

    async def _write(
        self, response: Response, head: RequestHead | None, *, keep_alive: bool
    ) -> bool:
        """Send a response; False when the connection must end behind it."""
        is_head = head is not None and head.method == "HEAD"
        version = "1.1" if head is None else head.http_version
        if version == "1.0" and not isinstance(response.body, bytes):
            keep_alive = False  # the body's end is the connection's
        try:
            lines = encode_head(response, keep_alive=keep_alive, http_version=version, head=is_head)
        except (ValueError, TypeError) as error:
            logger.error(
                "the response to %s can't be sent: %s", self._describe(), error, exc_info=error
            )
            response = text("Internal Server Error", 500)
            lines = encode_head(response, keep_alive=keep_alive, http_version=version)
        self._phase = Phase.SENDING  # its deadline is set when something has to be waited for
        self._responding = True
        self._sent = 0
        try:
            body = response.body
            if is_head or has_no_body(response.status):
                await self._send(lines)
            elif not isinstance(body, bytes):
                await self._send(lines)
                await self._send_pieces(body, chunked=version != "1.0")
            elif len(body) <= JOIN_SIZE:
                await self._send(lines + body)
            else:
                await self._send(lines)
                await self._send(body)
        finally:
            log_request(
                self._request,
                self._stream.peer,
                status=response.status,
                size=self._sent,
                started=self._started,
            )
        return keep_alive

    async def _write_last(self, response: Response) -> None:
        """Answer, then close in the order that lets the answer arrive."""
        await self._write(response, None, keep_alive=False)
        await self._linger()

    async def _send_pieces(self, body: AsyncIterable[bytes], *, chunked: bool) -> None:
        """Send a body piece by piece; a crash within it cuts the connection."""
        # The pieces may take their time (server-sent events); the peer may not.
        self._enter(Phase.SENDING, math.inf)
        try:
            try:
                async for piece in body:
                    if not piece:
                        continue
                    data = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else bytes(piece)
                    await self._send(data)
                    self._enter(Phase.SENDING, math.inf)
                    # Neither the iterable nor the socket need have waited.
                    await trio.lowlevel.checkpoint()
            finally:
                if inspect.isasyncgen(body):
                    await body.aclose()  # its finally is due now, not when it is found as garbage
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:
            # Without the last chunk the peer knows that the body is not whole.
            logger.exception("the response body of %s crashed", self._describe())
            raise _Hangup from error
        if chunked:
            await self._send(b"0\r\n\r\n")

    async def _send(self, data: bytes) -> None:
        sent = self._stream.try_send(data)
        self._sent += sent
        if sent == len(data):
            return
        view = memoryview(data)
        while sent < len(data):
            if self._phase is Phase.SENDING:
                # A peer that takes something may take its time for the rest.
                self._enter(Phase.SENDING, self._config.RESPONSE_TIMEOUT)
            taken = await self._stream.send_some(view[sent:])
            sent += taken
            self._sent += taken

    async def _answer_timeout(self) -> None:
        """Say what the passed deadline means, where there is someone to say it to."""
        error: HTTPException
        if self._phase is Phase.HEAD:
            self._request, self._started = None, trio.current_time()
            error = RequestTimeout()
        elif self._responding or self._phase not in (Phase.BODY, Phase.HANDLING):
            return
        elif trio.current_time() >= self._hard_deadline:
            error = ServerShutdown("The server is shutting down")
            logger.warning("%s was cut off by the shutdown", self._describe())
        elif self._phase is Phase.BODY:
            error = RequestTimeout()
        else:
            error = ServiceUnavailable("Response Timeout")
            logger.error(
                "%s was not answered within RESPONSE_TIMEOUT=%g s",
                self._describe(),
                self._config.RESPONSE_TIMEOUT,
            )
        with trio.move_on_after(2 * LINGER_SECONDS):
            # The scope has ended; what _enter sets in it has no effect any more.
            await self._write_last(error_response(error))

    async def _linger(self) -> None:
        """Half-close and read on, so that no RST eats what was sent (DESIGN invariant 6)."""
        self._phase = Phase.CLOSING
        await linger(self._stream)

    def _describe(self) -> str:
        request = self._request
        where = "a request" if request is None else f"{request.method} {request.raw_path}"
        return f"{where} from {self._stream.peer}"

"""How a WebSocket connection ends: what decides it, and what follows, in which order.

``docs/closing.md`` tells what users see of it. ``close_info`` is set once, when the peer's Close is
found or the stream is exhausted, before any reader wakes. Readers then take what is still in the
inbox, which needs the stream no more.

Source: RFC 6455 §7.
"""

from __future__ import annotations

import enum
import logging
import math
import weakref
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from trioweb.errors import SendFailed, SlowConsumer, WebsocketClosed, WebSocketException
from trioweb.ws.close import ABNORMAL, CloseCode, CloseInfo
from trioweb.ws.encoding import encode_close
from trioweb.ws.milestone import Milestone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioweb.http.headers import HeaderSource
    from trioweb.http.response import Response
    from trioweb.net.stream import ByteStream
    from trioweb.ws.heartbeat import Heartbeat
    from trioweb.ws.inbox import Inbox
    from trioweb.ws.messages import Decoder
    from trioweb.ws.options import ConnectionOptions
    from trioweb.ws.outbox import Outbox
    from trioweb.ws.rate import RateLimit
    from trioweb.ws.receiver import Receiver
    from trioweb.ws.websocket import Websocket

logger = logging.getLogger("trioweb")

# How a connection ends of which a fragmented message did not.
CUT_SHORT = (int(CloseCode.INTERNAL_ERROR), "a message was cut short")


class State(enum.Enum):
    """Half of a connection: what one side has said."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Owner(Protocol):
    """The session that a connection belongs to, for as long as it lasts."""

    def start_task(self, body: Callable[[], Awaitable[None]]) -> None:
        """Start a task in the connection's nursery."""

    def cancel_handler(self, reason: str) -> None:
        """Cancel the handler."""

    def crashed(self, error: BaseException) -> None:
        """Hear what the handler, or a task of ``ws.nursery``, has raised."""

    def accept(self, subprotocol: str | None, headers: HeaderSource | None) -> Awaitable[None]:
        """Accept the handshake."""


class Ending:
    """The state of a connection and all that can end it; ``Connection`` has the rest.

    Args:
        stream: the connection's.
        options: its deadlines.
        name: the handler's, for logs.
        owner: runs its tasks and its handler.
    """

    __slots__ = (
        "__weakref__",
        "_decoder",
        "_is_lost",
        "_on_shut",
        "_owner",
        "_sent_close",
        "_websocket",
        "accepted",
        "client_left",
        "close_answered",
        "close_info",
        "denial",
        "failure",
        "grace_deadline",
        "has_no_handler",
        "has_timed_out",
        "heartbeat",
        "inbox",
        "is_cut_short",
        "is_draining",
        "name",
        "open",
        "open_deadline",
        "options",
        "outbox",
        "receiver",
        "stream",
        "stream_closed",
    )

    heartbeat: Heartbeat
    inbox: Inbox
    outbox: Outbox
    receiver: Receiver
    _decoder: Decoder

    def __init__(
        self,
        stream: ByteStream,
        options: ConnectionOptions,
        name: str,
        owner: Owner,
    ) -> None:
        self.stream = stream
        self.options = options
        self.name = name
        self._owner: Owner | None = owner
        self._websocket: weakref.ref[Websocket] | None = None
        # Before accept.
        self.accepted = False
        self.open = False  # whether messages can be sent
        self.client_left = False
        self.denial: Response | None = None
        self.open_deadline = trio.current_time() + options.timeout
        self.has_timed_out = False
        self.is_draining = False
        self.has_no_handler = False
        # After it.
        self.close_info: CloseInfo | None = None
        self.failure: WebSocketException | None = None
        self.is_cut_short = False
        self.close_answered = Milestone()
        self.stream_closed = Milestone()
        self.grace_deadline = math.inf
        self._sent_close: tuple[int, str] | None = None
        self._is_lost = False
        self._on_shut: set[Callable[[], None]] | None = None

    @property
    def websocket(self) -> Websocket | None:
        """What errors name, as long as anybody holds it."""
        return None if self._websocket is None else self._websocket()

    @websocket.setter
    def websocket(self, websocket: Websocket) -> None:
        # Whoever has it has this; so that both go with the last who has it, this one does not.
        self._websocket = weakref.ref(websocket)

    @property
    def on_shut(self) -> set[Callable[[], None]]:
        """Called once, in the step in which nothing can be sent any more; never to raise."""
        if self._on_shut is None:
            self._on_shut = set()
        return self._on_shut

    def start_task(self, body: Callable[[], Awaitable[None]]) -> None:
        """Start a task of the connection, unless it has ended."""
        if self._owner is not None:
            self._owner.start_task(body)

    def cancel_handler(self, reason: str) -> None:
        """Cancel the handler, if there still is one."""
        if self._owner is not None:
            self._owner.cancel_handler(reason)

    # State

    @property
    def is_undecided(self) -> bool:
        """Whether nothing has decided yet how the connection, once accepted, ends."""
        return (
            self.accepted
            and self._sent_close is None
            and self.close_info is None
            and not self._is_lost
        )

    @property
    def is_refused(self) -> bool:
        """Whether the handshake can't be accepted any more."""
        return (
            self.denial is not None
            or self.client_left
            or self.has_timed_out
            or self.is_draining
            or self.has_no_handler
            or self.receiver.is_hurried
        )

    @property
    def client_state(self) -> State:
        """What the peer's half says."""
        if self.close_info is not None:
            return State.DISCONNECTED
        return State.CONNECTED if self.accepted else State.CONNECTING

    @property
    def server_state(self) -> State:
        """What our half says."""
        if not self.accepted and not self._is_lost:
            return State.CONNECTING
        return State.CONNECTED if self.open else State.DISCONNECTED

    def closed_error(self) -> WebsocketClosed:
        """The error that users of the connection get from now on."""
        return WebsocketClosed(*self._ending(), self.websocket)

    def _send_error(self) -> WebsocketClosed:
        is_lost = self.close_info is None or self.close_info.by == "lost"
        if self._sent_close is None and is_lost and not self.is_cut_short:
            return SendFailed(*self._ending(), self.websocket)
        return self.closed_error()

    def _ending(self) -> tuple[int, str]:
        if self.close_info is not None:
            return self.close_info.code, self.close_info.reason
        if self.is_cut_short and self._sent_close is None:
            return CUT_SHORT
        return self._sent_close or (ABNORMAL, "")

    def _shut(self) -> None:
        """Take nothing more from the application."""
        self.open = False
        while self._on_shut:
            self._on_shut.pop()()

    # What is found out

    def found_close(self, code: int, reason: str) -> None:
        """The peer's Close has come: answer ours with it, or its with ours."""
        if self.close_info is not None:
            return
        self._shut()
        if self._sent_close is not None:
            self.close_info = CloseInfo(*self._sent_close, "us", True)
            self.outbox.drop_queue()
        else:
            self.close_info = CloseInfo(code, reason, "peer", True)
            self.outbox.put_close(encode_close(code), self.closed_error, drop=True)
            if self.outbox.is_broken:
                self.close_info = self.close_info._replace(clean=False)  # nobody has seen it yet
        self._ended()

    def exhausted(self) -> None:
        """The stream has given all that it had, and there was no Close."""
        if not self.accepted:
            self.client_left = True
            self._is_lost = True
            self.cancel_handler("the client left before the handshake was done")
        elif self.close_info is None:
            self._lose()

    def _lose(self) -> None:
        self._is_lost = True
        self._shut()
        if self.close_info is None:
            code, reason = self._sent_close or (ABNORMAL, "")
            self.close_info = CloseInfo(
                code, reason, "lost" if self._sent_close is None else "us", False
            )
        self.outbox.fail(self._send_error)
        self._ended()

    def _ended(self) -> None:
        self._start_grace()
        self._release()

    def _release(self) -> None:
        """Let nobody wait for what will not come."""
        self.heartbeat.release_pings(self.closed_error)
        # The inbox is ours: a reference back would keep both for the garbage collector.
        self.inbox.end(partial(_closed_error, weakref.ref(self)))
        self.close_answered.set()

    def _start_grace(self) -> None:
        grace = self.options.disconnect_grace
        if grace is not None:
            self.grace_deadline = trio.current_time() + grace
            self.heartbeat.grace_began(self.grace_deadline)

    def send_side_lost(self) -> None:
        """Nothing can be sent any more: a write has failed, or the kernel knows the peer gone.

        What came before is read on as the handler takes messages.
        """
        if self._is_lost:
            return
        self._is_lost = True
        self._shut()
        self.outbox.fail(self._send_error)
        # No pong and no answer to a Close of ours will come, whatever is still to be read.
        self.heartbeat.release_pings(self._send_error)
        self.close_answered.set()
        self._start_grace()
        self._give_the_reader_time()

    def _give_the_reader_time(self) -> None:
        """Read on for a handler that takes what had come; it is cancelled when it does not."""
        if self._sent_close is not None:
            return  # the closing handshake has its own deadline
        grace = self.options.disconnect_grace
        # The next read finds the end, but not while the inbox is full.
        self.receiver.end_within(math.inf if grace is None else max(self.options.timeout, grace))

    def stream_has_ended(self) -> None:
        """The stream is closed."""
        if self.accepted and self.close_info is None:
            self._lose()
        elif self.failure is not None and self.grace_deadline == math.inf:
            self._start_grace()  # the closing handshake of a broken wire ends here
        self.outbox.fail(self._send_error)
        self.stream_closed.set()

    # Deciding to end

    def begin_close(self, code: int, reason: str, *, drop: bool = False) -> None:
        """Commit to closing: nothing more is taken from the application, Close is queued.

        Args:
            code: checked by the caller.
            reason: cut by the codec.
            drop: write Close right after the frame in progress instead of after the queue.
        """
        if not self.is_undecided:
            return
        self._sent_close = (code, reason)
        self._shut()
        self.receiver.end_within(self.options.timeout)
        self.inbox.seal()
        self.outbox.put_close(encode_close(code, reason), self.closed_error, drop=drop)

    def close_for(self, failure: WebSocketException) -> None:
        """Close because of what the peer does: Close right after the frame in progress."""
        if not self.is_undecided:
            return
        # Who is too slow for us is refused; all else is the peer's own doing.
        level = logging.WARNING if isinstance(failure, SlowConsumer) else logging.INFO
        logger.log(level, "%s: closed %s with %s", self.name, self.stream.peer, failure)
        self.failure = failure
        self.begin_close(failure.code, failure.reason, drop=True)

    def cut_short(self) -> None:
        """The message whose turn it is will not end, so nothing can be sent any more.

        What to close with is decided a moment later, by the heartbeat: if it is ``serve`` that is
        being cancelled, the receive task hears so; and the handler's own end may come first.
        """
        if self.open:
            self.is_cut_short = True
            self._shut()
            self.heartbeat.rearm()

    def close_cut_short(self) -> None:
        """Nothing else has decided how to close."""
        self.begin_close(*CUT_SHORT)

    def fail(self, failure: WebSocketException) -> None:
        """Close because of a wire that can't be read on."""
        if not self.is_undecided:
            return
        self.close_for(failure)
        # The peer's Close can't be found any more, so this is how it ended.
        self.close_info = CloseInfo(failure.code, failure.reason, "us", False)
        self._release()
        self.receiver.stop_reading()

    def handler_has_ended(self) -> None:
        """Nobody will receive any more: wait for nothing on a reader's behalf."""
        self.inbox.seal()
        if self._is_lost:
            self.receiver.stop_reading()

    def fail_decoding(self) -> None:
        """The wire can't be read on: close for what the decoder found."""
        failure = self._decoder.failure
        assert failure is not None
        if self._sent_close is not None:
            # We were closing anyway, and can't find the peer's Close any more.
            self.receiver.stop_reading()
            return
        self.fail(failure)

    def lose(self, failure: WebSocketException) -> None:
        """The peer is gone for all we know: say why, and wait for nobody."""
        self.close_for(failure)
        self.receiver.hurry()

    def rate_exceeded(self, limit: RateLimit) -> None:
        """The peer has sent more messages than it may."""
        reason = f"more than {limit.count} messages in {limit.seconds:g} s"
        self.close_for(WebSocketException(int(CloseCode.POLICY_VIOLATION), reason))

    def hurry(self) -> None:
        """``serve`` is being cancelled: Close 1001 after the frame in progress, nothing else."""
        if self.receiver.is_hurried:
            return
        if self.is_undecided:
            self.begin_close(1001, "server is shutting down", drop=True)
        else:
            self.outbox.drop_queue()
        self.receiver.hurry()

    def drain(self) -> None:
        """The server is shutting down: close with 1001, in good order."""
        if self.accepted:
            self.begin_close(1001, "server is shutting down")
        else:
            self.is_draining = True
            self.cancel_handler("the server is shutting down")

    def open_timed_out(self) -> None:
        """The handler has not accepted within WEBSOCKET_TIMEOUT."""
        self.has_timed_out = True
        self.open_deadline = math.inf
        self.cancel_handler(f"not accepted within {self.options.timeout:g} s")


def _closed_error(reference: weakref.ref[Ending]) -> WebsocketClosed:
    ending = reference()
    assert ending is not None  # whoever asks its inbox has it
    return ending.closed_error()

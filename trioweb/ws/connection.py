"""One WebSocket connection: its state, its receive task and its closing order.

Theory of operation. Three tasks serve a connection. ``receive_loop`` (here) is the only reader of
the stream and owns its end: it reads until the peer's Close, the end of the stream or our own
decision to stop, then half-closes, drains and closes. ``Outbox.send_loop`` is the only writer
while something waits to be written. ``Heartbeat.loop`` minds the deadlines. The first two run
under shields of their own, which the first cancels when it ends; so the end of the receive task is
the end of the connection, whatever the handler does.

``close_info`` is set once, when the peer's Close is found or the stream is exhausted, before any
reader wakes. Readers then take what is still in the inbox, which needs the stream no more.

Source: RFC 6455 §7.
"""

from __future__ import annotations

import enum
import logging
import math
from typing import TYPE_CHECKING

import trio

from trioweb.errors import (
    MessageTooBig,
    NotAccepted,
    SendFailed,
    WebsocketClosed,
    WebSocketException,
)
from trioweb.http.response import encode_head
from trioweb.net.linger import LINGER_SECONDS, linger
from trioweb.ws.budget import Budget
from trioweb.ws.close import ABNORMAL, CloseInfo
from trioweb.ws.encoding import PONG, encode_close, encode_frame
from trioweb.ws.frames import Decoder, Ping, Pong
from trioweb.ws.heartbeat import Heartbeat
from trioweb.ws.inbox import Inbox
from trioweb.ws.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.http.response import Response
    from trioweb.net.stream import ByteStream
    from trioweb.ws.options import ConnectionOptions

logger = logging.getLogger("trioweb")

# One read: enough to fetch what a small socket buffer holds, small enough to parse in one go.
READ_SIZE = 65536
# Before the 101 a client has nothing to say; what it says all the same waits, up to one read.
EARLY_SIZE = READ_SIZE
# How long the answers to messages that came before a failure may take until we close.
FAILURE_PATIENCE = 1.0
# What a cancelled ``serve`` grants for the frame in progress and Close.
HURRY_SECONDS = 1.0


class State(enum.Enum):
    """Half of a connection: what one side has said."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Connection:
    """The engine below ``Websocket``; speaks of messages, and of bytes to its stream only.

    Args:
        stream: owned from ``accept`` on, and closed at the end.
        options: limits and deadlines.
        name: the handler's, for logs.
        start_sender: starts the send task in the connection's nursery.
        cancel_handler: cancels the handler, with a reason.
    """

    def __init__(
        self,
        stream: ByteStream,
        options: ConnectionOptions,
        name: str,
        start_sender: Callable[[], None],
        cancel_handler: Callable[[str], None],
    ) -> None:
        self.stream = stream
        self.options = options
        self.name = name
        self.cancel_handler = cancel_handler
        self.websocket: object = None  # what errors name; set by Websocket
        self.heartbeat = Heartbeat(self)
        self.outbox = Outbox(
            stream,
            options.send_queue_bytes,
            start_sender,
            self.send_side_lost,
            self.heartbeat.backlog_began,
        )
        self._decoder = Decoder(options.max_size)
        self.inbox = Inbox(self._decoder, options.max_queue, options.max_size, self._wake_receiver)
        self.accepted = False
        self.client_left = False
        self.denial: Response | None = None
        self.close_info: CloseInfo | None = None
        self.failure: WebSocketException | None = None
        self.stream_closed = trio.Event()
        self.bytes_received = 0
        self.messages_sent = 0
        self.open_deadline = trio.current_time() + options.timeout
        self.has_timed_out = False
        self.is_draining = False
        self.close_answered = trio.Event()
        self.grace_deadline = math.inf
        self._budget = Budget.of_this_run()
        self._sent_close: tuple[int, str] | None = None
        self._is_lost = False
        self._handed_back = False
        self._is_hurried = False
        self._early = bytearray()
        self._parked: trio.lowlevel.Task | None = None
        self._receive_scope = trio.CancelScope(shield=True)
        self._reading_scope = trio.CancelScope()
        self._send_scope = trio.CancelScope(shield=True)

    # State

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return (
            self.accepted
            and self._sent_close is None
            and self.close_info is None
            and not self._is_lost
        )

    @property
    def is_reading(self) -> bool:
        """Whether the receive task still reads messages."""
        return self.close_info is None and not self._reading_scope.cancel_called

    @property
    def client_state(self) -> State:
        """What the peer's half says."""
        if self.close_info is not None:
            return State.DISCONNECTED
        return State.CONNECTED if self.accepted else State.CONNECTING

    @property
    def server_state(self) -> State:
        """What our half says."""
        if self._sent_close is not None or self._is_lost or self.close_info is not None:
            return State.DISCONNECTED
        return State.CONNECTED if self.accepted else State.CONNECTING

    def closed_error(self) -> WebsocketClosed:
        """The error that users of the connection get from now on."""
        return WebsocketClosed(*self._ending(), self.websocket)

    def _send_error(self) -> WebsocketClosed:
        is_lost = self.close_info is None or self.close_info.by == "lost"
        if self._sent_close is None and is_lost:
            return SendFailed(*self._ending(), self.websocket)
        return self.closed_error()

    def _ending(self) -> tuple[int, str]:
        if self.close_info is not None:
            return self.close_info.code, self.close_info.reason
        return self._sent_close or (ABNORMAL, "")

    def check_accepted(self) -> None:
        """Refuse I/O before accept.

        Raises:
            NotAccepted: always then.
        """
        if not self.accepted:
            raise NotAccepted("call `await ws.accept()` before sending or receiving")

    async def checkpoint(self) -> None:
        """A cancel point, and a schedule point when the task's budget is spent."""
        if self._budget.is_spent():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    # Messages

    async def send(self, frame: bytes) -> None:
        """Send one whole message, already framed; see ``Websocket.send``."""
        if not self.accepted:
            self.check_accepted()
        if self._budget.is_spent(len(frame)):
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        outbox = self.outbox
        if not self.open:
            raise self._send_error()
        if outbox.has_room:
            outbox.put(frame, gather=self._decoder.waiting > 0)
            if outbox.is_broken:
                raise self._send_error()
        else:
            await outbox.wait_to_put(frame)
            self._budget.renew()
        self.messages_sent += 1

    async def recv(self) -> str | bytes:
        """Take the next message, or wait for it; see ``Websocket.recv``."""
        inbox = self.inbox
        if not self.accepted:
            self.check_accepted()
        inbox.check_reader()
        await self.checkpoint()
        inbox.check_reader()
        message = self.take()
        if message is None:
            inbox.raise_if_ended()
            message = await inbox.wait()
            self._budget.renew()
            self._taken()
        return message

    def take(self) -> str | bytes | None:
        """Take a message that is there; finds invalid text on the way."""
        message = self.inbox.take()
        if message is not None:
            self._taken()
        elif self._decoder.failure is not None:
            self._fail_decoding()
        return message

    def _taken(self) -> None:
        if self.grace_deadline < math.inf:
            self._start_grace()
        if self._is_lost and self.is_reading:
            self._receive_scope.deadline = trio.current_time() + self.options.timeout

    async def flush(self) -> None:
        """Wait until what is queued is with the operating system."""
        self.check_accepted()
        await self.checkpoint()
        outbox = self.outbox
        marker = outbox.put_marker()
        await marker.reached.wait()
        if marker.is_dropped or outbox.is_broken:
            raise self._send_error()

    # The receive task

    async def receive_loop(self) -> None:
        """Read to the end and close the stream; the body of the receive task."""
        try:
            with self._receive_scope:
                with self._reading_scope:
                    await self._read()
                if not self._handed_back:
                    await self._finish_closing()
        finally:
            self._send_scope.cancel()
            if not self._handed_back:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + HURRY_SECONDS):
                    await self.stream.aclose()
            self._stream_has_ended()

    async def _read(self) -> None:
        stream, budget = self.stream, self._budget
        while True:
            try:
                data = await stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self._exhausted()
                return
            self._received(data)
            if self._decoder.failure is not None:
                await self._answer_failure()
                return
            if self.close_info is not None:
                return
            while self.inbox.is_full or len(self._early) >= EARLY_SIZE:
                await self._wait_for_room()
            if budget.is_spent(len(data)):
                await trio.lowlevel.checkpoint()

    async def _answer_failure(self) -> None:
        """What lies before the failure on the wire comes first, as if it had come alone.

        A handler that is done with it asks for more, which fails the connection (``take``); so
        does, after a while, one that does not ask.
        """
        if not self.inbox.has_reader:
            await trio.sleep(FAILURE_PATIENCE)
        self._fail_decoding()

    def _received(self, data: bytes) -> None:
        self.heartbeat.received_at = trio.current_time()
        self.bytes_received += len(data)
        if not self.accepted:
            self._early += data
            return
        for control in self._decoder.feed(data):
            if isinstance(control, Ping):
                self.outbox.put_pong(encode_frame(PONG, control.data))
            elif isinstance(control, Pong):
                self.heartbeat.pong(control.data)
            else:
                self._found_close(control.code, control.reason)
        self.inbox.deliver()

    async def _wait_for_room(self) -> None:
        self._parked = trio.lowlevel.current_task()
        self.inbox.is_paused = self.inbox.is_full
        self.heartbeat.paused_at = trio.current_time()
        self.heartbeat.rearm()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake_receiver(self) -> None:
        if self._parked is not None:
            # While we did not read, nothing could prove that the peer lives. Here and not where the
            # task resumes, since the heartbeat may run before it.
            self.heartbeat.received_at = trio.current_time()
            self.heartbeat.paused_at = math.inf
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    # The end

    def _found_close(self, code: int, reason: str) -> None:
        if self.close_info is not None:
            return
        if self._sent_close is not None:
            self.close_info = CloseInfo(*self._sent_close, "us", True)
            self.outbox.drop_queue()
        else:
            self.close_info = CloseInfo(code, reason, "peer", True)
            self.outbox.put_close(encode_close(code), self.closed_error, drop=True)
        self._ended()

    def _exhausted(self) -> None:
        """The stream has given all that it had, and there was no Close."""
        if not self.accepted:
            self.client_left = True
            self._is_lost = True
            self.cancel_handler("the client left before the handshake was done")
        elif self.close_info is None:
            self._lose()

    def _lose(self) -> None:
        self._is_lost = True
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
        self.inbox.end(self.closed_error)
        self.close_answered.set()

    def _start_grace(self) -> None:
        grace = self.options.disconnect_grace
        if grace is not None:
            self.grace_deadline = trio.current_time() + grace
            self.heartbeat.rearm()

    def send_side_lost(self) -> None:
        """Nothing can be sent any more: a write has failed, or the kernel knows the peer gone.

        What came before is read on as the handler takes messages.
        """
        if self._is_lost:
            return
        self._is_lost = True
        self.outbox.fail(self._send_error)
        self._start_grace()
        # The next read finds the end, but not while the inbox is full for ever.
        self._receive_scope.deadline = trio.current_time() + self.options.timeout

    async def _finish_closing(self) -> None:
        if not self.accepted or self.outbox.is_broken:
            return
        # Under the deadline that Close has set (begin_close), or that of the peer's Close.
        if self._receive_scope.deadline == math.inf:
            self._receive_scope.deadline = trio.current_time() + self.options.timeout
        await self.outbox.close_written.wait()
        if self.outbox.is_broken:
            return
        await linger(self.stream, 0 if self._is_hurried else LINGER_SECONDS)

    def _stream_has_ended(self) -> None:
        if self.accepted and self.close_info is None:
            self._lose()
        elif self.accepted and self.failure is not None:
            self._start_grace()  # our closing handshake ends here
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
        if not self.open:
            return
        self._sent_close = (code, reason)
        self._receive_scope.deadline = trio.current_time() + self.options.timeout
        self.inbox.seal()
        self.outbox.put_close(encode_close(code, reason), self.closed_error, drop=drop)

    def fail(self, failure: WebSocketException) -> None:
        """Close because of what the peer did; nothing that comes later is looked at."""
        if not self.open:
            return
        self.failure = failure
        self.begin_close(failure.code, failure.reason, drop=True)
        # The peer's Close can't be found any more, so this is how it ended.
        self.close_info = CloseInfo(failure.code, failure.reason, "us", False)
        self._release()
        self._stop_reading()

    def handler_has_ended(self) -> None:
        """Nobody will receive any more: wait for nothing on a reader's behalf."""
        self.inbox.seal()
        if self._is_lost:
            self._stop_reading()

    def _fail_decoding(self) -> None:
        # Sealing takes what came before; if that proves invalid, it is the failure.
        self.inbox.seal()
        failure = self._decoder.failure
        assert failure is not None
        if self._sent_close is not None:
            # We were closing anyway, and can't find the peer's Close any more.
            self._stop_reading()
            return
        if isinstance(failure, MessageTooBig):
            logger.info("%s: %s from %s", self.name, failure.reason, self.stream.peer)
        self.fail(failure)

    def lose(self, failure: WebSocketException) -> None:
        """The peer is gone for all we know: say why, and wait for nothing."""
        self.failure = failure
        self.begin_close(failure.code, failure.reason, drop=True)
        self._receive_scope.cancel()

    def hurry(self) -> None:
        """``serve`` is being cancelled: Close 1001 after the frame in progress, nothing else."""
        if self._is_hurried:
            return
        self._is_hurried = True
        if self.open:
            self.begin_close(1001, "server is shutting down", drop=True)
        else:
            self.outbox.drop_queue()
        deadline = trio.current_time() + HURRY_SECONDS
        self._receive_scope.deadline = min(self._receive_scope.deadline, deadline)
        self._stop_reading()

    def drain(self) -> None:
        """The server is shutting down: close with 1001, in good order."""
        if self.accepted:
            self.begin_close(1001, "server is shutting down")
        else:
            self.is_draining = True
            self.cancel_handler("the server is shutting down")

    def _stop_reading(self) -> None:
        self._reading_scope.cancel()

    # Before accept

    def received_early(self, data: bytes) -> None:
        """Bytes that came with the request: frames of a client that did not wait for the 101."""
        self._early += data
        self.bytes_received += len(data)

    def accept(self, response: Response) -> None:
        """Write the 101 and become a WebSocket; never waits."""
        self.accepted = True
        self.outbox.put(encode_head(response))
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self.bytes_received -= len(early)
            self._received(early)
            if self._decoder.failure is not None:
                self._fail_decoding()
            elif self.close_info is not None:
                self._stop_reading()
        if self._parked is not None:
            self._wake_receiver()
        self.heartbeat.received_at = trio.current_time()
        self.heartbeat.rearm()

    def open_timed_out(self) -> None:
        """The handler has not accepted within WEBSOCKET_TIMEOUT."""
        self.has_timed_out = True
        self.open_deadline = math.inf
        self.cancel_handler(f"not accepted within {self.options.timeout:g} s")

    def hand_back(self) -> None:
        """Leave the stream to the caller, who answers the handshake with something else."""
        self._handed_back = True
        self._receive_scope.cancel()

    # The tasks' bodies and their helpers

    async def send_loop(self) -> None:
        """The body of the send task."""
        try:
            with self._send_scope:
                await self.outbox.send_loop()
        except BaseException:
            # Nobody writes any more: a shielded reader must not wait for what will not come.
            self._receive_scope.cancel()
            raise

    def warn_of_full_inbox(self) -> None:
        """Say once that the handler does not read."""
        logger.warning(
            "%s: messages from %s have been waiting unread for %g s; receive them, or raise "
            "WEBSOCKET_MAX_QUEUE",
            self.name,
            self.stream.peer,
            self.options.stall_timeout,
        )

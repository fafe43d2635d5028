"""One WebSocket connection: its state, its messages, and how its end is decided.

Theory of operation. Three tasks serve a connection. ``Receiver.loop`` is the only reader of the
stream and owns its end. ``Outbox.send_loop`` is the only writer while something waits to be
written. ``Heartbeat.loop`` minds the deadlines. The first two run under shields of their own,
which the first cancels when it ends; so the end of the receive task is the end of the connection.

``close_info`` is set once, when the peer's Close is found or the stream is exhausted, before any
reader wakes. Readers then take what is still in the inbox, which needs the stream no more.

Source: RFC 6455 §7.
"""

from __future__ import annotations

import enum
import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioweb.errors import (
    NotAccepted,
    SendFailed,
    SlowConsumer,
    WebsocketClosed,
    WebSocketException,
)
from trioweb.http.response import encode_head
from trioweb.ws.budget import BYTES_PER_OPERATION, Budget
from trioweb.ws.close import ABNORMAL, CloseCode, CloseInfo
from trioweb.ws.deflate import Compressors, Deflater, Inflater
from trioweb.ws.encoding import RSV1, encode_close, encode_frame
from trioweb.ws.heartbeat import Heartbeat
from trioweb.ws.inbox import SIZES_TOGETHER, Inbox
from trioweb.ws.messages import Decoder
from trioweb.ws.outbox import Outbox
from trioweb.ws.rate import RateLimit
from trioweb.ws.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from trioweb.http.response import Response
    from trioweb.net.stream import ByteStream
    from trioweb.ws.deflate import DeflateStream
    from trioweb.ws.extensions import Agreement
    from trioweb.ws.fragments import MessageParts
    from trioweb.ws.messages import Part
    from trioweb.ws.options import ConnectionOptions
    from trioweb.ws.outbox import LazyFrame
    from trioweb.ws.prepared import PreparedMessage

logger = logging.getLogger("trioweb")

# How a connection ends of which a fragmented message did not.
CUT_SHORT = (int(CloseCode.INTERNAL_ERROR), "a message was cut short")


_run_compressors: trio.lowlevel.RunVar[Compressors] = trio.lowlevel.RunVar("trioweb_compressors")


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
        compression: what was negotiated.
        name: the handler's, for logs.
        start_sender: starts the send task in the connection's nursery.
        cancel_handler: cancels the handler, with a reason.
    """

    def __init__(
        self,
        stream: ByteStream,
        options: ConnectionOptions,
        compression: Agreement | None,
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
        self._deflater: Deflater | None = None
        inflater: Inflater | None = None
        if compression is not None:
            self._deflater = Deflater(
                compression, options.compression_threshold, _compressors_of_this_run()
            )
            inflater = Inflater(
                options.max_size,
                takeover=compression.client_takeover,
                bits=compression.client_bits,
            )
        self._decoder = Decoder(options.max_size, inflater=inflater)
        rate = options.rate_limit
        self.receiver = Receiver(
            self, self._decoder, rate and RateLimit(*rate, trio.current_time())
        )
        self.inbox = Inbox(
            self._decoder, options.max_queue, options.max_size, options.stream, self.receiver.wake
        )
        self.accepted = False
        self.client_left = False
        self.denial: Response | None = None
        self.close_info: CloseInfo | None = None
        self.failure: WebSocketException | None = None
        self.is_cut_short = False
        self.stream_closed = trio.Event()
        self.messages_sent = 0
        self.open_deadline = trio.current_time() + options.timeout
        self.has_timed_out = False
        self.is_draining = False
        self.close_answered = trio.Event()
        self.grace_deadline = math.inf
        self._budget = Budget.of_this_run()
        self._sent_close: tuple[int, str] | None = None
        self._is_lost = False
        self._send_scope = trio.CancelScope(shield=True)

    # State

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self.is_undecided and not self.is_cut_short

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

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send one whole message; see ``Websocket.send``."""
        if not self.accepted:
            self.check_accepted()
        if self._budget.is_spent(len(payload)):
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        outbox = self.outbox
        if not self.open:
            raise self._send_error()
        if outbox.has_room:
            outbox.put(self._frame(opcode, payload), gather=self._decoder.waiting > 0)
            if outbox.is_broken:
                raise self._send_error()
        else:
            frame: LazyFrame = partial(self._frame, opcode, payload)
            if self._deflater is None or not self._deflater.takeover:
                frame = self._frame(opcode, payload)
            await outbox.wait_to_put(frame)
            self._budget.renew()
        self.messages_sent += 1

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        """Frame a message, compressed if that was agreed and pays.

        With context takeover it must be called in the order in which messages are written.
        """
        if self._deflater is not None:
            compressed = self._deflater.compress(payload)
            if compressed is not None:
                return encode_frame(opcode | RSV1, compressed)
        return encode_frame(opcode, payload)

    def offer(
        self, message: PreparedMessage, *, key: Hashable = None, drop_oldest: bool = False
    ) -> bool:
        """Queue a broadcast, which may be dropped again; never waits.

        Args:
            message: encoded once for all.
            key: replaces a queued message that was offered with the same key.
            drop_oldest: over the bound drop the oldest that was offered. Otherwise a peer that is
                at four times the bound is disconnected (``SlowConsumer``); one that is slower than
                it seems is found by its progress.

        Returns:
            Whether it was queued or written; not if the connection is closing.
        """
        if not self.open:
            return False
        frame = message.frame_for(self._deflater)
        if self.outbox.offer(frame, key=key, drop_oldest=drop_oldest):
            self.messages_sent += 1
            return self.open
        if not drop_oldest:
            self.close_for(SlowConsumer(f"{self.outbox.size} bytes are waiting to be taken"))
        return False

    # Fragmented messages, of ``trioweb.ws.fragments``

    async def take_turn(self) -> None:
        """Wait until this task alone may send; it calls ``end_turn()`` afterwards."""
        self.check_accepted()
        await self.checkpoint()
        if not self.open:
            raise self._send_error()
        await self.outbox.take_turn()

    def begin_deflating(self) -> DeflateStream | None:
        """Compress the message whose turn it is; None: it goes plain."""
        return self._deflater.begin() if self._deflater is not None else None

    async def put_fragment(self, frame: Callable[[], bytes], size: int) -> None:
        """Send a frame of the message whose turn it is; it is made when it is admitted."""
        if self._budget.is_spent(size):
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if not self.open:
            raise self._send_error()
        await self.outbox.put_fragment(frame)
        if self.outbox.is_broken:
            raise self._send_error()

    def end_turn(self) -> None:
        """Let others send again, unless this task's message has no end."""
        if not self.is_cut_short:
            self.outbox.end_turn()

    def cut_short(self) -> None:
        """The message whose turn it is will not end, so nothing can be sent any more.

        What to close with is decided a moment later, by the heartbeat task: if it is ``serve`` that
        is being cancelled, it hears so itself; and the handler's own end may come first.
        """
        if self.open:
            self.is_cut_short = True
            self.heartbeat.rearm()

    def close_cut_short(self) -> None:
        """Nothing else has decided how to close."""
        self.begin_close(*CUT_SHORT)

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
            received: str | bytes = await inbox.wait(inbox.take)
            self._budget.renew()
            self._taken(len(received))
            return received
        return message

    def take(self) -> str | bytes | None:
        """Take a message that is there; finds invalid text on the way."""
        message = self.inbox.take()
        if message is not None:
            self._taken(len(message))
        elif self._decoder.failure is not None:
            self.fail_decoding()
        return message

    async def recv_burst(self, limit: int) -> list[str | bytes]:
        """Take all that is waiting, or wait for one message; see ``Websocket.recv_burst``."""
        messages = [await self.recv()]
        size = len(messages[0])
        while len(messages) < limit and size < SIZES_TOGETHER * self.options.max_size:
            message = self.take()
            if message is None:
                break
            messages.append(message)
            size += len(message)
        return messages

    async def recv_part(self, parts: MessageParts) -> Part:
        """Take the next part of a message, or wait for it; see ``Websocket.recv_streaming``."""
        inbox = self.inbox
        self.check_accepted()
        inbox.check_reader(of_parts=True)
        await self.checkpoint()
        inbox.check_reader(of_parts=True)
        part = inbox.take_part(parts)
        if part is None:
            if self._decoder.failure is not None:
                self.fail_decoding()
            inbox.raise_if_ended()
            part = await inbox.wait(partial(inbox.take_part, parts))
            self._budget.renew()
        self._taken(len(part.data))
        return part

    def _taken(self, size: int) -> None:
        if size >= BYTES_PER_OPERATION:
            self._budget.charge(size)
        if self.grace_deadline < math.inf:
            self._start_grace()
        if self._is_lost and self.receiver.is_reading:
            self.receiver.end_within(self.options.timeout)

    async def wait_for_room(self) -> None:
        """After a control frame, which was queued at once: wait if too much is."""
        await self.checkpoint()
        if self.outbox.is_over_bound:
            await self.outbox.put_marker().reached.wait()

    async def flush(self) -> None:
        """Wait until what is queued is with the operating system."""
        self.check_accepted()
        await self.checkpoint()
        outbox = self.outbox
        marker = outbox.put_marker()
        await marker.reached.wait()
        if marker.is_dropped or outbox.is_broken:
            raise self._send_error()

    # The end

    def found_close(self, code: int, reason: str) -> None:
        """The peer's Close has come: answer ours with it, or its with ours."""
        if self.close_info is not None:
            return
        if self._sent_close is not None:
            self.close_info = CloseInfo(*self._sent_close, "us", True)
            self.outbox.drop_queue()
        else:
            self.close_info = CloseInfo(code, reason, "peer", True)
            self.outbox.put_close(encode_close(code), self.closed_error, drop=True)
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
        self.receiver.end_within(self.options.timeout)

    def stream_has_ended(self) -> None:
        """The stream is closed."""
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
        if not self.is_undecided:
            return
        self._sent_close = (code, reason)
        self.receiver.end_within(self.options.timeout)
        self.inbox.seal()
        self.outbox.put_close(encode_close(code, reason), self.closed_error, drop=drop)

    def close_for(self, failure: WebSocketException) -> None:
        """Close because of what the peer does: Close right after the frame in progress."""
        if not self.is_undecided:
            return
        logger.info("%s: closed %s with %s", self.name, self.stream.peer, failure)
        self.failure = failure
        self.begin_close(failure.code, failure.reason, drop=True)

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
        self.close_for(WebSocketException(CloseCode.POLICY_VIOLATION, reason))

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

    # Before accept

    def accept(self, response: Response) -> None:
        """Write the 101 and become a WebSocket; never waits."""
        self.accepted = True
        self.outbox.put(encode_head(response))
        self.receiver.start()
        self.heartbeat.received_at = trio.current_time()
        self.heartbeat.rearm()

    def open_timed_out(self) -> None:
        """The handler has not accepted within WEBSOCKET_TIMEOUT."""
        self.has_timed_out = True
        self.open_deadline = math.inf
        self.cancel_handler(f"not accepted within {self.options.timeout:g} s")

    # The send task

    async def send_loop(self) -> None:
        """The body of the send task."""
        try:
            with self._send_scope:
                await self.outbox.send_loop()
        except BaseException:
            # Nobody writes any more: a shielded reader must not wait for what will not come.
            self.receiver.give_up()
            raise

    def stop_sending(self) -> None:
        """End the send task."""
        self._send_scope.cancel()

    def warn_of_full_inbox(self) -> None:
        """Say once that the handler does not read."""
        logger.warning(
            "%s: messages from %s have been waiting unread for %g s; receive them, or raise "
            "WEBSOCKET_MAX_QUEUE",
            self.name,
            self.stream.peer,
            self.options.stall_timeout,
        )


def _compressors_of_this_run() -> Compressors:
    """What all connections of one ``trio.run`` share."""
    try:
        return _run_compressors.get()
    except LookupError:
        _run_compressors.set(compressors := Compressors())
        return compressors

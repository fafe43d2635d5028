"""One WebSocket connection: its tasks and its messages. How it ends is told in ``ending``.

Theory of operation. Two tasks serve a connection. ``Receiver.loop`` reads the stream, in turns with
the handler that waits in ``recv``, and owns its end. ``Outbox.send_loop`` is the only writer while
something waits to be written; its shield is its own, and the receive task cancels it at its end. So
the end of the receive task is the end of the connection. ``Heartbeat`` minds the deadlines, in no
task of its own.

Source: RFC 6455 §5, §6.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioweb.errors import (
    InvalidMessage,
    MessageTooBig,
    NotAccepted,
    ProtocolError,
    SlowConsumer,
    WebsocketClosed,
)
from trioweb.ws.budget import BYTES_PER_OPERATION, Budget
from trioweb.ws.deflate import Compressors, Deflater, Inflater
from trioweb.ws.encoding import RSV1, encode_frame
from trioweb.ws.ending import Ending
from trioweb.ws.heartbeat import Heartbeat
from trioweb.ws.inbox import SIZES_TOGETHER, SKIPPED, Inbox
from trioweb.ws.messages import Decoder
from trioweb.ws.outbox import Outbox
from trioweb.ws.rate import RateLimit
from trioweb.ws.receiver import FAILURE_PATIENCE, Receiver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from trioweb.http.headers import HeaderSource
    from trioweb.net.stream import ByteStream
    from trioweb.net.ticker import Ticker
    from trioweb.ws.deflate import DeflateStream
    from trioweb.ws.ending import Owner
    from trioweb.ws.extensions import Agreement
    from trioweb.ws.fanout import Fanout
    from trioweb.ws.fragments import MessageParts
    from trioweb.ws.messages import Part
    from trioweb.ws.options import ConnectionOptions
    from trioweb.ws.outbox import LazyFrame
    from trioweb.ws.prepared import PreparedMessage
    from trioweb.ws.queue import Marker

logger = logging.getLogger("trioweb")

# What iteration raises when it is why we closed; everything else ends a loop quietly.
_RAISED_BY_ITERATION = (ProtocolError, MessageTooBig, InvalidMessage, SlowConsumer)

_run_compressors: trio.lowlevel.RunVar[Compressors] = trio.lowlevel.RunVar("trioweb_compressors")


class Connection(Ending):
    """The engine below ``Websocket``; speaks of messages, and of bytes to its stream only.

    Args:
        stream: owned from ``accept`` on, and closed at the end.
        options: limits and deadlines.
        compression: what was negotiated.
        name: the handler's, for logs.
        fanout: of the application's broadcasts.
        ticker: of the application's connections.
        owner: runs its tasks and its handler.
    """

    __slots__ = (
        "_budget",
        "_deflater",
        "_may_write",
        "_send_scope",
        "fanout",
    )

    def __init__(
        self,
        stream: ByteStream,
        options: ConnectionOptions,
        compression: Agreement | None,
        name: str,
        fanout: Fanout,
        ticker: Ticker,
        owner: Owner,
    ) -> None:
        super().__init__(stream, options, name, owner)
        self.fanout = fanout
        self.heartbeat = Heartbeat(self, ticker)
        self.outbox = Outbox(
            stream,
            options.send_queue_bytes,
            fanout,
            self._start_sender,
            self.send_side_lost,
            self.heartbeat.backlog_began,
        )
        self._deflater: Deflater | None = None
        inflater: Inflater | None = None
        if compression is not None:
            self._deflater = Deflater(
                compression, options.compression_threshold, _compressors_of_this_run()
            )
            self.outbox.deflater = self._deflater
            inflater = Inflater(
                options.max_size,
                takeover=compression.client_takeover,
                bits=compression.client_bits,
            )
        self._decoder = Decoder(options.max_size, inflater=inflater)
        rate = options.rate_limit
        self._budget = Budget.of_this_run()
        self.receiver = Receiver(
            self, self._decoder, rate and RateLimit(*rate, trio.current_time()), self._budget
        )
        self.inbox = Inbox(
            self._decoder, options.max_queue, options.max_size, options.stream, self.receiver
        )
        self._may_write = True
        self._send_scope: trio.CancelScope | None = None

    @property
    def messages_sent(self) -> int:
        """How many messages were written, or will be."""
        return self.outbox.admitted - self.outbox.unsent

    def check_accepted(self) -> None:
        """Refuse I/O before accept.

        Raises:
            NotAccepted: always then.
        """
        if not self.accepted:
            raise NotAccepted("call `await ws.accept()` before sending or receiving")

    async def checkpoint(self) -> None:
        """A cancel point, and a schedule point when the task's budget is spent."""
        await self._budget.checkpoint()

    # Sending

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send one whole message; see ``Websocket.send``."""
        if not self.accepted:
            self.check_accepted()
        budget, outbox = self._budget, self.outbox
        budget.left -= 1 + len(payload) // BYTES_PER_OPERATION
        if budget.left > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await budget.pause()
        if not self.open:
            raise self._send_error()
        frame: LazyFrame
        deflater = self._deflater
        if deflater is None:
            frame = encode_frame(opcode, payload)
        elif deflater.takeover and not outbox.has_room:
            frame = partial(self._frame, opcode, payload)  # it depends on those before it
        else:
            frame = self._frame(opcode, payload)
        # While messages wait their answers are likely to follow at once.
        gather = self._decoder.waiting > 0
        if not isinstance(frame, bytes) or not outbox.put(frame, gather=gather):
            await outbox.wait_to_put(frame)
            self._budget.renew()
        elif outbox.is_broken:
            raise self._send_error()
        outbox.admitted += 1

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
        self,
        message: PreparedMessage,
        *,
        key: Hashable = None,
        drop_oldest: bool = False,
        now: float | None = None,
    ) -> bool:
        """Write or queue a broadcast, which may be dropped again while it is queued; never waits.

        Args:
            message: encoded once for all.
            key: replaces a queued message that was offered with the same key.
            drop_oldest: over the bound drop the oldest that was offered. Otherwise a peer that is
                at four times the bound is disconnected (``SlowConsumer``); one that is slower than
                it seems is found by its progress.
            now: the time, if it is known already.

        Returns:
            Whether it was queued or written; not if the connection is closing.
        """
        if not self.open:
            return False
        deflater = self._deflater
        frame = message.plain if deflater is None else message.frame_for(deflater)
        outbox = self.outbox
        if now is None:
            now = trio.current_time()
        if outbox.offer(frame, now, key=key, drop_oldest=drop_oldest):
            return not outbox.is_broken
        behind = " behind a fragmented message" if outbox.has_turn else ""
        waiting = f"{outbox.waiting} bytes are waiting to be sent{behind}"
        self.close_for(SlowConsumer(waiting))
        return False

    def mark(self) -> Marker:
        """Mark the end of what is queued so far, and of what a fragmented message holds back."""
        outbox = self.outbox
        # The task whose turn it is can't wait for what waits for its end.
        return outbox.put_marker(behind_turn=not outbox.is_turn_of_this_task)

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
        await self._budget.checkpoint(size)
        if not self.open:
            raise self._send_error()
        await self.outbox.put_fragment(frame)
        if self.outbox.is_broken:
            raise self._send_error()

    def end_turn(self) -> None:
        """Let others send again, unless this task's message has no end."""
        if not self.is_cut_short:
            self.outbox.end_turn()

    # Receiving

    async def recv(self, *, iterating: bool = False) -> str | bytes:
        """Take the next message, or wait for it; see ``Websocket.recv``.

        Args:
            iterating: end as an iteration does, with ``StopAsyncIteration`` unless there is an
                error to tell of.
        """
        inbox = self.inbox
        if not self.accepted:
            self.check_accepted()
        inbox.check_reader()
        # Looked at here as well, since it is what a busy connection finds.
        is_empty = not self._decoder.waiting and inbox.is_empty
        if not is_empty:
            budget = self._budget
            budget.left -= 1
            if budget.left > 0:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await budget.pause()
                inbox.check_reader()
            message = inbox.take()
            if message is not None:
                if not self.open or len(message) >= BYTES_PER_OPERATION:
                    self._taken(len(message))
                return message
        inbox.is_claimed = True
        try:
            if not is_empty:
                await self._fail_if_broken()
                inbox.raise_if_ended()
            received: str | bytes = await self.receiver.wait_for(inbox.take)
        except WebsocketClosed:
            if not iterating:
                raise
            raise self.end_of_iteration() from None
        finally:
            inbox.is_claimed = False
        self._budget.renew()
        if not self.open or len(received) >= BYTES_PER_OPERATION:
            self._taken(len(received))
        return received

    def end_of_iteration(self) -> Exception:
        """What iteration raises when the connection has ended."""
        if isinstance(self.failure, _RAISED_BY_ITERATION):
            return self.failure
        return StopAsyncIteration()

    def take(self) -> str | bytes | None:
        """Take a message that is there."""
        message = self.inbox.take()
        if message is not None:
            self._taken(len(message))
        return message

    def take_or_fail(self) -> str | bytes | None:
        """Take a message that is there; close if the wire is broken and no answer waits."""
        message = self.take()
        if message is None and self._decoder.failure is not None and not self.outbox.size:
            self.fail_decoding()
        return message

    async def _fail_if_broken(self) -> None:
        """The handler asks for more than there was before a broken frame."""
        if self._decoder.failure is not None:
            # Its answers go first, a while at most: what fails is the other direction.
            with trio.move_on_after(FAILURE_PATIENCE):
                await self.outbox.put_marker().reached.wait()
            self.fail_decoding()

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
        # Each was an operation; what others are owed they get before the next burst.
        self._budget.charge(len(messages) * BYTES_PER_OPERATION)
        return messages

    async def recv_part(self, parts: MessageParts) -> Part:
        """Take the next part of a message, or wait for it; see ``Websocket.recv_streaming``."""
        inbox = self.inbox
        self.check_accepted()
        inbox.check_reader(of_parts=True)
        await self.checkpoint()
        inbox.check_reader(of_parts=True)
        take = partial(inbox.take_part, parts)
        inbox.is_claimed = True
        try:
            while True:
                part = take()
                if part is None:
                    await self._fail_if_broken()
                    inbox.raise_if_ended()
                    part = await self.receiver.wait_for(take)
                    self._budget.renew()
                if part is not SKIPPED:
                    break
                await trio.lowlevel.checkpoint()
        finally:
            inbox.is_claimed = False
        self._taken(len(part.data))
        return part

    def _taken(self, size: int) -> None:
        """So many bytes were taken, which is much, or the last ones are being taken."""
        if size >= BYTES_PER_OPERATION:
            self._budget.charge(size)
        if self.grace_deadline < math.inf:
            self._start_grace()
        if self._is_lost and self.receiver.is_reading:
            self._give_the_reader_time()

    async def wait_for_room(self) -> None:
        """After a control frame, which was queued at once: wait if too much is."""
        await self.checkpoint()
        if self.outbox.is_over_bound:
            await self.outbox.put_marker(behind_turn=False).reached.wait()

    async def flush(self) -> None:
        """Wait until what is queued is with the operating system."""
        self.check_accepted()
        await self.checkpoint()
        marker = self.mark()
        await marker.reached.wait()
        if marker.is_dropped or self.outbox.is_broken:
            raise self._send_error()

    # Before accept

    def accept_handshake(
        self, subprotocol: str | None, headers: HeaderSource | None
    ) -> Awaitable[None]:
        """Accept; see ``Websocket.accept``."""
        if self._owner is None:
            raise self.closed_error()
        return self._owner.accept(subprotocol, headers)

    def accept(self, head: bytes) -> None:
        """Write the 101 and become a WebSocket; never waits."""
        self.accepted = self.open = True
        self.outbox.put(head)
        self.receiver.start()
        self.heartbeat.accepted()

    # The send task

    def _start_sender(self) -> None:
        self.start_task(self.send_loop)

    async def send_loop(self) -> None:
        """The body of the send task."""
        if not self._may_write:
            return
        try:
            with trio.CancelScope(shield=True) as self._send_scope:
                await self.outbox.send_loop()
        except BaseException:
            # Nobody writes any more: a shielded reader must not wait for what will not come.
            self.receiver.give_up()
            raise

    def stop_sending(self) -> None:
        """End the send task."""
        self._may_write = False
        if self._send_scope is not None:
            self._send_scope.cancel()

    def crash(self, error: Exception) -> None:
        """End as if one of the connection's tasks had raised this."""

        async def crash() -> None:
            raise error

        self.start_task(crash)

    def let_go(self) -> None:
        """Nothing of it runs any more: keep no reference to what refers to it.

        So it goes with the last who has it; the garbage collector costs more than to make it did.
        """
        self._owner = None
        self.heartbeat.let_go()
        self.receiver.let_go()
        self.outbox.let_go()
        self.inbox.let_go()

    def rest(self) -> None:
        """Take less memory: the peer has been silent for a while, and may be for hours."""
        self._decoder.rest()

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

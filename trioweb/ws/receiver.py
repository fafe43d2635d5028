"""The receive task: the reader of a connection's stream, and the owner of its end.

Theory of operation. It reads until the peer's Close, the end of the stream or our own decision to
stop, then half-closes, drains and closes, all within the closing handshake's deadline. So the end
of this task is the end of the connection, whatever the handler does. While a handler waits for a
message the handler reads in its stead (``shift``), up to anything that is not a message, a ping or
a pong.

Until Close is written it is not shielded: a cancellation that reaches it means that ``serve`` is
being cancelled, which it tells the connection. What is left to do then, and the last words, are
shielded, and take little more than a second.

Source: RFC 6455 §7.1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import trio

from trioweb.net.linger import LINGER_SECONDS, linger, linger_until_cancelled
from trioweb.ws.budget import BYTES_PER_OPERATION
from trioweb.ws.encoding import MAX_HEADER_SIZE, PONG, encode_frame
from trioweb.ws.frames import Close, Ping, Pong
from trioweb.ws.shift import Shift

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trioweb.ws.budget import Budget
    from trioweb.ws.connection import Connection
    from trioweb.ws.frames import Control
    from trioweb.ws.messages import Decoder
    from trioweb.ws.rate import RateLimit

T = TypeVar("T")

# One read: enough to fetch what a small socket buffer holds, small enough to parse in one go. A
# message of 64 KiB, a common piece of larger things, comes with its header.
READ_SIZE = 65536 + MAX_HEADER_SIZE
# To find a frame is an eighth of an operation (``budget``).
BYTES_PER_FRAME = BYTES_PER_OPERATION // 8
# Before the 101 a client has nothing to say; what it says all the same waits, up to so much, which
# is looked through in one go.
EARLY_SIZE = 16384
# Of the pings that one read brought the newest are answered (RFC 6455 §5.5.3), with one write: more
# than any client means to send at once, less than would make a flood of them worth a thought.
PONGS_AT_ONCE = 16
# How long the answers to messages that came before a failure may take until we close.
FAILURE_PATIENCE = 1.0
# What a cancelled ``serve`` grants for the frame in progress and Close.
HURRY_SECONDS = 1.0


class Receiver:
    """Reads one connection's stream to its end, and closes it; ``loop`` is the task's body.

    Args:
        connection: told of Close frames, of failures and of the end.
        decoder: fed with what comes.
        rate_limit: of the messages that come; None: any number.
        budget: of this run.
    """

    __slots__ = (
        "_budget",
        "_connection",
        "_deadline",
        "_decoder",
        "_early",
        "_has_early_failure",
        "_is_handed_back",
        "_may_read",
        "_parked",
        "_parked_at",
        "_pollable",
        "_rate_limit",
        "_scope",
        "_shift",
        "_stream",
        "bytes_received",
        "is_hurried",
    )

    def __init__(
        self,
        connection: Connection,
        decoder: Decoder,
        rate_limit: RateLimit | None,
        budget: Budget,
    ) -> None:
        self._connection = connection
        self._stream = connection.stream
        self._pollable = connection.stream.as_pollable()
        self._shift = None if self._pollable is None else Shift(self._pollable)
        connection.outbox.shift = self._shift
        self._decoder = decoder
        self._rate_limit = rate_limit
        self._budget = budget
        self._early = b""
        self._parked: trio.lowlevel.Task | None = None
        self._parked_at = 0.0
        self._is_handed_back = False
        self._has_early_failure = False
        self._may_read = True
        self._deadline = math.inf  # of everything
        self._scope = trio.CancelScope()  # of what is being waited for
        self.bytes_received = 0
        self.is_hurried = False

    @property
    def is_reading(self) -> bool:
        """Whether messages are still read."""
        return self._may_read and self._connection.close_info is None

    @property
    def is_waiting_for_room(self) -> bool:
        """Whether nothing is read until something is taken, or the handshake accepted."""
        return self._parked is not None

    async def loop(self) -> None:
        """Read to the end and close the stream."""
        connection = self._connection
        is_closed = False
        try:
            try:
                with self._scope:
                    await self._read()
                if self._has_early_failure:
                    self._may_read = True
                    with self._new_scope():
                        await self._answer_failure()
                self._may_read = False
                if connection.accepted and not connection.outbox.close_written.is_set():
                    await self._wait_until_close_is_written()
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await self._finish_what_was_cancelled()
                raise
            is_closed = await self._close_gently()
        finally:
            connection.stop_sending()
            try:
                # Handed back to nobody, if the client was found gone in that very turn.
                is_ours = connection.client_left or not self._is_handed_back
                if is_ours and not is_closed:
                    with trio.move_on_after(HURRY_SECONDS, shield=True):
                        await self._stream.aclose()
            finally:
                connection.stream_has_ended()

    async def _wait_until_close_is_written(self) -> None:
        # Under the deadline that our Close has set (end_within), or from the peer's Close on.
        if self._deadline == math.inf:
            self.end_within(self._connection.options.timeout)
        with self._new_scope():
            await self._connection.outbox.close_written.wait()

    async def _finish_what_was_cancelled(self) -> None:
        """``serve`` is being cancelled: finish the frame in progress and say why."""
        connection = self._connection
        # What else its deadlines ask for does not matter any more.
        connection.heartbeat.stop()
        # A handler that closes in its `finally`, with a code of its own, comes first.
        await trio.lowlevel.checkpoint()
        connection.hurry()
        if connection.accepted:
            await self._wait_until_close_is_written()
        await self._close_gently()

    async def _close_gently(self) -> bool:
        """Half-close behind Close, wait for the peer's end and close; False if that can't be."""
        outbox = self._connection.outbox
        if outbox.is_broken or not outbox.close_written.is_set():
            return False
        if not self.is_hurried:
            self._deadline = min(self._deadline, trio.current_time() + LINGER_SECONDS)
        with self._new_scope(shield=True):
            if self.is_hurried:
                await linger(self._stream, 0)
            else:
                await linger_until_cancelled(self._stream)
            await self._stream.aclose()
            return True
        return False

    async def _read(self) -> None:
        stream, budget, connection = self._stream, self._budget, self._connection
        decoder, inbox = self._decoder, connection.inbox
        while True:
            while not decoder.has_more and (inbox.is_full or len(self._early) >= EARLY_SIZE):
                await self._wait_for_room()
            while inbox.discard_some():
                await trio.lowlevel.checkpoint()
            data = b""
            if decoder.has_more:
                await trio.lowlevel.checkpoint()
            else:
                size = READ_SIZE if connection.accepted else EARLY_SIZE - len(self._early)
                try:
                    data = await stream.receive_some(size)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                if not data:
                    connection.exhausted()
                    return
            # A read may be thousands of frames.
            frames = decoder.waiting + decoder.other_frames
            goes_on = self._received(data)
            frames = decoder.waiting + decoder.other_frames - frames
            if inbox.deliver() and goes_on and self._shift is not None:
                await self._shift.rest()
                connection.outbox.write_left()
            else:
                await budget.checkpoint(len(data) + frames * BYTES_PER_FRAME)
            if decoder.failure is not None:
                await self._answer_failure()
                return
            if connection.close_info is not None:
                return

    async def wait_for(self, take: Callable[[], T | None]) -> T:
        """Wait until ``take``, which has found nothing, finds something; for ``recv``.

        Cancellation:
            Loses nothing.
        """
        shift, stream, inbox = self._shift, self._pollable, self._connection.inbox
        if shift is None or stream is None:
            return await inbox.wait(take)
        try:
            while shift.is_resting:
                self._connection.outbox.write_left()
                shift.is_handler_reading = True
                try:
                    await stream.wait_readable()
                    data = stream.try_receive(READ_SIZE)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""  # that is for the receive task to find, if it is the stream's end
                if data is None:
                    continue
                if not data or not self._received(data):
                    shift.end()
                taken = take()
                if taken is not None:
                    return taken
                if self._decoder.failure is not None:
                    shift.end()
            inbox.raise_if_ended()
            return await inbox.wait(take)
        finally:
            shift.handler_goes()

    async def _answer_failure(self) -> None:
        """What lies before the failure on the wire comes first, as if it had come alone.

        A handler that is done with it asks for more, which fails the connection once its answers
        are out (``Connection.recv``); so does, after a while, one that does not ask.
        """
        connection = self._connection
        with trio.move_on_after(FAILURE_PATIENCE):
            if connection.inbox.has_reader:
                await connection.outbox.put_marker().reached.wait()
            else:
                await trio.sleep_forever()
        connection.fail_decoding()

    def _received(self, data: bytes) -> bool:
        """Take what was read; returns whether it asks for nothing but to read on."""
        connection, decoder = self._connection, self._decoder
        connection.heartbeat.received_at = trio.current_time()
        self.bytes_received += len(data)
        if not connection.accepted:
            self._early += data
            return True
        waiting = decoder.waiting
        controls = decoder.feed(data)
        if self._rate_limit is not None:
            self._apply_rate_limit(self._rate_limit, decoder.waiting - waiting)
        if controls:
            self._answer(controls)
            if connection.close_info is not None:
                return False
        return decoder.failure is None and not decoder.has_more

    def _answer(self, controls: Sequence[Control]) -> None:
        connection = self._connection
        pings = [control for control in controls if isinstance(control, Ping)]
        if pings:
            pongs = [encode_frame(PONG, ping.data) for ping in pings[-PONGS_AT_ONCE:]]
            connection.outbox.put_pong(b"".join(pongs))
        for control in controls:
            if isinstance(control, Pong):
                connection.heartbeat.pong(control.data)
            elif isinstance(control, Close):
                connection.found_close(control.code, control.reason)

    def _apply_rate_limit(self, limit: RateLimit, messages: int) -> None:
        excess = limit.excess(messages, trio.current_time())
        if excess:
            self._decoder.drop_last(excess)
            self._connection.rate_exceeded(limit)

    # Waiting for room

    async def _wait_for_room(self) -> None:
        connection = self._connection
        self._parked = trio.lowlevel.current_task()
        self._parked_at = trio.current_time()
        connection.inbox.is_paused = connection.inbox.is_full
        connection.heartbeat.paused_at = self._parked_at
        connection.heartbeat.rearm()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """There may be room again."""
        if self._parked is None:
            return
        now = trio.current_time()
        # While we did not read, nothing could prove that the peer lives. Here and not where the
        # task resumes, since the heartbeat may run before it.
        heartbeat = self._connection.heartbeat
        heartbeat.received_at = now
        heartbeat.paused_at = math.inf
        if self._rate_limit is not None:
            self._rate_limit.forgive(now - self._parked_at, now)
        task, self._parked = self._parked, None
        trio.lowlevel.reschedule(task)

    # Before accept

    def received_early(self, data: bytes) -> None:
        """Bytes that came with the request: frames of a client that did not wait for the 101."""
        self._early += data
        self.bytes_received += len(data)

    def start(self) -> None:
        """The connection was accepted: look at what came early."""
        connection = self._connection
        if self._early:
            early, self._early = self._early, b""
            self.bytes_received -= len(early)
            self._received(early)
            while self._decoder.has_more and self._parked is None:
                self._received(b"")  # otherwise it is the task's, which is woken below
            if self._decoder.failure is not None:
                self._has_early_failure = True
                self.stop_reading()
            elif connection.close_info is not None:
                self.stop_reading()
        self.wake()

    def hand_back(self) -> None:
        """Leave the stream to the caller, who answers the handshake with something else."""
        self._is_handed_back = True
        self._scope.cancel()

    # The end

    def stop_reading(self) -> None:
        """Look at nothing that still comes, and go on to close."""
        if self._may_read:
            self._may_read = False
            self._scope.cancel()

    def end_within(self, seconds: float) -> None:
        """Be done with everything, the stream closed, within so many seconds from now."""
        self._set_deadline(trio.current_time() + seconds)

    def hurry(self) -> None:
        """Stop reading, and wait for little more than the write in progress."""
        self.is_hurried = True
        self._set_deadline(min(self._deadline, trio.current_time() + HURRY_SECONDS))
        self.stop_reading()

    def give_up(self) -> None:
        """Close the stream now: there is nobody to wait for."""
        self._deadline = -math.inf
        self._scope.cancel()

    def let_go(self) -> None:
        """The connection has ended."""
        del self._connection

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = self._scope.deadline = deadline

    def _new_scope(self, *, shield: bool = False) -> trio.CancelScope:
        self._scope = trio.CancelScope(deadline=self._deadline, shield=shield)
        return self._scope

"""The way in: what has come waits here, undecoded, until the handler takes it.

The decoder itself is the queue: what one read brought stays there as wire bytes, unmasked,
inflated and validated only when it is taken. So a full inbox costs what its bytes cost, and
control frames, which the decoder hands out at once, never wait behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import outcome
import trio

from trioweb.ws.messages import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.ws.messages import Decoder
    from trioweb.ws.receiver import Receiver

T = TypeVar("T")

# "of four times WEBSOCKET_MAX_SIZE together": room for a few large messages, or many small ones.
SIZES_TOGETHER = 4
# On a route that streams a message may be larger than memory; so much of it waits: four reads.
STREAM_BYTES = 4 * 65536


# What is thrown away at once: some milliseconds of inflating, where that can't be avoided.
WORK_AT_ONCE = 4 * 65536
SKIPPED = Part(b"", False)


class Inbox:
    """Hands what was received to one reader at a time.

    Args:
        decoder: fed by the receive task.
        max_queue: complete messages that may wait before reading pauses.
        max_size: bytes of one message; ``SIZES_TOGETHER`` times this may wait.
        stream: messages are taken in parts only, and no more than ``STREAM_BYTES`` wait.
        receiver: woken when something was taken while the inbox was full.

    Attributes:
        is_claimed: a task has found nothing, and waits: nobody else may receive.
        is_paused: reading pauses.
        messages_received: how many were taken, or thrown away.
    """

    __slots__ = (
        "_decoder",
        "_drains",
        "_ended",
        "_is_sealed",
        "_max_bytes",
        "_max_queue",
        "_parts",
        "_reader",
        "_receiver",
        "_stream",
        "_take_for_reader",
        "is_claimed",
        "is_paused",
        "messages_received",
    )

    def __init__(
        self,
        decoder: Decoder,
        max_queue: int,
        max_size: int,
        stream: bool,
        receiver: Receiver,
    ) -> None:
        self._decoder = decoder
        self._max_queue = max_queue
        self._max_bytes = STREAM_BYTES if stream else SIZES_TOGETHER * max(max_size, 1)
        self._stream = stream
        self._receiver = receiver
        self._reader: trio.lowlevel.Task | None = None
        self._take_for_reader: Callable[[], object] = _take_nothing
        self.is_claimed = False
        self._parts: object = None  # whose message is in progress
        self._ended: Callable[[], Exception] | None = None
        self._is_sealed = False
        self._drains = 0
        self.messages_received = 0
        self.is_paused = False

    @property
    def is_full(self) -> bool:
        """Whether reading should pause."""
        return not self._is_sealed and not self._drains and self._is_over_bound

    @property
    def _is_over_bound(self) -> bool:
        decoder = self._decoder
        return decoder.waiting >= self._max_queue or decoder.buffered >= self._max_bytes

    @property
    def is_empty(self) -> bool:
        """Whether who receives now has to wait: there is nothing to take, to look at or to tell."""
        decoder = self._decoder
        return not (
            decoder.buffered
            or decoder.waiting
            or decoder.is_mid_message
            or decoder.failure is not None
            or self._ended is not None
        )

    @property
    def has_reader(self) -> bool:
        """Whether a task waits for a message."""
        return self._reader is not None

    def take(self) -> str | bytes | None:
        """The next message, or None when none is complete."""
        self._parts = None
        message = self._decoder.next_message()
        if message is not None:
            self.messages_received += 1
        if self.is_paused:
            self._unpause()
        return message

    def take_part(self, parts: object) -> Part | None:
        """The next part of a message, or None when there is nothing yet.

        Args:
            parts: who takes it; a new one begins with the next message, what is left of the one in
                progress is skipped.

        Returns:
            ``SKIPPED`` when there was much to skip, and there may be more: ask again, later.
        """
        if parts is not self._parts:
            self._parts = None  # who had it must not go on behind a gap
            work = 0
            while self._decoder.is_mid_message and work < WORK_AT_ONCE:
                skipped = self._skip()
                if not skipped:
                    return None
                work += skipped
            if self._decoder.is_mid_message:
                return SKIPPED
            self._parts = parts
        part = self._next_part()
        if self.is_paused:
            self._unpause()
        return part

    def has_left(self, parts: object) -> bool:
        """Whether the message that ``parts`` has begun is not in progress any more."""
        return parts is not self._parts

    def raise_if_ended(self) -> None:
        """Raise the end's error, once everything has been taken."""
        if self._ended is not None:
            raise self._ended()

    def check_reader(self, *, of_parts: bool = False) -> None:
        """Refuse a second reader, and one of whole messages on a route that streams.

        Raises:
            trio.BusyResourceError: another task is receiving.
            RuntimeError: whole messages can't be received here.
        """
        if self.is_claimed:
            raise trio.BusyResourceError("another task is already receiving from this WebSocket")
        if self._stream and not of_parts:
            raise RuntimeError("this route has stream=True: receive with ws.recv_streaming()")

    async def wait(self, take: Callable[[], T | None]) -> T:
        """Wait until ``take``, which has found nothing, finds something.

        Cancellation:
            Loses nothing: what was taken is handed over by rescheduling this task, after which
            the wait can't be cancelled any more.
        """
        self._reader = trio.lowlevel.current_task()
        self._take_for_reader = take

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        taken: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return taken

    def deliver(self) -> bool:
        """Hand what is next to the reader who waits; tells whether one has got something."""
        if self._reader is None:
            return False
        taken = self._take_for_reader()
        if taken is not None:
            self._reschedule(outcome.Value(taken))
        elif self._ended is not None:
            self._reschedule(outcome.Error(self._ended()))
        return taken is not None

    def end(self, error: Callable[[], Exception]) -> None:
        """Nothing more will come; readers get ``error()`` after what is still there."""
        if self._ended is None:
            self._ended = error
        self.deliver()

    def seal(self) -> None:
        """Keep what is complete now and throw away all that comes later: we are closing."""
        if not self._is_sealed:
            self._is_sealed = True
            self._decoder.discard()
            self._unpause()

    def let_go(self) -> None:
        """The connection has ended: nobody will wait any more."""
        self._take_for_reader = _take_nothing

    def start_draining(self) -> None:
        """Read on while nobody is receiving: what is over the bound is thrown away.

        Undone by ``stop_draining``. What fits stays for a reader who was away for a moment.
        """
        self._drains += 1
        self._unpause()

    def stop_draining(self) -> None:
        """Undo one ``start_draining``."""
        self._drains -= 1

    def discard_some(self) -> bool:
        """Throw away what is over the bound while nobody receives; the receive task asks.

        Returns:
            Whether there may be more: ask again, once others have had their turn.
        """
        work = 0
        while self._drains and self._reader is None and self._is_over_bound:
            if work >= WORK_AT_ONCE:
                return True
            self._parts = None
            skipped = self._skip()
            if not skipped:
                break
            work += skipped
        return False

    def _skip(self) -> int:
        skipped = self._decoder.skip()
        if skipped and not self._decoder.is_mid_message:
            self.messages_received += 1
        if self.is_paused:
            self._unpause()
        return skipped

    def _next_part(self) -> Part | None:
        part = self._decoder.next_part()
        if part is not None and part.last:
            self.messages_received += 1
        return part

    def _unpause(self) -> None:
        if self.is_paused and not self.is_full:
            self.is_paused = False
            self._receiver.wake()

    def _reschedule(self, result: outcome.Outcome[object]) -> None:
        task, self._reader = self._reader, None
        assert task is not None
        trio.lowlevel.reschedule(task, result)


def _take_nothing() -> None:
    """For nobody."""

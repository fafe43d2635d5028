"""The way in: complete messages wait here, undecoded, until the handler takes them.

The decoder itself is the queue: what one read brought stays there as wire bytes, unmasked and
validated only when it is taken. So a full inbox costs what its bytes cost, and control frames,
which the decoder hands out at once, never wait behind it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.ws.messages import Decoder

# "of four times WEBSOCKET_MAX_SIZE together": room for a few large messages, or many small ones.
SIZES_TOGETHER = 4


class Inbox:
    """Hands received messages to one reader at a time.

    Args:
        decoder: fed by the receive task.
        max_queue: complete messages that may wait before reading pauses.
        max_size: bytes of one message; ``SIZES_TOGETHER`` times this may wait.
        has_room: called when a message was taken while the inbox was full.
    """

    def __init__(
        self, decoder: Decoder, max_queue: int, max_size: int, has_room: Callable[[], None]
    ) -> None:
        self._decoder = decoder
        self._max_queue = max_queue
        self._max_bytes = SIZES_TOGETHER * max_size
        self._has_room = has_room
        self._kept: deque[str | bytes] = deque()
        self._reader: trio.lowlevel.Task | None = None
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
    def has_reader(self) -> bool:
        """Whether a task waits for a message."""
        return self._reader is not None

    def take(self) -> str | bytes | None:
        """The next message, or None when none is complete."""
        if self._kept:
            return self._kept.popleft()
        if self._is_sealed:
            return None
        message = self._next()
        if self.is_paused and not self.is_full:
            self.is_paused = False
            self._has_room()
        return message

    def raise_if_ended(self) -> None:
        """Raise the end's error, once every message has been taken."""
        if self._ended is not None:
            raise self._ended()

    def check_reader(self) -> None:
        """Refuse a second reader.

        Raises:
            trio.BusyResourceError: another task is waiting in ``recv``.
        """
        if self._reader is not None:
            raise trio.BusyResourceError("another task is already receiving from this WebSocket")

    async def wait(self) -> str | bytes:
        """Wait for a message; the caller has found none by ``take``.

        Cancellation:
            Loses nothing: a message is handed over by rescheduling this task, after which the
            wait can't be cancelled any more.
        """
        self._reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        message: str | bytes = await trio.lowlevel.wait_task_rescheduled(abort)
        return message

    def deliver(self) -> None:
        """Hand the next message to the reader who waits; drop what nobody will take."""
        if self._is_sealed:
            while self._next() is not None:
                pass
            if self._reader is not None and self._ended is not None:
                self._reschedule(outcome.Error(self._ended()))
        elif self._reader is not None:
            message = self.take()
            if message is not None:
                self._reschedule(outcome.Value(message))
            elif self._ended is not None:
                self._reschedule(outcome.Error(self._ended()))
        elif self._drains:
            self._discard()

    def end(self, error: Callable[[], Exception]) -> None:
        """Nothing more will come; readers get ``error()`` after what is still there."""
        if self._ended is None:
            self._ended = error
        self.deliver()

    def seal(self) -> None:
        """Keep what is complete now and throw away all that comes later: we are closing."""
        if self._is_sealed:
            return
        while (message := self._next()) is not None:
            self._kept.append(message)
        self._is_sealed = True
        self._unpause()

    def start_draining(self) -> None:
        """Read on while nobody is receiving: what is over the bound is thrown away.

        Undone by ``stop_draining``. What fits stays for a reader who was away for a moment.
        """
        self._drains += 1
        if self._reader is None:
            self._discard()
        self._unpause()

    def stop_draining(self) -> None:
        """Undo one ``start_draining``."""
        self._drains -= 1

    def _discard(self) -> None:
        while self._is_over_bound and self._next() is not None:
            pass

    def _next(self) -> str | bytes | None:
        message = self._decoder.next_message()
        if message is not None:
            self.messages_received += 1
        return message

    def _unpause(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self._has_room()

    def _reschedule(self, result: outcome.Outcome[str | bytes]) -> None:
        task, self._reader = self._reader, None
        assert task is not None
        trio.lowlevel.reschedule(task, result)

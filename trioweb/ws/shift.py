"""Who reads a connection's stream: its receive task, or the handler that waits for a message.

Theory of operation. A handler that waits in ``recv`` reads the stream itself, since to hand it over
costs a turn of another task for each message; the receive task *rests* meanwhile. When the handler
has what it waited for it goes away, and mostly comes back for the next message in the same step.
Where it has not come back once all others have had their turn, the receive task takes over, so that
control frames are answered and the end is found whatever the handler does. There is no timer in
it: the first of those who rest looks after all whose handlers have gone away in this turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trioweb.ws.parking import Parking

if TYPE_CHECKING:
    from trioweb.net.stream import PollableStream

_run_shifts: trio.lowlevel.RunVar[list[Shift]] = trio.lowlevel.RunVar("trioweb_shifts")


class Shift:
    """The rests of one receive task.

    Args:
        stream: what is read; the handler waits in its ``wait_readable`` only.

    Attributes:
        is_resting: whether the receive task leaves reading to the handler.
        is_handler_reading: whether the handler is there to read.
    """

    __slots__ = (
        "_gone",
        "_has_to_look",
        "_parking",
        "_stream",
        "is_handler_reading",
        "is_resting",
    )

    def __init__(self, stream: PollableStream) -> None:
        self._stream = stream
        self._parking = Parking()
        self._has_to_look = False
        self._gone = _gone_in_this_turn()
        self.is_resting = False
        self.is_handler_reading = False

    async def rest(self) -> None:
        """Leave reading to the handler, who is there or about to go away, until it has gone.

        Cancellation:
            Ends the rest.
        """
        self.is_resting = True
        try:
            while self.is_resting:
                await self._parking.park()
                if self._has_to_look:
                    self._look()
        finally:
            self.is_resting = False
            if self._has_to_look:
                self._look()
            if self.is_handler_reading:
                self._stream.interrupt()

    def end(self) -> None:
        """Let the receive task read on."""
        self.is_resting = False
        self._parking.wake()

    def handler_goes(self) -> None:
        """The handler does not read any more, and may come back in this turn."""
        self.is_handler_reading = False
        if self.is_resting:
            gone = self._gone
            gone.append(self)
            if len(gone) == 1:
                self._has_to_look = True
                self._parking.wake()

    def _look(self) -> None:
        """End the rests of all whose handlers went away and have not come back."""
        self._has_to_look = False
        for shift in self._gone:
            if not shift.is_handler_reading:
                shift.end()
        self._gone.clear()


def _gone_in_this_turn() -> list[Shift]:
    """One list for each ``trio.run``."""
    try:
        return _run_shifts.get()
    except LookupError:
        gone: list[Shift] = []
        _run_shifts.set(gone)
        return gone

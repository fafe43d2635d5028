"""The heartbeat: pings, liveness and every deadline of a connection.

Theory of operation. It sleeps until the nearest deadline, looks at the connection, acts and sleeps
again; ``ticker`` wakes it, so that it needs no task. Events do not wake it: traffic moves deadlines
later, which it finds out when it wakes; only what moves one earlier calls ``rearm``. So a message
costs no timer.

Life is any byte received and, for at most the stall timeout, any byte of a data frame that the
socket takes: a ping that waits behind it can't have been answered. While we are the ones who don't
read (the inbox is full) a missing pong proves nothing: the kernel is asked instead whether the
peer is there.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

import trio

from trioweb.errors import PingTimeout, SlowConsumer
from trioweb.net.ticker import Alarm
from trioweb.ws.encoding import PING, encode_frame
from trioweb.ws.milestone import Milestone

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trioweb.net.ticker import Ticker
    from trioweb.ws.connection import Connection

# "Where the kernel can't be asked": ten stall timeouts without reading are the end.
UNKNOWN_LIVENESS_FACTOR = 10


# A client that has said a lot before it was accepted is not read on: how often to see if it left.
EARLY_LOOK_SECONDS = 1.0


class PingWaiter:
    """Awaitable any number of times: the round trip in seconds.

    Raises:
        WebsocketClosed: on awaiting, when the connection ended before the pong came.
    """

    __slots__ = ("_answered", "_error", "_round_trip", "_sent_at")

    def __init__(self) -> None:
        self._answered = Milestone()
        self._error: Callable[[], Exception] | None = None
        self._sent_at = trio.current_time()
        self._round_trip = 0.0

    def __await__(self) -> Generator[object, object, float]:
        yield from self._answered.wait().__await__()
        if self._error is not None:
            raise self._error()
        return self._round_trip

    def answer(self) -> float:
        """The pong has come; returns the round trip."""
        self._round_trip = trio.current_time() - self._sent_at
        self._answered.set()
        return self._round_trip

    def fail(self, error: Callable[[], Exception]) -> None:
        """No pong will come."""
        self._error = error
        self._answered.set()


# Of a connection where no pong is waited for: not to be filled.
_NO_PINGS: Final[dict[bytes, PingWaiter]] = {}


class Heartbeat:
    """Watches over one connection, from ``start`` to ``let_go``.

    Args:
        connection: whose deadlines it minds.
        ticker: wakes it.
    """

    __slots__ = (
        "_alarm",
        "_connection",
        "_has_warned",
        "_last_ping",
        "_looked_at",
        "_own_ping",
        "_pings",
        "latency",
        "paused_at",
        "received_at",
    )

    def __init__(self, connection: Connection, ticker: Ticker) -> None:
        self._connection = connection
        self._alarm = Alarm(ticker, self)
        self._pings = _NO_PINGS
        self._own_ping: bytes | None = None
        self._last_ping = -math.inf
        self._has_warned = False
        self._looked_at = -math.inf
        self.received_at = 0.0  # until it was accepted
        self.paused_at = math.inf
        self.latency: float | None = None

    # Pings

    @property
    def pings_in_flight(self) -> int:
        """How many pings wait for their pongs."""
        return len(self._pings)

    def ping(self, data: bytes) -> PingWaiter:
        """Queue a ping.

        Raises:
            ValueError: more than 125 bytes, or bytes that another ping in flight has.
        """
        if not data:
            data = os.urandom(4)
            while data in self._pings:
                data = os.urandom(4)
        elif len(data) > 125:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(data)}")
        elif data in self._pings:
            raise ValueError(f"a ping with the data {data!r} is already in flight")
        if not self._pings:
            self._pings = {}
        waiter = self._pings[data] = PingWaiter()
        self._last_ping = trio.current_time()
        self._connection.outbox.put_control(encode_frame(PING, data))
        return waiter

    def pong(self, data: bytes) -> None:
        """A pong has come: it answers its ping and all older ones (RFC 6455 §5.5.3)."""
        if data not in self._pings:
            return
        for key in list(self._pings):
            waiter = self._pings.pop(key)
            self.latency = waiter.answer()
            if key == data:
                break
        if not self._pings:
            self._pings = _NO_PINGS  # a dict that was emptied is as large as it was

    def release_pings(self, error: Callable[[], Exception]) -> None:
        """The connection has ended: let nobody wait for a pong."""
        pings, self._pings = self._pings, _NO_PINGS
        for waiter in pings.values():
            waiter.fail(error)

    # Deadlines

    def start(self) -> None:
        """Mind the deadlines from now on."""
        self.rearm()

    def accepted(self) -> None:
        """The connection is open."""
        self.received_at = trio.current_time()
        if self._connection.options.ping_interval is not None:
            self._alarm.set_by(self.received_at + self._connection.options.ping_interval)

    def stop(self) -> None:
        """No deadline matters any more."""
        self._alarm.stop()

    def let_go(self) -> None:
        """The connection has ended."""
        self._alarm.stop()
        del self._connection

    def wake(self) -> None:
        """A deadline may have come: act on it, and sleep until the next."""
        try:
            self._act(trio.current_time())
            self.rearm()
        except Exception as error:
            self._connection.crash(error)

    def abandon(self) -> None:
        """The application has ended, and nobody minds the deadlines any more."""
        self._connection.hurry()

    def rearm(self) -> None:
        """A deadline may have come nearer."""
        self._alarm.set_by(self._next_deadline())

    def grace_began(self, deadline: float) -> None:
        """The handler is to end by then."""
        self._alarm.set_by(deadline)

    def backlog_began(self, now: float) -> None:
        """The outbox has begun to wait for the peer."""
        self._alarm.set_by(now + self._connection.options.stall_timeout)

    def _life(self) -> float:
        connection = self._connection
        taken_at = min(
            connection.outbox.data_taken_at, self.received_at + connection.options.stall_timeout
        )
        return max(self.received_at, taken_at)

    def _next_deadline(self) -> float:
        """The nearest deadline; whoever acts on one moves it or takes it away."""
        connection, options = self._connection, self._connection.options
        if not connection.accepted:
            if connection.receiver.is_waiting_for_room:
                return min(connection.open_deadline, self._looked_at + EARLY_LOOK_SECONDS)
            return connection.open_deadline
        if connection.is_cut_short and connection.is_undecided:
            return -math.inf
        deadlines = [connection.grace_deadline]
        if connection.open:
            if connection.outbox.size:
                deadlines.append(connection.outbox.progress_at + options.stall_timeout)
            if options.ping_interval is not None:
                life = self._life()
                deadlines.append(max(life, self._last_ping) + options.ping_interval)
                if options.ping_timeout is not None and not connection.inbox.is_paused:
                    deadlines.append(life + options.ping_interval + options.ping_timeout)
            if connection.inbox.is_paused:
                deadlines += self._looks()
        return min(deadlines)

    def _looks(self) -> list[float]:
        """When to look again at a connection whose inbox is full."""
        options = self._connection.options
        looks = [self.paused_at + options.stall_timeout]
        looks.append(self.paused_at + UNKNOWN_LIVENESS_FACTOR * options.stall_timeout)
        if options.ping_timeout is not None:
            looks.append(self._last_ping + options.ping_timeout)
        return [look for look in looks if look > self._looked_at]

    def _act(self, now: float) -> None:
        connection, options = self._connection, self._connection.options
        if not connection.accepted:
            if now >= connection.open_deadline:
                connection.open_timed_out()
            elif connection.receiver.is_waiting_for_room:
                self._looked_at = now
                if connection.stream.is_peer_alive(options.timeout) is False:
                    connection.exhausted()
                    connection.receiver.give_up()
            return
        if now >= connection.grace_deadline:
            connection.grace_deadline = math.inf
            connection.cancel_handler(
                f"the connection ended and the handler ran on for {options.disconnect_grace:g} s"
            )
        if connection.is_cut_short:
            connection.close_cut_short()
        if not connection.open:
            return
        if connection.outbox.size and now >= connection.outbox.progress_at + options.stall_timeout:
            connection.close_for(
                SlowConsumer(
                    f"nothing was taken for {options.stall_timeout:g} s of the "
                    f"{connection.outbox.waiting} bytes that are waiting to be sent"
                )
            )
            return
        if connection.inbox.is_paused:
            self._act_while_paused(now)
        self._beat(now)

    def _beat(self, now: float) -> None:
        connection, options = self._connection, self._connection.options
        interval, timeout = options.ping_interval, options.ping_timeout
        if interval is None or not connection.open:
            return
        life = self._life()
        if (
            timeout is not None
            and not connection.inbox.is_paused
            and now >= life + interval + timeout
        ):
            connection.lose(PingTimeout(f"no sign of life for {interval + timeout:g} s"))
        elif now >= max(life, self._last_ping) + interval:
            # Those who answer none are alive by what they say; there is no use in more than one.
            if self._own_ping is not None:
                self._pings.pop(self._own_ping, None)
            connection.rest()
            self.ping(b"")
            self._own_ping = next(reversed(self._pings))

    def _act_while_paused(self, now: float) -> None:
        connection, options = self._connection, self._connection.options
        self._looked_at = now
        if not self._has_warned and now >= self.paused_at + options.stall_timeout:
            self._has_warned = True
            connection.warn_of_full_inbox()
        if options.ping_timeout is None:
            return
        is_alive = connection.stream.is_peer_alive(options.ping_timeout)
        unread_for = now - self.paused_at
        if is_alive is False:
            connection.send_side_lost()
        elif is_alive is None and unread_for >= UNKNOWN_LIVENESS_FACTOR * options.stall_timeout:
            connection.lose(PingTimeout(f"nothing was read for {unread_for:g} s"))

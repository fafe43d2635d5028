"""How many WebSockets may be open at once, in all and from one address.

A place is taken when the handshake has been checked and given back when the connection's last task
has ended, so that what is counted is what costs memory: a client that has left counts for as long
as its handler runs on.

The limits are asked for at each handshake: a config that is changed while the server runs holds
from the next one on, and closes nothing.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from trioweb.errors import TooManyConnections

logger = logging.getLogger("trioweb")

WARNING_INTERVAL: Final = 60.0
"""Seconds between two warnings of one cap: a flood of clients shall not become one of lines."""


class ConnectionCaps:
    """Counts the WebSockets that one application serves, within one run of Trio."""

    def __init__(self) -> None:
        self._total = 0
        self._by_address: dict[str, int] = {}
        self._warned: dict[str, float] = {}

    @property
    def total(self) -> int:
        """How many places are taken."""
        return self._total

    def take(self, address: str, *, limit: int | None, limit_per_address: int | None) -> None:
        """Take a place for one WebSocket; who has it gives it back.

        Args:
            address: the peer's, without the port; empty where it has none (Unix sockets), which
                counts for the first limit only.
            limit: WEBSOCKET_MAX_CONNECTIONS; None is no limit.
            limit_per_address: WEBSOCKET_MAX_CONNECTIONS_PER_IP; None is no limit.

        Raises:
            TooManyConnections: there is none.
        """
        if limit is not None and self._total >= limit:
            self._refuse("WEBSOCKET_MAX_CONNECTIONS", limit, address)
        if address:
            same = self._by_address.get(address, 0)
            if limit_per_address is not None and same >= limit_per_address:
                self._refuse("WEBSOCKET_MAX_CONNECTIONS_PER_IP", limit_per_address, address)
            # Counted without a limit as well, since one may be set while the server runs.
            self._by_address[address] = same + 1
        self._total += 1

    def give_back(self, address: str) -> None:
        """Give back a place that was taken for this address."""
        self._total -= 1
        if not address:
            return
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]  # addresses come and go; only those here are kept

    def _refuse(self, key: str, limit: int, address: str) -> None:
        now = trio.current_time()
        if now - self._warned.get(key, -math.inf) >= WARNING_INTERVAL:
            self._warned[key] = now
            logger.warning(
                "refused a WebSocket from %s: %s=%d are open; raise it to admit more",
                address or "a peer without address",
                key,
                limit,
            )
        raise TooManyConnections

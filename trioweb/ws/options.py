"""What bounds one connection: the config's values, with a route's own in their place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trioweb.config import Config
    from trioweb.types import Compression, RateLimit, SlowPolicy


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Limits and deadlines of a connection; seconds and bytes, None is off.

    ``slow_policy`` is what happens to a member of a room that is too slow.
    ``rate_limit`` is messages and the seconds in which they may come; ``stream`` is the route's
    alone: messages are taken by ``recv_streaming`` only.
    """

    timeout: float
    ping_interval: float | None
    ping_timeout: float | None
    max_size: int
    max_queue: int
    send_queue_bytes: int
    stall_timeout: float
    disconnect_grace: float | None
    compression: Compression | None
    compression_threshold: int
    rate_limit: RateLimit | None
    slow_policy: SlowPolicy
    stream: bool = False

    @classmethod
    def from_config(
        cls, config: Config, *, stream: bool = False, **overrides: object
    ) -> ConnectionOptions:
        """Take the config's values, and a route's where it has its own."""
        options = cls(
            timeout=config.WEBSOCKET_TIMEOUT,
            ping_interval=config.WEBSOCKET_PING_INTERVAL,
            ping_timeout=config.WEBSOCKET_PING_TIMEOUT,
            max_size=config.WEBSOCKET_MAX_SIZE,
            max_queue=config.WEBSOCKET_MAX_QUEUE,
            send_queue_bytes=config.WEBSOCKET_SEND_QUEUE_BYTES,
            stall_timeout=config.WEBSOCKET_STALL_TIMEOUT,
            disconnect_grace=config.WEBSOCKET_DISCONNECT_GRACE,
            compression=config.WEBSOCKET_COMPRESSION,
            compression_threshold=config.WEBSOCKET_COMPRESSION_THRESHOLD,
            rate_limit=config.WEBSOCKET_RATE_LIMIT,
            slow_policy=config.ROOM_SLOW_POLICY,
            stream=stream,
        )
        return replace(options, **overrides) if overrides else options  # type: ignore[arg-type]

"""The access log's record of an HTTP request; WebSockets write their own when they end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioweb.http.request import Request

access_logger = logging.getLogger("trioweb.access")


def log_request(
    request: Request | None, peer: str, *, status: int, size: int, started: float
) -> None:
    """Write one record; each field is also an attribute of the record.

    Args:
        request: None when what came was none, and was refused.
        peer: the other end.
        status: of the answer.
        size: bytes of the answer that were sent, its head included.
        started: Trio time at which the request's head was whole.
    """
    if not access_logger.isEnabledFor(logging.INFO):
        return
    fields = {
        "method": "-" if request is None else request.method,
        "path": "-" if request is None else request.raw_path,
        "status": status,
        "bytes": size,
        "seconds": trio.current_time() - started,
        "peer": peer,
    }
    access_logger.info(
        "%(method)s %(path)s %(status)d %(bytes)d bytes %(seconds).4f s %(peer)s",
        fields,
        extra=fields,
    )

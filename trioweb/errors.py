"""Everything that trioweb raises.

::

    TrioWebError
    ├─ ConfigError (ValueError)             a config key or value that can't be right
    ├─ RouteError (ValueError)              a route that can't be registered or named
    ├─ NotAccepted (RuntimeError)           I/O on a WebSocket before accept()
    ├─ RecvTimeout (TimeoutError, trio.TooSlowError)   recv(timeout) was too short
    ├─ WebsocketClosed (ConnectionError)    = WebSocketDisconnect: the connection has ended
    │  └─ SendFailed                        …and it was found while sending
    ├─ WebSocketException                   a close code of the handler's choice
    │  ├─ ProtocolError          1002
    │  ├─ WrongFrameType         1003
    │  ├─ InvalidMessage         1007 (ValueError)
    │  ├─ MessageTooBig          1009
    │  ├─ PingTimeout            1011
    │  └─ SlowConsumer           1013
    └─ HTTPException                        a status of the handler's choice
       ├─ BadRequest             400
       ├─ Unauthorized           401
       ├─ Forbidden              403
       │  └─ OriginDenied        403
       ├─ NotFound               404
       ├─ MethodNotAllowed       405
       ├─ RequestTimeout         408
       ├─ PayloadTooLarge        413
       ├─ UpgradeRequired        426
       ├─ RateLimited            429
       ├─ HeadersTooLarge        431
       ├─ ServerError            500
       ├─ ServiceUnavailable     503
       │  ├─ TooManyConnections  503, after accept 1013
       │  └─ ServerShutdown      503, after accept 1001

``HTTPException`` is what a handler raises to answer with a status; before a WebSocket is accepted
it answers the handshake, afterwards it becomes a close code (see ``HTTPException.close_code``).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping


class TrioWebError(Exception):
    """The root of all errors that trioweb defines."""


class ConfigError(TrioWebError, ValueError):
    """A config key is unknown, or its value has the wrong type or can't be used."""


class RouteError(TrioWebError, ValueError):
    """A route, a name or a handler's signature can't be registered or resolved."""


class NotAccepted(TrioWebError, RuntimeError):
    """A message was sent or received before the WebSocket was accepted."""


class RecvTimeout(TrioWebError, trio.TooSlowError, TimeoutError):
    """No message came within the timeout of ``recv``."""


class WebsocketClosed(TrioWebError, ConnectionError):
    """The connection has ended, or was closed by either side.

    Args:
        code: the close code, 1006 when the connection was lost without one.
        reason: the peer's or our reason, at most 123 bytes of UTF-8.
        websocket: the connection that has ended.
    """

    def __init__(self, code: int = 1006, reason: str = "", websocket: object = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.websocket = websocket

    def __str__(self) -> str:
        return f"WebSocket closed with {self.code}" + (f" ({self.reason})" if self.reason else "")


WebSocketDisconnect = WebsocketClosed


class SendFailed(WebsocketClosed):
    """The connection was lost while a message was being sent."""


class WebSocketException(TrioWebError):
    """Closes the WebSocket with a code when a handler lets it pass; before accept it is a 403.

    Args:
        code: 1000-1003, 1007-1014 or 3000-4999.
        reason: told to the peer; cut to 123 bytes of UTF-8.

    Raises:
        TypeError: the reason is no str.
    """

    default_code: ClassVar[int] = 1011

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        if not isinstance(reason, str):
            raise TypeError(
                f'a close reason must be a str, "" for none, not {type(reason).__name__}'
            )
        self.code = self.default_code if code is None else code
        self.reason = reason
        super().__init__(self.code, reason)

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}" if self.reason else str(self.code)


class _FixedCode(WebSocketException):
    """A WebSocketException whose class decides the code."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(None, reason)


class ProtocolError(_FixedCode):
    """The peer broke the protocol (RFC 6455 §7.4.1, 1002)."""

    default_code = 1002


class WrongFrameType(_FixedCode):
    """A text message came where bytes were expected, or the reverse (1003)."""

    default_code = 1003


class InvalidMessage(_FixedCode, ValueError):
    """A message's content is not what it should be: bad UTF-8, JSON, or type (1007)."""

    default_code = 1007


class MessageTooBig(_FixedCode):
    """A message is larger than WEBSOCKET_MAX_SIZE (1009)."""

    default_code = 1009


class PingTimeout(_FixedCode):
    """The peer gave no sign of life for interval + timeout (1011)."""

    default_code = 1011


class SlowConsumer(_FixedCode):
    """The peer took nothing for WEBSOCKET_STALL_TIMEOUT, or is too far behind a room (1013)."""

    default_code = 1013


class HTTPException(TrioWebError):
    """Answers a request, or a WebSocket handshake, with a status and a body.

    Args:
        message: the body that the peer sees; the status's phrase by default.
        status: 400-599 for an error; any final status works.
        headers: sent with the answer.
    """

    status: int = 500
    default_close_code: ClassVar[int | None] = None

    def __init__(
        self,
        message: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # HTTPException(404) is what users of other frameworks write.
        if isinstance(message, int):
            message, status = None, message
        if status is not None:
            self.status = status
        if message is None:
            try:
                message = HTTPStatus(self.status).phrase
            except ValueError:
                message = f"Status {self.status}"
        self.message = message
        self.headers: Mapping[str, str] = dict(headers or {})
        super().__init__(message)

    @property
    def close_code(self) -> int:
        """The close code that stands for this status once the WebSocket is accepted."""
        if self.default_close_code is not None:
            return self.default_close_code
        if self.status in (401, 403):
            return 1008
        if self.status >= 500:
            return 1011
        return 4000 + self.status


class BadRequest(HTTPException):
    """400."""

    status = 400


class Unauthorized(HTTPException):
    """401."""

    status = 401


class Forbidden(HTTPException):
    """403."""

    status = 403


class OriginDenied(Forbidden):
    """The handshake's Origin is not among WEBSOCKET_ORIGINS (403)."""


class NotFound(HTTPException):
    """404."""

    status = 404


class MethodNotAllowed(HTTPException):
    """405."""

    status = 405


class RequestTimeout(HTTPException):
    """408: the request did not arrive within REQUEST_TIMEOUT."""

    status = 408


class PayloadTooLarge(HTTPException):
    """413: the body is larger than REQUEST_MAX_SIZE."""

    status = 413


class UpgradeRequired(HTTPException):
    """426: a WebSocket route was asked without a WebSocket handshake of version 13."""

    status = 426


class RateLimited(HTTPException):
    """429; after accept 1008."""

    status = 429
    default_close_code = 1008


class HeadersTooLarge(HTTPException):
    """431: the request's head is larger than REQUEST_MAX_HEADER_SIZE."""

    status = 431


class ServerError(HTTPException):
    """500."""

    status = 500


class ServiceUnavailable(HTTPException):
    """503."""

    status = 503


class TooManyConnections(ServiceUnavailable):
    """503; after accept 1013."""

    default_close_code = 1013


class ServerShutdown(ServiceUnavailable):
    """503; after accept 1001: the server is going away."""

    default_close_code = 1001

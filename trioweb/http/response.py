"""Responses: what handlers return, and the bytes of their heads."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from trioweb.http import jsoncodec
from trioweb.http.headers import Headers, HeaderSource

if TYPE_CHECKING:
    from trioweb.errors import HTTPException

Body: TypeAlias = "bytes | bytearray | memoryview | str | AsyncIterable[bytes]"

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
OCTETS = "application/octet-stream"

# What splits a response or hides a field (RFC 9110 §5.5); tab is allowed.
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_STATUS_LINES = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus
}

# The connection's framing is the server's to say, whatever a handler wrote.
_FRAMING = frozenset({"connection", "transfer-encoding", "keep-alive"})
_FRAMING_AND_LENGTH = _FRAMING | {"content-length"}


class Response:
    """An answer to a request.

    Args:
        body: bytes, text (sent as UTF-8), or an async iterable of bytes, which is sent piece by
            piece as it comes.
        status: the status code, 101 and 200-999.
        headers: a mapping or pairs.
        content_type: the Content-Type, unless ``headers`` has one.
    """

    __slots__ = ("_body", "_headers", "content_type", "status")

    def __init__(
        self,
        body: Body = b"",
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = None,
    ) -> None:
        self.status = int(status)
        # Most responses have none of their own.
        self._headers: Headers | None = Headers(headers) if headers else None
        self.content_type = content_type
        self.body = body

    @property
    def headers(self) -> Headers:
        """The header fields, but for those that the server adds."""
        if self._headers is None:
            self._headers = Headers()
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers

    @property
    def closes(self) -> bool:
        """Whether it asks for the end of the connection: ``Connection: close``."""
        return self._headers is not None and "close" in self._headers.tokens("connection")

    @property
    def body(self) -> bytes | AsyncIterable[bytes]:
        """The body: bytes, or the async iterable that will be sent."""
        return self._body

    @body.setter
    def body(self, body: Body) -> None:
        self._body: bytes | AsyncIterable[bytes]
        if isinstance(body, bytes):
            self._body = body
        elif isinstance(body, str):
            self._body = body.encode()
        elif isinstance(body, bytearray | memoryview):
            self._body = bytes(body)
        elif isinstance(body, AsyncIterable):
            self._body = body
        else:
            raise TypeError(
                f"a response's body is bytes, str or an async iterable of bytes, "
                f"not {type(body).__name__}; json() makes one of other values"
            )

    @property
    def status_code(self) -> int:
        """The same as ``status``."""
        return self.status

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def text(
    body: str, status: int = 200, headers: HeaderSource | None = None, content_type: str = TEXT
) -> Response:
    """A response of plain text."""
    if not isinstance(body, str):
        raise TypeError(f"text() takes a str, not {type(body).__name__}; raw() takes bytes")
    return Response(body, status, headers, content_type)


def html(body: str | bytes, status: int = 200, headers: HeaderSource | None = None) -> Response:
    """A response of HTML."""
    return Response(body, status, headers, HTML)


def json(
    body: Any, status: int = 200, headers: HeaderSource | None = None, content_type: str = JSON
) -> Response:
    """A response of any value that has a JSON form.

    Raises:
        TypeError: the value has none.
    """
    return Response(jsoncodec.encode(body), status, headers, content_type)


def raw(
    body: bytes | bytearray | memoryview | str = b"",
    status: int = 200,
    headers: HeaderSource | None = None,
    content_type: str = OCTETS,
) -> Response:
    """A response of bytes."""
    return Response(body, status, headers, content_type)


def empty(status: int = 204, headers: HeaderSource | None = None) -> Response:
    """A response without a body."""
    return Response(b"", status, headers)


def redirect(to: str, headers: HeaderSource | None = None, status: int = 302) -> Response:
    """A response that sends the client elsewhere; the target is percent-encoded where needed."""
    response = Response(b"", status, headers, HTML)
    response.headers["Location"] = quote(to, safe=":/%#?&=@[]!$'()*+,;~")
    return response


def error_response(error: HTTPException) -> Response:
    """The plain answer that stands for an HTTPException: its status, message and headers."""
    return Response(error.message, error.status, error.headers, TEXT)


def to_response(value: object) -> Response:
    """Turn what a handler returned into a response.

    Args:
        value: a Response, str (text/plain), bytes, dict, list, Struct or dataclass (JSON), None
            (204), or a tuple of one of these with a status and, if wanted, headers.

    Raises:
        TypeError: the value is none of these.
    """
    if isinstance(value, Response):
        return value
    if value is None:
        return empty()
    if isinstance(value, str):
        return Response(value, 200, None, TEXT)
    if isinstance(value, bytes | bytearray | memoryview):
        return Response(value, 200, None, OCTETS)
    if isinstance(value, tuple):
        return _tuple_to_response(value)
    if jsoncodec.is_jsonable_object(value):
        return json(value)
    raise TypeError(
        f"a handler returned {type(value).__name__}; it can return a Response, str, bytes, dict, "
        "list, Struct, dataclass, None, or a tuple of one of these with a status and headers"
    )


def _tuple_to_response(value: tuple[Any, ...]) -> Response:
    fits = len(value) in (2, 3) and isinstance(value[1], int)
    if not fits or (len(value) == 3 and not isinstance(value[2], Mapping | list | type(None))):
        raise TypeError(
            f"a handler returned a tuple of {len(value)}; a tuple is (body, status) or "
            "(body, status, headers); return a list for a JSON array"
        )
    body, status, *more = value
    if isinstance(body, tuple):
        raise TypeError("a handler returned a tuple in a tuple; return a list for a JSON array")
    response = to_response(body)
    if body is None and status != 204:
        response.content_type = None
    response.status = int(status)
    if more and more[0]:
        for name, field in Headers(more[0]).multi_items():
            response.headers[name] = field
    return response


_date_cache: tuple[int, bytes] = (0, b"")


def _date_line() -> bytes:
    """The Date field, made once a second (RFC 9110 §6.6.1)."""
    global _date_cache  # a cache of the clock, not state
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = (now, b"Date: " + formatdate(now, usegmt=True).encode() + b"\r\n")
    return _date_cache[1]


def _encode_fields(headers: Headers, skip: frozenset[str]) -> bytes:
    lines: list[str] = []
    for name, value in headers.multi_items():
        if name.lower() in skip:
            continue
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a header's name")
        if not isinstance(value, str):
            raise TypeError(f"header {name} is a {type(value).__name__}; it must be a str")
        if _BAD_VALUE.search(value):
            raise ValueError(f"header {name} has a control character in its value: {value!r}")
        lines.append(f"{name}: {value}\r\n")
    try:
        return "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f"a header has a character outside Latin-1: {error}") from error


def has_no_body(status: int) -> bool:
    """Whether answers of this status never have a body (RFC 9110 §6.4.1)."""
    return status < 200 or status in (204, 304)


def encode_head(
    response: Response, *, keep_alive: bool = True, http_version: str = "1.1", head: bool = False
) -> bytes:
    """The status line and header fields of a response, the blank line included.

    For 101 the response's own fields are all there is. Otherwise Content-Length (or
    Transfer-Encoding for an async iterable), Connection and Date are added, and a handler's own
    framing fields are left out.

    Args:
        response: what to answer.
        keep_alive: False adds ``Connection: close``.
        http_version: the request's; 1.0 must be told of keep-alive, and knows no chunks.
        head: the request was a HEAD: a Content-Length that the handler wrote is kept.

    Raises:
        ValueError: a header has a character that can't be sent (CR, LF, NUL ...).
    """
    status, headers = response.status, response._headers
    if status < 200:
        return _status_line(status) + _encode_fields(response.headers, frozenset()) + b"\r\n"
    own_length = False
    if not headers:
        parts = [_start(status, response.content_type), _date_line()]
    else:
        own_length = (head or status == 304) and "content-length" in headers
        parts = [
            _start(status, None if "content-type" in headers else response.content_type),
            _encode_fields(headers, _FRAMING if own_length else _FRAMING_AND_LENGTH),
            b"" if "date" in headers else _date_line(),
        ]
    if not own_length and not has_no_body(status):
        body = response.body
        if isinstance(body, bytes):
            parts.append(b"Content-Length: %d\r\n" % len(body))
        elif http_version != "1.0":
            parts.append(b"Transfer-Encoding: chunked\r\n")
    if not keep_alive or headers or http_version == "1.0":
        parts.append(_connection_line(response.headers, keep_alive, http_version))
    parts.append(b"\r\n")
    return b"".join(parts)


# An application has few of them, but may compute types without end.
@lru_cache(maxsize=256, typed=True)
def _start(status: int, content_type: str | None) -> bytes:
    """The status line and Content-Type, which are checked and written once for many responses."""
    line = _status_line(status)
    if content_type is None or status == 204:
        return line
    if _BAD_VALUE.search(content_type):
        raise ValueError(f"control character in content_type {content_type!r}")
    return line + f"Content-Type: {content_type}\r\n".encode("latin-1")


def _status_line(status: int) -> bytes:
    line = _STATUS_LINES.get(status)
    if line is None:
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is not the status of an answer")
        line = f"HTTP/1.1 {status} \r\n".encode()
    return line


def _connection_line(headers: Headers, keep_alive: bool, http_version: str) -> bytes:
    """The Connection field: the handler's options (``Upgrade`` of a 426) and ours."""
    options = [
        option for option in headers.tokens("connection") if option not in ("close", "keep-alive")
    ]
    if not keep_alive:
        options.append("close")
    elif http_version == "1.0":
        options.append("keep-alive")
    for option in options:
        if not _TOKEN.fullmatch(option):
            raise ValueError(f"{option!r} is not a connection option")
    return f"Connection: {', '.join(options)}\r\n".encode() if options else b""

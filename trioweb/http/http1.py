"""HTTP/1 requests out of bytes: h11, and the strictness that it lacks. Sans-I/O.

Theory of operation. This module frames the heads itself: it waits for a whole head, bounds its
size, refuses what h11 0.16 lets through, and takes it apart. A head that says anything about a
body is then read by a fresh ``h11.Connection``, which has to find it good as well; it says what
the framing fields mean, and reads the body. What it holds beyond the body's end comes back here as
the beginning of the next request. Other heads end where they end, and leave h11 only the rules for
Host; its state machine would triple their costs, and wants our responses as well.

Pipelined requests wait in the buffer until ``next_head`` is called again.

The caller alternates: ``next_head()`` until it gives a head, calling ``receive`` whenever it gives
None; then ``next_chunk()`` in the same way until it gives ``b""``. After an exception nothing more
can be parsed: answer with its status and close.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import h11

from trioweb.errors import BadRequest, HeadersTooLarge, HTTPException, PayloadTooLarge
from trioweb.http.headers import Headers

# What may stand in a line of a head: no control character but tab (RFC 9110 §5.5). h11 lets them
# through in values. Bytes above 0x7F are obs-text, opaque and allowed in values.
_TEXT_OCTETS = bytes(
    octet for octet in range(256) if (octet >= 0x20 and octet != 0x7F) or octet == 9
)

# RFC 9110 §5.6.2
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# RFC 9112 §3. Of heads that are still incomplete hopeless ones are refused at once.
_REQUEST_LINE = re.compile(rf"({_TOKEN}+) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
_FIRST_OCTET = re.compile(_TOKEN.encode())
# RFC 9112 §5. A whole line, so that as many matches as lines mean that each of them is a field.
_FIELD = re.compile(rf"^({_TOKEN}+):([^\r\n]*)\r\n", re.MULTILINE)

# What nearly all requests say need not be held for each of them.
_SHARED = {text: text for text in ("GET", "HEAD", "POST", "1.0", "1.1")}

# RFC 3986 §3.2.2 without userinfo, which RFC 9110 §4.2.4 deprecates; empty is allowed (§7.2).
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~%!$&'()*+,;=]*)(:[0-9]{0,5})?")


class RequestHead(NamedTuple):
    """A request without its body.

    Attributes:
        method: as it was sent; methods are case-sensitive.
        target: the request line's target, ASCII.
        headers: the fields, names in lower case.
        http_version: ``"1.1"`` or ``"1.0"``.
        keep_alive: whether the client lets the connection live on.
        has_body: whether ``next_chunk`` has something to give.
        expects_continue: the client waits for ``100 Continue`` before it sends the body.
        is_websocket: the client asks for an upgrade to a WebSocket.
    """

    method: str
    target: str
    headers: Headers
    http_version: str
    keep_alive: bool
    has_body: bool
    expects_continue: bool
    is_websocket: bool


class RequestParser:
    """Parses the requests of one connection.

    Args:
        max_head_size: bytes of a request line and its headers, REQUEST_MAX_HEADER_SIZE.
        max_body_size: bytes of a body, REQUEST_MAX_SIZE.
    """

    def __init__(self, max_head_size: int, max_body_size: int) -> None:
        self._max_head_size = max_head_size
        self._max_body_size = max_body_size
        self._buffer = bytearray()
        # Where the search for the end of a head goes on, so that a trickle stays linear.
        self._searched = 0
        self._eof = False
        self._body: h11.Connection | None = None
        self._body_size = 0
        self._failed = False

    @property
    def has_partial_head(self) -> bool:
        """Whether a part of a request's head has come."""
        return bool(self._buffer)

    @property
    def body_ended(self) -> bool:
        """Whether the current request's body was taken to its end."""
        return self._body is None and not self._failed

    def receive(self, data: bytes) -> None:
        """Add what was read; ``b""`` is the end of the stream. Parses nothing yet."""
        if not data:
            self._eof = True
            if self._body is not None:
                self._body.receive_data(b"")
        elif self._body is not None:
            self._body.receive_data(data)
        else:
            self._buffer += data

    def next_head(self) -> RequestHead | None:
        """The next request's head; None: call ``receive`` with more.

        Call it when the body before was taken to its end.

        Raises:
            HTTPException: the status that answers the request; nothing more can be parsed.
        """
        buffer = self._buffer
        if not buffer:
            return None
        # An empty line before a request is a leftover of old clients (RFC 9112 §2.2).
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", self._searched)
        try:
            if end < 0:
                self._searched = max(0, len(buffer) - 3)
                self._check_incomplete_head()
                return None
            self._searched = 0
            end += 4
            if end > self._max_head_size:
                raise self._head_too_large()
            raw = bytes(buffer[:end])
            del buffer[:end]
            return self._parse_head(raw)
        except HTTPException:
            self._failed = True
            raise

    def next_chunk(self) -> bytes | None:
        """The body's next piece; ``b""``: it has ended; None: call ``receive`` with more.

        Raises:
            PayloadTooLarge: the body is larger than REQUEST_MAX_SIZE.
            BadRequest: the body is malformed, or the stream ended within it.
        """
        body = self._body
        if body is None:
            if self._failed:
                raise BadRequest("The request's body could not be read")
            return b""
        try:
            event = body.next_event()
        except h11.RemoteProtocolError as error:
            self._failed, self._body = True, None
            raise BadRequest(f"Malformed body: {error}") from error
        if isinstance(event, h11.Data):
            chunk = bytes(event.data)
            self._body_size += len(chunk)
            if self._body_size > self._max_body_size:
                self._failed, self._body = True, None
                raise self._body_too_large()
            return chunk
        if isinstance(event, h11.EndOfMessage):
            self._buffer += body.trailing_data[0]
            self._body = None
            return b""
        return None

    def take_trailing(self) -> bytes:
        """What was read behind the current request; for an upgrade, whose bytes these are."""
        trailing = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return trailing

    def _head_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request's head exceeds REQUEST_MAX_HEADER_SIZE={self._max_head_size}"
        )

    def _body_too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request's body exceeds REQUEST_MAX_SIZE={self._max_body_size}")

    def _check_incomplete_head(self) -> None:
        """Refuse what can't become a request any more: TLS, noise, endless heads."""
        buffer = self._buffer
        if not buffer or buffer == b"\r":
            return
        # First, so that noise of any length is told the same.
        if not _FIRST_OCTET.match(buffer):
            raise BadRequest("This is not an HTTP request")
        if len(buffer) > self._max_head_size:
            raise self._head_too_large()
        line, line_feed, _ = buffer.partition(b"\n")
        if line_feed and not (
            line.endswith(b"\r") and _REQUEST_LINE.fullmatch(line[:-1].decode("latin-1"))
        ):
            raise BadRequest("Malformed request line")

    def _parse_head(self, raw: bytes) -> RequestHead:
        method, target, version, fields = split_head(raw)
        values = values_by_name(fields)
        connection: h11.Connection | None = None
        if "content-length" in values or "transfer-encoding" in values:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head_size)
            fields = read_with_h11(connection, raw)
            values = values_by_name(fields)
        head = build_head(method, target, version, fields, values)
        if head.has_body and connection is not None:
            if "content-length" in values and int(values["content-length"]) > self._max_body_size:
                raise self._body_too_large()
            self._body = connection
            self._body_size = 0
            if self._buffer:
                connection.receive_data(bytes(self._buffer))
                self._buffer.clear()
            if self._eof:
                connection.receive_data(b"")
        return head


def split_head(raw: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Take a whole head apart: method, target, version, and the fields, names in lower case.

    Control characters, bare CR or LF, folded lines and all else that is no field are refused.

    Source: RFC 9112 §2.2, §3 and §5, RFC 9110 §5.5
    """
    line_ends = raw.count(b"\r\n")
    # Nothing but line ends is left of a good head without its text.
    if raw.translate(None, _TEXT_OCTETS) != b"\r\n" * line_ends:
        raise BadRequest("Control character in the request's head")
    text = raw.decode("latin-1")
    line_end = text.index("\r\n")
    line = _REQUEST_LINE.fullmatch(text, 0, line_end)
    if line is None:
        raise BadRequest("Malformed request line")
    fields = [
        (name.lower(), value.strip(" \t")) for name, value in _FIELD.findall(text, line_end + 2)
    ]
    if len(fields) != line_ends - 2:
        raise BadRequest("Malformed header line")
    method, target, version = line.groups()
    return _SHARED.get(method, method), target, _SHARED.get(version, version), fields


def read_with_h11(connection: h11.Connection, raw: bytes) -> list[tuple[str, str]]:
    """Let h11 read a whole head and judge its framing; the fields as it understands them."""
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise HTTPException(f"Malformed request: {error}", error.error_status_hint) from error
    if not isinstance(event, h11.Request):
        raise BadRequest("Malformed request")
    # Iterating over h11's Headers costs three times as much as this list of it.
    return [
        (name.decode("ascii").lower(), value.decode("latin-1"))
        for name, value in event.headers.raw_items()
    ]


def values_by_name(fields: list[tuple[str, str]]) -> dict[str, str]:
    """The value of each field, joined where a name repeats; what comes of two Hosts is none."""
    values = dict(fields)
    if len(values) == len(fields):
        return values
    values.clear()
    for name, value in fields:
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


def build_head(
    method: str,
    target: str,
    version: str,
    fields: list[tuple[str, str]],
    values: dict[str, str],
) -> RequestHead:
    """Find out what a head means, refusing what can't mean anything, or could mean two things.

    Args:
        method: of the request line.
        target: of the request line.
        version: of the request line, without ``HTTP/``.
        fields: names in lower case, framing as h11 understands it.
        values: of the same fields by name.
    """
    if version not in ("1.1", "1.0"):
        raise HTTPException("Only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    check_target(method, target)
    host = values.get("host")
    if host is None:
        if version == "1.1":
            raise BadRequest("Missing Host header")
    elif not _HOST.fullmatch(host):
        raise BadRequest("Malformed Host header")
    has_body = False
    if "transfer-encoding" in values:
        # Both are how requests are smuggled past a proxy (RFC 9112 §6.1).
        if "content-length" in values:
            raise BadRequest("Both Transfer-Encoding and Content-Length")
        if version == "1.0":
            raise BadRequest("Transfer-Encoding in an HTTP/1.0 request")
        has_body = True
    elif "content-length" in values:
        has_body = int(values["content-length"]) > 0
    keep_alive = version == "1.1"
    if "connection" in values:
        tokens = [token.strip() for token in values["connection"].lower().split(",")]
        keep_alive = "close" not in tokens and (keep_alive or "keep-alive" in tokens)
    is_websocket = (
        "upgrade" in values
        and version == "1.1"
        and "websocket" in [part.strip() for part in values["upgrade"].lower().split(",")]
    )
    if is_websocket and has_body:
        # Which of the two would own the bytes behind the head?
        raise BadRequest("A WebSocket handshake has no body")
    expects_continue = (
        has_body and version == "1.1" and values.get("expect", "").strip().lower()
    ) == "100-continue"
    return RequestHead(
        method,
        target,
        # Where no name repeats, the values are the first ones.
        Headers.from_wire(fields, values if len(values) == len(fields) else None),
        version,
        keep_alive,
        has_body,
        expects_continue,
        is_websocket,
    )


def check_target(method: str, target: str) -> None:
    """Refuse targets that are neither a path, nor an absolute URL, nor OPTIONS' asterisk.

    Source: RFC 9112 §3.2
    """
    if target.startswith("/"):
        return
    if method == "CONNECT":
        raise HTTPException("CONNECT is not supported", 501)
    if target == "*" and method == "OPTIONS":
        return
    scheme, separator, rest = target.partition("://")
    authority = rest.partition("/")[0].partition("?")[0]
    if separator and scheme.lower() in ("http", "https", "ws", "wss") and authority:
        if not _HOST.fullmatch(authority):
            raise BadRequest("Malformed authority in the request's target")
        return
    raise BadRequest("Malformed request target")

"""HTTP/1 requests out of bytes: h11, and the strictness that it lacks. Sans-I/O.

Theory of operation. This module frames the heads itself: it waits for a whole head, bounds its
size, refuses what h11 0.16 lets through, cuts it at its line ends and colons, and has an
``h11.Request`` judge the request line and the fields that it has rules for. To the other fields
h11 applies its grammar alone, which costs a microsecond each and leaves nothing to refuse after
our own checks. An ``h11.Connection`` for each head would double the costs by its state machine,
which wants our responses as well.

A request with a body is handed to a fresh ``h11.Connection``, head included: it reads the head
once more, so that both must find it good, and then the body. What it holds beyond the body's end
comes back here as the beginning of the next request. Pipelined requests wait in the buffer until
``next_head`` is called again.

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

# RFC 9112 §3. Of heads that are still incomplete hopeless ones are refused at once.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
_TOKEN_OCTETS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# RFC 3986 §3.2.2 without userinfo, which RFC 9110 §4.2.4 deprecates; empty is allowed (§7.2).
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~%!$&'()*+,;=]*)(:[0-9]{0,5})?")

# Whom a request is for and where it ends: the fields that h11 judges and normalises.
_FRAMING = frozenset({"content-length", "host", "transfer-encoding"})
# What becomes of the connection: the only others that the parser looks at.
_OPTIONS = frozenset({"connection", "expect", "upgrade"})


class RequestHead(NamedTuple):
    """A request without its body.

    Attributes:
        method: as it was sent; methods are case-sensitive.
        target: the request line's target, ASCII.
        headers: the fields, names in lower case; those that h11 judges stand first.
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
        if buffer[0] not in _TOKEN_OCTETS:
            raise BadRequest("This is not an HTTP request")
        if len(buffer) > self._max_head_size:
            raise self._head_too_large()
        line_end = buffer.find(b"\n")
        if line_end >= 0 and not (
            buffer[line_end - 1] == 0x0D and _REQUEST_LINE.fullmatch(buffer, 0, line_end - 1)
        ):
            raise BadRequest("Malformed request line")

    def _parse_head(self, raw: bytes) -> RequestHead:
        check_octets(raw)
        head = build_head(*read_head(raw))
        if head.has_body:
            length = head.headers.get("content-length")
            if length is not None and int(length) > self._max_body_size:
                raise self._body_too_large()
            self._begin_body(raw)
        return head

    def _begin_body(self, raw: bytes) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head_size)
        connection.receive_data(raw)
        try:
            connection.next_event()  # the head again, which tells it how the body is framed
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"Malformed request: {error}") from error
        self._body = connection
        self._body_size = 0
        if self._buffer:
            connection.receive_data(bytes(self._buffer))
            self._buffer.clear()
        if self._eof:
            connection.receive_data(b"")


def check_octets(raw: bytes) -> None:
    """Refuse control characters, and CR or LF but as a line's end, in a whole head.

    Source: RFC 9112 §2.2, RFC 9110 §5.5
    """
    # Nothing but line ends is left of a good head without its text.
    if raw.translate(None, _TEXT_OCTETS) != b"\r\n" * raw.count(b"\r\n"):
        raise BadRequest("Control character in the request's head")


def read_head(raw: bytes) -> tuple[h11.Request, list[tuple[str, str]]]:
    """Take a whole head apart.

    Returns:
        The request with the fields that h11 has judged, and the others, names in lower case.

    Source: RFC 9112 §3 and §5
    """
    line, *fields = raw[:-4].split(b"\r\n")
    parts = _REQUEST_LINE.fullmatch(line)
    if parts is None:
        raise BadRequest("Malformed request line")
    method, target, version = parts.groups()
    judged: list[tuple[bytes, bytes]] = []
    others: list[tuple[str, str]] = []
    for field in fields:
        raw_name, colon, value = field.partition(b":")
        if not colon or not raw_name or raw_name.translate(None, _TOKEN_OCTETS):
            raise BadRequest("Malformed header line")
        name = raw_name.decode("ascii").lower()
        if name in _FRAMING:
            judged.append((raw_name.lower(), value.strip(b" \t")))
        else:
            others.append((name, value.strip(b" \t").decode("latin-1")))
    try:
        request = h11.Request(method=method, target=target, headers=judged, http_version=version)
    except h11.LocalProtocolError as error:
        raise HTTPException(f"Malformed request: {error}", error.error_status_hint) from error
    return request, others


def build_head(event: h11.Request, others: list[tuple[str, str]]) -> RequestHead:
    """Make our head of h11's and the other fields, refusing what h11 does not."""
    version = event.http_version.decode("ascii")
    if version not in ("1.1", "1.0"):
        raise HTTPException("Only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    method = event.method.decode("ascii")
    target = event.target.decode("ascii")
    check_target(method, target)
    # h11 leaves one field of each name. Iterating over its Headers costs three times as much.
    fields = [
        (name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers.raw_items()
    ]
    special = dict(fields)
    for name, value in others:
        if name in _OPTIONS:
            special[name] = f"{special[name]}, {value}" if name in special else value
    host = special.get("host")
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequest("Malformed Host header")
    has_body = False
    if "transfer-encoding" in special:
        # Both are how requests are smuggled past a proxy (RFC 9112 §6.1).
        if "content-length" in special:
            raise BadRequest("Both Transfer-Encoding and Content-Length")
        if version == "1.0":
            raise BadRequest("Transfer-Encoding in an HTTP/1.0 request")
        has_body = True
    elif "content-length" in special:
        has_body = int(special["content-length"]) > 0
    keep_alive = version == "1.1"
    if "connection" in special:
        tokens = [token.strip() for token in special["connection"].lower().split(",")]
        keep_alive = "close" not in tokens and (keep_alive or "keep-alive" in tokens)
    is_websocket = (
        "upgrade" in special
        and version == "1.1"
        and "websocket" in [part.strip() for part in special["upgrade"].lower().split(",")]
    )
    if is_websocket and has_body:
        # Which of the two would own the bytes behind the head?
        raise BadRequest("A WebSocket handshake has no body")
    expects_continue = (
        has_body and version == "1.1" and special.get("expect", "").strip().lower()
    ) == "100-continue"
    return RequestHead(
        method,
        target,
        Headers.from_wire(fields + others),
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

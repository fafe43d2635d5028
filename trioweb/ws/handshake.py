"""The server's side of the opening handshake. Sans-I/O.

Source: RFC 6455 §4.2; origins as API.md rules, after RFC 6454.
"""

from __future__ import annotations

import binascii
import hashlib
import ipaddress
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from trioweb.errors import BadRequest, MethodNotAllowed, OriginDenied, UpgradeRequired
from trioweb.http.headers import Headers
from trioweb.http.response import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioweb.http.headers import HeaderSource
    from trioweb.http.request import Request

VERSION: Final = "13"
"""The only version of the protocol (RFC 6455 §4.1)."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_OURS: Final = frozenset(("connection", "upgrade", "content-length", "transfer-encoding"))
"""Headers of the 101 that belong to the handshake or that it must not have (RFC 9110 §8.6)."""

# RFC 9110 §15.5.22: a 426 names the protocol; RFC 6455 §4.2.2: and the versions.
_UPGRADE_HEADERS: Final = {"Upgrade": "websocket", "Sec-WebSocket-Version": VERSION}


def is_token(name: object) -> bool:
    """Tell whether a subprotocol may have this name (RFC 6455 §4.1, item 10)."""
    return isinstance(name, str) and _TOKEN.fullmatch(name) is not None


def is_upgrade(request: Request) -> bool:
    """Tell whether the request wants to become a WebSocket: ``Upgrade: websocket`` is there."""
    return "websocket" in request.headers.tokens("upgrade")


def check_request(request: Request) -> str:
    """Check the client's handshake.

    Returns:
        The key, to be given to ``accept_response``.

    Raises:
        UpgradeRequired: no upgrade to a WebSocket, or to one of another version.
        MethodNotAllowed: the method is not GET.
        BadRequest: anything else that breaks the handshake's rules.

    Source:
        RFC 6455 §4.2.1
    """
    if request.method != "GET":
        raise MethodNotAllowed("A WebSocket handshake is a GET request", headers={"Allow": "GET"})
    if not is_upgrade(request) or "upgrade" not in request.headers.tokens("connection"):
        raise UpgradeRequired(
            "This is a WebSocket: connect with a WebSocket client", headers=_UPGRADE_HEADERS
        )
    if request.http_version != "1.1":
        raise BadRequest("A WebSocket handshake needs HTTP/1.1")
    if request.headers.getall("sec-websocket-version") != [VERSION]:
        raise UpgradeRequired(
            f"Only version {VERSION} of the WebSocket protocol is spoken here",
            headers=_UPGRADE_HEADERS,
        )
    if "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0":
        # What follows the head would be read as frames.
        raise BadRequest("A WebSocket handshake has no body")
    keys = request.headers.getall("sec-websocket-key")
    if len(keys) != 1:
        raise BadRequest(f"One Sec-WebSocket-Key is needed, {len(keys)} came")
    key = keys[0].strip()
    try:
        nonce = b64decode(key, validate=True)
    except (ValueError, binascii.Error):
        nonce = b""
    if len(nonce) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    return key


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, in its order, each once.

    Raises:
        BadRequest: one of them is no token.

    Source:
        RFC 6455 §4.1, item 10
    """
    offered: list[str] = []
    for value in request.headers.getall("sec-websocket-protocol"):
        for part in value.split(","):
            name = part.strip(" \t")
            if not name or name in offered:
                continue
            if not is_token(name):
                raise BadRequest("Sec-WebSocket-Protocol has a name that is no token")
            offered.append(name)
    return offered


def choose_subprotocol(
    ours: Sequence[str], offered: Sequence[str], required: bool = False
) -> str | None:
    """Choose the first of ours that the client offers.

    Args:
        ours: the server's, in its order of preference.
        offered: the client's.
        required: whether there has to be one.

    Raises:
        BadRequest: none is in common and one is required.
    """
    for name in ours:
        if name in offered:
            return name
    if required:
        raise BadRequest(f"A subprotocol is needed, one of: {', '.join(ours)}")
    return None


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that proves that ``key`` was understood.

    Source:
        RFC 6455 §4.2.2, item 5.4
    """
    return b64encode(hashlib.sha1(key.encode("ascii") + _GUID).digest()).decode("ascii")


def accept_response(
    key: str,
    subprotocol: str | None = None,
    headers: HeaderSource | None = None,
    extensions: str | None = None,
) -> Response:
    """Build the 101 that ends the handshake.

    Args:
        key: what ``check_request`` returned.
        subprotocol: the chosen one; None leaves the header out.
        headers: more of them, Set-Cookie for one.
        extensions: what was agreed; None, or nothing agreed, leaves the header out.

    Raises:
        ValueError: a header belongs to the handshake itself.

    Source:
        RFC 6455 §4.2.2
    """
    pairs = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    if subprotocol is not None:
        pairs.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions:
        pairs.append(("Sec-WebSocket-Extensions", extensions))
    for name, value in Headers(headers).multi_items():
        lower = name.lower()
        if lower in _OURS or lower.startswith("sec-websocket-"):
            hint = "; use subprotocol=" if lower == "sec-websocket-protocol" else ""
            raise ValueError(f"header {name!r} belongs to the WebSocket handshake{hint}")
        pairs.append((name, value))
    return Response(b"", status=101, headers=pairs)


def accept_head(key: str, subprotocol: str | None = None, extensions: str | None = None) -> bytes:
    """Return ``accept_response`` as it is written, where nobody adds to it or looks at it."""
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n"
    )
    # Both are tokens, or made of them: they were checked when they were agreed on.
    if subprotocol is not None:
        head += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if extensions:
        head += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    return head.encode("ascii") + b"\r\n"


def check_origin(request: Request, origins: str | Sequence[str]) -> None:
    """Check that the page which opens this WebSocket may.

    A request without an Origin comes from no browser, and passes.

    Args:
        request: the handshake.
        origins: ``"same-origin"``, ``"*"``, or a list: of origins (``"https://example.org"``), of
            hosts (``"example.org:8080"``, any scheme), of ``"null"``, ``"same-origin"``, ``"*"``.

    Raises:
        OriginDenied: it may not.
    """
    sent = request.headers.getall("origin")
    allowed = (origins,) if isinstance(origins, str) else origins
    if not sent or "*" in allowed:
        return
    if len(sent) > 1:
        raise OriginDenied("More than one Origin")
    origin = sent[0].strip().lower()
    if origin == "null":
        # Sandboxed frames and file: pages of anyone; only the list itself can allow them.
        if "null" in allowed:
            return
        raise OriginDenied("Origin not allowed")
    scheme, place = _split_origin(origin)
    if place is not None:
        for entry in allowed:
            if entry == "same-origin":
                hosts = request.headers.getall("host")
                if len(hosts) == 1 and _split_host(hosts[0].strip().lower()) == place:
                    return
            elif "://" in entry:
                if _split_origin(entry.lower().rstrip("/")) == (scheme, place):
                    return
            elif entry != "null" and _split_host(entry.lower()) == place:
                return
    raise OriginDenied("Origin not allowed")


_Place = tuple[str, int | None]


def _split_origin(origin: str) -> tuple[str, _Place | None]:
    """Split ``scheme://host[:port]`` into the scheme and the place; None where it is malformed."""
    scheme, separator, host = origin.partition("://")
    if not separator or not scheme:
        return scheme, None
    return scheme, _split_host(host)


def _split_host(host: str) -> _Place | None:
    """Split ``host[:port]``: loopback is one host, and both default ports count as none."""
    if not host or any(char in host for char in "/?#@\\ \t"):
        return None
    try:
        parts = urlsplit("//" + host)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name:
        return None
    if _is_loopback(name):
        name = "localhost"
    # The scheme is not compared, since TLS may end at a proxy, so neither are default ports.
    return name, None if port in (80, 443) else port


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

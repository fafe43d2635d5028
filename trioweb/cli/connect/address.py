"""Where a URL of the command line leads, and the headers that are sent there."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

# What a URL's scheme says of encryption; a browser's address bar has the second pair.
_SCHEMES = {"ws": False, "wss": True, "http": False, "https": True}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# RFC 9110 §5.6.2: what the name of a header, and a subprotocol, consist of.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: what the value of a header can't hold.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What quote() leaves alone in a path and a query: RFC 3986 §2.2, and what is quoted already.
_RESERVED = "%/:?[]@!$&'()*+,;=~"
# RFC 6455 §4.1: these make the handshake, so that a second one breaks it.
_HANDSHAKE = {
    "connection": "the handshake writes it",
    "upgrade": "the handshake writes it",
    "sec-websocket-key": "the handshake writes it",
    "sec-websocket-version": "the handshake writes it",
    "sec-websocket-extensions": "this client has no extensions",
    "sec-websocket-protocol": "use --subprotocol",
    "content-length": "a handshake has no body",
    "transfer-encoding": "a handshake has no body",
}


@dataclass(frozen=True)
class Address:
    """A WebSocket's address, taken apart.

    Args:
        host: a name in ASCII or an IP address, without brackets.
        port: 1 to 65535.
        secure: whether TLS is spoken.
        resource: the path with its query.
        user: ``name:password`` for HTTP's Basic scheme, or empty.
    """

    host: str
    port: int
    secure: bool
    resource: str
    user: str = ""

    @property
    def authority(self) -> str:
        """Host and port as the header ``Host`` has them: a usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a URL, without the user."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.resource}"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that the address itself asks for."""
        if not self.user:
            return []
        credentials = base64.b64encode(self.user.encode())
        return [(b"Authorization", b"Basic " + credentials)]


def parse_address(text: str) -> Address:
    """Read a URL.

    Args:
        text: ``ws://`` or ``wss://``, or ``http://`` and ``https://`` for the same; without a
            scheme it is ``ws://``.

    Raises:
        ValueError: it is no such URL; the message says why.
    """
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else "ws"
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{text!r} begins with {scheme}://; use ws://, wss://, http:// or https://"
        )
    if _CONTROLS.search(text):
        raise ValueError(f"{text!r} has a control character")
    parts = urlsplit(text if found else f"ws://{text}")
    if parts.fragment:
        # RFC 6455 §3.
        raise ValueError(f"{text!r} has a fragment; write %23 where # is meant")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} has no good port: {error}") from None
    if port == 0:
        raise ValueError(f"{text!r} has no good port: ports are 1 to 65535")
    path = quote(parts.path or "/", safe=_RESERVED)
    query = "?" + quote(parts.query, safe=_RESERVED) if "?" in text else ""
    secure = _SCHEMES[scheme]
    user = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Address(
        _read_host(text, parts.hostname),
        port or (443 if secure else 80),
        secure,
        path + query,
        user,
    )


def _read_host(text: str, host: str | None) -> str:
    if not host:
        raise ValueError(f"{text!r} has no host")
    try:
        host = host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"{text!r} has no good host: {error}") from None
    if re.search(r"[^A-Za-z0-9_.:%\-]", host):
        raise ValueError(f"{text!r} has no good host: {host!r}")
    return host


def parse_header(text: str) -> tuple[bytes, bytes]:
    """Read a header as it is written on a command line.

    Args:
        text: ``Name: value``; the value may be empty.

    Raises:
        ValueError: it is none, or one that the handshake writes itself.
    """
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _TOKEN.fullmatch(name):
        raise ValueError(f"{text!r} is no header; write 'Name: value'")
    if _CONTROLS.search(value):
        raise ValueError(f"{text!r} has a control character in its value")
    if name.lower() in _HANDSHAKE:
        raise ValueError(f"{name} can't be given: {_HANDSHAKE[name.lower()]}")
    return name.encode("ascii"), value.encode()


def parse_subprotocol(text: str) -> str:
    """Check the name of a subprotocol.

    Raises:
        ValueError: it can't be one.
    """
    if not _TOKEN.fullmatch(text):
        raise ValueError(
            f"{text!r} is no subprotocol: letters, digits and !#$%&'*+-.^_`|~; repeat the option "
            "for several"
        )
    return text

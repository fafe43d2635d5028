"""Where a request of the in-memory client goes: scheme, host, and path with query."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urljoin

# The Host of every request; no name that a resolver could know (RFC 6761 §6.4).
HOST = "app.test"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^#]*)")


@dataclass(frozen=True)
class Target:
    """What a request asks for, and whom.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: the Host field, with its port if it has one.
        path: the request line's target, percent-encoded: a path with its query, or ``*``.
    """

    scheme: str
    host: str
    path: str

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.host}{'' if self.path == '*' else self.path}"

    @property
    def origin(self) -> tuple[str, str]:
        """What must stay the same for credentials to be taken along."""
        return self.scheme, self.host.lower()

    def resolve(self, location: str) -> Target:
        """Where a Location field leads from here, without its fragment.

        Raises:
            ValueError: to what is no URL of a web page.

        Source: RFC 9110 §10.2.2, RFC 3986 §5.2
        """
        try:
            # Fields come as Latin-1, and a location that isn't encoded mostly is UTF-8.
            location = location.encode("latin-1").decode()
        except UnicodeError:
            pass
        return parse_target(urljoin(self.url, location))


def parse_target(
    path: str, params: list[tuple[str, str]] | None = None, host: str | None = None
) -> Target:
    """Take a request's path, or absolute URL, apart.

    Args:
        path: begins with a slash, or is an ``http`` or ``https`` URL, or ``*``; what may not stand
            in a request line is percent-encoded, a fragment is left out.
        params: added to the query.
        host: of the Host field, if the caller gave one.

    Raises:
        ValueError: it can't be asked for; the message says why.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {path!r}")
    scheme, authority = "http", HOST if host is None else host
    if absolute := _ABSOLUTE.match(path):
        if host is not None:
            raise ValueError(f"{path!r} names a host, and so does Host: {host}; give one of them")
        scheme, authority, target = (
            absolute[1].lower(),
            _encode_host(absolute[2], path),
            absolute[3],
        )
        if scheme not in ("http", "https"):
            raise ValueError(f"{path!r} is not HTTP: a URL begins with http:// or https://")
        if not target.startswith("/"):
            target = f"/{target}"
    else:
        target = path.partition("#")[0]
        if _SCHEME.match(path):
            raise ValueError(f"{path!r} is not HTTP: a URL begins with http:// or https://")
        if not target.startswith("/") and target != "*":
            raise ValueError(f"path {path!r} must begin with a slash, or be an http:// URL")
    if params:
        separator = "?" if "?" not in target else "" if target[-1] in "?&" else "&"
        target += separator + urlencode(params)
    # Percent-encodes what may not stand in a request line, and nothing else.
    return Target(scheme, authority, quote(target, safe=string.punctuation))


def _encode_host(authority: str, url: str) -> str:
    if not authority:
        raise ValueError(f"{url!r} names no host")
    if "@" in authority:
        raise ValueError(f"{url!r} has a user in it; send an Authorization header instead")
    if authority.isascii():
        return authority
    name, colon, port = authority.partition(":")
    try:
        return name.encode("idna").decode() + colon + port
    except UnicodeError as exc:
        raise ValueError(f"{url!r} names a host that is none: {exc}") from exc

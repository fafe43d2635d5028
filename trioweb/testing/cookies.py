"""The cookies that a client of a test keeps: a mapping over the standard library's jar."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from email.message import Message
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, cast
from urllib.request import Request

from trioweb.testing.targets import HOST

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from trioweb.http.headers import Headers

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# More lenient than RFC 6265 §4.1.1, as browsers are; a semicolon would end the value.
_VALUE = re.compile(r"[\x20-\x3a\x3c-\x7e]*")


class Cookies(MutableMapping[str, str]):
    """A client's cookies by name; what the application sets is kept, and sent where it belongs.

    Domain, path, ``Secure`` and expiry count as in browsers. A cookie without a Domain is for its
    own host alone. ``Secure`` ones are sent to ``https://`` URLs only. Expiry counts by the wall
    clock, which a virtual clock does not move. SameSite says nothing here: a test is no page.

    As a mapping it shows one cookie a name: one of ``app.test`` before those of other hosts, then
    the one with the longest path. Setting one replaces all of that name. ``jar`` shows everything.
    """

    def __init__(self) -> None:
        # Browsers send a cookie without a Domain to its own host alone; the default is Netscape's.
        policy = DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain)
        self._jar = CookieJar(policy)

    @property
    def jar(self) -> CookieJar:
        """The jar itself, with domains, paths and expiry of all cookies."""
        return self._jar

    def __getitem__(self, name: str) -> str:
        return self._shown()[name]

    def __setitem__(self, name: str, value: str) -> None:
        """Set a cookie for all paths of ``app.test``, in place of every other of that name."""
        check_cookie(name, value)
        if name in self:
            del self[name]
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        found = [cookie for cookie in self._jar if cookie.name == name]
        if not found:
            raise KeyError(name)
        for cookie in found:
            self._jar.clear(cookie.domain, cookie.path, cookie.name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown())

    def __len__(self) -> int:
        return len(self._shown())

    def __repr__(self) -> str:
        return f"Cookies({self._shown()!r})"

    def set(
        self, name: str, value: str, *, host: str = HOST, path: str = "/", secure: bool = False
    ) -> None:
        """Set a cookie for one host, beside those of other hosts and paths.

        Args:
            name: a token.
            value: of ASCII characters without ``;``.
            host: without a port.
            path: it is sent to this path and those below.
            secure: whether to send it to ``https://`` URLs only.

        Raises:
            ValueError: name or value can't stand in a Cookie field.
        """
        check_cookie(name, value)
        # The jar's name for hosts without a dot, see `http.cookiejar.eff_request_host`.
        domain = host if "." in host else f"{host}.local"
        self._jar.set_cookie(
            Cookie(
                version=0,
                name=name,
                value=value,
                port=None,
                port_specified=False,
                domain=domain,
                domain_specified=False,
                domain_initial_dot=False,
                path=path,
                path_specified=True,
                secure=secure,
                expires=None,
                discard=True,
                comment=None,
                comment_url=None,
                rest={},
            )
        )

    def header_for(self, path: str, *, host: str = HOST, secure: bool = False) -> str:
        """The Cookie field of a request or of a WebSocket's handshake.

        Args:
            path: of the request, percent-encoded.
            host: its Host field.
            secure: whether it goes by TLS, or a test has it so.

        Returns:
            ``name=value; …``; empty if there is none for it.
        """
        request = _make_request(path, host, secure=secure)
        if request is None:
            return ""
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""

    def take(self, headers: Headers, path: str, *, host: str = HOST, secure: bool = False) -> None:
        """Keep what the Set-Cookie fields of a response say.

        Args:
            headers: of the response; of a WebSocket, those of its 101 or refusal.
            path: of the request that it answers, percent-encoded.
            host: the Host field of that request.
            secure: as in `header_for`.
        """
        request = _make_request(path, host, secure=secure)
        if request is not None and "set-cookie" in headers:
            # The jar asks for nothing but info(); its stubs ask for more.
            response = cast("HTTPResponse", _Answer(headers))
            self._jar.extract_cookies(response, request)

    def _shown(self) -> dict[str, str]:
        kept = [cookie for cookie in self._jar if not cookie.is_expired()]
        kept.sort(key=lambda cookie: (cookie.domain.lstrip(".") == HOST, len(cookie.path)))
        return {cookie.name: cookie.value or "" for cookie in kept}


class _Answer:
    """A response as http.cookiejar wants it."""

    def __init__(self, headers: Headers) -> None:
        self._message = Message()
        for value in headers.getall("set-cookie"):
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        return self._message


def check_cookie(name: str, value: str) -> None:
    """Raise for what can't stand in a Cookie field.

    Raises:
        TypeError: the value is no str.
        ValueError: name or value has a character that would end it.
    """
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"cookie {name!r} is {value!r}; name and value must be str")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a cookie's name: letters, digits and -._ can be in it")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"cookie {name} is {value!r}; only ASCII without ; and control characters can be sent: "
            "urllib.parse.quote() the rest"
        )


def names_set(headers: Headers) -> set[str]:
    """The names of the cookies that a response sets or deletes."""
    return {value.partition("=")[0].strip() for value in headers.getall("set-cookie")}


def _make_request(path: str, host: str, *, secure: bool) -> Request | None:
    """A request as http.cookiejar wants it; None for a Host that is none."""
    if not host:
        return None
    return Request(f"{'https' if secure else 'http'}://{host}{path if path != '*' else '/'}")

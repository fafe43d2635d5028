"""What the in-memory client sends: a request made of its options, and those that redirects make."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import h11

from trioweb.errors import TrioWebError
from trioweb.http import jsoncodec
from trioweb.http.headers import Headers
from trioweb.testing.cookies import check_cookie, names_set
from trioweb.testing.forms import encode_multipart, encode_urlencoded, read_fields
from trioweb.testing.targets import Target, parse_target

if TYPE_CHECKING:
    from trioweb.http.headers import HeaderSource
    from trioweb.testing.cookies import Cookies
    from trioweb.testing.forms import FieldSource, FileSource

Body: TypeAlias = "bytes | bytearray | memoryview | str | AsyncIterable[bytes]"

MISSING: Any = object()

# Those that lead elsewhere with a Location (RFC 9110 §15.4); 300 leaves the choice to the user.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What is said about a body goes with it (Fetch §4.4, HTTP-redirect fetch).
_ABOUT_BODY = (
    "content-type",
    "content-length",
    "content-encoding",
    "content-language",
    "content-location",
    "transfer-encoding",
)
# What is meant for one host is not told to another one (RFC 9110 §15.4).
_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")
# Their length is said even when it is 0 (RFC 9110 §8.6).
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Content(TypedDict, total=False):
    """What is sent with a method and a path; see `Requests.request`."""

    params: FieldSource | None
    headers: HeaderSource | None
    body: Body
    json: Any
    form: FieldSource | None
    files: FileSource | None
    cookies: Mapping[str, str] | None


class RequestOptions(Content, total=False):
    """What a request may have besides its method and path; see `Requests.request`."""

    follow_redirects: bool
    timeout: float


@dataclass(frozen=True)
class Outgoing:
    """A request that is to be sent.

    Attributes:
        method: in capitals.
        target: where it goes.
        headers: the caller's, without Host, and those of the body.
        body: all of it, or what gives it.
        cookies: the caller's, sent in place of the jar's of the same names.
    """

    method: str
    target: Target
    headers: Headers
    body: bytes | AsyncIterable[bytes] = b""
    cookies: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.target.path}"

    def make_head(self, jar: Cookies) -> h11.Request:
        """The head as it goes out now, with the cookies that are kept for its target.

        Raises:
            ValueError: the method or a header can't be sent.
        """
        headers = Headers(self.headers)
        if "cookie" not in headers:
            cookie = self._make_cookie(jar)
            if cookie:
                headers["Cookie"] = cookie
        try:
            fields = [(b"host", self.target.host.encode()), *headers.raw]
            return h11.Request(method=self.method, target=self.target.path, headers=fields)
        except (h11.LocalProtocolError, UnicodeError) as exc:
            raise ValueError(
                f"{self.method!r} {self.target.path} with {headers} can't be sent: {exc}; "
                "client.connect() sends any bytes"
            ) from exc

    def _make_cookie(self, jar: Cookies) -> str:
        target = self.target
        kept = jar.header_for(target.path, host=target.host, secure=target.scheme == "https")
        pairs = [
            pair for pair in kept.split("; ") if pair and pair.partition("=")[0] not in self.cookies
        ]
        pairs += [f"{name}={value}" for name, value in self.cookies.items()]
        return "; ".join(pairs)

    def redirect(self, status: int, headers: Headers) -> Outgoing | None:
        """The request that an answer to this one leads to; None if it leads nowhere.

        Args:
            status: of the answer.
            headers: of the answer.

        Raises:
            TrioWebError: it can't be followed; the message says why.

        Source: RFC 9110 §15.4
        """
        location = headers.get("location")
        if status not in _REDIRECTS or location is None:
            return None
        told = (
            f"{self.method} {self.target.url} was answered with {status} and Location {location!r}"
        )
        try:
            target = self.target.resolve(location)
        except ValueError as exc:
            raise TrioWebError(f"{told}, which can't be followed: {exc}") from exc
        sent = Headers(self.headers)
        method, body = self.method, self.body
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", b""
            _drop(sent, _ABOUT_BODY)
        elif not isinstance(body, bytes):
            raise TrioWebError(
                f"{told}, but its body was streamed, and can't be sent again: pass it as bytes"
            )
        cookies = {name: self.cookies[name] for name in self.cookies.keys() - names_set(headers)}
        if target.origin != self.target.origin:
            _drop(sent, _CREDENTIALS)
            cookies = {}
        return replace(self, method=method, target=target, headers=sent, body=body, cookies=cookies)


def build_outgoing(
    method: str,
    path: str,
    *,
    params: FieldSource | None = None,
    headers: HeaderSource | None = None,
    body: Body = b"",
    json: Any = MISSING,
    form: FieldSource | None = None,
    files: FileSource | None = None,
    cookies: Mapping[str, str] | None = None,
) -> Outgoing:
    """Make a request of the options that a test gave.

    Raises:
        TypeError: an option is of the wrong type, or goes not with another one.
        ValueError: its value can't be sent.
    """
    sent = _read_headers(headers)
    host = sent.get("host")
    if host is not None:
        del sent["host"]
    target = parse_target(path, read_fields(params, "params"), host)
    own = _read_cookies(cookies)
    if own and "cookie" in sent:
        raise TypeError("pass either cookies= or a Cookie header")
    content = _encode_body(sent, body, json, form, files)
    if not isinstance(content, bytes):
        if "content-length" not in sent and "transfer-encoding" not in sent:
            sent["Transfer-Encoding"] = "chunked"
    elif "content-length" in sent:
        if sent["content-length"] != str(len(content)):
            raise ValueError(
                f"Content-Length is {sent['content-length']}, but the body has {len(content)} "
                "bytes; leave the header out"
            )
    elif "transfer-encoding" not in sent and (content or method in _WITH_BODY):
        sent["Content-Length"] = str(len(content))
    return Outgoing(method, target, sent, content, own)


def _encode_body(
    sent: Headers,
    body: Body,
    json: Any,
    form: FieldSource | None,
    files: FileSource | None,
) -> bytes | AsyncIterable[bytes]:
    """The body of one of the four, with its Content-Type put into the headers."""
    given = {
        "body": isinstance(body, AsyncIterable) or bool(body),
        "json": json is not MISSING,
        "form or files": form is not None or files is not None,
    }
    if sum(given.values()) > 1:
        several = ", ".join(f"{name}=" for name, is_given in given.items() if is_given)
        raise TypeError(f"a request has one body; got {several}")
    if given["json"]:
        return _typed(sent, "application/json", jsoncodec.encode(json))
    if files is not None:
        if "content-type" in sent:
            raise TypeError(
                f"Content-Type: {sent['content-type']} goes not with files=, whose boundary is in "
                "it; leave the header out"
            )
        return _typed(sent, *encode_multipart(read_fields(form, "form"), files))
    if form is not None:
        fields = read_fields(form, "form")
        return _typed(sent, "application/x-www-form-urlencoded", encode_urlencoded(fields))
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, AsyncIterable):
        return body
    raise TypeError(
        f"body= is bytes, str or an async iterable of bytes, not {type(body).__name__}; "
        "json= takes other values, form= the fields of a form"
    )


def _typed(sent: Headers, content_type: str, content: bytes) -> bytes:
    if "content-type" not in sent:
        sent["Content-Type"] = content_type
    return content


def _read_headers(source: HeaderSource | None) -> Headers:
    if source is not None and (isinstance(source, str | bytes) or not isinstance(source, Iterable)):
        raise TypeError(f"headers= is a mapping or pairs, not {source!r}")
    headers = Headers(source)
    for name, value in headers.multi_items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"header {name!r} is {value!r}; name and value must be str")
    if len(headers.getall("host")) > 1:
        raise ValueError("a request has one Host; client.connect() sends any bytes")
    return headers


def _read_cookies(source: Mapping[str, str] | None) -> dict[str, str]:
    if source is None:
        return {}
    if not isinstance(source, Mapping):
        raise TypeError(f"cookies= is a mapping of names to values, not {source!r}")
    for name, value in source.items():
        check_cookie(name, value)
    return dict(source)


def _drop(headers: Headers, names: tuple[str, ...]) -> None:
    for name in names:
        if name in headers:
            del headers[name]

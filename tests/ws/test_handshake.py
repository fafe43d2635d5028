"""Tests of trioweb/ws/handshake.py."""

from __future__ import annotations

import pytest

from trioweb.errors import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    OriginDenied,
    UpgradeRequired,
)
from trioweb.http.headers import Headers
from trioweb.http.request import Request
from trioweb.http.response import encode_head
from trioweb.ws.handshake import (
    accept_head,
    accept_response,
    check_origin,
    check_request,
    choose_subprotocol,
    is_upgrade,
    offered_subprotocols,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
VALID = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def ask(
    *more: tuple[str, str],
    method: str = "GET",
    http_version: str = "1.1",
    **changes: str | None,
) -> Request:
    """Build a valid handshake with some headers changed, left out (None) or added."""
    headers = dict(VALID)
    for name, value in changes.items():
        key = name.replace("_", "-")
        if value is None:
            del headers[key]
        else:
            headers[key] = value
    pairs = [*headers.items(), *more]
    return Request(method, "/chat", Headers(pairs), http_version=http_version)


def test_the_handshake_of_the_rfc_is_answered_as_it_says() -> None:
    """RFC 6455 §1.3."""
    request = ask(("Sec-WebSocket-Protocol", "chat, superchat"))
    assert is_upgrade(request)
    key = check_request(request)
    response = accept_response(key, choose_subprotocol(["chat"], offered_subprotocols(request)))
    assert response.status == 101
    assert response.headers.multi_items() == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Protocol", "chat"),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        ask(Upgrade="WebSocket", Connection="keep-alive, Upgrade"),
        ask(Upgrade="h2c, websocket", Connection="UPGRADE"),
        ask(("Connection", "Upgrade"), Connection="keep-alive"),
        ask(("Content-Length", "0")),
        ask(Sec_WebSocket_Key=f" {KEY} "),
    ],
)
def test_what_clients_write_differently_is_understood(request_: Request) -> None:
    """Tokens in any case, lists, repeated headers."""
    assert check_request(request_) == KEY


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ask(method="POST"), MethodNotAllowed),
        (ask(Upgrade=None), UpgradeRequired),
        (ask(Upgrade="websockets"), UpgradeRequired),
        (ask(Connection=None), UpgradeRequired),
        (ask(Connection="close"), UpgradeRequired),
        (ask(http_version="1.0"), BadRequest),
        (ask(Sec_WebSocket_Version=None), UpgradeRequired),
        (ask(Sec_WebSocket_Version="8"), UpgradeRequired),
        (ask(Sec_WebSocket_Version="13, 8"), UpgradeRequired),
        (ask(("Sec-WebSocket-Version", "8")), UpgradeRequired),
        (ask(Sec_WebSocket_Key=None), BadRequest),
        (ask(("Sec-WebSocket-Key", KEY)), BadRequest),
        (ask(Sec_WebSocket_Key=""), BadRequest),
        (ask(Sec_WebSocket_Key="c2hvcnQ="), BadRequest),
        (ask(Sec_WebSocket_Key="no base64 at all!!!!!!=="), BadRequest),
        (ask(Sec_WebSocket_Key=KEY[:-1] + "é"), BadRequest),
        (ask(Sec_WebSocket_Key=KEY[:-2]), BadRequest),
        (ask(("Content-Length", "5")), BadRequest),
        (ask(("Transfer-Encoding", "chunked")), BadRequest),
    ],
)
def test_a_broken_handshake_is_refused_with_its_status(
    request_: Request, error: type[HTTPException]
) -> None:
    """RFC 6455 §4.2.1."""
    with pytest.raises(error) as caught:
        check_request(request_)
    assert type(caught.value) is error
    if error is UpgradeRequired:
        assert caught.value.headers["Sec-WebSocket-Version"] == "13"
        assert caught.value.headers["Upgrade"] == "websocket"
    if error is MethodNotAllowed:
        assert caught.value.headers["Allow"] == "GET"


def test_a_plain_request_is_no_upgrade() -> None:
    """Nor is one to another protocol."""
    assert not is_upgrade(Request("GET", "/", Headers({"Host": "a"})))
    assert not is_upgrade(Request("GET", "/", Headers({"Upgrade": "h2c"})))


def test_offered_subprotocols_are_a_list_without_repetitions() -> None:
    """Over several headers, in their order, case kept."""
    request = ask(
        ("Sec-WebSocket-Protocol", "v2.chat,\tV1,v2.chat"),
        ("Sec-WebSocket-Protocol", ", soap"),
    )
    assert offered_subprotocols(request) == ["v2.chat", "V1", "soap"]
    assert offered_subprotocols(ask()) == []


@pytest.mark.parametrize("value", ["a b", "a;b", "ä", '"q"', "a/b"])
def test_an_offered_subprotocol_must_be_a_token(value: str) -> None:
    """Else it could break our own header."""
    with pytest.raises(BadRequest):
        offered_subprotocols(ask(("Sec-WebSocket-Protocol", value)))


def test_the_server_s_order_of_subprotocols_wins() -> None:
    """None in common is no error unless one is required."""
    assert choose_subprotocol(["b", "a"], ["a", "b"]) == "b"
    assert choose_subprotocol(["b"], ["a"]) is None
    assert choose_subprotocol([], ["a"], required=False) is None
    assert choose_subprotocol(["a"], ["a"], required=True) == "a"
    with pytest.raises(BadRequest, match="one of: b, c"):
        choose_subprotocol(["b", "c"], ["a"], required=True)


def test_more_headers_go_into_the_answer() -> None:
    """From a mapping or from pairs, which may repeat a name."""
    response = accept_response(KEY, None, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
    assert "sec-websocket-protocol" not in response.headers
    assert accept_response(KEY, headers={"X-Room": "7"}).headers["x-room"] == "7"


def test_agreed_extensions_are_answered() -> None:
    """One header with what was agreed; none when nothing was (RFC 6455 §9.1)."""
    agreed = "permessage-deflate; server_no_context_takeover"
    response = accept_response(KEY, "chat", {"X-Room": "7"}, agreed)
    assert response.headers.getall("sec-websocket-extensions") == [agreed]
    assert response.headers["sec-websocket-protocol"] == "chat"
    assert "sec-websocket-extensions" not in accept_response(KEY).headers
    assert "sec-websocket-extensions" not in accept_response(KEY, extensions="").headers


@pytest.mark.parametrize("subprotocol", [None, "chat"])
@pytest.mark.parametrize("extensions", [None, "", "permessage-deflate; server_max_window_bits=12"])
def test_the_101_that_nobody_sees_is_the_same(
    subprotocol: str | None, extensions: str | None
) -> None:
    """It is written without a Response being made."""
    response = accept_response(KEY, subprotocol, None, extensions)
    assert accept_head(KEY, subprotocol, extensions) == encode_head(response)


@pytest.mark.parametrize(
    "name",
    [
        "Sec-WebSocket-Protocol",
        "sec-websocket-extensions",
        "Sec-WebSocket-Accept",
        "connection",
        "Upgrade",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
def test_headers_of_the_handshake_cannot_be_given(name: str) -> None:
    """They are the server's to write."""
    with pytest.raises(ValueError, match="belongs to the WebSocket handshake"):
        accept_response(KEY, headers={name: "x"})


SAME = "same-origin"


@pytest.mark.parametrize(
    ("origin", "host", "origins"),
    [
        (None, "a.example", SAME),
        (None, "a.example", []),
        ("http://a.example", "a.example", SAME),
        ("https://a.example", "a.example", SAME),
        ("HTTPS://A.Example", "a.example", SAME),
        ("https://a.example", "a.example:443", SAME),
        ("http://a.example", "a.example:80", SAME),
        ("http://a.example:443", "a.example:443", SAME),
        ("http://a.example:8000", "a.example:8000", SAME),
        ("http://localhost:8000", "127.0.0.1:8000", SAME),
        ("http://127.0.0.1:8000", "localhost:8000", SAME),
        ("http://127.9.9.9:8000", "[::1]:8000", SAME),
        ("http://[::1]:8000", "localhost:8000", SAME),
        ("http://[2001:db8::1]", "[2001:db8::1]", SAME),
        ("null", "a.example", ["null"]),
        ("null", "a.example", "*"),
        ("http://evil.example", "a.example", "*"),
        ("http://evil.example", "a.example", ["*"]),
        ("https://b.example", "a.example", ["https://b.example"]),
        ("https://b.example", "a.example", ["https://B.example:443/"]),
        ("https://b.example:8443", "a.example", ["x.example", "b.example:8443"]),
        ("https://a.example", "a.example", [SAME, "https://b.example"]),
        ("capacitor://localhost", "a.example", ["capacitor://localhost"]),
    ],
)
def test_an_origin_that_may_passes(origin: str | None, host: str, origins: str | list[str]) -> None:
    """Host and port count, the scheme only where it is listed."""
    more = [] if origin is None else [("Origin", origin)]
    check_origin(ask(*more, Host=host), origins)


@pytest.mark.parametrize(
    ("origin", "host", "origins"),
    [
        ("http://evil.example", "a.example", SAME),
        ("http://a.example.evil.example", "a.example", SAME),
        ("http://evila.example", "a.example", SAME),
        ("http://sub.a.example", "a.example", SAME),
        ("http://a.example:8000", "a.example", SAME),
        ("http://a.example", "a.example:8000", SAME),
        ("http://localhost:3000", "localhost:8000", SAME),
        ("http://localhost.evil.example:8000", "localhost:8000", SAME),
        ("http://128.0.0.1", "localhost", SAME),
        ("null", "a.example", SAME),
        ("null", "null", SAME),
        ("", "a.example", SAME),
        ("a.example", "a.example", SAME),
        ("://a.example", "a.example", SAME),
        ("http://", "a.example", SAME),
        ("http://a.example/", "a.example", SAME),
        ("http://a.example@evil.example", "a.example", SAME),
        ("http://evil.example#a.example", "a.example", SAME),
        ("http://evil.example\\a.example", "a.example", SAME),
        ("http://a.example:x", "a.example", SAME),
        ("http://a.example:99999", "a.example", SAME),
        ("http://[::1", "localhost", SAME),
        ("http://a.example http://b.example", "a.example", SAME),
        ("https://a.example", "a.example", []),
        ("http://b.example", "a.example", ["https://b.example"]),
        ("https://b.example:444", "a.example", ["https://b.example", "b.example"]),
        ("https://a.example", "a.example", ["https://b.example"]),
        ("http://null", "a.example", ["null"]),
    ],
)
def test_an_origin_that_may_not_is_denied(origin: str, host: str, origins: str | list[str]) -> None:
    """403, without telling which would pass."""
    with pytest.raises(OriginDenied) as caught:
        check_origin(ask(("Origin", origin), Host=host), origins)
    assert caught.value.status == 403


def test_two_origins_are_denied() -> None:
    """Whichever of them would pass."""
    request = ask(("Origin", "http://a"), ("Origin", "http://a"), Host="a")
    with pytest.raises(OriginDenied):
        check_origin(request, SAME)

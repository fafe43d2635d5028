"""URLs and headers as they are written on a command line."""

from __future__ import annotations

import pytest

from trioweb.cli.connect.address import Address, parse_address, parse_header, parse_subprotocol


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ws://a.test", Address("a.test", 80, False, "/")),
        ("wss://a.test", Address("a.test", 443, True, "/")),
        ("HTTP://A.test:81/x", Address("a.test", 81, False, "/x")),
        ("https://a.test/?", Address("a.test", 443, True, "/?")),
        ("localhost:8000/ws", Address("localhost", 8000, False, "/ws")),
        ("host/go?to=http://b/", Address("host", 80, False, "/go?to=http://b/")),
        ("ws://[::1]:9/", Address("::1", 9, False, "/")),
        ("ws://a/b c?q=é&r=%20", Address("a", 80, False, "/b%20c?q=%C3%A9&r=%20")),
        ("ws://bücher.test/", Address("xn--bcher-kva.test", 80, False, "/")),
        ("ws://Ada:p%40ss@a/", Address("a", 80, False, "/", "Ada:p@ss")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Schemes, usual ports, quoting, names beyond ASCII, users."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("ws://a:80/x?y", "ws://a/x?y"),
        ("wss://a:80", "wss://a:80/"),
        ("wss://a:443", "wss://a/"),
        ("ws://Ada:secret@[::1]:9", "ws://[::1]:9/"),
    ],
)
def test_address_is_shown_without_its_user(address: str, url: str) -> None:
    """A password is nothing for a screen or a log."""
    assert parse_address(address).url == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://a", "begins with ftp://; use ws://"),
        ("ws://", "has no host"),
        ("", "has no host"),
        ("/path", "has no host"),
        ("ws://a:0", "ports are 1 to 65535"),
        ("ws://a:70000", "no good port"),
        ("ws://a:b", "no good port"),
        ("ws://a/#top", "has a fragment; write %23"),
        ("ws://a/\r\nb", "control character"),
        ("ws://a b/", "no good host"),
        (f"ws://{'a' * 64}/", "no good host"),
    ],
)
def test_wrong_addresses(text: str, said: str) -> None:
    """The error says what it is about."""
    with pytest.raises(ValueError, match=said):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("X-Name: value", (b"X-Name", b"value")),
        ("x:a: b ", (b"x", b"a: b")),
        ("empty:", (b"empty", b"")),
        ("x: grüße", (b"x", "grüße".encode())),
    ],
)
def test_headers(text: str, header: tuple[bytes, bytes]) -> None:
    """The first colon divides, and spaces around the value don't count."""
    assert parse_header(text) == header


@pytest.mark.parametrize("text", ["no colon", ": value", "two words: x", "x: a\r\nb: c", "x: \x00"])
def test_wrong_headers(text: str) -> None:
    """Nothing that could break the request is let through."""
    with pytest.raises(ValueError, match=r"no header|control character"):
        parse_header(text)


def test_headers_of_the_handshake_are_refused() -> None:
    """A second one would break it; the error says what there is instead."""
    with pytest.raises(ValueError, match="use --subprotocol"):
        parse_header("sec-websocket-PROTOCOL: x")


@pytest.mark.parametrize("text", ["", "a b", "a,b", "é"])
def test_wrong_subprotocols(text: str) -> None:
    """They are tokens (RFC 6455 §4.1)."""
    assert parse_subprotocol("chat.v1") == "chat.v1"
    with pytest.raises(ValueError, match="is no subprotocol"):
        parse_subprotocol(text)

"""Responses: what handlers may return, and their heads."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING

import pytest

from trioweb.errors import NotFound
from trioweb.http import (
    Headers,
    Response,
    empty,
    encode_head,
    error_response,
    html,
    json,
    raw,
    redirect,
    text,
    to_response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclasses.dataclass
class Point:
    x: int


class Pieces:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


def test_shortcuts() -> None:
    assert (text("ü").body, text("a").content_type) == ("ü".encode(), "text/plain; charset=utf-8")
    assert html("<p>").content_type == "text/html; charset=utf-8"
    assert (json({"a": 1}).body, json(None).body) == (b'{"a":1}', b"null")
    assert raw(b"x").content_type == "application/octet-stream"
    assert (empty().status, empty().status_code) == (204, 204)
    moved = redirect("/a b\r\nX: y")
    assert moved.status == 302
    assert moved.headers["location"] == "/a%20b%0D%0AX:%20y"
    with pytest.raises(TypeError, match="raw"):
        text(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        Response(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "status", "body", "content_type"),
    [
        ("s", 200, b"s", "text/plain; charset=utf-8"),
        (b"b", 200, b"b", "application/octet-stream"),
        ({"a": 1}, 200, b'{"a":1}', "application/json"),
        ([1], 200, b"[1]", "application/json"),
        (Point(1), 200, b'{"x":1}', "application/json"),
        (None, 204, b"", None),
        (("s", 201), 201, b"s", "text/plain; charset=utf-8"),
        (({"a": 1}, 404, {"X-A": "b"}), 404, b'{"a":1}', "application/json"),
    ],
)
def test_what_handlers_return(
    value: object, status: int, body: bytes, content_type: str | None
) -> None:
    response = to_response(value)
    assert (response.status, response.body, response.content_type) == (status, body, content_type)


def test_a_response_is_itself_and_a_tuple_adds_to_it() -> None:
    response = text("x", headers={"a": "b"})
    assert to_response(response) is response
    assert to_response((response, 201, {"A": "c"})).headers.multi_items() == [("A", "c")]


@pytest.mark.parametrize("value", [1, object(), ("a",), ("a", "b"), (("a", 1), 2), (1, 2, 3, 4)])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="handler returned"):
        to_response(value)


def test_an_error_becomes_a_plain_response() -> None:
    response = error_response(NotFound("no such thing", headers={"X": "y"}))
    assert (response.status, response.body) == (404, b"no such thing")
    assert response.headers["x"] == "y"


def lines_of(head: bytes) -> list[str]:
    assert head.endswith(b"\r\n\r\n")
    return [
        line for line in head.decode("latin-1").split("\r\n")[:-2] if not line.startswith("Date:")
    ]


def test_a_sized_head() -> None:
    assert lines_of(encode_head(text("hello"))) == [
        "HTTP/1.1 200 OK",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 5",
    ]


def test_headers_can_be_added_and_replaced() -> None:
    response = text("")
    response.headers["X-A"] = "1"
    assert "X-A: 1" in lines_of(encode_head(response))
    assert not response.closes
    response.headers = Headers({"Connection": "x, Close"})
    assert response.closes
    assert "X-A: 1" not in lines_of(encode_head(response))


def test_connection_depends_on_version_and_keep_alive() -> None:
    response = text("")
    assert "Connection: close" in lines_of(encode_head(response, keep_alive=False))
    assert "Connection: keep-alive" in lines_of(encode_head(response, http_version="1.0"))
    upgrade = text("", 426, {"Upgrade": "websocket", "Connection": "Upgrade"})
    assert "Connection: upgrade" in lines_of(encode_head(upgrade))
    assert "Connection: upgrade, close" in lines_of(encode_head(upgrade, keep_alive=False))


def test_a_handler_can_not_break_the_framing() -> None:
    response = text(
        "abc", headers={"Content-Length": "1", "Transfer-Encoding": "gzip", "Connection": "x"}
    )
    assert lines_of(encode_head(response))[1:] == [
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 3",
        "Connection: x",
    ]


def test_the_content_type_of_headers_wins() -> None:
    response = text("abc", headers={"content-type": "text/css"})
    assert lines_of(encode_head(response))[1:] == ["content-type: text/css", "Content-Length: 3"]


def test_head_keeps_the_length_that_it_was_given() -> None:
    response = Response(headers={"Content-Length": "99"})
    assert "Content-Length: 99" in lines_of(encode_head(response, head=True))
    assert "Content-Length: 0" in lines_of(encode_head(response))


def test_pieces_are_chunked_where_the_client_knows_chunks() -> None:
    assert "Transfer-Encoding: chunked" in lines_of(encode_head(Response(Pieces())))
    assert lines_of(encode_head(Response(Pieces()), keep_alive=False, http_version="1.0"))[1:] == [
        "Connection: close"
    ]


def test_statuses_without_a_body() -> None:
    assert lines_of(encode_head(empty())) == ["HTTP/1.1 204 No Content"]
    assert encode_head(Response(b"", 101, {"Upgrade": "websocket"})) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    )
    assert lines_of(encode_head(Response(b"", 799)))[0] == "HTTP/1.1 799 "
    with pytest.raises(ValueError, match="150"):
        encode_head(Response(b"", 150))


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nSet-Cookie: b"},
        {"X": "a\nb"},
        {"X": "a\0b"},
        {"X\r\nY": "a"},
        {"X Y": "a"},
        {"": "a"},
        {"X": "☃"},
        {"Connection": "a\rb"},
    ],
)
def test_what_would_split_a_response_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"header|option"):
        encode_head(text("x", headers=headers))
    with pytest.raises(ValueError, match="content_type"):
        encode_head(Response(b"", content_type="a\r\nb: c"))


def test_content_types_that_are_equal_and_read_otherwise_are_not_mixed_up() -> None:
    """An enum's member that is a str is as equal to it as it can be, but not written like it."""

    class Kind(str, enum.Enum):  # noqa: UP042 - a StrEnum is written like its value
        JSON = "application/x-equal"

    odd = encode_head(Response(b"", content_type=Kind.JSON))
    assert b"Content-Type: application/x-equal\r\n" in encode_head(
        Response(b"", content_type="application/x-equal")
    )
    assert b"Kind.JSON" in odd

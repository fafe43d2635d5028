"""Headers: case, order and repetitions."""

from __future__ import annotations

import pytest

from trioweb.http import Headers


def test_names_compare_without_case() -> None:
    headers = Headers({"Content-Type": "text/html"})
    assert headers["content-type"] == headers["CONTENT-TYPE"] == "text/html"
    assert "Content-type" in headers
    assert "accept" not in headers


def test_a_missing_name_is_a_key_error_or_the_default() -> None:
    headers = Headers()
    assert headers.get("x") is None
    assert headers.get("x", "d") == "d"
    with pytest.raises(KeyError):
        headers["x"]
    with pytest.raises(KeyError):
        del headers["x"]


def test_repetitions_keep_their_order() -> None:
    headers = Headers([("Set-Cookie", "a=1"), ("X", "y"), ("set-cookie", "b=2")])
    assert headers["set-cookie"] == "a=1"
    assert headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert headers.getall("none") == []
    assert headers.multi_items() == [("Set-Cookie", "a=1"), ("X", "y"), ("set-cookie", "b=2")]
    assert headers.raw[2] == (b"set-cookie", b"b=2")
    assert list(headers) == ["set-cookie", "x"]
    assert len(headers) == 2


def test_assignment_replaces_all_in_place_of_the_first() -> None:
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    headers["a"] = "4"
    assert headers.multi_items() == [("a", "4"), ("B", "2")]
    headers["c"] = "5"
    headers.add("B", "6")
    assert headers.getall("b") == ["2", "6"]
    del headers["B"]
    assert headers == {"A": "4", "C": "5"}


def test_a_copy_is_independent_and_whole() -> None:
    first = Headers([("a", "1"), ("a", "2")])
    second = Headers(first)
    second.add("a", "3")
    assert first.getall("a") == ["1", "2"]
    assert second.getall("a") == ["1", "2", "3"]


def test_tokens_split_every_field() -> None:
    headers = Headers([("Connection", "Keep-Alive, Upgrade"), ("connection", " x ,")])
    assert headers.tokens("connection") == ["keep-alive", "upgrade", "x"]
    assert headers.tokens("none") == []


def test_packed_headers_are_the_same_at_the_next_look() -> None:
    fields = [("Host", "h"), ("X", ""), ("x", "2")]
    headers = Headers(fields)
    headers.pack()
    headers.pack()
    assert headers.getall("x") == ["", "2"]
    headers.pack()
    headers.add("y", "3")
    assert headers.multi_items() == [*fields, ("y", "3")]
    headers.pack()
    assert headers["HOST"] == "h"
    headers.pack()
    del headers["x"]
    headers.pack()
    headers["host"] = "i"
    headers.pack()
    assert Headers(headers) == Headers({"host": "i", "y": "3"})
    assert bool(headers)


@pytest.mark.parametrize("fields", [[], [("a", "1\n2")], [("a\n", "")], [("", "")], [("a", 1)]])
def test_what_can_not_be_packed_stays(fields: list[tuple[str, str]]) -> None:
    """An application may have put anything there."""
    headers = Headers(fields)
    headers.pack()
    assert headers.multi_items() == fields

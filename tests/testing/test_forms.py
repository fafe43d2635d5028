"""Forms of the test client, read back by parsers that aren't ours."""

from __future__ import annotations

from email import message_from_string
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioweb.testing.forms import encode_multipart, encode_urlencoded, read_fields

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path


def parse(content_type: str, body: bytes) -> list[tuple[str | None, str | None, str | None, bytes]]:
    """Name, filename, content type and content of each part, by the standard library's parser."""
    # Latin-1 takes any bytes through a parser of text.
    whole = message_from_string(f"Content-Type: {content_type}\r\n\r\n{body.decode('latin-1')}")
    assert whole.is_multipart()
    assert not whole.defects
    parts: Any = whole.get_payload()
    return [
        (
            read_parameter(part, "name"),
            read_parameter(part, "filename"),
            part["Content-Type"],
            part.get_payload().encode("latin-1"),
        )
        for part in parts
    ]


def read_parameter(part: Message, name: str) -> str | None:
    value: Any = part.get_param(name, header="Content-Disposition")
    assert part.get_content_disposition() == "form-data"
    return None if value is None else value.encode("latin-1").decode()


def test_fields_are_urlencoded() -> None:
    """Numbers, truth values and lists become the text that a browser would send."""
    fields = read_fields({"a": "é &=+", "n": 3, "x": 0.5, "on": True, "l": ["1", 2]}, "form")
    assert parse_qsl(encode_urlencoded(fields).decode()) == [
        ("a", "é &=+"),
        ("n", "3"),
        ("x", "0.5"),
        ("on", "true"),
        ("l", "1"),
        ("l", "2"),
    ]
    assert read_fields([("a", "1"), ("a", "2")], "form") == [("a", "1"), ("a", "2")]
    assert read_fields(None, "form") == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a=1", "form= is a mapping or pairs of names and values, not 'a=1'"),
        (7, "not 7"),
        (["ab"], "'ab' is no pair"),
        ([("a", "b", "c")], "is no pair"),
        ({1: "a"}, "the name 1 is no str"),
        ({"a": None}, "form= has a=None; .*leave out what is None"),
        ({"a": [b"x"]}, "a=b'x'"),
    ],
)
def test_a_form_that_is_none_is_a_type_error(source: Any, message: str) -> None:
    """The error names the argument, the name and the value."""
    with pytest.raises(TypeError, match=message):
        read_fields(source, "form")


def test_files_are_read_back_as_they_were(tmp_path: Path) -> None:
    """Fields come first; each kind of file has its name, type and bytes."""
    page = tmp_path / "page.html"
    page.write_bytes(b"<p>\r\n")
    binary = bytes(range(256))
    content_type, body = encode_multipart(
        [("title", "naïve\n"), ("title", "two")],
        {
            "raw": binary,
            "note": "é",
            "page": page,
            "named": ("é.json", b"{}"),
            "told": ("x.bin", "text", "text/x-odd"),
            "several": [("1.png", b"1"), ("2.png", b"")],
            "moved": ("y.txt", page),
        },
    )
    assert parse(content_type, body) == [
        ("title", None, None, "naïve\n".encode()),
        ("title", None, None, b"two"),
        ("raw", "raw", "application/octet-stream", binary),
        ("note", "note", "text/plain; charset=utf-8", "é".encode()),
        ("page", "page.html", "text/html", b"<p>\r\n"),
        ("named", "é.json", "application/json", b"{}"),
        ("told", "x.bin", "text/x-odd", b"text"),
        ("several", "1.png", "image/png", b"1"),
        ("several", "2.png", "image/png", b""),
        ("moved", "y.txt", "text/plain", b"<p>\r\n"),
    ]


# Line ends and what looks like a boundary are what could go wrong.
CONTENTS = st.lists(st.sampled_from([b"\r", b"\n", b"--", b"trioweb-form-0", b"x", b"\xff", b" "]))


@given(st.lists(CONTENTS.map(b"".join), min_size=1))
def test_any_content_comes_back(contents: list[bytes]) -> None:
    """Encoding, then parsing, is the identity."""
    form = encode_multipart([], [("f", content) for content in contents])
    assert [content for *_, content in parse(*form)] == contents


def test_names_are_escaped_as_browsers_do() -> None:
    r"""Quotes and line ends are percent-encoded, a line end in a name is \r\n; % and \ stay."""
    content_type, body = encode_multipart([('a"\nb', "")], [('c\r"\\', ('d"\r%\n.txt', b""))])
    assert b'name="a%22%0D%0Ab"\r\n' in body
    assert b'name="c%0D%0A%22\\"; filename="d%22%0D%%0A.txt"\r\n' in body
    assert len(parse(content_type, body)) == 2


def test_a_boundary_is_in_no_part() -> None:
    """Content that has been made from a form can be sent in a form; the same form is the same."""
    inner = encode_multipart([("a", "1")], {})
    outer = encode_multipart([], {"f": inner[1]})
    assert inner[0] != outer[0]
    assert parse(*outer)[0][3] == inner[1]
    assert encode_multipart([], {"f": inner[1]}) == outer


@pytest.mark.parametrize(
    "file", [None, 3, ("a",), (b"a", b"b"), ("a", "b", "c", "d"), ("a", None), ("a", "b", 1)]
)
def test_a_file_that_is_none_is_a_type_error(file: Any) -> None:
    """The error shows what was given for which name."""
    with pytest.raises(TypeError, match="files= has f="):
        encode_multipart([], {"f": file})


def test_an_empty_form_with_files_has_an_end() -> None:
    """No part at all is still a body with its closing line."""
    content_type, body = encode_multipart([], {})
    assert body == b"--" + content_type.partition("boundary=")[2].encode() + b"--\r\n"

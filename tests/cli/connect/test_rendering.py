"""What is shown of messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioweb.cli.connect.rendering import (
    compact_json,
    escape_controls,
    indent_json,
    indent_lines,
    render_binary,
    split_json,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grüße ✓\tok \\x1b", "grüße ✓\tok \\x1b"),
        ("\x1b[2J\x07\x7f", "\\x1b[2J\\x07\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc", "a\\rb\\nc"),
        ("a\u202eb\u2066c\u2028d", "a\\u202eb\\u2066c\\u2028d"),
    ],
)
def test_controls_are_escaped(text: str, shown: str) -> None:
    """What drives a terminal, or turns its writing around, is shown instead."""
    assert escape_controls(text) == shown


@given(st.text())
def test_nothing_that_is_escaped_drives_a_terminal(text: str) -> None:
    """No C0 but the tab, no C1."""
    shown = escape_controls(text)
    assert not [char for char in shown if char != "\t" and (char < " " or "\x7f" <= char < "\xa0")]


def test_own_lines_are_indented() -> None:
    """So none of them looks like a message of its own."""
    assert indent_lines("a\n< b\x07\n", "  ") == "a\n  < b\\x07\n  "


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", "<binary, 0 bytes>"),
        (b"\x00", "<binary, 1 byte: 00>"),
        (bytes(range(32)), f"<binary, 32 bytes: {bytes(range(32)).hex()}>"),
        (bytes(33), f"<binary, 33 bytes: {'00' * 32}…>"),
    ],
)
def test_binary_is_shown(data: bytes, shown: str) -> None:
    """Its size and its beginning."""
    assert render_binary(data) == shown


@given(VALUES, st.sampled_from([None, 0, 3]), st.booleans())
def test_json_keeps_its_meaning(value: object, indent: int | None, ascii_only: bool) -> None:
    """Compacted it is what the standard library writes compactly; indented it means the same."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    tokens = split_json(text)
    assert compact_json(tokens) == json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
    assert indent_json(tokens) == json.dumps(value, indent=2, ensure_ascii=ascii_only)


@pytest.mark.parametrize(
    "text",
    ["1e400", "-0.0", "9" * 5000, r'"\ud800\/\"\\"', '{"a":1,"a":2}', "0.10000000000000000000001"],
)
def test_json_is_not_decoded_on_its_way(text: str) -> None:
    """What a decoder would change comes through."""
    assert compact_json(split_json(f" {text} ")) == text
    assert "".join(indent_json(split_json(text)).split()).replace(": ", ":") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("{'a': 1}", "Expecting property name"),
        ("[1,]", "line 1 column"),
        ("1 2", "Extra data"),
        ("NaN", "NaN is no value of JSON"),
        ("[-Infinity]", "-Infinity is no value"),
        ("[" * 100_000, "nested too deeply"),
        ('"a\nb"', "control character"),
    ],
)
def test_what_is_no_json(text: str, said: str) -> None:
    """The error says why."""
    with pytest.raises(ValueError, match=said):
        split_json(text)

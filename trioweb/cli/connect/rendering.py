"""How messages are shown: text that can't drive a terminal, bytes that can be read, JSON."""

from __future__ import annotations

import json
import re

# C0 and C1 but for the tab, which are a terminal's commands; and those that turn the direction of
# writing or break the line, with which a text can look like another (Unicode UAX 9 §2, UAX 14).
_DRIVING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Bytes of a binary message that are shown: half a line.
_SHOWN_BYTES = 32
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+')


def escape_controls(text: str) -> str:
    r"""A text in one line that can be written to any terminal: an escape is ``\x1b``."""
    return _DRIVING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def indent_lines(text: str, indent: str) -> str:
    """A text with its own lines, all but the first behind an indent, and nothing to drive with."""
    return f"\n{indent}".join(escape_controls(line) for line in text.split("\n"))


def render_binary(data: bytes) -> str:
    """A binary message as one line: its size and its first bytes in hexadecimal."""
    size = "1 byte" if len(data) == 1 else f"{len(data)} bytes"
    if not data:
        return f"<binary, {size}>"
    more = "…" if len(data) > _SHOWN_BYTES else ""
    return f"<binary, {size}: {data[:_SHOWN_BYTES].hex()}{more}>"


def split_json(text: str) -> list[str]:
    """The tokens of a JSON text, each as it was written.

    So what is compacted or indented is never decoded: numbers of any size, escapes and repeated
    keys stay what they were.

    Raises:
        ValueError: the text is no JSON; the message says where.
    """
    try:
        # Numbers stay text, which neither overflows nor runs into Python's limit of digits.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _JSON_TOKEN.findall(text)


def _refuse_constant(name: str) -> None:
    # RFC 8259 §6 has none of NaN and the infinities; Python would take them.
    raise ValueError(f"{name} is no value of JSON")


def compact_json(tokens: list[str]) -> str:
    """JSON without any space between its tokens."""
    return "".join(tokens)


def indent_json(tokens: list[str]) -> str:
    """JSON with a line for each value."""
    written: list[str] = []
    depth = 0
    previous = ""
    for token in tokens:
        if token in ("]", "}"):
            depth -= 1
            if previous not in ("[", "{"):
                written.append("\n" + "  " * depth)
        elif previous in ("[", "{", ","):
            written.append("\n" + "  " * depth)
        written.append(": " if token == ":" else token)
        if token in ("[", "{"):
            depth += 1
        previous = token
    return "".join(written)

"""Forms as browsers send them: urlencoded, and multipart with files."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlencode

# Values are checked when they are read: a dict of several kinds of them is a dict of objects to a
# type checker, wherever it was made.
FieldSource: TypeAlias = "Mapping[str, object] | Iterable[tuple[str, object]]"
FileSource: TypeAlias = FieldSource

# The standard library's own table, not this machine's: the same test sends the same bytes anywhere.
_TYPES = mimetypes.MimeTypes()
_OCTETS = "application/octet-stream"
_LONE_BREAK = re.compile(r"\r(?!\n)|(?<!\r)\n")


@dataclass(frozen=True)
class _Part:
    """One file of a form."""

    name: str
    filename: str
    content: bytes
    content_type: str


def read_fields(source: FieldSource | None, what: str) -> list[tuple[str, str]]:
    """The names and values of a form or a query; a list as a value stands for several of them.

    Args:
        source: a mapping or pairs.
        what: the argument's name, for the error.

    Raises:
        TypeError: a name or a value is of no such type.
    """
    fields: list[tuple[str, str]] = []
    for name, value in _read_pairs(source, what):
        values = value if isinstance(value, list | tuple) else [value]
        fields += [(name, _write_value(name, each, what)) for each in values]
    return fields


def encode_urlencoded(fields: list[tuple[str, str]]) -> bytes:
    """Encode a form without files; it is ``application/x-www-form-urlencoded``."""
    return urlencode(fields).encode()


def encode_multipart(fields: list[tuple[str, str]], files: FileSource) -> tuple[str, bytes]:
    """Encode a form with files.

    Args:
        fields: they stand before the files.
        files: a name's file is its content (bytes or str, sent under the field's name), a path,
            which is read now, or a tuple of a filename, one of these and perhaps the content
            type; a list of them is several files of that name.

    Returns:
        The Content-Type and the body. The same form is the same bytes each time.

    Raises:
        TypeError: a file is none of these.
        OSError: a path can't be read.

    Source: RFC 7578; names are escaped as browsers do (WHATWG HTML, multipart/form-data encoding)
    """
    parts: list[tuple[str, bytes]] = []
    for name, value in fields:
        parts.append((f'name="{_escape_name(name)}"\r\n', value.encode()))
    for name, several in _read_pairs(files, "files"):
        for file in several if isinstance(several, list) else [several]:
            part = _read_file(name, file)
            head = f'name="{_escape_name(name)}"; filename="{_escape(part.filename)}"\r\n'
            parts.append((f"{head}Content-Type: {part.content_type}\r\n", part.content))
    boundary = _choose_boundary([content for _, content in parts])
    body = bytearray()
    for head, content in parts:
        body += f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n".encode()
        body += content
        body += b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", bytes(body)


def _read_pairs(source: object, what: str) -> list[tuple[str, object]]:
    if source is None:
        return []
    wanted = f"{what}= is a mapping or pairs of names and values"
    if isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise TypeError(f"{wanted}, not {source!r}")
    pairs: list[tuple[str, object]] = []
    for pair in source.items() if isinstance(source, Mapping) else source:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{wanted}; {pair!r} is no pair")
        name, value = pair
        if not isinstance(name, str):
            raise TypeError(f"{wanted}; the name {name!r} is no str")
        pairs.append((name, value))
    return pairs


def _write_value(name: str, value: object, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(
        f"{what}= has {name}={value!r}; a value is a str, a number, or a list of them: "
        "pass str() of others, and leave out what is None"
    )


def _read_file(name: str, file: object) -> _Part:
    if isinstance(file, os.PathLike):
        return _make_part(name, os.path.basename(os.fspath(file)), file, None)
    if not isinstance(file, tuple):
        return _make_part(name, name, file, None)
    match file:
        case (str() as filename, content):
            return _make_part(name, filename, content, None)
        case (str() as filename, content, str() as content_type):
            return _make_part(name, filename, content, content_type)
    raise TypeError(
        f"files= has {name}={file!r}; a tuple is (filename, content) or "
        "(filename, content, content type)"
    )


def _make_part(name: str, filename: str, content: object, content_type: str | None) -> _Part:
    if content_type is None:
        plain = "text/plain; charset=utf-8" if isinstance(content, str) else _OCTETS
        content_type = _TYPES.guess_type(filename)[0] or plain
    if isinstance(content, str):
        data = content.encode()
    elif isinstance(content, bytes | bytearray | memoryview):
        data = bytes(content)
    elif isinstance(content, os.PathLike):
        data = Path(content).read_bytes()
    else:
        raise TypeError(
            f"files= has {name}={content!r}; a file is bytes, a str, a path, or a tuple of a "
            "filename, one of these and perhaps a content type: pass what an open file .read()s"
        )
    return _Part(name, filename, data, content_type)


def _escape(text: str) -> str:
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _escape_name(name: str) -> str:
    return _escape(_LONE_BREAK.sub("\r\n", name))


def _choose_boundary(contents: list[bytes]) -> str:
    """The first of a row that no part has in it."""
    number = 0
    while any(b"--trioweb-form-%d" % number in content for content in contents):
        number += 1
    return f"trioweb-form-{number}"

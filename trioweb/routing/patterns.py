"""Patterns: ``<name:type>`` and ``{name:type}`` to one regular expression and back.

A pattern is read into parts, literals and parameters. From the parts comes the regular expression
that matches. That is all that the names of rooms need; a path has the rest: the text that ``build``
writes, the rank that orders patterns by how specific they are, and the shape by which two patterns
that match the same paths are found.

Matching happens on the path as it was sent, with its percent signs decoded except for an encoded
slash, which must not become a separator: ``decode_path`` puts ``SLASH`` in its place and
``Pattern.match`` gives the parameter its slash back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote
from uuid import UUID

from trioweb.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# A lone surrogate: decoding UTF-8 with errors="replace" never gives one, so it can't be forged.
SLASH: Final = "\udc2f"
_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Converter:
    """How a parameter's type reads and writes a piece of a path.

    Args:
        regex: what the piece looks like.
        parse: str to value; a ValueError means that the pattern does not match.
        rank: smaller is more specific and tried first.
    """

    regex: str
    parse: Callable[[str], object]
    rank: int = 1


CONVERTERS: Final[Mapping[str, Converter]] = {
    "str": Converter(r"[^/]+", str, 3),
    "strorempty": Converter(r"[^/]*", str, 4),
    "int": Converter(r"-?[0-9]+", int),
    "float": Converter(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", float),
    "alpha": Converter(r"[A-Za-z]+", str),
    "slug": Converter(r"[a-z0-9]+(?:-[a-z0-9]+)*", str),
    "path": Converter(r"[^/].*", str, 5),
    "ymd": Converter(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date.fromisoformat),
    "uuid": Converter(
        r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}", UUID
    ),
}
_EXTENSION: Final = r"[A-Za-z0-9]+(?:\.[A-Za-z0-9]+)?"
_REGEX_RANK: Final = 2


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    converter: Converter


def decode_path(raw: str) -> str:
    """Decode a path's percent signs, with ``SLASH`` for each encoded slash.

    Args:
        raw: the path as the request line has it, without its query.
    """
    if "%" not in raw:
        return raw
    return unquote(_ENCODED_SLASH.sub(SLASH, raw))


class TextPattern:
    """Text with parameters, which matches other text as a whole.

    Args:
        text: with parameters in either notation.

    Raises:
        RouteError: the text can't be understood; the message says where.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _parse(text)
        self.names: tuple[str, ...] = tuple(
            part.name for part in self._parts if isinstance(part, _Parameter)
        )
        if len(set(self.names)) < len(self.names):
            raise RouteError(f"pattern {text!r} names a parameter twice")
        try:
            self._regex = re.compile(self._regex_text(), re.DOTALL)
        except re.error as exc:
            raise RouteError(f"pattern {text!r} holds a bad regular expression: {exc}") from exc
        self._parsers = tuple(
            part.converter.parse for part in self._parts if isinstance(part, _Parameter)
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def match(self, text: str) -> dict[str, object] | None:
        """Match a text and convert its parameters; None when it is not this pattern's."""
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        return self._converted([found[name] for name in self.names])

    def _converted(self, texts: Sequence[str]) -> dict[str, object] | None:
        try:
            return {
                name: parse(text)
                for name, parse, text in zip(self.names, self._parsers, texts, strict=True)
            }
        except ValueError:
            return None

    def _regex_text(self) -> str:
        return "".join(
            re.escape(part) if isinstance(part, str) else f"(?P<{part.name}>{part.converter.regex})"
            for part in self._parts
        )


class Pattern(TextPattern):
    """One route's path.

    Args:
        path: with parameters in either notation; it starts with a slash.
        strict_slashes: whether a slash at the end makes another path.

    Raises:
        RouteError: the path can't be understood; the message says where.
    """

    def __init__(self, path: str, *, strict_slashes: bool = False) -> None:
        if not path.startswith("/"):
            raise RouteError(f"path {path!r} must start with a slash")
        self.strict_slashes = strict_slashes
        super().__init__(path)
        self.is_static = not self.names
        self.first_segment = _first_segment(self._parts)
        self.rank = _rank(self._parts)
        self.shape = _shape(self._parts, strict_slashes)

    def static_paths(self) -> tuple[str, ...]:
        """All the paths that a pattern without parameters matches."""
        path = self.text
        if self.strict_slashes or path == "/":
            return (path,)
        bare = path.rstrip("/")
        return (bare, bare + "/")

    def match(self, path: str) -> dict[str, object] | None:
        """Match a path and convert its parameters; None when it is not this pattern's.

        Args:
            path: what ``decode_path`` gave.
        """
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        texts = [found[name] for name in self.names]
        if SLASH in path:
            texts = [text.replace(SLASH, "/") for text in texts]
        return self._converted(texts)

    def build(self, params: Mapping[str, object]) -> str:
        """Write the path for these parameters, percent-encoded.

        Raises:
            RouteError: a parameter is missing, or its value would not match.
        """
        written: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                written.append(quote(part, safe="/:@!$&'()*+,;=~"))
                continue
            if part.name not in params:
                raise RouteError(f"path {self.text!r} needs the parameter {part.name!r}")
            text = str(params[part.name])
            is_path = part.converter is CONVERTERS["path"]
            matched = text if is_path else text.replace("/", SLASH)
            if not re.fullmatch(part.converter.regex, matched, re.DOTALL):
                raise RouteError(f"{text!r} can't be the parameter {part.name!r} of {self.text!r}")
            written.append(quote(text, safe="/:@!$&'()*+,;=~" if is_path else ":@!$&'()*+,;=~"))
        return "".join(written)

    def _regex_text(self) -> str:
        text = super()._regex_text()
        if self.strict_slashes or text == "/":
            return text
        # rstrip is safe: an escaped literal ends in a plain slash only where the path does.
        return text.rstrip("/") + "/?" if isinstance(self._parts[-1], str) else text + "/?"


def _parse(pattern: str) -> list[str | _Parameter]:
    parts: list[str | _Parameter] = []
    literal = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character in "<{":
            end = _closing(pattern, position)
            if literal:
                parts.append(literal)
            literal = ""
            parameters = _parameters(pattern[position + 1 : end], pattern)
            parts.append(parameters[0])
            if len(parameters) == 2:
                literal = "."
                parts.append(literal)
                parts.append(parameters[1])
                literal = ""
            position = end + 1
        elif character in ">}":
            raise RouteError(f"pattern {pattern!r} closes a parameter that it did not open")
        else:
            literal += character
            position += 1
    if literal:
        parts.append(literal)
    return parts


def _closing(pattern: str, start: int) -> int:
    """The index of the bracket that closes the one at ``start``; a regex may nest them."""
    opening = pattern[start]
    closing = {"<": ">", "{": "}"}[opening]
    depth = 0
    position = start
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif character == opening:
            depth += 1
        elif character == closing:
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise RouteError(f"pattern {pattern!r} opens a parameter and does not close it")


def _parameters(text: str, pattern: str) -> list[_Parameter]:
    """The parameter that ``name:type`` says; two for the type ``ext``, a name and its ending."""
    name, _, kind = text.partition(":")
    name = name.strip()
    name, _, name_kind = name.partition("=")
    if not name.isidentifier():
        raise RouteError(f"pattern {pattern!r}: {name!r} can't be the name of a parameter")
    kind = kind.strip() or "str"
    if kind == "ext" or kind.startswith("ext="):
        return _file_parameters(name, name_kind, kind, pattern)
    if name_kind:
        raise RouteError(f"pattern {pattern!r}: {name}={name_kind} goes with the type ext only")
    return [_Parameter(name, _converter(kind, pattern))]


def _file_parameters(name: str, name_kind: str, kind: str, pattern: str) -> list[_Parameter]:
    endings = [re.escape(ending) for ending in kind.partition("=")[2].split("|") if ending]
    ending = "|".join(endings) if endings else _EXTENSION
    stem = _converter(name_kind, pattern) if name_kind else Converter(r"[^/]+?", str)
    return [_Parameter(name, stem), _Parameter("ext", Converter(f"(?:{ending})", str))]


def _converter(kind: str, pattern: str) -> Converter:
    if kind in CONVERTERS:
        return CONVERTERS[kind]
    if kind.isidentifier():
        # No regular expression worth writing is a bare word, so it is a type that was misspelt.
        near = get_close_matches(kind, [*CONVERTERS, "ext"], n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(CONVERTERS)}, ext"
        raise RouteError(f"pattern {pattern!r}: unknown type {kind!r}; {hint}")
    return Converter(kind.removeprefix("^").removesuffix("$"), str, _REGEX_RANK)


def _first_segment(parts: list[str | _Parameter]) -> str | None:
    """The first segment when it is literal as a whole, else None."""
    first = parts[0]
    assert isinstance(first, str)
    segment, slash, _ = first[1:].partition("/")
    return segment if slash or len(parts) == 1 else None


def _rank(parts: list[str | _Parameter]) -> tuple[int, ...]:
    """One number a segment: 0 for literal text, else the converter's rank."""
    ranks = [0]
    for part in parts:
        if isinstance(part, str):
            ranks.extend([0] * part.count("/"))
        else:
            ranks[-1] = max(ranks[-1], part.converter.rank)
    return tuple(ranks)


def _shape(parts: list[str | _Parameter], strict_slashes: bool) -> str:
    text = "".join(
        re.escape(part) if isinstance(part, str) else f"({part.converter.regex})" for part in parts
    )
    return text if strict_slashes else text.rstrip("/") or "/"

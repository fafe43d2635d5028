"""Where the values of parameters come from: the path, the query, the JSON body."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from trioweb.errors import BadRequest
from trioweb.http import jsoncodec
from trioweb.routing.conversion import Convert, bare, list_item, scalar, value_converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.http.request import Request

T = TypeVar("T")

Source: TypeAlias = "Callable[[Request, Any, bytes], object]"
"""Makes a value from the request, the socket and the body."""

_NOTHING = inspect.Parameter.empty


def path_source(name: str, annotation: object) -> Source | None:
    """The value of a path parameter, as its annotation wants it; None when no text becomes that."""
    convert = value_converter(annotation)
    if convert is None:
        return None

    def source(request: Request, _socket: object, _body: bytes) -> object:
        return _convert(convert, name, request.match_info[name])

    return source


def query_source(name: str, annotation: object, default: object) -> Source | None:
    """The value of a query parameter; None when the annotation is nothing that text becomes."""
    if annotation is _NOTHING:
        annotation = str if default in (None, _NOTHING) else type(default)
    item = list_item(annotation)
    if item is not None:
        return _query_list(name, item, default)
    convert = scalar(annotation)
    if convert is None:
        return None

    def source(request: Request, _socket: object, _body: bytes) -> object:
        text = request.args.get(name)
        if text is None:
            return _default(name, default)
        return _convert(convert, name, text)

    return source


def _query_list(name: str, item: Convert, default: object) -> Source:
    def source(request: Request, _socket: object, _body: bytes) -> object:
        texts = request.args.getlist(name)
        if not texts:
            # A list is shared by every call when it is the default.
            return list(default) if isinstance(default, list) else _default(name, default)
        return [_convert(item, name, text) for text in texts]

    return source


def body_source(annotation: object) -> Source | None:
    """The JSON body as a Struct, dataclass or TypedDict; None when the annotation is none."""
    kind = bare(annotation)
    if not isinstance(kind, type) or not (
        dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        # What msgspec.Struct has; only one module of trioweb imports msgspec.
        or hasattr(kind, "__struct_fields__")
    ):
        return None

    def source(_request: Request, _socket: object, body: bytes) -> object:
        try:
            return jsoncodec.decode(body, kind)
        except ValueError as exc:
            raise BadRequest(f"The body is not the JSON that was expected: {exc}") from exc

    return source


def _default(name: str, default: object) -> object:
    if default is _NOTHING:
        raise BadRequest(f"The query parameter {name!r} is missing")
    return default


def _convert(convert: Callable[[T], object], name: str, value: T) -> object:
    try:
        return convert(value)
    except ValueError as exc:
        raise BadRequest(f"The parameter {name!r} can't be {str(value)[:100]!r}") from exc

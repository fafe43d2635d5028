"""Text from a pattern or a query, converted to what an annotation asks for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin
from uuid import UUID

Convert: TypeAlias = Callable[[str], object]
"""Text to value; raises ValueError for what it refuses."""

_TRUE: Final = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"0", "false", "no", "off", "f", "n", ""})


def _bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(text)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as exc:
        raise ValueError(text) from exc


_SCALARS: Final[dict[object, Convert]] = {
    str: str,
    int: int,
    float: float,
    bool: _bool,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    time: time.fromisoformat,
    UUID: UUID,
    Decimal: _decimal,
    bytes: str.encode,
    Any: str,
    object: str,
}


def bare(annotation: object) -> object:
    """The annotation without ``Annotated`` and without the None of an Optional."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if is_union(annotation):
        members = [one for one in get_args(annotation) if one is not type(None)]
        if len(members) == 1:
            return bare(members[0])
    return annotation


def is_union(annotation: object) -> bool:
    """Whether an annotation is a Union in either notation."""
    return get_origin(annotation) in (Union, types.UnionType)


def scalar(annotation: object) -> Convert | None:
    """The converter for an annotation; None when no text can become that."""
    annotation = bare(annotation)
    try:
        if annotation in _SCALARS:
            return _SCALARS[annotation]
    except TypeError:  # unhashable, hence no scalar
        return None
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _enum(annotation)
    if get_origin(annotation) is Literal:
        return _literal(get_args(annotation))
    if is_union(annotation):
        converters = [scalar(one) for one in get_args(annotation) if one is not type(None)]
        if all(converters):
            return _first_of([one for one in converters if one is not None])
    return None


def value_converter(annotation: object) -> Callable[[object], object] | None:
    """What makes of a pattern's value, which its type has converted, what an annotation asks for.

    Returns:
        A function that raises ValueError for what it refuses; None when no text can become that.
    """
    if annotation in (inspect.Parameter.empty, Any, object):
        return lambda value: value
    convert = scalar(annotation)
    if convert is None:
        return None
    wanted = bare(annotation)
    return lambda value: value if type(value) is wanted else convert(str(value))


def list_item(annotation: object) -> Convert | None:
    """The converter for the items of a ``list[...]``; None when it is no list of scalars."""
    annotation = bare(annotation)
    if annotation is list:
        return str
    if get_origin(annotation) is list:
        return scalar(get_args(annotation)[0])
    return None


def _enum(kind: type[Enum]) -> Convert:
    by_text: dict[str, Enum] = {}
    for member in kind:
        by_text.setdefault(str(member.value), member)

    def convert(text: str) -> Enum:
        if text not in by_text:
            raise ValueError(text)
        return by_text[text]

    return convert


def _literal(values: tuple[object, ...]) -> Convert:
    by_text = {str(value): value for value in values}

    def convert(text: str) -> object:
        if text not in by_text:
            raise ValueError(text)
        return by_text[text]

    return convert


def _first_of(converters: list[Convert]) -> Convert:
    # str takes everything, so it must be asked last whatever the order in the Union.
    ordered = sorted(converters, key=lambda one: one is str)

    def convert(text: str) -> object:
        for one in ordered:
            try:
                return one(text)
            except ValueError:
                continue
        raise ValueError(text)

    return convert

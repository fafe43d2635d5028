"""Whether a value of JSON is like another one: ``expect_json(like=...)``."""

from __future__ import annotations

import re
from typing import Any


def difference(value: Any, like: Any, where: str = "") -> str | None:
    """Where a value differs from what it should be like; None: it does not.

    Args:
        value: made of JSON.
        like: a dict: each of its keys is there, and like that; others may be there as well. A list
            or tuple: as many elements, each like that. A type: of which the value is one (a bool
            is no int; an int is a float). A compiled pattern: a str that matches as a whole.
            ``...`` or ``Any``: anything. All else: itself, where 5 and 5.0 are one number.
        where: in the whole value, as in ``.people[1]``.
    """
    shown = where or "the value"
    if like is ... or like is Any:
        return None
    if isinstance(like, dict):
        return _of_dicts(value, like, where)
    if isinstance(like, (list, tuple)):
        return _of_lists(value, like, where)
    if isinstance(like, type):
        return None if _is_a(value, like) else f"{shown} is {value!r}, no {like.__name__}"
    if isinstance(like, re.Pattern):
        if isinstance(value, str) and like.fullmatch(value):
            return None
        return f"{shown} is {value!r}, which does not match {like.pattern!r}"
    return None if is_same(value, like) else f"{shown} is {value!r}, not {like!r}"


def _of_dicts(value: Any, like: dict[Any, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where or 'the value'} is {value!r}, no object"
    for key, wanted in like.items():
        if key not in value:
            return f"{where}.{key} is missing"
        found = difference(value[key], wanted, f"{where}.{key}")
        if found is not None:
            return found
    return None


def _of_lists(value: Any, like: list[Any] | tuple[Any, ...], where: str) -> str | None:
    shown = where or "the value"
    if not isinstance(value, list):
        return f"{shown} is {value!r}, no array"
    if len(value) != len(like):
        return f"{shown} has {len(value)} elements, not {len(like)}"
    for index, (one, wanted) in enumerate(zip(value, like, strict=True)):
        found = difference(one, wanted, f"{where}[{index}]")
        if found is not None:
            return found
    return None


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def is_same(value: Any, other: Any) -> bool:
    """Whether two values are the same JSON; unlike in Python, ``True`` is not ``1``."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(
            is_same(value[key], other[key]) for key in value
        )
    if isinstance(value, list) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(is_same, value, other))
    return bool(value == other)

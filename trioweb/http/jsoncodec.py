"""JSON for requests, responses and messages.

This is the only module that imports msgspec. Its releases lag behind new Pythons, so the standard
library's json is the way out when it is missing: slower, and it can't validate types.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

try:
    import msgspec
except ImportError:  # pragma: no cover - the fallback's functions are tested by themselves
    msgspec = None  # type: ignore[assignment]
else:
    _encoder = msgspec.json.Encoder()
    _decoder = msgspec.json.Decoder()


def _fallback_default(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} can't be encoded as JSON")


def encode_fallback(value: Any) -> bytes:
    """Encode with the standard library."""
    return json.dumps(
        value, default=_fallback_default, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def decode_fallback(data: bytes | bytearray | memoryview | str, type: Any = Any) -> Any:  # noqa: A002
    """Decode with the standard library, which can validate nothing but plain classes.

    Raises:
        ValueError: the data is not JSON, or not of the type.
        TypeError: the type needs msgspec.
    """
    text = data if isinstance(data, str) else bytes(data).decode()
    value = json.loads(text)
    if type is Any or type is object:
        return value
    if type not in (dict, list, str, int, float, bool):
        raise TypeError(f"validating {type!r} needs msgspec: pip install msgspec")
    if not isinstance(value, type):
        raise ValueError(f"Expected `{type.__name__}`, got `{value.__class__.__name__}`")
    return value


def encode(value: Any) -> bytes:
    """Encode a value as JSON.

    Raises:
        TypeError: the value, or a part of it, has no JSON form.
    """
    if msgspec is None:
        return encode_fallback(value)
    return _encoder.encode(value)


def decode(data: bytes | bytearray | memoryview | str, type: Any = Any) -> Any:  # noqa: A002
    """Decode JSON, validated against a type where one is given.

    Args:
        data: UTF-8 bytes or text.
        type: what msgspec can validate: a Struct, dataclass, TypedDict, ``list[int]`` …

    Raises:
        ValueError: the data is not JSON, or not of the type; the message names the place.
    """
    try:
        if msgspec is None:
            return decode_fallback(data, type)
        if type is Any:
            return _decoder.decode(data)
        return msgspec.json.decode(data, type=type)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def is_jsonable_object(value: object) -> bool:
    """Whether a value is an object or array that a message or an answer turns into JSON.

    Strings, bytes and numbers have forms of their own and are not.
    """
    if isinstance(value, dict | list | tuple):
        return True
    if msgspec is not None and isinstance(value, msgspec.Struct):
        return True
    return dataclasses.is_dataclass(value) and not isinstance(value, type)

"""JSON by msgspec and by the way out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from trioweb.http import jsoncodec

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Move(msgspec.Struct):
    to: int


@pytest.mark.parametrize("encode", [jsoncodec.encode, jsoncodec.encode_fallback])
def test_both_encoders_write_the_same(encode: Callable[[Any], bytes]) -> None:
    assert encode({"a": [1, None, "ü"], "p": Point(1, 2)}) == (
        '{"a":[1,null,"ü"],"p":{"x":1,"y":2}}'.encode()
    )
    with pytest.raises(TypeError):
        encode(object())


@pytest.mark.parametrize("decode", [jsoncodec.decode, jsoncodec.decode_fallback])
def test_both_decoders_read_the_same(decode: Callable[..., Any]) -> None:
    assert decode(b'{"a": 1}') == decode('{"a": 1}') == {"a": 1}
    assert decode(b"[1]", list) == [1]
    for bad in (b"", b"{", b"\xff", "nope"):
        with pytest.raises(ValueError, match=r"."):
            decode(bad)
    with pytest.raises(ValueError, match="Expected"):
        decode(b"[1]", dict)


def test_types_are_validated() -> None:
    assert jsoncodec.decode(b'{"to": 3}', Move) == Move(3)
    with pytest.raises(ValueError, match="to"):
        jsoncodec.decode(b'{"to": "x"}', Move)
    with pytest.raises(TypeError, match="msgspec"):
        jsoncodec.decode_fallback(b"{}", Move)


def test_deep_nesting_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="deep"):
        jsoncodec.decode(b"[" * 100_000)


def test_objects_and_arrays_are_jsonable() -> None:
    values: list[object] = [{}, [], (), Point(1, 2), Move(1)]
    for value in values:
        assert jsoncodec.is_jsonable_object(value)
    for other in ("s", b"b", 1, None, Point, Move, object()):
        assert not jsoncodec.is_jsonable_object(other)

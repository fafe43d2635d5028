"""Tests of trioweb/ws/mask.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioweb.ws.mask import apply_mask, rotate_mask, xor_mask

MASKS = st.binary(min_size=4, max_size=4)


@given(st.binary(max_size=300), MASKS)
def test_the_fast_mask_equals_the_fallback(data: bytes, mask: bytes) -> None:
    """Which of the two is in use can't be told from the result."""
    expected = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    for source in (data, bytearray(data), memoryview(data)):
        assert apply_mask(source, mask) == xor_mask(source, mask) == expected


@given(st.binary(max_size=50), MASKS)
def test_masking_twice_gives_the_data_back(data: bytes, mask: bytes) -> None:
    """XOR is its own inverse."""
    assert xor_mask(xor_mask(data, mask), mask) == data


@given(st.binary(max_size=50), MASKS, st.integers(0, 50))
def test_a_rotated_mask_continues_where_the_first_part_ended(
    data: bytes, mask: bytes, cut: int
) -> None:
    """A frame may be masked in parts."""
    parts = apply_mask(data[:cut], mask) + apply_mask(
        data[cut:], rotate_mask(mask, len(data[:cut]))
    )
    assert parts == apply_mask(data, mask)


@pytest.mark.parametrize("mask", [b"", b"abc", b"abcde"])
def test_a_mask_of_another_length_is_refused(mask: bytes) -> None:
    """Four bytes, in both implementations."""
    for function in (apply_mask, xor_mask):
        with pytest.raises(ValueError, match="mask"):
            function(b"data", mask)

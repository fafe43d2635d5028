"""Masks and unmasks payloads, at the speed of C where it can be had.

``websockets.speedups.apply_mask`` was chosen: against wsaccel's ``XorMaskerSimple`` it takes a
third of the time for 10-125 bytes (0.09 µs to 0.30), a 29th for 64 KiB (1.25 µs to 36) and a 27th
for 1 MiB; the big-int XOR below takes 4, 130 and 160 times as long as it
(``tests/benchmarks/codec.py``). It is one C file without dependencies. Where no wheel exists (PyPy,
where an extension would be slow anyway) the big-int XOR stands in; a test keeps the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Data = bytes | bytearray | memoryview


def xor_mask(data: Data, mask: bytes) -> bytes:
    """Apply ``mask`` by one XOR of two big integers.

    Args:
        data: any number of bytes.
        mask: 4 bytes; applied from the first byte of ``data`` on.

    Returns:
        The masked bytes; applying the same mask again gives ``data``.

    Source:
        RFC 6455 §5.3
    """
    if len(mask) != 4:
        # The same error as the C function's.
        raise ValueError(f"mask must contain 4 bytes, got {len(mask)}")
    size = len(data)
    pattern = mask * (size // 4) + mask[: size % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(
        size, "little"
    )


apply_mask: Callable[[Data, bytes], bytes]
try:
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = xor_mask


def rotate_mask(mask: bytes, offset: int) -> bytes:
    """Return the mask for data that begins ``offset`` bytes into its frame."""
    shift = offset & 3
    return mask[shift:] + mask[:shift] if shift else mask

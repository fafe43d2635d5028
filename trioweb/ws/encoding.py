"""Encodes the frames of RFC 6455, and names their opcodes. Sans-I/O."""

from __future__ import annotations

from typing import Final

from trioweb.ws.close import NO_STATUS, check_code, cut_reason
from trioweb.ws.mask import apply_mask

# Opcodes (RFC 6455 §5.2).
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
RSV: Final = 0x70
"""The three reserved bits."""
RSV1: Final = 0x40
"""Marks the first frame of a compressed message (RFC 7692 §6)."""

MAX_CONTROL_BYTES: Final = 125
"""RFC 6455 §5.5."""

MAX_HEADER_SIZE: Final = 14
"""Of a masked frame with a length of eight bytes."""

OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

_SHORT_HEADERS: Final = {
    opcode: tuple(bytes((FIN | opcode, size)) for size in range(126))
    for opcode in (*OPCODES, RSV1 | TEXT, RSV1 | BINARY)
}


def encode_header(opcode: int, length: int, *, fin: bool = True) -> bytes:
    """Encode the header of an unmasked frame; exactly ``length`` payload bytes must follow it.

    Source:
        RFC 6455 §5.2
    """
    return _encode_header(opcode | FIN if fin else opcode, length, 0)


def _encode_header(first: int, length: int, mask_bit: int) -> bytes:
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")


def encode_frame(
    opcode: int,
    payload: bytes | bytearray | memoryview,
    *,
    fin: bool = True,
    mask: bytes | None = None,
) -> bytes:
    """Encode one frame.

    Args:
        opcode: one of this module's constants, with RSV1 for a compressed message.
        payload: bytes, contiguous; a memoryview has to be one of bytes.
        fin: whether the message ends with this frame.
        mask: 4 random bytes for a client's frame, None for a server's.
    """
    size = len(payload)
    if mask is not None:
        header = _encode_header(opcode | FIN if fin else opcode, size, 0x80)
        return header + mask + apply_mask(payload, mask)
    if size < 126 and fin:
        return _SHORT_HEADERS[opcode][size] + payload
    return _encode_header(opcode | FIN if fin else opcode, size, 0) + payload


def encode_close(code: int = NO_STATUS, reason: str = "", *, mask: bytes | None = None) -> bytes:
    """Encode a Close frame; 1005 is one without a code, the answer to a peer's without one.

    Args:
        code: 1005, or one that may be sent.
        reason: cut to 123 bytes of UTF-8.
        mask: as for ``encode_frame``.

    Raises:
        ValueError: the code can't be sent.
    """
    payload = b""
    if code != NO_STATUS:
        payload = check_code(code).to_bytes(2, "big") + cut_reason(reason).encode()
    return encode_frame(CLOSE, payload, mask=mask)

"""Frames as a test sees them on the wire (RFC 6455 §5.2): whatever they are, valid or not."""

from __future__ import annotations

import enum
from typing import NamedTuple

from trioweb.ws.encoding import encode_frame
from trioweb.ws.mask import apply_mask


class Opcode(enum.IntEnum):
    """What a frame is; others are reserved."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Frame(NamedTuple):
    """One frame.

    Attributes:
        opcode: an `Opcode`, or one of the reserved numbers up to 15.
        payload: unmasked.
        fin: whether its message ends with it.
        rsv: the three reserved bits, 0 to 7.
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    @property
    def is_control(self) -> bool:
        """Whether it is a close, a ping, a pong or one of the reserved control frames."""
        return self.opcode >= Opcode.CLOSE

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 if it has none.

        Raises:
            ValueError: it is no close frame.
        """
        if self.opcode != Opcode.CLOSE:
            raise ValueError(f"{self!r} is no close frame")
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005

    @property
    def text(self) -> str:
        """The payload as UTF-8; of a close frame its reason. What is not UTF-8 is escaped."""
        payload = self.payload[2:] if self.opcode == Opcode.CLOSE else self.payload
        return payload.decode(errors="backslashreplace")

    def encode(self) -> bytes:
        """Encode it as a client's frame, masked with zeros, so that its payload can be read."""
        return encode_frame(self.opcode | self.rsv << 4, self.payload, fin=self.fin, mask=bytes(4))


class FrameReader:
    """Splits the bytes of one direction into frames, from the end of the handshake on."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[Frame, bytes]]:
        """Take some bytes: the frames that are whole now, each with its bytes."""
        self._data += data
        frames = []
        while (size := self._size()) is not None:
            raw = bytes(self._data[:size])
            del self._data[:size]
            frames.append((_decode(raw), raw))
        return frames

    def _size(self) -> int | None:
        """The size of the first frame; None if it is not whole."""
        data = self._data
        if len(data) < 2:
            return None
        start = _payload_start(data)
        if len(data) < start:
            return None
        length = data[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(data[2 : 4 if length == 126 else 10], "big")
        return start + length if len(data) >= start + length else None


def _payload_start(data: bytes | bytearray) -> int:
    length = data[1] & 0x7F
    return 2 + (0, 2, 8)[(length >= 126) + (length == 127)] + (4 if data[1] & 0x80 else 0)


def _decode(raw: bytes) -> Frame:
    start, opcode = _payload_start(raw), raw[0] & 0x0F
    payload = raw[start:]
    return Frame(
        Opcode(opcode) if opcode in _KNOWN else opcode,
        apply_mask(payload, raw[start - 4 : start]) if raw[1] & 0x80 else payload,
        bool(raw[0] & 0x80),
        raw[0] >> 4 & 7,
    )


_KNOWN = frozenset(Opcode)

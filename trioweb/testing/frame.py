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
    """Splits the bytes of one direction into frames, once the handshake's head has passed."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._is_in_head = True

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take some bytes: the frames that are whole now."""
        self._data += data
        if self._is_in_head:
            _, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return []
            self._data, self._is_in_head = rest, False
        frames = []
        while (frame := self._take()) is not None:
            frames.append(frame)
        return frames

    def _take(self) -> Frame | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        mask = b""
        if data[1] & 0x80:
            mask = bytes(data[start : start + 4])
            start += 4
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        first = data[0]
        del data[: start + size]
        opcode = first & 0x0F
        return Frame(
            Opcode(opcode) if opcode in _KNOWN else opcode,
            apply_mask(payload, mask) if mask else payload,
            bool(first & 0x80),
            first >> 4 & 7,
        )


_KNOWN = frozenset(Opcode)

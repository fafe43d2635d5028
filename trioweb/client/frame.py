"""Frames as they are on the wire (RFC 6455 §5.2), valid or not."""

from __future__ import annotations

import enum
from typing import NamedTuple

from trioweb.ws.encoding import MAX_CONTROL_BYTES, encode_frame
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
    """Splits the bytes of one direction into frames, from the end of the handshake on.

    Bytes come out as soon as they are known to belong to a frame. Only heads are held back until
    they are whole, and control frames: so one of those can be left out.

    Args:
        keep: of a frame's payload, how many bytes the `Frame` has, which is all that is held of a
            large one; at least 125, so that control frames are whole; None keeps all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._held = bytearray()
        # Of the frame that is coming out: what the Frame is made of and its limit, and what is
        # still to come.
        self._kept = bytearray()
        self._room = self._left = 0

    def feed(self, data: bytes) -> list[tuple[bytes, Frame | None]]:
        """Take some bytes.

        Returns:
            All bytes so far that are not held back, in pieces, each with the frame that it ends;
            None for a piece that is not the last one of its frame.
        """
        self._held += data
        pieces: list[tuple[bytes, Frame | None]] = []
        while self._left or self._begin():
            raw = bytes(self._held[: self._left])
            if not raw:
                break
            del self._held[: len(raw)]
            self._left -= len(raw)
            self._kept += raw[: self._room - len(self._kept)]
            frame = None if self._left else _decode(bytes(self._kept))
            pieces.append((raw, frame))
        return pieces

    def _begin(self) -> bool:
        """Begin the next frame; False if that has to wait for more bytes."""
        data = self._held
        if len(data) < 2 or len(data) < (start := _payload_start(data)):
            return False
        length = data[1] & 0x7F
        # RFC 6455 §5.5: a longer control frame is a mistake, which nobody has to wait for.
        is_control = bool(data[0] & 0x08) and length <= MAX_CONTROL_BYTES
        if length >= 126:
            length = int.from_bytes(data[2 : 4 if length == 126 else 10], "big")
        if is_control and len(data) < start + length:
            return False
        self._kept.clear()
        self._left = start + length
        self._room = self._left if self._keep is None else start + self._keep
        return True


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

"""Reads the frames of RFC 6455: bytes to control frames and pieces of messages. Sans-I/O.

Theory of operation. Reading has two levels, because control frames must never wait for the
application while messages may have to:

* ``Scanner.feed`` (here) walks over all that one read brought. It applies every rule that a header
  alone can break (reserved bits, opcodes, order of fragments, masking, lengths, the size limit),
  returns the control frames, and stores the data frames as *pieces*, still masked.
* ``Decoder`` (``messages.py``) unmasks and validates pieces, and makes messages of them.

A piece is ``(kind, mask, payload)``. Its kind is the first byte of a frame: an opcode, FIN when
the message ends with it, and RSV1 when a compressed one begins. What has come of an unfinished
frame gathers in ``_incoming``; a reader that has nothing better to do takes that as if it were a
fragment, and what follows is a CONTINUATION with the mask rotated. So work and memory are linear in
the bytes, however they were split, and text is validated as it comes.

Errors never raise: ``failure`` is set, what lies behind it on the wire is not parsed, and the
complete messages before it can still be taken.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from trioweb.errors import InvalidMessage, MessageTooBig, ProtocolError, WebSocketException
from trioweb.ws.close import NO_STATUS, is_wire_code
from trioweb.ws.encoding import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    MAX_CONTROL_BYTES,
    OPCODES,
    PING,
    PONG,
    RSV,
    RSV1,
    TEXT,
    encode_close,
    encode_frame,
    encode_header,
)
from trioweb.ws.mask import apply_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Close",
    "Control",
    "Ping",
    "Pong",
    "Scanner",
    "encode_close",
    "encode_frame",
    "encode_header",
]

MIN_FRAGMENT_COST: Final = 64
"""What a fragment counts at least against the size limit.

A flood of empty fragments costs us work for each frame; so it ends by the one limit that there is.
"""

WHOLE: Final = frozenset((FIN | TEXT, FIN | BINARY))
"""The kinds of a piece that is a message of its own."""

WHOLE_COMPRESSED: Final = frozenset((FIN | RSV1 | TEXT, FIN | RSV1 | BINARY))
"""Those of a piece that is a compressed message of its own."""

ANY_WHOLE: Final = WHOLE | WHOLE_COMPRESSED
"""Those of all pieces that are not fragments."""

_NO_PIECES: Final[deque[tuple[int, bytes, bytes | bytearray]]] = deque(maxlen=0)
"""Of a peer that sends no messages, as those who only listen: can't be filled.

An empty deque is as large as one with 64 messages.
"""

_DATA: Final = frozenset((TEXT, BINARY))


FRAMES_AT_ONCE: Final = 2048
"""How many fragments and control frames are looked through at once, which takes some 10 ms."""


class Ping(NamedTuple):
    """A ping to answer with a pong of the same data."""

    data: bytes


class Pong(NamedTuple):
    """A pong."""

    data: bytes


class Close(NamedTuple):
    """The peer's Close; the code is 1005 when the frame had none."""

    code: int
    reason: str


Control = Ping | Pong | Close


class Scanner:
    """Turns a peer's bytes into control frames and pieces of messages.

    Args:
        max_size: bytes of one message; each frame of a fragmented message counts as 64 at least.
        masked: whether frames must be masked (a client's must) or must not be (a server's).
        compressed: whether a message may be compressed. What it may have on the wire is bounded
            here; what it has when it is inflated, where that is done.

    Attributes:
        failure: why the wire can't be read on, once that is found. Take all messages first:
            a message that lies before the failure may itself turn out to be invalid, and that,
            being first on the wire, is then the failure.
        has_close: a Close frame has come; everything behind it is ignored.
        buffered: payload bytes held, of messages that have not been taken; and 64 for each
            fragment of them, since those cost memory however little is in them.
        has_more: there was more than could be looked through at once; feed ``b""``, soon.
        waiting: how many complete messages there are; one may still prove to be invalid.
        other_frames: how many frames have begun that were no small message of their own: control
            frames, fragments, large ones.
    """

    __slots__ = (
        "_cost",
        "_deaf",
        "_forbidden",
        "_fragmented",
        "_head",
        "_incoming",
        "_incoming_fin",
        "_incoming_kind",
        "_incoming_mask",
        "_is_discarding",
        "_limit",
        "_mask_bit",
        "_need",
        "_pieces",
        "_rest",
        "_small",
        "_whole",
        "buffered",
        "failure",
        "has_close",
        "has_more",
        "max_size",
        "other_frames",
        "waiting",
    )

    def __init__(self, max_size: int, *, masked: bool = True, compressed: bool = False) -> None:
        self.max_size = max_size
        self.failure: WebSocketException | None = None
        self.has_close = False
        self.has_more = False
        self.buffered = 0
        self.other_frames = 0
        self._mask_bit = FIN if masked else 0
        self._head = 6 if masked else 2  # bytes of the shortest header
        self._small = min(MAX_CONTROL_BYTES, max_size)  # a message up to this takes the fast way
        self._deaf = False  # failed or closed: nothing more is parsed
        self._rest = b""  # what was not looked through: 131 bytes at most unless has_more
        self._fragmented = False  # the next data frame has to be a CONTINUATION
        self._cost = 0  # what the fragmented message has used of its limit
        self._limit = max_size  # of the message in progress
        self._forbidden = RSV ^ RSV1 if compressed else RSV
        self._whole = ANY_WHOLE if compressed else WHOLE
        self._is_discarding = False
        # The data frame that is coming in, less what a reader has taken of it.
        self._need = 0  # payload bytes that are still to come
        self._incoming: bytes | bytearray = b""
        self._incoming_kind = CONTINUATION
        self._incoming_mask = b""
        self._incoming_fin = 0
        # What has come and was not read.
        self._pieces = _NO_PIECES
        self.waiting = 0  # how many pieces end a message

    def feed(self, data: bytes) -> Sequence[Control]:
        """Take bytes from the peer; never raises.

        Answer the returned control frames, then call ``next_message`` until it returns None, even
        if it is known that nothing is complete (that validates text early), then look at
        ``failure``.

        Args:
            data: what one read brought.

        Returns:
            All control frames in it, in order, whatever messages lie between them; of a flood of
            frames those that ``FRAMES_AT_ONCE`` allows (``has_more``).
        """
        if self._deaf:
            return ()
        if self._need:
            data = self._feed_frame(data)
        if self._rest:
            data = self._rest + data
            self._rest = b""
        controls: list[Control] = []
        head, small, mask_bit, pieces = self._head, self._small, self._mask_bit, self._pieces
        whole = self._whole
        self.has_more = False
        enough = self.other_frames + FRAMES_AT_ONCE
        pos, end = 0, len(data)
        try:
            while end - pos >= 2:
                first = data[pos]
                size = data[pos + 1] ^ mask_bit
                stop = (start := pos + head) + size
                # The fast way: a small unfragmented message, all of it here.
                if size <= small and first in whole and stop <= end and not self._fragmented:
                    if pieces is _NO_PIECES:
                        pieces = self._begin_pieces()
                    pieces.append((first, data[pos + 2 : start], data[start:stop]))
                    self.waiting += 1
                    self.buffered += size
                    pos = stop
                    continue
                taken = self._take_frame(data, pos, controls)
                if not taken:
                    break
                pos += taken
                if self._deaf:
                    return controls
                if self.other_frames >= enough:
                    self.has_more = pos < end
                    break
        except WebSocketException as failure:
            self._deaf = True
            self.failure = failure.with_traceback(None)
            return controls
        if pos < end:
            self._rest = data[pos:]
        return controls

    # Scanning

    def _take_frame(self, data: bytes, pos: int, controls: list[Control]) -> int:
        """Take the frame at ``pos``, as far as it has come; 0 if its header has not."""
        self.other_frames += 1
        first, size = data[pos], data[pos + 1] ^ self._mask_bit
        self._check_start(first, size)
        opcode, fin = first & 0x0F, first & FIN
        available = len(data) - pos
        head = self._head
        if size >= 126:
            extra = 2 if size == 126 else 8
            if available < 2 + extra:
                return 0
            least = 126 if extra == 2 else 65536
            size = int.from_bytes(data[pos + 2 : pos + 2 + extra], "big")
            if not least <= size < 1 << 63:
                raise ProtocolError(
                    f"length {size} is not encoded in the fewest bytes, or negative"
                )
            head += extra
        if opcode & 8:
            if available < head + size:
                return 0
            self._take_control(opcode, data[pos : pos + head + size], head, controls)
            return head + size
        cost = size
        if not fin or self._fragmented:
            cost = self._cost + max(size, MIN_FRAGMENT_COST)
        if not self._fragmented:
            self._limit = self.max_size + _growth(self.max_size) if first & RSV1 else self.max_size
        if cost > self._limit:
            raise MessageTooBig(f"message of {cost} bytes or more exceeds {self.max_size} bytes")
        if available < head:
            return 0
        self._fragmented = not fin
        self._cost = 0 if fin else cost
        start = pos + head
        mask = data[start - 4 : start] if self._mask_bit else b""
        if self._is_discarding:
            got = min(size, len(data) - start)
            self._need = size - got
            return head + got
        payload = data[start : start + size]
        got = len(payload)
        self.buffered += got
        if got == size:
            self._store(first, mask, payload)
        else:
            self._need = size - got
            self._incoming = payload
            self._incoming_kind, self._incoming_mask, self._incoming_fin = first ^ fin, mask, fin
        return head + got

    def rest(self) -> None:
        """Hold no place for what may come: the peer has been silent for a while."""
        if not self._pieces:
            self._pieces = _NO_PIECES

    def _begin_pieces(self) -> deque[tuple[int, bytes, bytes | bytearray]]:
        """Return the pieces, to be added to."""
        if self._pieces is _NO_PIECES:
            self._pieces = deque()
        return self._pieces

    def _store(self, kind: int, mask: bytes, payload: bytes | bytearray) -> None:
        """Store a piece whose payload is counted already."""
        self._begin_pieces().append((kind, mask, payload))
        self.waiting += kind >> 7
        if kind not in ANY_WHOLE:
            self.buffered += MIN_FRAGMENT_COST

    def _check_start(self, first: int, size: int) -> None:
        """Apply the rules that the first two bytes of a frame can break."""
        opcode = first & 0x0F
        if first & self._forbidden:
            raise ProtocolError("reserved bits are set, and no extension was negotiated")
        if opcode not in OPCODES:
            raise ProtocolError(f"unknown opcode {opcode:#x}")
        if first & RSV1 and opcode not in _DATA:
            raise ProtocolError("reserved bits are set where no message begins")
        if size > 127:
            raise ProtocolError("frame is not masked" if self._mask_bit else "frame is masked")
        if opcode & 8:
            if not first & FIN:
                raise ProtocolError("control frame is fragmented")
            if size > MAX_CONTROL_BYTES:
                raise ProtocolError("control frame is longer than 125 bytes")
        elif self._fragmented:
            if opcode:
                raise ProtocolError("new message before the fragmented one has ended")
        elif not opcode:
            raise ProtocolError("continuation frame without a message to continue")

    def _take_control(self, opcode: int, frame: bytes, head: int, controls: list[Control]) -> None:
        """Decode a complete control frame."""
        data = frame[head:]
        if self._mask_bit:
            data = apply_mask(data, frame[head - 4 : head])
        if opcode == PING:
            controls.append(Ping(data))
        elif opcode == PONG:
            controls.append(Pong(data))
        else:
            controls.append(_decode_close(data))
            self.has_close = self._deaf = True

    def _feed_frame(self, data: bytes) -> bytes:
        """Add to the data frame that is coming in; return what lies behind it."""
        need = self._need
        if self._is_discarding:
            self._need = max(0, need - len(data))
            return data[need:]
        chunk = data if len(data) <= need else data[:need]
        got = len(chunk)
        if self._incoming:
            if isinstance(self._incoming, bytes):
                self._incoming = bytearray(self._incoming)
            self._incoming += chunk
        else:
            # What is taken after each read is never copied to gather.
            self._incoming = chunk
        self._need = need - got
        self.buffered += got
        if got < need:
            return b""
        kind = self._incoming_kind | self._incoming_fin
        self._store(kind, self._incoming_mask, self._incoming)
        self._incoming = b""
        return data[got:]


def _growth(size: int) -> int:
    """Return how much larger a message may be when it is compressed.

    An eighth at most, if all of it takes 9 bits a byte; fragments that are flushed take a few bytes
    more each.
    """
    return size // 4 + MIN_FRAGMENT_COST


def _decode_close(data: bytes) -> Close:
    """Decode a Close frame's payload.

    Source:
        RFC 6455 §5.5.1, §7.4
    """
    if not data:
        return Close(NO_STATUS, "")
    if len(data) == 1:
        raise ProtocolError("close frame of one byte")
    code = int.from_bytes(data[:2], "big")
    if not is_wire_code(code):
        raise ProtocolError(f"close code {code} is not allowed on the wire")
    try:
        return Close(code, data[2:].decode())
    except UnicodeDecodeError:
        raise InvalidMessage("close reason is not valid UTF-8") from None

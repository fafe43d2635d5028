"""Compresses and inflates messages as permessage-deflate has it. Sans-I/O.

Theory of operation. A message is compressed by itself, or with takeover against what the same
direction said before. By itself it needs no compressor of its own: one that all connections of an
event loop share is emptied after each message by a full flush, which costs a sixth of what a new
compressor does. With takeover each connection has its own, made at first use.

Inflating is where hostile input comes in. Three things are bounded: what is inflated (zlib is
never asked for more than what may still come), how many deflate streams a message consists of, and
how much input zlib is given at once, since it copies what it has left whenever it stops.

Source: RFC 7692 §7.2.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Protocol

from trioweb.errors import InvalidMessage, MessageTooBig
from trioweb.ws.extensions import CONTEXT_BITS

if TYPE_CHECKING:
    from trioweb.ws.extensions import Agreement

try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None  # type: ignore[assignment]

TAIL: Final = b"\x00\x00\xff\xff"
"""What a flush ends with; a message goes without it (RFC 7692 §7.2.1)."""

EMPTY: Final = b"\x00"
"""A compressed message of nothing, and the last fragment of one (RFC 7692 §7.2.3.6)."""

LEVEL: Final = 3
"""The level of zlib for everything.

It is the fastest on JSON of 1 KiB (11.7 µs; level 1 takes 12.0, level 6 13.6), and its output is 2%
larger than level 6's (30.1% of the input to 29.5%). With takeover in 12 bits it takes 11.5 µs to
level 6's 20 and more (25.4% to 24.1%).
"""

MEMORY_LEVEL: Final = 5
"""16 KiB, with 16 KiB for a window of 12 bits; no worse than zlib's 8 there, and faster."""

MAX_STREAMS: Final = 64
"""How many deflate streams a message may consist of.

Compressors that end their stream with a message make one, and nobody makes many; a flood of empty
ones, two bytes each, costs us a new inflater each.
"""

_SLICE: Final = 4096
"""Input for zlib at once, of which it copies what is left each time that its output is full."""

_FINAL: Final = b"\x03\x00"  # an empty last block


class Compressor(Protocol):
    """One of zlib's, or of a library that is like it."""

    def compress(self, data: bytes, /) -> bytes: ...  # noqa: D102
    def flush(self, mode: int = ..., /) -> bytes: ...  # noqa: D102


class Compressors:
    """Compresses messages by themselves, for all connections of one event loop.

    Where ISA-L is installed (the extra ``isal``) it does that: in half the time for JSON of 1 KiB,
    a fifth for 64 KiB, and into no more.

    Args:
        use_isal: whether it may.
    """

    def __init__(self, *, use_isal: bool = True) -> None:
        self._isal = isal_zlib if use_isal else None
        self._idle: dict[int, Compressor] = {}

    def compress(self, payload: bytes, bits: int) -> bytes:
        """Compress a message so that it can be inflated alone.

        Args:
            payload: of the whole message.
            bits: of the window that the receiver has, 9-15.

        Source:
            RFC 7692 §7.2.1
        """
        if not payload:
            return EMPTY
        # Taken out meanwhile: should anything stop this half way, what is left of one peer's
        # message in the compressor must not go to another.
        compressor = self._idle.pop(bits, None)
        if compressor is None:
            compressor = self._make(bits)
        data = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
        self._idle[bits] = compressor
        return data[:-4]

    def _make(self, bits: int) -> Compressor:
        if self._isal is None:
            return zlib.compressobj(LEVEL, zlib.DEFLATED, -bits)
        fast: Compressor = self._isal.compressobj(1, zlib.DEFLATED, -bits)
        return fast


class DeflateStream:
    """Compresses one fragmented message; made by ``Deflater.begin``."""

    def __init__(self, compressor: zlib._Compress) -> None:
        self._compressor = compressor

    def part(self, data: bytes) -> bytes:
        """Compress a fragment, such that the receiver can inflate all of it at once."""
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """Return the last fragment's payload."""
        return EMPTY


class Deflater:
    """Compresses what one connection sends.

    Args:
        agreement: what was negotiated.
        threshold: bytes; smaller messages go plain.
        compressors: those of the event loop.

    Attributes:
        bits: of our window, 9-15.
        takeover: whether messages refer to earlier ones.
    """

    __slots__ = ("_compressor", "_compressors", "_threshold", "bits", "takeover")

    def __init__(self, agreement: Agreement, threshold: int, compressors: Compressors) -> None:
        self.bits = agreement.server_bits
        self.takeover = agreement.server_takeover
        self._threshold = threshold
        self._compressors = compressors
        self._compressor: zlib._Compress | None = None

    def compress(self, payload: bytes) -> bytes | None:
        """Compress a whole message; with takeover the result has to be sent, and in this order.

        Returns:
            None if the message should go plain: it is small, or (without takeover) compressing
            gains nothing.
        """
        if len(payload) < self._threshold:
            return None
        if not self.takeover:
            data = self._compressors.compress(payload, self.bits)
            return data if len(data) < len(payload) else None
        compressor = self._get_compressor()
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[:-4] or EMPTY

    def begin(self) -> DeflateStream:
        """Begin a fragmented message.

        With takeover nothing else may be compressed until its end; without, anything may.
        """
        return DeflateStream(self._get_compressor() if self.takeover else self._make_compressor())

    def _get_compressor(self) -> zlib._Compress:
        if self._compressor is None:
            self._compressor = self._make_compressor()
        return self._compressor

    def _make_compressor(self) -> zlib._Compress:
        # A window may always be smaller than agreed; this one is there for as long as a peer likes.
        bits = min(self.bits, CONTEXT_BITS)
        return zlib.compressobj(LEVEL, zlib.DEFLATED, -bits, MEMORY_LEVEL)


class Inflater:
    """Inflates what one connection receives, and never more than a message may have.

    A whole message is inflated by ``inflate``. Of one that comes in pieces each is given to
    ``feed`` and taken by ``read`` until that has given all. After an exception the inflater can't
    be used any more.

    Args:
        max_size: bytes of a message when it is inflated.
        takeover: whether messages refer to earlier ones.
        bits: of the peer's window, 8-15.
    """

    __slots__ = (
        "_bits",
        "_ended_streams",
        "_input",
        "_is_filled",
        "_is_last",
        "_pos",
        "_size",
        "_slice",
        "_stream",
        "max_size",
        "takeover",
    )

    def __init__(self, max_size: int, *, takeover: bool, bits: int) -> None:
        self.max_size = max_size
        self.takeover = takeover
        # Old zlibs use 9 bits where they say 8.
        self._bits = -max(bits, 9)
        self._stream: zlib._Decompress | None = None
        self._size = 0  # of the message so far
        self._ended_streams = 0
        # What was fed: all before _pos went to zlib, except what _slice still has.
        self._input = b""
        self._pos = 0
        self._slice = b""
        self._is_last = False
        self._is_filled = False  # zlib gave all that it was asked for, and may have more

    def inflate(self, data: bytes) -> bytes:
        """Inflate a whole message.

        Raises:
            InvalidMessage: it is not one that was compressed.
            MessageTooBig: it has more than ``max_size`` bytes.

        Source:
            RFC 7692 §7.2.2
        """
        stream = self._stream
        if stream is None:
            stream = zlib.decompressobj(self._bits)
            if self.takeover:
                self._stream = stream
        try:
            content = stream.decompress(data + TAIL, self.max_size + 1)
        except zlib.error:
            raise _invalid() from None
        if len(content) > self.max_size:
            raise self._too_big()
        if not stream.eof:
            self._check_end(stream)
            return content
        # Rare: there is another stream behind this one.
        parts = [content]
        self._size = len(content)
        self._is_last = True
        self._next_stream(stream.unused_data)
        self._input, self._slice, self._pos = self._slice, b"", 0
        while part := self.read(self.max_size + 1):
            parts.append(part)
        return b"".join(parts)

    def feed(self, data: bytes, last: bool) -> None:
        """Take a piece of a message; call ``read`` until it has given all.

        Args:
            data: as it came in a frame, or a part of one.
            last: whether the message ends with it.
        """
        self._input = data + TAIL if last else data
        self._pos = 0
        self._is_last = last

    def read(self, size: int) -> bytes:
        """Inflate some of what was fed.

        Args:
            size: bytes, at most; 1 or more.

        Returns:
            Less than ``size`` bytes when that was all.

        Raises:
            InvalidMessage: it is not what a compressor makes.
            MessageTooBig: the message has more than ``max_size`` bytes.
        """
        parts: list[bytes] = []
        while size:
            if not self._slice and not self._is_filled:
                if self._pos >= len(self._input):
                    self._finish()
                    break
                self._slice = self._input[self._pos : self._pos + _SLICE]
                self._pos += _SLICE
            if self._stream is None:
                self._stream = zlib.decompressobj(self._bits)
            wanted = min(size, self.max_size - self._size + 1)
            try:
                content = self._stream.decompress(self._slice, wanted)
            except zlib.error:
                raise _invalid() from None
            parts.append(content)
            size -= len(content)
            self._size += len(content)
            if self._size > self.max_size:
                raise self._too_big()
            if self._stream.eof:
                self._next_stream(self._stream.unused_data)
            else:
                self._slice = self._stream.unconsumed_tail
                self._is_filled = len(content) == wanted
        return b"".join(parts)

    def _next_stream(self, rest: bytes) -> None:
        """Go on behind a stream that has ended (RFC 7692 §7.2.3.5)."""
        self._stream = None
        self._ended_streams += 1
        if self._ended_streams > MAX_STREAMS:
            raise InvalidMessage(f"message is made of more than {MAX_STREAMS} deflate streams")
        self._slice = rest
        self._is_filled = False
        if self._is_last:
            left = len(rest) + max(0, len(self._input) - self._pos)
            if 0 < left < len(TAIL):
                # What ended the stream was not the peer's but our tail; only if all of that was
                # its last block's, the peer has taken it away there.
                raise _invalid()
            if left == len(TAIL):
                # Strictly it should have opened an empty block behind the stream.
                self._slice = self._input = b""

    def abandon(self) -> None:
        """Forget the message in progress, of which nothing more will be fed; without takeover."""
        self._input = self._slice = b""
        self._pos = self._size = self._ended_streams = 0
        self._is_last = self._is_filled = False
        self._stream = None

    def _finish(self) -> None:
        """Forget what was fed; after a message's last piece, the message."""
        self._input = b""
        self._pos = 0
        if not self._is_last:
            return
        self._is_last = False
        self._size = self._ended_streams = 0
        if self._stream is not None:
            self._check_end(self._stream)
        if not self.takeover:
            self._stream = None

    def _check_end(self, stream: zlib._Decompress) -> None:
        """Refuse a message that ends inside a block: only between blocks can a stream end."""
        if self.takeover:
            stream = stream.copy()
        try:
            stream.decompress(_FINAL)
        except zlib.error:
            raise _invalid() from None
        if not stream.eof:
            raise _invalid()

    def _too_big(self) -> MessageTooBig:
        return MessageTooBig(f"message inflates to more than {self.max_size} bytes")


def _invalid() -> InvalidMessage:
    return InvalidMessage("message can't be inflated")

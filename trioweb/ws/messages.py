"""Makes messages of the pieces that the scanner finds. Sans-I/O.

Theory of operation. A reader takes messages whole (``next_message``) or as they come
(``next_part``), and may change its mind: what has been put together of a message that is not
complete becomes the first part, and what is left of a message whose parts nobody wants is skipped.
Both stand on ``_pull``, which takes what comes next of the message in progress; only a whole,
unfragmented message goes a shorter way. A compressed piece stays where it is until all of it is
inflated, part by part; so it is counted for as long as it is held.

Content never raises either: ``failure`` is set, and as it lies before everything that is still
held, all of that is dropped.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trioweb.errors import InvalidMessage, WebSocketException
from trioweb.ws.encoding import BINARY, CONTINUATION, FIN, RSV1, TEXT
from trioweb.ws.frames import ANY_WHOLE, MIN_FRAGMENT_COST, WHOLE, WHOLE_COMPRESSED, Scanner
from trioweb.ws.mask import apply_mask, rotate_mask

if TYPE_CHECKING:
    from trioweb.ws.deflate import Inflater

PART_SIZE: Final = 65536
"""Inflated bytes of a part, at most: as much as one read brings of a message that goes plain."""

_WHOLE_BINARY: Final = FIN | BINARY
_NEW: Final = TEXT | BINARY  # a piece that has one of these bits begins a message
_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Part(NamedTuple):
    """A part of a message.

    Attributes:
        data: str of a text message, bytes of a binary one; empty only if the message's end brought
            nothing more.
        last: whether the message ends with it.
    """

    data: str | bytes
    last: bool


class Decoder(Scanner):
    """Turns a peer's bytes into messages, or parts of them, and control frames.

    Args:
        max_size: bytes of one message; each frame of a fragmented message counts as 64 at least.
        masked: whether frames must be masked (a client's must) or must not be (a server's).
        inflater: of this connection; None if no compression was agreed on. It has its own limit.

    Attributes:
        is_mid_message: the first part of a message was handed out, and the last one was not.
    """

    __slots__ = (
        "_held",
        "_inflater",
        "_is_compressed",
        "_is_fed",
        "_is_skipping",
        "_is_text",
        "_together",
        "_utf8",
        "is_mid_message",
    )

    def __init__(
        self, max_size: int, *, masked: bool = True, inflater: Inflater | None = None
    ) -> None:
        super().__init__(max_size, masked=masked, compressed=inflater is not None)
        self.is_mid_message = False
        self._is_skipping = False  # some of it was thrown away
        self._inflater = inflater
        self._is_fed = False  # the inflater has the first piece, and has not given all of it
        # The message in progress.
        self._is_text = False
        self._is_compressed = False
        # What next_message has put together of it, and how many bytes those were.
        self._together: list[Any] | None = None
        self._held = 0
        self._utf8: codecs.IncrementalDecoder | None = None  # within a text that is no whole piece

    def next_message(self) -> str | bytes | None:
        """Take the next complete message; what is left of one in parts is skipped first.

        Returns:
            A str for a text message, bytes for a binary one; None when none is complete, or when
            one was found invalid: see ``failure``.
        """
        pieces = self._pieces
        if pieces:
            kind, mask, payload = piece = pieces.popleft()
            if kind in WHOLE:
                # It begins a message, so none is in progress.
                self.waiting -= 1
                self.buffered -= len(payload)
                data = apply_mask(payload, mask) if mask else bytes(payload)
                if kind == _WHOLE_BINARY:
                    return data
                try:
                    return data.decode()
                except UnicodeDecodeError:
                    self._fail(_invalid_text())
                    return None
            pieces.appendleft(piece)
        elif not self._incoming:
            self._is_skipping = self.is_mid_message
            return None
        if self.is_mid_message:
            while self.is_mid_message and self.skip():
                pass
            return None if self.is_mid_message else self.next_message()
        try:
            if pieces and pieces[0][0] in WHOLE_COMPRESSED:
                return self._inflate_whole()
            return self._assemble()
        except WebSocketException as failure:
            self._fail(failure)
            return None

    def next_part(self) -> Part | None:
        """Take the next part of the message in progress, or the first of the next message.

        The latter too where some of the message in progress was skipped.

        Returns:
            What has come since the last part, cut at a character if it is text; None when nothing
            has come, or when it was found invalid: see ``failure``.
        """
        while self._is_skipping:
            if not self.skip():
                return None
        if self._together:
            held = self._take_held()
            if held:
                self.is_mid_message = True
                return Part(held, False)
        try:
            while (pulled := self._pull()) is not None:
                data, last = self._decode(*pulled), pulled[1]
                if data or last:
                    self.is_mid_message = not last
                    return Part(data, last)
        except WebSocketException as failure:
            self._fail(failure)
        return None

    def skip(self) -> int:
        """Throw away some of what is held: a piece, or as much of one as a part may hold.

        What is left of its message is to be skipped too (``is_mid_message``). It is inflated only
        where later messages refer to it.

        Returns:
            Bytes, as a measure of the work; 0 when nothing was there.
        """
        if not self._pieces:
            if not self._incoming:
                return 0
            self._take_incoming()
        self._take_held()
        kind, _, payload = piece = self._pieces[0]
        if kind & _NEW:
            self._is_compressed = bool(kind & RSV1)
        inflater = self._inflater if self._is_compressed else None
        if inflater is not None and inflater.takeover:
            try:
                pulled = self._pull()
            except WebSocketException as failure:
                self._fail(failure)
                return 0
            assert pulled is not None
            work, is_last = len(pulled[0]), pulled[1]
        else:
            self._pieces.popleft()
            self._forget(piece)
            self._is_fed = False
            work, is_last = len(payload), kind >= FIN
            if is_last and inflater is not None:
                inflater.abandon()
        self.is_mid_message = self._is_skipping = not is_last
        if is_last:
            self._utf8 = None
        return max(work, MIN_FRAGMENT_COST)

    def discard(self) -> None:
        """Keep the complete messages, and none of what is incomplete or will come.

        What comes is still held to the rules of the wire, and control frames are still found.
        """
        self._is_discarding = True
        self._small = -1  # no frame takes the fast way, which stores it
        self.buffered -= len(self._incoming)
        self._incoming = b""
        self._drop_incomplete()

    def drop_last(self, count: int) -> None:
        """Forget the newest complete messages, and keep nothing of what will come (``discard``).

        Args:
            count: of messages; if fewer are complete, all of them.
        """
        self.discard()
        keep = max(0, self.waiting - count)
        while self.waiting > keep:
            self._forget(self._pieces.pop())
            self._drop_incomplete()

    def _drop_incomplete(self) -> None:
        """Drop the pieces of a message whose end is not among them."""
        pieces = self._pieces
        while pieces and not pieces[-1][0] & FIN:
            self._forget(pieces.pop())
        if not pieces:
            self._is_fed = False
            self._take_held()

    def _forget(self, piece: tuple[int, bytes, bytes | bytearray]) -> None:
        """Count a piece no more."""
        kind, _, payload = piece
        if kind >= FIN:
            self.waiting -= 1
        self.buffered -= len(payload) + (0 if kind in ANY_WHOLE else MIN_FRAGMENT_COST)

    def _pull(self) -> tuple[bytes, bool] | None:
        """Take what comes next of the message in progress, and whether it is the last of it."""
        if not self._pieces:
            if not self._incoming:
                return None
            self._take_incoming()
        pieces = self._pieces
        kind, mask, payload = piece = pieces[0]
        if self._is_fed:
            data = b""
        else:
            if kind & _NEW:
                self._is_text = bool(kind & TEXT)
                self._is_compressed = bool(kind & RSV1)
            data = apply_mask(payload, mask) if mask else bytes(payload)
        if self._is_compressed:
            assert self._inflater is not None
            if not self._is_fed:
                self._is_fed = True
                self._inflater.feed(data, kind >= FIN)
            data = self._inflater.read(PART_SIZE)
            if len(data) == PART_SIZE:
                return data, False
            self._is_fed = False
        pieces.popleft()
        self._forget(piece)
        return data, kind >= FIN

    def _inflate_whole(self) -> str | bytes:
        """Take the next message, which is compressed and has come in one piece."""
        assert self._inflater is not None
        kind, mask, payload = piece = self._pieces.popleft()
        self._forget(piece)
        data = self._inflater.inflate(apply_mask(payload, mask) if mask else bytes(payload))
        if kind & BINARY:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _invalid_text() from None

    def _take_incoming(self) -> None:
        """Make a piece of what has come of an unfinished frame."""
        data, mask = self._incoming, self._incoming_mask
        self._store(self._incoming_kind, mask, data)
        self._incoming = b""
        self._incoming_kind = CONTINUATION
        self._incoming_mask = rotate_mask(mask, len(data))

    def _assemble(self) -> str | bytes | None:
        """Put pieces together until a message is whole."""
        while (pulled := self._pull()) is not None:
            data, last = pulled
            self._held += len(data)
            self.buffered += len(data)
            if self._together is None:
                self._together = []
            self._together.append(self._decode(data, last))
            if last:
                return self._take_held()
        return None

    def _take_held(self) -> str | bytes:
        """Take what ``_assemble`` has put together."""
        self.buffered -= self._held
        self._held = 0
        together, self._together = self._together or (), None
        return "".join(together) if self._is_text else b"".join(together)

    def _decode(self, data: bytes, last: bool) -> str | bytes:
        """Decode a part."""
        if not self._is_text:
            return data
        if self._utf8 is None:
            self._utf8 = _utf8_decoder()
        utf8 = self._utf8
        if last:
            self._utf8 = None
        try:
            return utf8.decode(data, last)
        except UnicodeDecodeError:
            raise _invalid_text() from None

    def _fail(self, failure: WebSocketException) -> None:
        """Stop at content that is invalid: it lies before everything that is still held."""
        self.failure = failure.with_traceback(None)
        self._deaf = True
        self._pieces.clear()
        self._incoming = b""
        self._is_fed = False
        self._together = None
        self.waiting = self._need = self._held = self.buffered = 0
        self._rest = b""


def _invalid_text() -> InvalidMessage:
    return InvalidMessage("text message is not valid UTF-8")

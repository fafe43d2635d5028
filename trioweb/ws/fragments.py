"""Fragmented messages: one sent as it is made, one received as it comes.

Source: RFC 6455 §5.4.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

from trioweb.ws.encoding import BINARY, CONTINUATION, RSV1, TEXT, encode_frame
from trioweb.ws.prepared import utf8

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from typing import TypeAlias

    from trioweb.ws.connection import Connection
    from trioweb.ws.deflate import DeflateStream

    Parts: TypeAlias = Iterable[str] | Iterable[bytes] | AsyncIterable[str] | AsyncIterable[bytes]


async def send_fragments(connection: Connection, parts: Parts) -> None:
    """Send one message in fragments; see ``Websocket.send_fragments``."""
    if isinstance(parts, str | bytes | bytearray | memoryview | dict):
        raise TypeError(
            f"send_fragments() takes an iterable of str or of bytes, not {type(parts).__name__}; "
            "send() sends one message"
        )
    await connection.take_turn()
    message = _FragmentedMessage(connection)
    try:
        if hasattr(parts, "__aiter__"):
            async for part in parts:
                await message.send(part)
        else:
            for part in parts:
                await message.send(part)
        await message.end()
    except BaseException:
        if message.is_open:
            connection.cut_short()
        raise
    finally:
        connection.end_turn()
        if inspect.isasyncgen(parts):
            # Nobody else can: it was made for this call.
            await parts.aclose()


class _FragmentedMessage:
    """The message whose turn it is.

    Every part goes out at once, as a frame. Since none is known to be the last, the message ends
    with an empty frame (compressed, with one byte).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opcode: int | None = None  # of the message, once its type is known
        self._deflating: DeflateStream | None = None
        self.is_open = False  # a part was sent, and the end was not

    async def send(self, part: object) -> None:
        """Send a part; an empty one only tells the type."""
        data = self._check(part)
        if data:
            await self._connection.put_fragment(partial(self._frame, data), len(data))

    async def end(self) -> None:
        """Send the last fragment; nothing if there were no parts at all."""
        if self._opcode is not None:
            await self._connection.put_fragment(partial(self._frame, None), 0)

    def _check(self, part: object) -> bytes:
        if isinstance(part, str):
            opcode, data = TEXT, utf8(part)
        elif isinstance(part, bytes | bytearray | memoryview):
            opcode, data = BINARY, bytes(part)
        else:
            raise TypeError(f"a part of a message is str or bytes, not {type(part).__name__}")
        if self._opcode is None:
            self._opcode = opcode
        elif opcode != self._opcode:
            raise TypeError("the parts of a message must be all str or all bytes")
        return data

    def _frame(self, data: bytes | None) -> bytes:
        """Frame a part, or the end; called when it is admitted.

        So nothing is compressed, in a context that the peer shares, which then is not sent.
        """
        if data is None:
            self._connection.outbox.admitted += 1
        opcode = CONTINUATION
        if not self.is_open:
            assert self._opcode is not None
            opcode = self._opcode
            if data is None:
                return encode_frame(opcode, b"")
            self._deflating = self._connection.begin_deflating()
        self.is_open = data is not None
        if self._deflating is None:
            return encode_frame(opcode, data or b"", fin=data is None)
        if opcode:
            opcode |= RSV1
        compressed = self._deflating.end() if data is None else self._deflating.part(data)
        return encode_frame(opcode, compressed, fin=data is None)


class MessageParts:
    """One message, part by part: str for text, bytes for binary. See ``recv_streaming``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._has_begun = False
        self._has_ended = False

    def __aiter__(self) -> MessageParts:
        return self

    async def __anext__(self) -> str | bytes:
        if self._has_ended:
            raise StopAsyncIteration
        if self._has_begun and self._connection.inbox.has_left(self):
            raise RuntimeError("the rest of this message was skipped: something was received since")
        part = await self._connection.recv_part(self)
        is_first, self._has_begun = not self._has_begun, True
        if part.last:
            self._has_ended = True
            if not part.data and not is_first:
                raise StopAsyncIteration
        return part.data

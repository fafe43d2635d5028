"""What goes out: an application's data as the payload of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb.http import jsoncodec
from trioweb.ws.encoding import BINARY, RSV1, TEXT, encode_frame

if TYPE_CHECKING:
    from trioweb.ws.deflate import Deflater


def to_payload(data: object, encoding: str) -> tuple[int, bytes]:
    """Choose a message's opcode and encode its payload, as ``Websocket.send`` says.

    Raises:
        TypeError: the data can't be sent in this encoding.
        ValueError: an unknown encoding, or text that is not valid Unicode.
    """
    if encoding == "text":
        if isinstance(data, str):
            try:
                return TEXT, data.encode()
            except UnicodeEncodeError as error:
                raise _not_unicode(error) from None
        if isinstance(data, bytes | bytearray | memoryview):
            return BINARY, bytes(data)
        if jsoncodec.is_jsonable_object(data):
            return TEXT, jsoncodec.encode(data)
        raise TypeError(
            f"can't send {type(data).__name__}; send str, bytes, dict, list, tuple, a dataclass "
            'or a Struct, or any JSON value with encoding="json"'
        )
    if encoding == "json":
        if isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f'encoding="json" sends no {type(data).__name__}; leave it away')
        return TEXT, jsoncodec.encode(data)
    if encoding == "bytes":
        if isinstance(data, str):
            return BINARY, utf8(data)
        if isinstance(data, bytes | bytearray | memoryview):
            return BINARY, bytes(data)
        raise TypeError(f'encoding="bytes" sends bytes or str, not {type(data).__name__}')
    raise ValueError(f'unknown encoding {encoding!r}; use "text", "bytes" or "json"')


def utf8(text: str) -> bytes:
    """Encode text.

    Raises:
        ValueError: it has lone surrogates.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _not_unicode(error) from None


def _not_unicode(error: UnicodeEncodeError) -> ValueError:
    return ValueError(f"a text message must be valid Unicode: {error}")


class PreparedMessage:
    """One message for many connections: encoded once, and compressed once for each window size.

    Args:
        data: as ``Websocket.send`` takes it.
        encoding: likewise.

    Attributes:
        plain: its frame, not compressed.
    """

    __slots__ = ("_deflated", "_opcode", "_payload", "plain")

    def __init__(self, data: object, encoding: str = "text") -> None:
        self._opcode, self._payload = to_payload(data, encoding)
        self.plain = encode_frame(self._opcode, self._payload)
        self._deflated: dict[int, bytes] = {}

    def frame_for(self, deflater: Deflater) -> bytes:
        """The frame for a connection that has agreed to compression.

        With context takeover it goes plain: what is compressed there depends on what came before,
        and could be neither shared nor dropped.
        """
        if deflater.takeover:
            return self.plain
        frame = self._deflated.get(deflater.bits)
        if frame is None:
            data = deflater.compress(self._payload)
            frame = self.plain if data is None else encode_frame(self._opcode | RSV1, data)
            self._deflated[deflater.bits] = frame
        return frame

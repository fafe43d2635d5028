"""Tests of trioweb/ws/encoding.py."""

from __future__ import annotations

import pytest

from trioweb.ws.encoding import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TEXT,
    encode_close,
    encode_frame,
    encode_header,
)


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (encode_frame(TEXT, b"Hello"), "81 05 48 65 6c 6c 6f"),
        (
            encode_frame(TEXT, b"Hello", mask=bytes.fromhex("37fa213d")),
            "81 85 37 fa 21 3d 7f 9f 4d 51 58",
        ),
        (encode_frame(TEXT, b"Hel", fin=False), "01 03 48 65 6c"),
        (encode_frame(CONTINUATION, b"lo"), "80 02 6c 6f"),
        (encode_frame(PING, b"Hello"), "89 05 48 65 6c 6c 6f"),
        (encode_close(), "88 00"),
        (encode_close(1000), "88 02 03 e8"),
        (encode_close(1001, "bye"), "88 05 03 e9 62 79 65"),
    ],
)
def test_frames_are_encoded_as_the_rfc_shows(frame: bytes, wire: str) -> None:
    """RFC 6455 §5.7 gives the first ones."""
    assert frame == bytes.fromhex(wire)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (256, "82 7e 01 00"),
        (65535, "82 7e ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_lengths_take_the_fewest_bytes(size: int, header: str) -> None:
    """7, 16 or 64 bits, also for the whole frame and with a mask."""
    wire = bytes.fromhex(header)
    payload = bytes(size)
    assert encode_header(BINARY, size) == wire
    assert encode_frame(BINARY, payload) == wire + payload
    masked = encode_frame(BINARY, payload, mask=b"\0\0\0\0")
    assert masked == bytes((wire[0], wire[1] | 0x80)) + wire[2:] + bytes(4) + payload


def test_any_buffer_can_be_a_payload() -> None:
    """The result is bytes of its own."""
    for payload in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        frame = encode_frame(BINARY, payload)
        assert type(frame) is bytes
        assert frame == b"\x82\x03abc"


@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_a_compressed_message_is_marked_in_its_first_frame(size: int) -> None:
    """As the opcode's bit 0x40; nothing else differs (RFC 7692 §6)."""
    for opcode in (TEXT, BINARY):
        for fin in (True, False):
            plain = encode_frame(opcode, bytes(size), fin=fin)
            marked = encode_frame(opcode | RSV1, bytes(size), fin=fin)
            assert marked == bytes((plain[0] | 0x40,)) + plain[1:]


def test_a_close_frame_never_exceeds_a_control_frame() -> None:
    """The reason is cut."""
    frame = encode_close(4000, "ü" * 100)
    assert len(frame) == 2 + 2 + 122
    assert frame[4:].decode() == "ü" * 61


@pytest.mark.parametrize("code", [999, 1006, 1015, 2000, 5000])
def test_a_close_code_that_is_not_for_the_wire_is_refused(code: int) -> None:
    """1005 alone stands for a frame without a code."""
    with pytest.raises(ValueError, match="can't be sent"):
        encode_close(code)

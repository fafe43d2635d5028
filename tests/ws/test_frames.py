"""Tests of trioweb/ws/frames.py; its agreement with wsproto is in test_frames_oracle.py."""

from __future__ import annotations

import pytest

from trioweb.errors import InvalidMessage, MessageTooBig, ProtocolError
from trioweb.ws.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Close,
    Ping,
    Pong,
    encode_close,
    encode_frame,
)
from trioweb.ws.messages import Decoder

MASK = b"\x12\x00\xfe\x7f"
MEGABYTE = 1 << 20


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin=fin, mask=MASK)


def drain(decoder: Decoder) -> list[str | bytes]:
    messages = []
    while (message := decoder.next_message()) is not None:
        messages.append(message)
    return messages


def test_messages_come_out_in_order_with_their_types() -> None:
    """Text as str, binary as bytes, empty ones too."""
    decoder = Decoder(MEGABYTE)
    wire = frame(TEXT, "grüße".encode()) + frame(BINARY, b"\xff") + frame(TEXT) + frame(BINARY)
    assert list(decoder.feed(wire)) == []
    assert decoder.waiting
    assert drain(decoder) == ["grüße", b"\xff", "", b""]
    assert not decoder.waiting
    assert decoder.buffered == 0
    assert decoder.failure is None


def test_a_fragmented_message_is_joined_around_control_frames() -> None:
    """A character may be cut by the fragments."""
    euro = "€".encode()
    decoder = Decoder(MEGABYTE)
    wire = (
        frame(TEXT, b"1 " + euro[:1], fin=False)
        + frame(PING, b"?")
        + frame(CONTINUATION, euro[1:2], fin=False)
        + frame(CONTINUATION, b"", fin=False)
        + frame(PONG, b"!")
        + frame(CONTINUATION, euro[2:])
    )
    assert decoder.feed(wire) == [Ping(b"?"), Pong(b"!")]
    assert decoder.buffered == 5 + 4 * 64
    assert drain(decoder) == ["1 €"]
    assert decoder.buffered == 0


def test_controls_are_returned_while_messages_wait() -> None:
    """A ping does not wait for the application, and neither does a Close."""
    decoder = Decoder(MEGABYTE)
    wire = frame(TEXT, b"a") * 5 + frame(PING, b"p") + frame(BINARY, b"b") + frame(CLOSE)
    assert decoder.feed(wire) == [Ping(b"p"), Close(1005, "")]
    assert decoder.has_close
    assert drain(decoder) == ["a"] * 5 + [b"b"]


def test_everything_behind_a_close_is_ignored() -> None:
    """Even what would be malformed."""
    decoder = Decoder(MEGABYTE)
    close = encode_close(4001, "enough", mask=MASK)
    wire = frame(TEXT, b"last") + close + frame(TEXT, b"late") + b"\xff\xff"
    assert decoder.feed(wire) == [Close(4001, "enough")]
    assert list(decoder.feed(frame(PING))) == []
    assert drain(decoder) == ["last"]
    assert decoder.failure is None


def test_an_incomplete_message_behind_a_close_never_comes() -> None:
    """A message that the Close cut off is not handed out."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"half", fin=False) + frame(CLOSE))
    assert drain(decoder) == []
    assert not decoder.waiting


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (b"\xc1\x80" + MASK, "reserved bits"),
        (b"\xa1\x80" + MASK, "reserved bits"),
        (b"\x91\x80" + MASK, "reserved bits"),
        (b"\xb1", ""),
        (b"\x83\x80", "unknown opcode 0x3"),
        (b"\x8b\x80", "unknown opcode 0xb"),
        (b"\x81\x01a", "not masked"),
        (b"\x81\x7e", "not masked"),
        (b"\x09\x80", "fragmented"),
        (b"\x89\xfe", "longer than 125"),
        (b"\x80\x80", "without a message"),
        (b"\x00\x80", "without a message"),
        (frame(TEXT, b"a", fin=False) + b"\x81\x80", "new message before"),
        (frame(TEXT, b"a", fin=False) + b"\x02\x80", "new message before"),
        (b"\x82\xfe\x00\x7d", "fewest bytes"),
        (b"\x82\xff" + (65535).to_bytes(8, "big"), "fewest bytes"),
        (b"\x82\xff" + (1 << 63).to_bytes(8, "big"), "negative"),
        (frame(CLOSE, b"\x03"), "one byte"),
        (frame(CLOSE, (1005).to_bytes(2, "big")), "1005 is not allowed"),
        (frame(CLOSE, (2999).to_bytes(2, "big")), "2999 is not allowed"),
    ],
)
def test_what_breaks_the_protocol_is_a_failure(wire: bytes, words: str) -> None:
    """It is found as soon as the bytes that break the rule have come, and nothing raises."""
    decoder = Decoder(MEGABYTE)
    controls = decoder.feed(frame(TEXT, b"good") + frame(PING, b"p") + wire)
    assert controls == [Ping(b"p")]
    if words:
        assert isinstance(decoder.failure, ProtocolError)
        assert words in decoder.failure.reason
        assert decoder.failure.code == 1002
    else:
        # One byte says too little.
        assert decoder.failure is None
    assert drain(decoder) == ["good"]
    if words:
        assert list(decoder.feed(frame(PING) + frame(TEXT, b"more"))) == []
        assert drain(decoder) == []


def test_a_close_reason_must_be_text() -> None:
    """1007, not 1002."""
    decoder = Decoder(MEGABYTE)
    assert list(decoder.feed(frame(CLOSE, b"\x03\xe8\xff"))) == []
    assert isinstance(decoder.failure, InvalidMessage)
    assert not decoder.has_close


def test_a_failure_reason_fits_into_a_close_frame() -> None:
    """It is what the peer will be told."""
    decoder = Decoder(10)
    decoder.feed(b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big"))
    assert decoder.failure is not None
    assert len(decoder.failure.reason.encode()) <= 123


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
)
def test_text_must_be_utf8(bad: bytes) -> None:
    """Overlong, surrogates, beyond Unicode, cut short: 1007; messages before it are whole."""
    decoder = Decoder(MEGABYTE)
    wire = frame(TEXT, b"good") + frame(TEXT, b"abc" + bad) + frame(TEXT, b"late")
    decoder.feed(wire + frame(PING, b"p"))
    assert decoder.failure is None
    assert drain(decoder) == ["good"]
    assert isinstance(decoder.failure, InvalidMessage)
    assert decoder.failure.code == 1007
    assert drain(decoder) == []
    assert not decoder.waiting
    assert decoder.buffered == 0
    assert list(decoder.feed(frame(PING))) == []


def test_invalid_text_is_found_in_a_frame_that_is_still_coming_in() -> None:
    """As soon as its bytes have come (Autobahn 6.4.3 and 6.4.4)."""
    wire = frame(TEXT, b"caf\xc3\xa9 \xf4\x90\x80\x80 and more")
    decoder = Decoder(MEGABYTE)
    # The second byte of the impossible character decides.
    decisive = wire.index(MASK) + 4 + 8
    for index in range(decisive - 1):
        decoder.feed(wire[index : index + 1])
        assert decoder.next_message() is None
        assert decoder.failure is None
    decoder.feed(wire[decisive - 1 : decisive])
    assert decoder.next_message() is None
    assert isinstance(decoder.failure, InvalidMessage)


def test_invalid_text_is_found_between_fragments() -> None:
    """Without waiting for the message's end."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"ok \xce", fin=False))
    assert decoder.next_message() is None
    assert decoder.failure is None
    decoder.feed(frame(CONTINUATION, b"\xce", fin=False))
    assert decoder.next_message() is None
    assert isinstance(decoder.failure, InvalidMessage)


def test_the_first_failure_on_the_wire_wins_once_messages_are_taken() -> None:
    """Invalid text that lies before a malformed header replaces that failure."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"\xff") + b"\xff\xff")
    assert isinstance(decoder.failure, ProtocolError)
    assert drain(decoder) == []
    assert isinstance(decoder.failure, InvalidMessage)


def test_binary_content_is_not_validated() -> None:
    """Also fragmented and in parts."""
    decoder = Decoder(MEGABYTE)
    for byte in frame(BINARY, b"\xff\xfe", fin=False) + frame(CONTINUATION, b"\xc0"):
        decoder.feed(bytes((byte,)))
        if (message := decoder.next_message()) is not None:
            assert message == b"\xff\xfe\xc0"
    assert decoder.failure is None
    assert decoder.buffered == 0


def test_a_message_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    """The header alone decides, before the mask and a byte of payload have come."""
    for limit in (0, 1, 125, 126, 1000, 65536):
        decoder = Decoder(limit)
        decoder.feed(frame(BINARY, bytes(limit)))
        assert decoder.next_message() == bytes(limit)
        wire = frame(BINARY, bytes(limit + 1))
        decoder.feed(wire[: wire.index(MASK)])
        assert isinstance(decoder.failure, MessageTooBig)
        assert decoder.failure.code == 1009
        assert str(limit) in decoder.failure.reason


def test_the_sum_of_fragments_is_limited() -> None:
    """The frame that goes over is refused by its header."""
    decoder = Decoder(1000)
    decoder.feed(frame(BINARY, bytes(600), fin=False))
    decoder.feed(frame(CONTINUATION, bytes(400)))
    assert decoder.next_message() == bytes(1000)
    decoder.feed(frame(BINARY, bytes(600), fin=False))
    assert decoder.failure is None
    decoder.feed(frame(CONTINUATION, bytes(401))[:4])
    assert isinstance(decoder.failure, MessageTooBig)
    assert decoder.next_message() is None


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_tiny_fragments_count_as_64_bytes(payload: bytes) -> None:
    """So a flood of them ends by the message limit."""
    decoder = Decoder(640)
    decoder.feed(frame(BINARY, payload, fin=False))
    for _ in range(9):
        decoder.feed(frame(CONTINUATION, payload, fin=False))
    assert decoder.failure is None
    decoder.feed(frame(CONTINUATION, payload))
    assert isinstance(decoder.failure, MessageTooBig)


def test_the_count_of_fragments_starts_anew_with_each_message() -> None:
    """Many fragmented messages in a row are no flood."""
    decoder = Decoder(128)
    for _ in range(10):
        decoder.feed(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"))
        assert decoder.next_message() == "ab"
    assert decoder.failure is None


def test_a_server_s_frames_are_read_unmasked() -> None:
    """The client's role: masked ones are refused there."""
    decoder = Decoder(MEGABYTE, masked=False)
    wire = encode_frame(TEXT, b"hi") + encode_frame(PING, b"p") + encode_frame(BINARY, bytes(70000))
    for start in range(0, len(wire), 1000):
        decoder.feed(wire[start : start + 1000])
    assert drain(decoder) == ["hi", bytes(70000)]
    decoder.feed(frame(TEXT, b"hi"))
    assert isinstance(decoder.failure, ProtocolError)
    assert decoder.failure.reason == "frame is masked"


def test_buffered_counts_the_payload_that_is_held() -> None:
    """What was taken is not held; what has come of a message is."""
    decoder = Decoder(MEGABYTE)
    wire = frame(BINARY, bytes(1000))
    decoder.feed(frame(TEXT, b"abc") + wire[:508])
    assert decoder.buffered == 503
    assert drain(decoder) == ["abc"]
    assert decoder.buffered == 500
    # The second half counts as a fragment, since the first was taken.
    decoder.feed(wire[508:])
    assert decoder.buffered == 1000 + 64
    assert drain(decoder) == [bytes(1000)]
    assert decoder.buffered == 0


def test_a_message_that_comes_in_many_reads_costs_linear_work() -> None:
    """A megabyte byte by byte: quadratic work would take minutes, and hang this test."""
    payload = bytes(range(256)) * 4096
    wire = frame(BINARY, payload)
    for eager in (True, False):
        decoder = Decoder(MEGABYTE)
        message = None
        for index in range(len(wire)):
            decoder.feed(wire[index : index + 1])
            if eager and message is None:
                message = decoder.next_message()
        assert (message or decoder.next_message()) == payload


def test_a_rest_loses_nothing() -> None:
    """Between messages, and within one."""
    decoder = Decoder(MEGABYTE)
    wire = frame(TEXT, b"first") + frame(TEXT, b"second")
    for cut in range(len(wire)):
        for piece in (wire[:cut], wire[cut:]):
            decoder.rest()
            decoder.feed(piece)
            decoder.rest()
        assert drain(decoder) == ["first", "second"]

"""Frames are read as they are, however their bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioweb.client.frame import Frame, FrameReader, Opcode

# Opcode, payload or how many zeros it has, FIN, reserved bits.
Parts = tuple[int, bytes | int, bool, int]
PARTS = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.one_of(st.binary(max_size=200), st.sampled_from([126, 70_000])),
        st.booleans(),
        st.integers(0, 7),
    ),
    max_size=5,
)


def build(parts: list[Parts]) -> list[Frame]:
    return [Frame(opcode, bytes(payload), fin, rsv) for opcode, payload, fin, rsv in parts]


def read(data: bytes, size: int, keep: int | None = None) -> list[tuple[bytes, Frame | None]]:
    """What a reader makes of bytes that come in such pieces."""
    reader = FrameReader(keep)
    pieces = []
    for start in range(0, len(data), size):
        pieces += reader.feed(data[start : start + size])
    return pieces


@settings(deadline=None)
@given(PARTS, st.integers(1, 1000))
def test_any_frames_are_read_as_they_were_written(parts: list[Parts], size: int) -> None:
    """However they are split."""
    frames = build(parts)
    data = b"".join(frame.encode() for frame in frames)
    pieces = read(data, size)
    assert [frame for _, frame in pieces if frame is not None] == frames
    assert b"".join(raw for raw, _ in pieces) == data


@settings(deadline=None)
@given(PARTS, st.integers(1, 1000), st.integers(125, 300))
def test_a_frame_keeps_what_is_asked_for(parts: list[Parts], size: int, keep: int) -> None:
    """Of larger ones the beginning; the bytes come out all the same."""
    frames = build(parts)
    data = b"".join(frame.encode() for frame in frames)
    pieces = read(data, size, keep)
    kept = [frame._replace(payload=frame.payload[:keep]) for frame in frames]
    assert [frame for _, frame in pieces if frame is not None] == kept
    assert b"".join(raw for raw, _ in pieces) == data


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG, 11])
def test_control_frames_come_whole(opcode: int) -> None:
    """So that one can be left out."""
    frame = Frame(opcode, b"x" * 125)
    data = frame.encode()
    assert read(data, 1) == [(data, frame)]


def test_large_frames_come_in_pieces() -> None:
    """Nothing waits for the end of a frame that may never come; its head is whole."""
    data = Frame(Opcode.BINARY, bytes(1000)).encode()
    pieces = read(data[:508], 5)
    assert [len(raw) for raw, _ in pieces] == [10, *[5] * 99, 3]
    assert {frame for _, frame in pieces} == {None}


def test_nothing_waits_for_a_control_frame_that_is_too_long() -> None:
    """RFC 6455 §5.5: at most 125 bytes."""
    assert read(b"\x89\x7e\x00\xff", 4) == [(b"\x89\x7e\x00\xff", None)]


def test_only_a_close_has_a_code() -> None:
    assert Frame(Opcode.CLOSE, b"\x03\xe8bye").close_code == 1000
    assert Frame(Opcode.CLOSE, b"\x03").close_code == 1005
    with pytest.raises(ValueError, match="is no close frame"):
        _ = Frame(Opcode.TEXT, b"\x03\xe8").close_code

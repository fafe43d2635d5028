"""Tests of trioweb/ws/messages.py: whole messages are in test_frames.py, here is the rest."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioweb.errors import InvalidMessage, MessageTooBig, ProtocolError, WebSocketException
from trioweb.ws.deflate import Compressors, Inflater
from trioweb.ws.encoding import BINARY, CLOSE, CONTINUATION, PING, RSV1, TEXT, encode_frame
from trioweb.ws.frames import FRAMES_AT_ONCE, Close, Ping
from trioweb.ws.messages import PART_SIZE, Decoder, Part

MASK = b"\x12\x00\xfe\x7f"
MEGABYTE = 1 << 20
EURO = "€".encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin=fin, mask=MASK)


def inflating(max_size: int = MEGABYTE, *, takeover: bool = False) -> Decoder:
    return Decoder(max_size, inflater=Inflater(max_size, takeover=takeover, bits=15))


def deflate(payload: bytes) -> bytes:
    return Compressors().compress(payload, 15)


def parts_of(decoder: Decoder) -> list[Part]:
    """All parts that are there now."""
    parts = []
    while (part := decoder.next_part()) is not None:
        parts.append(part)
    return parts


def drain(decoder: Decoder) -> list[str | bytes]:
    messages = []
    while (message := decoder.next_message()) is not None:
        messages.append(message)
    return messages


# Parts


def test_a_message_is_taken_in_parts_as_it_comes() -> None:
    """Not as it was fragmented; and the last part says so."""
    decoder = Decoder(MEGABYTE)
    wire = frame(BINARY, b"abcdef", fin=False) + frame(CONTINUATION, b"gh")
    assert decoder.next_part() is None
    decoder.feed(wire[:9])
    assert decoder.next_part() == Part(b"abc", False)
    assert decoder.is_mid_message
    assert decoder.next_part() is None
    assert decoder.buffered == 0
    decoder.feed(wire[9:])
    assert decoder.next_part() == Part(b"def", False)
    assert decoder.next_part() == Part(b"gh", True)
    assert not decoder.is_mid_message
    assert decoder.next_part() is None
    assert (decoder.waiting, decoder.buffered) == (0, 0)


def test_text_is_cut_at_characters() -> None:
    """A part never is empty because it had half a character only."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"1" + EURO[:1], fin=False) + frame(CONTINUATION, fin=False))
    decoder.feed(frame(CONTINUATION, EURO[1:2], fin=False))
    assert parts_of(decoder) == [Part("1", False)]
    decoder.feed(frame(CONTINUATION, EURO[2:] + b"2"))
    assert parts_of(decoder) == [Part("€2", True)]


def test_an_empty_part_only_ends_a_message() -> None:
    """Of its own type."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT) + frame(BINARY) + frame(TEXT, b"a", fin=False) + frame(CONTINUATION))
    expected = [Part("", True), Part(b"", True), Part("a", False), Part("", True)]
    assert parts_of(decoder) == expected


def test_parts_and_messages_can_be_taken_in_turn() -> None:
    """What is whole stays whole for who wants it so."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"c"))
    assert decoder.next_message() == "a"
    assert decoder.next_part() == Part("b", True)
    assert decoder.next_message() == "c"


def test_what_was_put_together_of_a_message_is_its_first_part() -> None:
    """A character that is cut is not lost in between."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"1", fin=False) + frame(CONTINUATION, b"2" + EURO[:1], fin=False))
    assert decoder.next_message() is None
    assert decoder.buffered == 3
    assert parts_of(decoder) == [Part("12", False)]
    assert decoder.buffered == 0
    decoder.feed(frame(CONTINUATION, EURO[1:]))
    assert parts_of(decoder) == [Part("€", True)]
    # Nothing, or less than a character, is no part; and leaves nothing behind.
    decoder.feed(frame(TEXT, b"", fin=False))
    assert decoder.next_message() is None
    decoder.feed(frame(CONTINUATION, EURO[:1], fin=False))
    assert decoder.next_message() is None
    assert decoder.next_part() is None
    decoder.feed(frame(CONTINUATION, EURO[1:]) + frame(BINARY, b"x", fin=False))
    assert parts_of(decoder) == [Part("€", True), Part(b"x", False)]


def test_a_message_skips_what_is_left_of_the_one_in_parts() -> None:
    """Also when that has not come yet."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"a", fin=False))
    assert decoder.next_part() == Part("a", False)
    decoder.feed(frame(CONTINUATION, b"b", fin=False))
    assert decoder.next_message() is None
    assert decoder.is_mid_message
    decoder.feed(frame(CONTINUATION, b"c") + frame(BINARY, b"d"))
    assert decoder.next_message() == b"d"
    assert not decoder.is_mid_message
    assert (decoder.waiting, decoder.buffered) == (0, 0)


def test_invalid_text_ends_the_parts() -> None:
    """Those before it have been handed out."""
    for bad in (b"\xff", EURO[:2]):
        decoder = Decoder(MEGABYTE)
        decoder.feed(frame(TEXT, b"ok", fin=False) + frame(CONTINUATION, bad) + frame(TEXT, b"no"))
        assert parts_of(decoder) == [Part("ok", False)]
        assert isinstance(decoder.failure, InvalidMessage)
        assert (decoder.next_message(), decoder.waiting, decoder.buffered) == (None, 0, 0)


def test_what_is_skipped_is_not_looked_at() -> None:
    """Neither its text nor what it would inflate to costs anything."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"ok", fin=False) + frame(CONTINUATION, b"\xff") + frame(TEXT, b"no"))
    assert decoder.next_part() == Part("ok", False)
    assert decoder.next_message() == "no"
    assert decoder.failure is None


def test_parts_before_a_broken_frame_are_still_there() -> None:
    """The message never ends, but what has come of it has come."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) + b"\xff\xff")
    assert isinstance(decoder.failure, ProtocolError)
    assert parts_of(decoder) == [Part("a", False), Part("b", False)]
    assert decoder.is_mid_message


# Discarding


def test_discarding_keeps_complete_messages_and_nothing_else() -> None:
    """What is incomplete goes, what comes is not stored, control frames are answered."""
    decoder = Decoder(MEGABYTE)
    half = frame(BINARY, bytes(100))
    decoder.feed(frame(TEXT, b"a") + frame(TEXT, b"b", fin=False) + frame(CONTINUATION, b"c"))
    decoder.feed(frame(TEXT, b"d", fin=False) + frame(CONTINUATION, bytes(100))[:50])
    decoder.discard()
    assert decoder.waiting == 2
    assert decoder.buffered == 1 + 2 + 2 * 64
    more = frame(CONTINUATION, bytes(100))[50:] + half + frame(PING, b"p") + half * 3 + half[:60]
    for start in range(0, len(more), 7):
        controls = decoder.feed(more[start : start + 7])
        assert list(controls) in ([], [Ping(b"p")])
        assert decoder.waiting == 2
        assert decoder.buffered == 1 + 2 + 2 * 64
    assert drain(decoder) == ["a", "bc"]
    assert decoder.buffered == 0
    assert decoder.feed(half[60:] + frame(CLOSE)) == [Close(1005, "")]


def test_discarding_keeps_a_message_that_was_begun_and_is_complete() -> None:
    """Whoever had begun it."""
    for by_parts in (False, True):
        decoder = Decoder(MEGABYTE)
        decoder.feed(frame(TEXT, b"a", fin=False))
        if by_parts:
            assert decoder.next_part() == Part("a", False)
        else:
            assert decoder.next_message() is None
        decoder.feed(frame(CONTINUATION, b"b") + frame(TEXT, b"c", fin=False))
        decoder.discard()
        if by_parts:
            assert parts_of(decoder) == [Part("b", True)]
        else:
            assert drain(decoder) == ["ab"]
        assert decoder.buffered == 0


def test_discarding_drops_a_message_that_was_begun_and_is_incomplete() -> None:
    """It never ends, and nothing of it is held."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"abc", fin=False) + frame(CONTINUATION, b"def")[:8])
    assert decoder.next_message() is None
    assert decoder.buffered == 5
    decoder.discard()
    assert decoder.buffered == 0
    decoder.feed(frame(CONTINUATION, b"def")[8:] + frame(TEXT, b"g"))
    assert decoder.next_message() is None
    assert decoder.next_part() is None
    assert decoder.failure is None


def test_what_is_discarded_has_to_keep_to_the_rules() -> None:
    """Of frames; what is in them is not looked at."""
    decoder = Decoder(128)
    decoder.discard()
    decoder.feed(frame(TEXT, b"\xff", fin=False) + frame(CONTINUATION, b"x"))
    assert decoder.failure is None
    decoder.feed(frame(CONTINUATION))
    assert isinstance(decoder.failure, ProtocolError)
    decoder = Decoder(100)
    decoder.discard()
    decoder.feed(frame(TEXT, bytes(101)))
    assert isinstance(decoder.failure, MessageTooBig)


def test_the_newest_messages_can_be_dropped() -> None:
    """With what is incomplete behind them, and what comes later."""
    wire = (
        frame(TEXT, b"a")
        + frame(TEXT, b"b", fin=False)
        + frame(CONTINUATION, b"c")
        + frame(TEXT, b"d")
        + frame(TEXT, b"e", fin=False)
    )
    for count, left in ((0, ["a", "bc", "d"]), (1, ["a", "bc"]), (2, ["a"]), (3, []), (9, [])):
        decoder = Decoder(MEGABYTE)
        decoder.feed(wire)
        decoder.drop_last(count)
        assert decoder.waiting == len(left)
        decoder.feed(frame(CONTINUATION, b"f") + frame(TEXT, b"g"))
        assert drain(decoder) == left
        assert decoder.buffered == 0
        assert decoder.failure is None


def test_dropping_all_messages_drops_what_was_put_together() -> None:
    """It was the beginning of one of them."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(TEXT, b"a", fin=False))
    assert decoder.next_message() is None
    decoder.feed(frame(CONTINUATION, b"b") + frame(TEXT, b"c"))
    decoder.drop_last(2)
    assert (decoder.next_message(), decoder.waiting, decoder.buffered) == (None, 0, 0)


def test_a_flood_of_tiny_fragments_counts_as_what_it_costs_to_hold() -> None:
    """So a reader who minds ``buffered`` stops in time, however large a message may be."""
    decoder = Decoder(1 << 40)
    decoder.feed(frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 999)
    assert decoder.buffered == 1000 * 64
    assert decoder.next_part() is None
    assert decoder.buffered == 0


# Compression


def test_compressed_messages_come_out_like_others() -> None:
    """Text and binary, empty and large, whole and fragmented, among plain ones."""
    decoder = inflating()
    large = bytes(range(256)) * 1000
    data = deflate("grüße".encode())
    decoder.feed(
        frame(RSV1 | TEXT, deflate("grüße".encode()))
        + frame(TEXT, b"plain")
        + frame(RSV1 | BINARY, deflate(large))
        + frame(RSV1 | TEXT, b"\x00")
        + frame(RSV1 | TEXT, data[:3], fin=False)
        + frame(PING)
        + frame(CONTINUATION, data[3:], fin=False)
        + frame(CONTINUATION)
        + frame(TEXT, b"a", fin=False)
        + frame(CONTINUATION, b"b")
    )
    assert decoder.waiting == 6
    assert drain(decoder) == ["grüße", "plain", large, "", "grüße", "ab"]
    assert (decoder.waiting, decoder.buffered, decoder.failure) == (0, 0, None)


def test_compression_must_have_been_agreed_on() -> None:
    """Otherwise RSV1 is as bad as the others."""
    decoder = Decoder(MEGABYTE)
    decoder.feed(frame(RSV1 | TEXT, deflate(b"x")))
    assert isinstance(decoder.failure, ProtocolError)


@pytest.mark.parametrize(
    "wire",
    [
        frame(RSV1 | PING),
        frame(RSV1 | CLOSE),
        frame(RSV1 | TEXT, b"", fin=False) + frame(RSV1 | CONTINUATION),
        frame(TEXT, b"", fin=False) + frame(RSV1 | CONTINUATION),
        frame(TEXT | 0x20),
        frame(TEXT | 0x10),
        frame(RSV1 | TEXT | 0x20),
    ],
)
def test_only_a_message_s_first_frame_may_say_that_it_is_compressed(wire: bytes) -> None:
    """RFC 7692 §6.1; and the other reserved bits have no meaning."""
    decoder = inflating()
    decoder.feed(frame(TEXT, b"good") + wire)
    assert isinstance(decoder.failure, ProtocolError)
    assert decoder.next_message() == "good"


@pytest.mark.parametrize("fragmented", [False, True])
def test_bad_compressed_content_is_a_failure_of_its_place(fragmented: bool) -> None:
    """Messages before it are there, those behind it are not."""
    for data in (b"\xff\xff", deflate(b"\xff"), deflate(b"hello")[:-1], b""):
        decoder = inflating()
        wire = frame(RSV1 | TEXT, data)
        if fragmented:
            wire = frame(RSV1 | TEXT, data[:1], fin=False) + frame(CONTINUATION, data[1:])
        decoder.feed(frame(TEXT, b"good") + wire + frame(TEXT, b"late") + frame(PING))
        assert decoder.failure is None
        assert drain(decoder) == ["good"]
        assert isinstance(decoder.failure, InvalidMessage)
        assert (decoder.waiting, decoder.buffered) == (0, 0)
        assert list(decoder.feed(frame(PING))) == []


def test_the_inflated_size_is_what_is_limited() -> None:
    """One byte more is too much, whole or in parts; incompressible data may grow on the wire."""
    noise = bytes(range(256)) * 4
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    data = (stored.compress(noise) + stored.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(data) > 1024
    decoder = inflating(1024)
    decoder.feed(frame(RSV1 | BINARY, data) * 2)
    assert decoder.next_message() == noise
    assert b"".join(bytes(part.data) for part in parts_of(decoder)) == noise  # type: ignore[arg-type]
    for taken in (Decoder.next_message, Decoder.next_part):
        decoder = inflating(1023)
        decoder.feed(frame(RSV1 | BINARY, data))
        assert decoder.failure is None
        assert taken(decoder) is None
        assert isinstance(decoder.failure, MessageTooBig)
    decoder = inflating(1024)
    decoder.feed(frame(RSV1 | BINARY, bytes(1400))[:8])
    assert isinstance(decoder.failure, MessageTooBig)


def test_a_plain_message_has_the_plain_limit() -> None:
    """Whatever came before it."""
    decoder = inflating(1000)
    decoder.feed(frame(RSV1 | BINARY, deflate(bytes(1000))) + frame(BINARY, bytes(1001))[:8])
    assert isinstance(decoder.failure, MessageTooBig)
    assert drain(decoder) == [bytes(1000)]


def test_a_part_holds_64_kib_at_most() -> None:
    """However little of the wire that is; what is not inflated is still counted and waiting."""
    size = 3 * PART_SIZE + 10
    data = deflate(bytes(size))
    decoder = inflating()
    decoder.feed(frame(RSV1 | BINARY, data) + frame(TEXT, b"next"))
    for _ in range(3):
        part = decoder.next_part()
        assert part == Part(bytes(PART_SIZE), False)
        assert decoder.waiting == 2
        assert decoder.buffered == len(data) + 4
    assert decoder.next_part() == Part(bytes(10), True)
    assert (decoder.waiting, decoder.buffered) == (1, 4)
    assert decoder.next_message() == "next"


def test_a_message_skips_what_is_not_inflated_of_the_one_in_parts() -> None:
    """Under takeover the next one refers to it."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    large = bytes(range(256)) * 1000
    first, second = (
        (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        for data in (large, large[-300:])
    )
    decoder = inflating(takeover=True)
    decoder.feed(frame(RSV1 | BINARY, first) + frame(RSV1 | BINARY, second))
    assert decoder.next_part() == Part(large[:PART_SIZE], False)
    assert decoder.next_message() == large[-300:]
    assert (decoder.waiting, decoder.buffered) == (0, 0)


def test_a_compressed_message_in_progress_counts_as_what_it_inflates_to() -> None:
    """A reader in ``recv`` makes it grow in memory."""
    data = deflate(bytes(10000))
    decoder = inflating()
    decoder.feed(frame(RSV1 | BINARY, data)[:-1])
    assert decoder.next_message() is None
    assert 9000 < decoder.buffered <= 10000
    decoder.discard()
    assert decoder.buffered == 0


def test_dropping_what_is_half_inflated_leaves_nothing() -> None:
    """By ``discard`` or ``drop_last``."""
    data = deflate(bytes(3 * PART_SIZE))
    for fin in (False, True):
        decoder = inflating()
        decoder.feed(frame(RSV1 | BINARY, data, fin=fin))
        assert decoder.next_part() is not None
        decoder.drop_last(1)
        assert (decoder.next_part(), decoder.next_message()) == (None, None)
        assert (decoder.waiting, decoder.buffered) == (0, 0)


def test_a_bomb_in_a_frame_that_is_coming_in_is_found_early() -> None:
    """Not only when all of it has come."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MEGABYTE)) + compressor.flush(zlib.Z_FULL_FLUSH)
    wire = frame(RSV1 | BINARY, block * 256)
    decoder = inflating()
    for start in range(0, len(wire), 512):
        decoder.feed(wire[start : start + 512])
        assert decoder.next_message() is None
        assert decoder.buffered <= MEGABYTE
        if decoder.failure is not None:
            break
    assert isinstance(decoder.failure, MessageTooBig)
    assert start < 4096


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("first", [TEXT, RSV1 | TEXT])
def test_a_flood_of_fragments_is_looked_through_in_steps(first: int, eager: bool) -> None:
    """Empty ones, compressed or not, until they are too many."""
    decoder = inflating()
    flood = frame(CONTINUATION, b"", fin=False)
    most = 0
    for read in [frame(first, b"", fin=False)] + [flood * (65536 // len(flood))] * 4:
        before = decoder.other_frames
        decoder.feed(read)
        while decoder.has_more:
            most = max(most, decoder.other_frames - before)
            before = decoder.other_frames
            decoder.feed(b"")
        if eager:
            assert decoder.next_message() is None
    assert isinstance(decoder.failure, MessageTooBig)
    assert most == FRAMES_AT_ONCE


def test_control_frames_of_a_flood_are_all_found_in_order() -> None:
    decoder = inflating()
    wire = b"".join(frame(PING, b"%d" % number) for number in range(5000)) + frame(TEXT, b"end")
    found = list(decoder.feed(wire))
    while decoder.has_more:
        assert decoder.waiting == 0
        found += decoder.feed(b"")
    assert [int(ping.data) for ping in found if isinstance(ping, Ping)] == list(range(5000))
    assert decoder.next_message() == "end"


# Properties


@dataclass
class Sent:
    """A message, and how it goes on the wire."""

    pattern: tuple[str | bytes, int]  # and how often
    compressed: bool
    cuts: list[int]

    @property
    def content(self) -> str | bytes:
        pattern, times = self.pattern
        return pattern * times

    def encode(self) -> bytes:
        content = self.content
        opcode, data = (TEXT, content.encode()) if isinstance(content, str) else (BINARY, content)
        if self.compressed:
            opcode |= RSV1
            data = deflate(data)
        positions = [0, *sorted(cut for cut in self.cuts if cut < len(data)), len(data)]
        pairs = list(pairwise(positions))
        return b"".join(
            frame(CONTINUATION if index else opcode, data[start:end], fin=index == len(pairs) - 1)
            for index, (start, end) in enumerate(pairs)
        )


patterns: st.SearchStrategy[tuple[str | bytes, int]] = st.one_of(
    st.tuples(st.one_of(st.text(max_size=30), st.binary(max_size=30)), st.just(1)),
    st.tuples(
        st.sampled_from(["ö€", "a", b"\0"]),
        st.sampled_from([PART_SIZE // 5 + 1, PART_SIZE, 2 * PART_SIZE + 1]),
    ),
)
sent = st.builds(Sent, patterns, st.booleans(), st.lists(st.integers(0, 40), max_size=3))


@settings(deadline=None)
@given(
    st.lists(sent, max_size=6),
    st.lists(st.tuples(st.integers(0, 1000), st.lists(st.booleans(), max_size=4)), max_size=8),
    st.booleans(),
)
def test_however_it_is_taken_nothing_is_lost_or_doubled(
    messages: list[Sent], reads: list[tuple[int, list[bool]]], last: bool
) -> None:
    """Any reads, and any order of taking messages and parts."""
    wire = b"".join(message.encode() for message in messages)
    expected = [message.content for message in messages]
    decoder = inflating()
    position = 0  # in expected
    parts: list[str | bytes] = []
    is_skipping = False  # a message was asked for while one was in parts

    def end_parts(*, whole: bool) -> None:
        nonlocal position, is_skipping
        content, got = expected[position], type(expected[position])().join(parts)  # type: ignore[arg-type]
        assert content == got if whole else content.startswith(got)  # type: ignore[arg-type]
        parts.clear()
        position += 1
        is_skipping = False

    def take_message() -> bool:
        nonlocal position, is_skipping
        is_skipping = decoder.is_mid_message
        message = decoder.next_message()
        if is_skipping and not decoder.is_mid_message:
            end_parts(whole=False)
        if message is None:
            return False
        assert message == expected[position]
        position += 1
        return True

    def take_part() -> bool:
        part = decoder.next_part()
        if is_skipping and (part is not None or not decoder.is_mid_message):
            end_parts(whole=False)
        if part is None:
            return False
        assert part.data or part.last
        assert decoder.is_mid_message is not part.last
        parts.append(part.data)
        if part.last:
            end_parts(whole=True)
        return True

    start = 0
    for permille, kinds in sorted(reads):
        end = len(wire) * permille // 1000
        decoder.feed(wire[start:end])
        start = end
        for whole in kinds:
            take_message() if whole else take_part()
    decoder.feed(wire[start:])
    while take_message() if last else take_part():
        pass
    assert position == len(expected)
    assert (decoder.waiting, decoder.buffered, decoder.failure) == (0, 0, None)


operations = st.sampled_from(["message", "part", "discard", "drop", "feed"])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([TEXT, BINARY, CONTINUATION, RSV1 | TEXT, RSV1 | BINARY, PING]),
            st.binary(max_size=6),
            st.booleans(),
        ),
        max_size=20,
    ),
    st.lists(st.tuples(operations, st.integers(0, 30)), max_size=30),
    st.booleans(),
)
def test_whatever_comes_and_is_asked_for_the_counts_hold(
    frames: list[tuple[int, bytes, bool]], asked: list[tuple[str, int]], takeover: bool
) -> None:
    """Nothing raises, nothing is negative, and an empty decoder holds nothing."""
    wire = b"".join(frame(opcode, payload, fin=fin) for opcode, payload, fin in frames)
    decoder = inflating(200, takeover=takeover)
    for operation, number in [*asked, ("feed", len(wire)), ("discard", 0)]:
        if operation == "feed":
            decoder.feed(wire[:number])
            wire = wire[number:]
        elif operation == "message":
            decoder.next_message()
        elif operation == "part":
            decoder.next_part()
        elif operation == "discard":
            decoder.discard()
        else:
            decoder.drop_last(number % 3)
        assert decoder.waiting >= 0
        assert decoder.buffered >= 0
    while decoder.next_part() is not None:
        pass
    assert (decoder.waiting, decoder.buffered) == (0, 0)
    failure: WebSocketException | None = decoder.failure
    assert failure is None or failure.code in (1002, 1007, 1009)

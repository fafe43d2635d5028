"""Tests of trioweb/ws/deflate.py; zlib and the websockets package are the oracles."""

from __future__ import annotations

import json
import random
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from trioweb.errors import InvalidMessage, MessageTooBig
from trioweb.ws.deflate import EMPTY, MAX_STREAMS, TAIL, Compressors, Deflater, Inflater
from trioweb.ws.extensions import Agreement

MEGABYTE = 1 << 20
TEXT = json.dumps([{"id": n, "name": "anna", "text": f"hello {n}"} for n in range(40)]).encode()
# Nothing in it repeats, but it does.
FAR = random.Random(1).randbytes(2000) * 2


def agree(*, takeover: bool = False, bits: int = 15) -> Agreement:
    return Agreement(takeover, takeover, bits, bits, "")


def inflate_alone(data: bytes, bits: int = 15) -> bytes:
    """As a receiver would who has seen nothing else."""
    return zlib.decompressobj(-bits).decompress(data + TAIL)


def deflate(payload: bytes, *, final: bool = False, level: int = 6) -> bytes:
    """Compress a message with a compressor of its own; ``final`` sets BFINAL."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    data = compressor.compress(payload)
    if final:
        return data + compressor.flush(zlib.Z_FINISH) + EMPTY
    return (data + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def read_all(inflater: Inflater, size: int) -> bytes:
    """Read all that was fed."""
    content = b""
    while True:
        part = inflater.read(size)
        assert len(part) <= size
        content += part
        if len(part) < size:
            return content


@pytest.fixture(params=["zlib", "isal"])
def compressors(request: pytest.FixtureRequest) -> Compressors:
    """With and without the library that users may have."""
    if request.param == "isal":
        pytest.importorskip("isal", reason="has no wheel for this Python, or is not installed")
    return Compressors(use_isal=request.param == "isal")


def test_each_message_can_be_inflated_alone(compressors: Compressors) -> None:
    """Nothing in it refers to what the shared compressor was given before."""
    secret = b"the same words in every message, of whichever connection"
    for payload in (secret, secret, TEXT, b"", b"", secret, b"x", TEXT):
        for bits in (15, 12):
            data = compressors.compress(payload, bits)
            assert inflate_alone(data) == payload
    first = compressors.compress(secret, 15)
    assert compressors.compress(secret, 15) == first


@given(st.lists(st.one_of(st.binary(max_size=200), st.text("ab {}", max_size=200).map(str.encode))))
def test_whatever_a_message_is_it_comes_out_again(payloads: list[bytes]) -> None:
    """From one compressor after another, by each of the libraries."""
    for use_isal in (False, True):
        compressors = Compressors(use_isal=use_isal)
        for payload in (*payloads, *(part * 1000 for part in payloads)):
            assert inflate_alone(compressors.compress(payload, 15)) == payload


def test_the_faster_library_compresses_no_worse() -> None:
    pytest.importorskip("isal", reason="has no wheel for this Python, or is not installed")
    sizes = [len(Compressors(use_isal=use).compress(TEXT * 20, 15)) for use in (True, False)]
    assert sizes[0] <= 1.05 * sizes[1]


def test_an_empty_message_is_one_byte(compressors: Compressors) -> None:
    """The first one as well as later ones (RFC 7692 §7.2.3.6)."""
    for _ in range(3):
        assert compressors.compress(b"", 15) == b"\x00"
    deflater = Deflater(agree(takeover=True), 0, compressors)
    for _ in range(3):
        assert deflater.compress(b"") == b"\x00"
    assert deflater.compress(TEXT) is not None
    assert deflater.compress(b"") == b"\x00"


@pytest.mark.parametrize("bits", range(9, 16))
def test_no_message_needs_a_larger_window_than_agreed(bits: int, compressors: Compressors) -> None:
    """A receiver that has no more memory can inflate it."""
    payload = FAR * 20
    assert inflate_alone(compressors.compress(payload, bits), bits) == payload
    for takeover in (False, True):
        deflater = Deflater(agree(takeover=takeover, bits=bits), 0, compressors)
        stream = deflater.begin()
        assert inflate_alone(stream.part(payload) + stream.end(), bits) == payload


def test_small_messages_go_plain() -> None:
    """Under the threshold, with takeover and without."""
    payload = bytes(100)
    for takeover in (False, True):
        assert Deflater(agree(takeover=takeover), 101, Compressors()).compress(payload) is None
        assert Deflater(agree(takeover=takeover), 100, Compressors()).compress(payload) is not None


def test_what_compressing_does_not_make_smaller_goes_plain() -> None:
    """But not with takeover, where the next message refers to it."""
    noise = random.Random(1).randbytes(2000)
    assert Deflater(agree(), 0, Compressors()).compress(noise) is None
    deflater = Deflater(agree(takeover=True, bits=12), 0, Compressors())
    first, second = deflater.compress(noise), deflater.compress(noise)
    assert first is not None
    assert second is not None
    assert len(first) > 2000
    assert len(second) < 50
    inflater = Inflater(MEGABYTE, takeover=True, bits=12)
    assert inflater.inflate(first) == inflater.inflate(second) == noise


def test_a_part_of_a_stream_can_be_inflated_at_once() -> None:
    """Whatever else is compressed meanwhile, if there is no takeover."""
    deflater = Deflater(agree(), 0, Compressors())
    stream, other = deflater.begin(), deflater.begin()
    receiver = zlib.decompressobj(-15)
    for part in (b"one", b"", b"two", TEXT, b"one"):
        assert receiver.decompress(stream.part(part)) == part
        other.part(b"one, two")
        assert deflater.compress(TEXT) is not None
    assert receiver.decompress(stream.end() + TAIL) == b""


def test_a_stream_without_parts_is_an_empty_message() -> None:
    """Its last fragment is all that there is."""
    for takeover in (False, True):
        stream = Deflater(agree(takeover=takeover), 0, Compressors()).begin()
        assert Inflater(10, takeover=takeover, bits=15).inflate(stream.end()) == b""


@pytest.mark.parametrize("takeover", [False, True])
def test_another_implementation_reads_what_we_compress(takeover: bool) -> None:
    """Messages and streams, one after the other."""
    bits = 12 if takeover else 15
    deflater = Deflater(agree(takeover=takeover, bits=bits), 0, Compressors())
    peer = PerMessageDeflate(not takeover, not takeover, bits, bits)

    def decode(data: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
        rsv1 = opcode != Opcode.CONT
        return bytes(peer.decode(Frame(opcode, data, fin, rsv1)).data)

    for payload in (TEXT, TEXT, b"", FAR, TEXT):
        data = deflater.compress(payload)
        if data is not None:
            assert decode(data) == payload
        stream = deflater.begin()
        assert decode(stream.part(payload), fin=False) == payload
        assert decode(stream.part(payload), Opcode.CONT, fin=False) == payload
        assert decode(stream.end(), Opcode.CONT) == b""


@pytest.mark.parametrize("takeover", [False, True])
def test_we_read_what_another_implementation_compresses(takeover: bool) -> None:
    """Whole, or in fragments that cut its bytes anywhere."""
    peer = PerMessageDeflate(not takeover, not takeover, 12, 12)
    inflater = Inflater(MEGABYTE, takeover=takeover, bits=12)
    for payload in (TEXT, TEXT, b"", FAR, TEXT):
        data = bytes(peer.encode(Frame(Opcode.BINARY, payload)).data)
        assert inflater.inflate(data) == payload
        data = bytes(peer.encode(Frame(Opcode.BINARY, payload)).data)
        content = b""
        for index in range(len(data)):
            inflater.feed(data[index : index + 1], index == len(data) - 1)
            content += read_all(inflater, 1000)
        assert content == payload


def test_without_takeover_a_message_can_not_refer_to_an_earlier_one() -> None:
    """Nothing of it is kept."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    messages = [
        (compressor.compress(TEXT) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)
    ]
    inflater = Inflater(MEGABYTE, takeover=False, bits=15)
    assert inflater.inflate(messages[0]) == TEXT
    with pytest.raises(InvalidMessage):
        inflater.inflate(messages[1])
    inflater = Inflater(MEGABYTE, takeover=False, bits=15)
    inflater.feed(messages[0], True)
    assert read_all(inflater, 100) == TEXT
    inflater.feed(messages[1], True)
    with pytest.raises(InvalidMessage):
        inflater.read(100)


def test_a_reference_beyond_the_agreed_window_is_invalid() -> None:
    """The memory that was agreed on is all that there is."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    messages = [
        (compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        for part in (FAR[:2000], FAR[2000:])
    ]
    inflater = Inflater(MEGABYTE, takeover=True, bits=11)
    assert b"".join(map(inflater.inflate, messages)) == FAR
    inflater = Inflater(MEGABYTE, takeover=True, bits=10)
    assert inflater.inflate(messages[0]) == FAR[:2000]
    with pytest.raises(InvalidMessage):
        inflater.inflate(messages[1])


blocks = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=100), st.integers(0, 5000).map(lambda size: TEXT[:size])),
        st.sampled_from((zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH)),
        st.integers(0, 9),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(
    st.lists(blocks, min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 3000),
    st.lists(st.integers(0, 3000), max_size=5),
)
def test_any_deflate_streams_are_inflated_however_they_are_cut(
    messages: list[list[tuple[bytes, int, int]]], takeover: bool, size: int, cuts: list[int]
) -> None:
    """Several streams in a message (BFINAL), all kinds of flush, pieces and reads of any size."""
    whole = Inflater(MEGABYTE, takeover=takeover, bits=15)
    pieces = Inflater(MEGABYTE, takeover=takeover, bits=15)
    for message in messages:
        data = content = b""
        compressor = None
        for payload, flush, level in message:
            if compressor is None:
                compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
            data += compressor.compress(payload) + compressor.flush(flush)
            content += payload
            if flush == zlib.Z_FINISH:
                compressor = None
        if compressor is not None:
            data += compressor.flush(zlib.Z_SYNC_FLUSH)
        data = data.removesuffix(TAIL) if data.endswith(TAIL) else data + EMPTY
        assert whole.inflate(data) == content
        positions = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        got = b""
        for start, end in pairwise(positions):
            pieces.feed(data[start:end], end == len(data))
            got += read_all(pieces, size)
            if end == len(data):
                break
        assert got == content


@pytest.mark.parametrize("takeover", [False, True])
def test_a_stream_that_ends_needs_no_block_behind_it(takeover: bool) -> None:
    """Strictly a zero byte should follow; who forgets it is understood."""
    inflater = Inflater(MEGABYTE, takeover=takeover, bits=15)
    data = deflate(TEXT, final=True)
    for _ in range(2):
        assert inflater.inflate(data) == TEXT
        assert inflater.inflate(data[:-1]) == TEXT
        assert inflater.inflate(deflate(TEXT)) == TEXT
        inflater.feed(data[:-1], True)
        assert read_all(inflater, 1000) == TEXT


@pytest.mark.parametrize("takeover", [False, True])
def test_the_tail_may_have_been_taken_from_a_stream_s_last_block(takeover: bool) -> None:
    """An empty block without compression that has BFINAL set ends like any other."""
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    data = (deflate(b"abc", final=True)[:-1] + stored.flush(zlib.Z_FINISH)).removesuffix(TAIL)
    assert data.endswith(b"\x01")
    inflater = Inflater(MEGABYTE, takeover=takeover, bits=15)
    for message in (data, deflate(b"abc")):
        assert inflater.inflate(message) == b"abc"
        inflater.feed(message, True)
        assert read_all(inflater, 2) == b"abc"


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("final", [False, True])
def test_a_message_that_is_cut_short_is_invalid(takeover: bool, final: bool) -> None:
    """Wherever, but between its streams."""
    data = deflate(TEXT, final=final)
    good = {len(data), len(data) - 1} if final else {len(data)}
    for end in range(len(data) + 1):
        inflater = Inflater(MEGABYTE, takeover=takeover, bits=15)
        pieces = Inflater(MEGABYTE, takeover=takeover, bits=15)
        pieces.feed(data[:end], True)
        if end in good:
            assert inflater.inflate(data[:end]) == read_all(pieces, 77) == TEXT
            continue
        with pytest.raises(InvalidMessage):
            inflater.inflate(data[:end])
        with pytest.raises(InvalidMessage):
            read_all(pieces, 77)


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 300))
def test_any_bytes_are_a_message_or_refused(data: bytes, takeover: bool, limit: int) -> None:
    """Nothing but the two errors, the same ones either way, and never more than the limit."""
    results = []
    for in_pieces in (False, True):
        inflater = Inflater(limit, takeover=takeover, bits=15)
        content: bytes | None = None
        try:
            if in_pieces:
                inflater.feed(data, True)
                content = read_all(inflater, 7)
            else:
                content = inflater.inflate(data)
        except InvalidMessage:
            pass
        except MessageTooBig:
            continue  # whether it is found before what is invalid depends on the reads
        assert content is None or len(content) <= limit
        results.append(content)
    assert len(results) < 2 or results[0] == results[1]


@pytest.mark.parametrize("final", [False, True])
def test_the_limit_is_that_of_what_is_inflated(final: bool) -> None:
    """One byte more is too much."""
    data = deflate(bytes(1000), final=final)
    assert Inflater(1000, takeover=False, bits=15).inflate(data) == bytes(1000)
    with pytest.raises(MessageTooBig, match="999"):
        Inflater(999, takeover=False, bits=15).inflate(data)
    inflater = Inflater(999, takeover=False, bits=15)
    inflater.feed(data, True)
    with pytest.raises(MessageTooBig):
        read_all(inflater, 100)
    inflater = Inflater(1000, takeover=False, bits=15)
    for _ in range(3):
        inflater.feed(data, True)
        assert read_all(inflater, 1000) == bytes(1000)


def test_a_bomb_costs_what_a_message_may() -> None:
    """256 KiB that would be 256 MiB."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MEGABYTE)) + compressor.flush(zlib.Z_FULL_FLUSH)
    bomb = block * 256
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooBig):
            Inflater(MEGABYTE, takeover=False, bits=15).inflate(bomb)
        inflater = Inflater(MEGABYTE, takeover=False, bits=15)
        inflater.feed(bomb, True)
        with pytest.raises(MessageTooBig):
            read_all(inflater, 65536)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * MEGABYTE


@pytest.mark.parametrize("content", [b"", b"content"])
def test_a_message_is_made_of_a_few_streams_at_most(content: bytes) -> None:
    """A megabyte of empty ones would cost half a million inflaters."""
    stream = deflate(content, final=True)[:-1]
    data = stream * MAX_STREAMS
    for inflater in (
        Inflater(MEGABYTE, takeover=False, bits=15),
        Inflater(MEGABYTE, takeover=True, bits=15),
    ):
        assert inflater.inflate(data) == content * MAX_STREAMS
        assert inflater.inflate(data) == content * MAX_STREAMS, "it counts by message"
        with pytest.raises(InvalidMessage, match="more than 64"):
            inflater.inflate(data + stream)
    inflater = Inflater(MEGABYTE, takeover=False, bits=15)
    inflater.feed(stream * 100_000, False)
    with pytest.raises(InvalidMessage, match="more than 64"):
        read_all(inflater, 65536)

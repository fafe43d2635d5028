"""Properties of trioweb/ws/frames.py, with wsproto as the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from trioweb.errors import InvalidMessage, WebSocketException
from trioweb.ws.close import NO_STATUS
from trioweb.ws.frames import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Close,
    Control,
    Ping,
    Pong,
    encode_close,
    encode_frame,
)
from trioweb.ws.messages import Decoder

HUGE = 1 << 70  # so that the limit, which wsproto does not have, plays no part


@dataclass
class Outcome:
    """What came out of a decoder."""

    messages: list[str | bytes] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    code: int | None = None  # of the failure


def run_ours(parts: list[bytes], *, eager: bool, masked: bool = True) -> Outcome:
    """Feed the parts; take messages after each of them, or at the end only."""
    decoder = Decoder(HUGE, masked=masked)
    outcome = Outcome()

    def drain() -> None:
        while (message := decoder.next_message()) is not None:
            outcome.messages.append(message)

    for part in parts:
        outcome.controls += decoder.feed(part)
        if eager:
            drain()
    drain()
    failure: WebSocketException | None = decoder.failure
    outcome.code = None if failure is None else failure.code
    assert not decoder.waiting
    return outcome


def run_wsproto(wire: bytes) -> Outcome:
    """Decode with wsproto, up to the first Close."""
    protocol = FrameProtocol(client=False, extensions=[])
    outcome = Outcome()
    message: list[str | bytes] = []
    protocol.receive_bytes(wire)
    try:
        for frame in protocol.received_frames():
            payload: Any = frame.payload  # its type says str | bytes | tuple for all opcodes
            if frame.opcode is Opcode.PING:
                outcome.controls.append(Ping(bytes(payload)))
            elif frame.opcode is Opcode.PONG:
                outcome.controls.append(Pong(bytes(payload)))
            elif frame.opcode is Opcode.CLOSE:
                code, reason = payload
                outcome.controls.append(Close(int(code or NO_STATUS), reason or ""))
                break
            else:
                message.append(payload if isinstance(payload, str) else bytes(payload))
                if frame.message_finished:
                    empty = "" if frame.opcode is Opcode.TEXT else b""
                    outcome.messages.append(empty.join(message))  # type: ignore[arg-type]
                    message = []
    except ParseFailed as failure:
        # wsproto does not know 1014, which IANA assigned and the contract allows. Which codes
        # are allowed is a matter of test_close.py.
        assume(str(failure) != "CLOSE with unknown reserved code")
        outcome.code = int(failure.code)
    return outcome


masks = st.binary(min_size=4, max_size=4)
controls = st.one_of(
    st.tuples(st.sampled_from((PING, PONG)), st.binary(max_size=125)),
)
sizes = st.sampled_from((0, 1, 124, 125, 126, 127, 1000, 65535, 65536, 66000))
payloads = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40),
    sizes.map(lambda size: b"\x9d" * size),
    sizes.map(lambda size: "ö" * (size // 2)),
)


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """A client's frames: messages, many of them fragmented, with control frames between."""
    wire = bytearray()
    for payload in draw(st.lists(payloads, max_size=5)):
        data = payload.encode() if isinstance(payload, str) else payload
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
        opcode = TEXT if isinstance(payload, str) else BINARY
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if draw(st.integers(0, 3)) == 0:
                kind, control = draw(controls)
                wire += encode_frame(kind, control, mask=draw(masks))
            last = stop == len(data) and start == ([0, *cuts])[-1]
            wire += encode_frame(opcode, data[start:stop], fin=last, mask=draw(masks))
            opcode = CONTINUATION
            if last:
                break
    if draw(st.integers(0, 3)) == 0:
        code = draw(st.sampled_from((NO_STATUS, 1000, 1012, 1013, 3000, 4999)))
        wire += encode_close(code, draw(st.text(max_size=60)), mask=draw(masks))
    return bytes(wire)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Such frames with bytes changed, removed or inserted, near the start of the wire mostly."""
    wire = bytearray(draw(wires()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(wire), draw(st.sampled_from((2, 30, 300, HUGE))))))
        byte = draw(st.integers(0, 255))
        kind = draw(st.sampled_from(("change", "flip", "remove", "insert", "close")))
        if kind == "insert":
            wire.insert(at, byte)
        elif kind == "close":
            code = draw(st.integers(0, 5001)).to_bytes(2, "big")
            wire[at:at] = encode_frame(8, code + bytes((byte,)), mask=draw(masks))
        elif at < len(wire):
            if kind == "change":
                wire[at] = byte
            elif kind == "flip":
                wire[at] ^= 1 << (byte & 7)
            else:
                del wire[at]
    return bytes(wire)


def split(wire: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(wire) + 1) for cut in cuts})
    return [
        wire[start:stop] for start, stop in zip([0, *places], [*places, len(wire)], strict=True)
    ]


cut_lists = st.lists(st.one_of(st.integers(0, 50), st.integers(0, 1 << 20)), max_size=12)


@settings(deadline=None)
@given(st.one_of(wires(), mangled()), cut_lists, st.booleans())
def test_any_split_of_the_bytes_gives_the_same_events(
    wire: bytes, cuts: list[int], eager: bool
) -> None:
    """Nor does it matter when the messages are taken."""
    whole = run_ours([wire], eager=False)
    parts = run_ours(split(wire, cuts), eager=eager)
    assert parts.messages == whole.messages
    assert parts.code == whole.code
    if parts.code == InvalidMessage.default_code:
        # Control frames behind the bad text are seen as long as nobody has looked at it.
        assert parts.controls == whole.controls[: len(parts.controls)]
    else:
        assert parts.controls == whole.controls


@settings(deadline=None)
@given(wires().filter(lambda wire: len(wire) < 2000))
def test_byte_by_byte_gives_the_same_events(wire: bytes) -> None:
    """The finest split there is."""
    assert run_ours([bytes((byte,)) for byte in wire], eager=True) == run_ours([wire], eager=False)


@settings(deadline=None)
@given(wires())
def test_valid_input_is_read_as_wsproto_reads_it(wire: bytes) -> None:
    """Messages, control frames and Close."""
    ours = run_ours([wire], eager=False)
    assert ours.code is None
    assert ours == run_wsproto(wire)


@settings(deadline=None, max_examples=300)
@given(mangled())
def test_mangled_input_is_read_as_wsproto_reads_it(wire: bytes) -> None:
    """The same events up to the same failure."""
    # wsproto looks at some headers only when payload has come; the zeros bring it, and are
    # themselves a malformed frame.
    wire += bytes(200)
    theirs = run_wsproto(wire)
    ours = run_ours([bytes((byte,)) for byte in wire[:2000]] + [wire[2000:]], eager=True)
    assert ours.messages == theirs.messages
    assert ours.code == theirs.code
    if len(wire) <= 2000:
        assert ours.controls == theirs.controls
    else:
        assert ours.controls[: len(theirs.controls)] == theirs.controls


@settings(deadline=None)
@given(
    st.lists(st.one_of(payloads, controls), max_size=8),
    st.one_of(st.none(), masks),
)
def test_decoding_what_was_encoded_is_the_identity(
    items: list[str | bytes | tuple[int, bytes]], mask: bytes | None
) -> None:
    """In both directions: a client's frames with a mask, a server's without."""
    wire = bytearray()
    expected = Outcome()
    for item in items:
        if isinstance(item, tuple):
            opcode, data = item
            expected.controls.append(Ping(data) if opcode == PING else Pong(data))
        else:
            opcode, data = (TEXT, item.encode()) if isinstance(item, str) else (BINARY, item)
            expected.messages.append(item)
        wire += encode_frame(opcode, data, mask=mask)
    assert run_ours([bytes(wire)], eager=False, masked=mask is not None) == expected

"""Times the codec and the masks: ``python tests/benchmarks/codec.py``.

Prints microseconds a call, the best of five, for each size of payload. wsaccel and wsproto take
part when they are installed.
"""

from __future__ import annotations

import importlib
import os
import timeit
from typing import TYPE_CHECKING

from trioweb.ws.frames import BINARY, encode_frame
from trioweb.ws.mask import apply_mask, xor_mask
from trioweb.ws.messages import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

MASK = b"\x12\x34\x56\x78"
LIMIT = 1 << 30


def microseconds(function: Callable[[], object], size: int) -> float:
    """Time one call."""
    number = max(5, min(50000, 20_000_000 // (size + 100)))
    return min(timeit.repeat(function, number=number, repeat=5)) / number * 1e6


def time_masks(size: int) -> dict[str, float]:
    """Time each implementation of the mask."""
    data = os.urandom(size)
    times = {
        "mask": microseconds(lambda: apply_mask(data, MASK), size),
        "mask xor": microseconds(lambda: xor_mask(data, MASK), size),
    }
    try:
        masker = importlib.import_module("wsaccel.xormask").XorMaskerSimple
    except ImportError:
        return times
    times["mask wsaccel"] = microseconds(lambda: masker(MASK).process(data), size)
    return times


def time_codec(size: int) -> dict[str, float]:
    """Time encoding, and decoding in reads of 64 KiB."""
    data = os.urandom(size)
    wire = encode_frame(BINARY, data, mask=MASK)
    reads = [wire[start : start + 65536] for start in range(0, len(wire), 65536)]
    decoder = Decoder(LIMIT)

    def decode() -> None:
        for read in reads:
            decoder.feed(read)
            decoder.next_message()

    times = {
        "encode": microseconds(lambda: encode_frame(BINARY, data), size),
        "decode": microseconds(decode, size),
    }
    try:
        wsproto = importlib.import_module("wsproto.frame_protocol")
    except ImportError:
        return times
    peer = wsproto.FrameProtocol(client=False, extensions=[])

    def decode_wsproto() -> None:
        for read in reads:
            peer.receive_bytes(read)
            for _ in peer.received_frames():
                pass

    times["decode wsproto"] = microseconds(decode_wsproto, size)
    return times


def main() -> None:
    """Print a table."""
    for size in (10, 125, 1000, 65536, 1 << 20):
        times = time_masks(size) | time_codec(size)
        print(f"{size:8}", "  ".join(f"{name} {time:.2f}" for name, time in times.items()))


if __name__ == "__main__":
    main()

"""What the clients send: requests, and frames that are masked, and compressed, beforehand.

None of this is trioweb's own code, so that a change there cannot change the load.
"""

from __future__ import annotations

import json
import random
import zlib

TEXT = 1

# Of RFC 6455 section 1.3; what the server answers is checked by checks.py, with another key.
_UPGRADE = """\
GET {path} HTTP/1.1
Host: 127.0.0.1:{port}
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13
"""

# What every browser offers.
_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n"

# As curl sends it.
_GET = """\
GET {path} HTTP/1.1
Host: 127.0.0.1:{port}
User-Agent: curl/8.10.1
Accept: */*
"""

# As Chromium adds it, and of what it sends with a WebSocket's request as well.
_BROWSER = """\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/140.0.0.0 Safari/537.36
Origin: http://127.0.0.1:{port}
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9
Cache-Control: no-cache
Pragma: no-cache
Cookie: session=eyJ1c2VyIjoiYWRhIn0.aMyXfQ.k7s1pQ0d3mVtZk3vJw5n8Rr2x0E; theme=dark
"""


def make_upgrade(port: int, path: str, *, offer: bool, browser: bool) -> bytes:
    """Make the request of a WebSocket handshake.

    Args:
        port: of the server.
        path: of the route.
        offer: whether to offer permessage-deflate.
        browser: whether to send the headers of a browser, rather than a library's few.
    """
    text = _UPGRADE + _OFFER * offer + _BROWSER * browser
    return _make_head(text, path, port)


def make_get(port: int, path: str, *, browser: bool) -> bytes:
    """Make a GET request; the arguments are those of ``make_upgrade``."""
    text = _GET if not browser else _GET.partition("User-Agent")[0] + "Accept: */*\n" + _BROWSER
    return _make_head(text, path, port)


def _make_head(text: str, path: str, port: int) -> bytes:
    return (text.format(path=path, port=port) + "\n").replace("\n", "\r\n").encode()


def make_text(size: int) -> bytes:
    """Make a message of ASCII text."""
    return (b"The quick brown fox jumps over the lazy dog. " * (size // 45 + 1))[:size]


def make_record(number: int, size: int) -> bytes:
    """Make a message of JSON: the keys are the same for every number, the values are not.

    So a compressor that keeps its context between messages has what it has in an application.
    """
    values = random.Random(number)
    record: dict[str, object] = {
        "type": "trades",
        "channel": f"market:{values.choice(['EURUSD', 'GBPUSD', 'USDJPY', 'AUDCAD'])}",
        "sequence": 1_000_000 + number,
        "trades": [],
        "note": "",
    }
    trades: list[dict[str, object]] = []
    record["trades"] = trades
    while True:
        trades.append(
            {
                "id": f"{values.getrandbits(64):016x}",
                "price": round(values.uniform(0.5, 2), 5),
                "amount": values.randrange(1, 5000) * 100,
                "side": values.choice(["buy", "sell"]),
                "at": f"2026-01-05T14:00:{values.randrange(60):02}.{values.randrange(1000):03}Z",
            }
        )
        if len(json.dumps(record)) > size:
            trades.pop()
            break
    record["note"] = "".join(
        values.choice("etaoin shrdlu") for _ in range(size - len(json.dumps(record)))
    )
    return json.dumps(record).encode()


def deflate(payload: bytes) -> bytes:
    """Compress a message as RFC 7692 §7.2.1 says, referring to no earlier one."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def make_frame(payload: bytes, mask: bytes, *, compressed: bool) -> bytes:
    """Make the frame of a whole text message, as a client sends it.

    Args:
        payload: as it is on the wire, but not masked.
        mask: four bytes.
        compressed: whether the payload is.
    """
    size = len(payload)
    first = 0x80 | 0x40 * compressed | TEXT
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    stream = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + masked.to_bytes(size, "big")

"""Negotiates permessage-deflate, the one extension that trioweb speaks. Sans-I/O.

Whatever a client offers, nothing here raises: what we can't read or can't do is declined, and a
WebSocket without compression is a WebSocket.

Source: RFC 6455 §9.1, RFC 7692 §5, §7.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME: Final = "permessage-deflate"

MAX_OFFERS: Final = 16
"""How many of a client's offers are looked at; clients that exist make one or two."""

MAX_PARAMETERS: Final = 16
"""How many parameters an offer may have; permessage-deflate has four."""

MAX_BITS: Final = 15
"""The window without a limit, 32 KiB (RFC 7692 §7.1.2)."""

CONTEXT_BITS: Final = 12
"""The window of a connection that keeps its context: 4 KiB.

Messages of a kind repeat each other within that; 15 bits cost eight times the memory for as long as
the connection lasts.
"""

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_offer_name: Final = re.compile(rf"[ \t,]*({_TOKEN})")
# A value in quotes is to be a token as well, once it is unescaped.
_parameter: Final = re.compile(
    rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?'
)
_separator: Final = re.compile(r"[ \t]*(?:,[ \t,]*|\Z)")
_token: Final = re.compile(_TOKEN)
_escape: Final = re.compile(r"\\(.)")
_bits: Final = re.compile(r"[89]|1[0-5]")


class Agreement(NamedTuple):
    """What was negotiated.

    Attributes:
        server_takeover: whether our compressor remembers earlier messages.
        client_takeover: whether the client's does.
        server_bits: the base-2 logarithm of our window, 9-15.
        client_bits: that of the client's, 8-15.
        header: the value of the Sec-WebSocket-Extensions that says so.
    """

    server_takeover: bool
    client_takeover: bool
    server_bits: int
    client_bits: int
    header: str


def negotiate(values: Sequence[str], mode: str | None) -> Agreement | None:
    """Take the first of a client's offers that we can keep.

    Args:
        values: of the request's Sec-WebSocket-Extensions headers, in their order.
        mode: WEBSOCKET_COMPRESSION: None, "deflate" or "deflate-context".

    Returns:
        None when no compression was agreed on: none is wanted or offered, no offer is acceptable,
        or the headers are malformed.

    Source:
        RFC 7692 §5.1, §7.1
    """
    if mode is None or not values:
        return None
    for name, parameters in _parse(", ".join(values)):
        if name == NAME and parameters is not None:
            agreement = _accept(parameters, keep_context=mode == "deflate-context")
            if agreement is not None:
                return agreement
    return None


def _parse(header: str) -> list[tuple[str, Mapping[str, str | None] | None]]:
    """Parse what is offered; nothing is if it is malformed.

    Returns:
        Names with their parameters, which are None if one of them was given twice.

    Source:
        RFC 6455 §9.1
    """
    offers: list[tuple[str, Mapping[str, str | None] | None]] = []
    pos = 0
    while len(offers) < MAX_OFFERS:
        name = _offer_name.match(header, pos)
        if name is None:
            return []
        pos = name.end()
        parameters: dict[str, str | None] = {}
        count = 0
        while (parameter := _parameter.match(header, pos)) is not None:
            pos = parameter.end()
            key, value, quoted = parameter.groups()
            if quoted is not None:
                value = _escape.sub(r"\1", quoted)
                if _token.fullmatch(value) is None:
                    return []
            parameters[key] = value
            count += 1
            if count > MAX_PARAMETERS:
                return []
        offers.append((name[1], parameters if len(parameters) == count else None))
        separator = _separator.match(header, pos)
        if separator is None:
            return []
        pos = separator.end()
        if pos == len(header):
            break
    return offers


def _accept(parameters: Mapping[str, str | None], *, keep_context: bool) -> Agreement | None:
    """Answer one offer, or decline it.

    Source:
        RFC 7692 §7.1.1, §7.1.2
    """
    server_takeover = client_takeover = keep_context
    server_bits = client_bits = MAX_BITS
    limits_server = limits_client = False
    for key, value in parameters.items():
        if key == "server_no_context_takeover" and value is None:
            server_takeover = False
        elif key == "client_no_context_takeover" and value is None:
            client_takeover = False
        elif key == "client_max_window_bits" and value is None:
            limits_client = True
        elif value is None or _bits.fullmatch(value) is None:
            return None
        elif key == "client_max_window_bits":
            limits_client = True
            client_bits = int(value)
        elif key == "server_max_window_bits" and value != "8":  # zlib's smallest is 9
            limits_server = True
            server_bits = int(value)
        else:
            return None
    answer = [NAME]
    if not server_takeover:
        answer.append("server_no_context_takeover")
    if not client_takeover:
        answer.append("client_no_context_takeover")
    if keep_context:
        limits_server = True
        server_bits = min(server_bits, CONTEXT_BITS)
    if limits_server:
        answer.append(f"server_max_window_bits={server_bits}")
    if keep_context and limits_client:
        client_bits = min(client_bits, CONTEXT_BITS)
        answer.append(f"client_max_window_bits={client_bits}")
    else:
        # The offer's number is only a hint then (RFC 7692 §7.1.2.2).
        client_bits = MAX_BITS
    return Agreement(server_takeover, client_takeover, server_bits, client_bits, "; ".join(answer))

"""Close codes and reasons: which may be on the wire, and how a connection's end is told.

Source: RFC 6455 §7.4 and the IANA registry of close codes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, NamedTuple


class CloseCode(IntEnum):
    """The registered close codes.

    Source:
        RFC 6455 §7.4.1; 1012-1014 from the IANA registry.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    """A Close frame without a code; never on the wire."""
    ABNORMAL = 1006
    """Lost without a Close frame; never on the wire."""
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes and the code takes two (RFC 6455 §5.5)."""

ABNORMAL = int(CloseCode.ABNORMAL)
NO_STATUS = int(CloseCode.NO_STATUS)

ClosedBy = Literal["peer", "us", "lost"]


class CloseInfo(NamedTuple):
    """How a connection ended.

    Attributes:
        code: the deciding Close frame's code; 1005 when it had none, 1006 when there was no frame.
        reason: its reason, at most 123 bytes of UTF-8.
        by: whose Close decided: "peer", "us", or "lost" when the stream broke before any.
        clean: whether a Close frame went both ways; ours may still be on its way when this is set.
    """

    code: int
    reason: str
    by: ClosedBy
    clean: bool


def is_wire_code(code: int) -> bool:
    """Tell whether a Close frame may carry ``code``, sent or received.

    1004 is reserved, 1005, 1006 and 1015 are never on the wire, 1016-2999 are not assigned.

    Source:
        RFC 6455 §7.4.2
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_code(code: int) -> int:
    """Return ``code`` when it may be sent.

    Raises:
        ValueError: it may not; the message names those that may.
        TypeError: it is no int.
    """
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"close code must be an int, not {type(code).__name__}")
    if not is_wire_code(code):
        raise ValueError(f"close code {code} can't be sent; use 1000-1003, 1007-1014 or 3000-4999")
    return int(code)


def check_reason(reason: str) -> str:
    """Return ``reason`` when it can be one.

    Raises:
        TypeError: it is no str.
    """
    if not isinstance(reason, str):
        raise TypeError(f'a close reason must be a str, "" for none, not {type(reason).__name__}')
    return reason


def cut_reason(reason: str) -> str:
    """Cut ``reason`` to what a Close frame holds: 123 bytes of UTF-8, at a character.

    A lone surrogate, which UTF-8 can't carry, becomes a question mark.
    """
    data = reason.encode("utf-8", "replace")
    # What "ignore" leaves out is the character that the cut went through.
    return data[:MAX_REASON_BYTES].decode("utf-8", "ignore")

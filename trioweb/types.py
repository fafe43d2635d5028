"""The small vocabulary of types that every layer shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

Message: TypeAlias = str | bytes
"""What ``recv`` returns: a text message is a str, a binary one is bytes."""

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What may be sent as a binary message."""

JSONValue: TypeAlias = (
    "str | int | float | bool | Sequence[JSONValue] | Mapping[str, JSONValue] | None"
)
"""A value that JSON can say without an encoder's help."""

Encoding: TypeAlias = Literal["text", "bytes", "json"]
"""The second argument of ``Websocket.send``."""

OnInvalid: TypeAlias = Literal["raise", "reply", "close"]
"""What an iterator of typed messages does with one that is invalid."""

Accept: TypeAlias = Literal["auto", "manual"]
"""Who accepts a WebSocket: trioweb before the handler runs, or the handler."""

Origins: TypeAlias = str | Sequence[str]
"""``"same-origin"``, ``"*"`` or the origins that may open a WebSocket."""

HeaderItems: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
"""Headers as users give them."""

Handler: TypeAlias = Callable[..., object]
"""A route's handler: its signature is read by the binder, hence the ``...``."""

AsyncFunction: TypeAlias = Callable[..., Awaitable[object]]
"""An async function whose result nobody reads."""

Lifespan: TypeAlias = "Callable[..., AbstractAsyncContextManager[object]]"
"""An async context manager function of the app."""


class WebSocketState(Enum):
    """One direction of a WebSocket: the peer's half or ours."""

    CONNECTING = 0
    CONNECTED = 1
    DISCONNECTED = 2


class Unset(Enum):
    """The type of ``UNSET``: an option that was not given, where None is a value."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

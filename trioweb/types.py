"""The small vocabulary of types that every layer shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

Accept: TypeAlias = Literal["auto", "manual"]
"""Who accepts a WebSocket: trioweb before the handler runs, or the handler."""

Origins: TypeAlias = str | Sequence[str]
"""``"same-origin"``, ``"*"`` or the origins that may open a WebSocket."""

Compression: TypeAlias = Literal["deflate", "deflate-context"]
"""permessage-deflate with each message on its own, or with a context from message to message."""

SlowPolicy: TypeAlias = Literal["disconnect", "drop_oldest"]
"""What becomes of a room's member that is too slow, or of the messages that wait for it."""

RateLimit: TypeAlias = tuple[int, float]
"""How many messages may come in how many seconds."""

Handler: TypeAlias = Callable[..., object]
"""A route's handler: its signature is read by the binder, hence the ``...``."""

Lifespan: TypeAlias = "Callable[..., AbstractAsyncContextManager[object]]"
"""An async context manager function of the app."""


class Unset(Enum):
    """The type of ``UNSET``: an option that was not given, where None is a value."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

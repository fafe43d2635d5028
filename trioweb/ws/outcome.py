"""How a handler ended, and the close code that stands for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trioweb.errors import HTTPException, WebsocketClosed, WebSocketException
from trioweb.ws.close import is_wire_code
from trioweb.ws.ending import CUT_SHORT
from trioweb.ws.groups import as_leaf, leaves
from trioweb.ws.nursery import is_end_of

if TYPE_CHECKING:
    from trioweb.ws.connection import Connection
    from trioweb.ws.websocket import Websocket

logger = logging.getLogger("trioweb")

INTERNAL_ERROR = (1011, "internal error")
# What ends the process, and what ends a coroutine that nobody runs any more, goes through.
FATAL = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Outcome:
    """The failures of one connection's handler and tasks: the first one decides.

    Args:
        websocket: whose own end is no failure.
        connection: its engine.
        handler_name: for logs.

    Attributes:
        error: what decides; None so far.
        fatal: what has to be raised on, whatever decided.
    """

    __slots__ = ("_connection", "_handler_name", "_websocket", "error", "fatal")

    def __init__(self, websocket: Websocket, connection: Connection, handler_name: str) -> None:
        self._websocket = websocket
        self._connection = connection
        self._handler_name = handler_name
        self.error: BaseException | None = None
        self.fatal: BaseException | None = None

    def take(self, error: BaseException, *, is_late: bool) -> bool:
        """Take what the handler, or a task of ``ws.nursery``, has raised.

        Args:
            error: as it was raised.
            is_late: nothing is decided any more.

        Returns:
            Whether this is what decides.
        """
        if self.fatal is None:
            self.fatal = next((leaf for leaf in leaves(error) if isinstance(leaf, FATAL)), None)
        if self.error is None and not is_late:
            self.error = self._as_itself(error)
            return True
        if not self._is_own_end(error):
            self._log("another failure of the same connection", error)
        return False

    def close_code(self) -> tuple[int, str]:
        """The code and reason to close with; logs what nobody expected."""
        error = self.error
        if error is None or self._is_own_end(error):
            return CUT_SHORT if self._connection.is_cut_short else (1000, "")
        if isinstance(error, WebSocketException) and is_wire_code(error.code):
            return error.code, error.reason
        if isinstance(error, HTTPException) and is_wire_code(error.close_code):
            if error.status < 500 or error.default_close_code is not None:
                return error.close_code, str(error.message)
            self._log("an HTTPException of 5xx", error)
            return error.close_code, INTERNAL_ERROR[1]
        if isinstance(error, WebsocketClosed):
            self._log(f"the end of {error.websocket!r} was not caught", error)
        else:
            self._log("it crashed", error)
        return INTERNAL_ERROR

    def _as_itself(self, error: BaseException) -> BaseException | None:
        """Split this connection's end off a group; one leaf that is left counts as itself."""
        if not isinstance(error, BaseExceptionGroup):
            return error
        # A lambda: Python 3.11 takes no bound method here.
        rest = error.split(lambda leaf: self._is_own_end(leaf))[1]
        if rest is None:
            return None
        leaf = as_leaf(rest)
        return error if leaf is rest else leaf

    def _is_own_end(self, error: BaseException) -> bool:
        return is_end_of(self._websocket, error)

    def _log(self, what: str, error: BaseException) -> None:
        logger.error(
            "handler %s of %s for %s: %s",
            self._handler_name,
            self._websocket.request.path,
            self._connection.stream.peer,
            what,
            exc_info=error,
        )

"""``ConnectionManager``: some connections without a name, for who knows it by this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trioweb.rooms.members import Member, Members, check_run, check_websocket
from trioweb.ws.prepared import PreparedMessage
from trioweb.ws.websocket import connection_of

if TYPE_CHECKING:
    from trioweb.rooms.members import BroadcastResult
    from trioweb.ws.websocket import Websocket


class ConnectionManager:
    """A set of WebSockets to broadcast to, without rooms.

    A connection that ends is taken off by itself, in the moment in which nothing can be sent to it
    any more; so it does no harm to forget ``disconnect``. ROOM_SLOW_POLICY says what happens to
    one that is too slow.
    """

    def __init__(self) -> None:
        self._members = Members()
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def active_connections(self) -> list[Websocket]:
        """Those that are connected now, in the order of connecting."""
        return [member.ws for member in self._members]

    async def connect(self, websocket: Websocket) -> None:
        """Accept a WebSocket, unless that is done, and broadcast to it from now on.

        A second time does nothing more.

        Args:
            websocket: the handler's.

        Raises:
            TypeError: it is no Websocket.
            RuntimeError: this is another thread than that of those who are connected.
            WebsocketClosed: the handshake was denied or the client has left before.

        Cancellation:
            It is not connected; it may have been accepted.
        """
        check_websocket(websocket, "connect()")
        if websocket.accepted:
            await connection_of(websocket).checkpoint()
        else:
            await websocket.accept()
        self._check_run()
        self._token = trio.lowlevel.current_trio_token()
        if websocket.open and websocket not in self._members:
            self._members.add(Member(websocket, None), connection_of(websocket).options.slow_policy)

    def disconnect(self, websocket: Websocket) -> None:
        """Broadcast to a WebSocket no more; it stays open. Any number of times."""
        self._members.discard(websocket)

    async def broadcast(self, data: object, encoding: str = "text") -> BroadcastResult:
        """Send a message to all, without waiting for any; see ``Room.broadcast``.

        Args:
            data: as ``Websocket.send`` takes it.
            encoding: likewise.

        Returns:
            How many it was sent to, what was dropped for it, and who was closed.

        Raises:
            TypeError: data can't be sent in this encoding.
            ValueError: an unknown encoding.
            RuntimeError: called from another thread.

        Cancellation:
            It is sent all the same.
        """
        self._check_run()
        result = self._members.broadcast(PreparedMessage(data, encoding))
        await trio.lowlevel.checkpoint()
        return result

    def _check_run(self) -> None:
        if self._members and self._token is not None:
            check_run(self._token)
